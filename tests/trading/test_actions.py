"""What an action index means."""

import pytest
from tests.trading.builders import configure

from ppo_workbench.config import ActionSet
from ppo_workbench.trading.actions import BUY, HOLD, SELL, action_space, target_rung

LEVELS = [-1.0, -0.5, 0.0, 0.5, 1.0]


def test_step_set_order_is_sell_hold_buy() -> None:
    space = action_space(configure().env)
    assert space.names == ("SELL", "HOLD", "BUY")
    assert (SELL, HOLD, BUY) == (0, 1, 2)
    assert (space.size, space.hold, space.flat_rung) == (3, 1, 1)


def test_target_set_is_hold_and_every_level_in_order() -> None:
    config = configure(env__action_set=ActionSet.target, env__exposure_levels=LEVELS)
    space = action_space(config.env)
    expected = ("HOLD", "TARGET_-1", "TARGET_-0.5", "TARGET_+0", "TARGET_+0.5", "TARGET_+1")
    assert space.names == expected
    assert (space.size, space.hold, space.flat_rung) == (6, 0, 2)


@pytest.mark.parametrize("kind", list(ActionSet))
def test_short_levels_go_when_shorting_is_off(kind: ActionSet) -> None:
    config = configure(env__action_set=kind, env__exposure_levels=LEVELS, env__allow_short=False)
    space = action_space(config.env)
    assert list(space.levels) == [0.0, 0.5, 1.0]
    assert space.flat_rung == 0


@pytest.mark.parametrize(
    ("action", "rung", "expected"),
    [(SELL, 2, 1), (HOLD, 2, 2), (BUY, 2, 3), (SELL, 0, 0), (BUY, 4, 4), (BUY, 1, 2)],
)
def test_step_action_moves_one_rung_and_stops_at_the_ends(
    action: int, rung: int, expected: int
) -> None:
    assert target_rung(action, rung, 5, 2, 1, False) == expected


@pytest.mark.parametrize(
    ("action", "rung", "expected"),
    [(SELL, 4, 2), (SELL, 3, 2), (BUY, 0, 2), (BUY, 4, 4), (SELL, 0, 0), (BUY, 2, 3), (HOLD, 4, 4)],
)
def test_step_towards_flat_under_a_flatten_rule_goes_all_the_way(
    action: int, rung: int, expected: int
) -> None:
    assert target_rung(action, rung, 5, 2, 1, True) == expected


@pytest.mark.parametrize("flatten", [False, True])
def test_target_action_names_its_rung_and_hold_keeps_it(flatten: bool) -> None:
    for rung in range(5):
        asked = [target_rung(action, rung, 5, 2, 0, flatten) for action in range(6)]
        assert asked == [rung, 0, 1, 2, 3, 4]
