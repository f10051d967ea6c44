"""Where an account stands after fills that nobody simulated."""

from typing import Any

import numpy as np
import pytest
from tests.trading.builders import bar_rows, configure

from ppo_workbench.trading.account import ACCOUNT_DTYPE, OUTCOME_DTYPE
from ppo_workbench.trading.actions import action_space
from ppo_workbench.trading.following import (
    REPORT_DTYPE,
    adopt_account,
    flatten_bits_between,
    follow_account,
)
from ppo_workbench.trading.rules import DAILY_LOSS, SESSION_FLATTEN, build_params

LEVELS = [-1.0, -0.5, 0.0, 0.5, 1.0]
CASH = 100_000.0
NAN = float("nan")


class _Followed:
    """An account at 100 a share that is followed over one bar."""

    def __init__(self, cash: float = CASH, shares: float = 0.0, **changes: Any) -> None:
        config = configure(env__exposure_levels=LEVELS, **changes)
        space = action_space(config.env)
        self.levels, self.p = space.levels, build_params(config, space)[0]
        self.rows = bar_rows([100.0, 100.0])
        self.record = np.zeros(1, ACCOUNT_DTYPE)[0]
        self.out = np.zeros(1, OUTCOME_DTYPE)[0]
        adopt_account(self.record, self.rows, self.levels, self.p, _report(cash, shares))

    def follow(
        self, ordered: int, cash: float, shares: float, *fills: tuple[float, float, float]
    ) -> Any:
        rows = np.array(fills, dtype=np.float64).reshape(len(fills), 3)
        report = _report(cash, shares)
        follow_account(self.record, self.rows, self.levels, self.p, ordered, rows, report, self.out)
        return self.record


def _report(cash: float, shares: float, pnl: float = NAN) -> Any:
    return np.array([(cash, shares, pnl, NAN, NAN)], dtype=REPORT_DTYPE)[0]


@pytest.mark.parametrize(
    ("shares", "rung"), [(0, 2), (1000, 4), (740, 3), (760, 4), (10, 3), (-500, 1), (-990, 0)]
)
def test_adopted_account_stands_on_the_nearest_rung_of_its_side(shares: int, rung: int) -> None:
    followed = _Followed(CASH - 100.0 * shares, shares)
    assert followed.record["rung"] == rung
    assert followed.record["peak"] == CASH


@pytest.mark.parametrize(
    ("ordered", "shares", "rung"),
    [
        (4, 1000.0, 4),  # whole
        (4, 700.0, 3),  # partly: nearest rung on the way
        (4, 0.0, 2),  # rejected
        (3, 100.0, 3),  # hardly: yet it is no longer flat
        (0, -300.0, 1),
        (2, 990.0, 4),  # nothing was ordered, somebody else traded
    ],
)
def test_rung_follows_the_position_and_not_the_order(
    ordered: int, shares: float, rung: int
) -> None:
    fills = [(shares, 100.0, 0.0)] if shares else []
    record = _Followed().follow(ordered, CASH - 100.0 * shares, shares, *fills)
    assert record["rung"] == rung
    assert record["session_opens"] == bool(shares)


def test_closing_order_that_fills_in_part_leaves_a_position_that_can_be_closed() -> None:
    followed = _Followed(0.0, 1000.0)
    record = followed.follow(2, 95_000.0, 50.0, (-950.0, 100.0, 0.0))
    assert record["rung"] == 3
    assert record["bars_held"] == 1


def test_several_fills_average_their_price_and_pay_their_costs() -> None:
    followed = _Followed()
    cash = CASH - 400 * 100.0 - 600 * 101.0 - 5.0
    record = followed.follow(4, cash, 1000.0, (400.0, 100.0, 2.0), (600.0, 101.0, 3.0))
    assert record["average_price"] == pytest.approx(100.6)
    assert (record["rung"], record["cash"]) == (4, cash)
    assert (followed.out["fill_quantity"], followed.out["cost"]) == (1000.0, 5.0)


def test_reported_profit_and_peak_replace_the_remembered_ones() -> None:
    followed = _Followed()
    report = np.array([(CASH, 0.0, -1500.0, 120_000.0, NAN)], dtype=REPORT_DTYPE)[0]
    none = np.empty((0, 3))
    follow_account(
        followed.record, followed.rows, followed.levels, followed.p, 2, none, report, followed.out
    )
    assert followed.record["session_equity"] == CASH + 1500.0
    assert followed.record["peak"] == 120_000.0


def test_rules_between_bars_know_the_reported_loss_and_the_clock() -> None:
    followed = _Followed(
        0.0, 1000.0, risk__daily_loss__enabled=True, risk__daily_loss__flatten=True,
        risk__daily_loss__max_loss_frac=0.02, risk__session__enabled=True,
    )  # fmt: skip
    found = [
        flatten_bits_between(
            followed.record.copy(), followed.rows[1], followed.p, _report(0.0, 1000.0, pnl), ends
        )
        for pnl, ends in ((-1999.0, False), (-2000.0, False), (0.0, True))
    ]
    assert found == [0, DAILY_LOSS, SESSION_FLATTEN]
