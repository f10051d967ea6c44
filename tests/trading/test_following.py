"""Where an account stands after fills that nobody simulated."""

from typing import Any

import numpy as np
import pytest
from tests.trading.builders import bar_rows, configure

from ppo_workbench.config import ActionSet
from ppo_workbench.trading.account import ACCOUNT_DTYPE, OUTCOME_DTYPE
from ppo_workbench.trading.actions import action_space
from ppo_workbench.trading.following import (
    REPORT_DTYPE,
    adopt_account,
    flatten_bits_between,
    follow_account,
    reasons_when_short,
    start_rung,
)
from ppo_workbench.trading.rules.names import DAILY_LOSS, SESSION_FLATTEN, VOLATILITY
from ppo_workbench.trading.rules.params import build_params
from ppo_workbench.trading.rules.reasons import action_reasons

LEVELS = [-1.0, -0.5, 0.0, 0.5, 1.0]
CASH = 100_000.0
NAN = float("nan")
Fills = tuple[float, float, float]


class _Followed:
    """An account at 100 a share that is followed over one bar."""

    def __init__(self, cash: float = CASH, shares: float = 0.0, **changes: Any) -> None:
        config = configure(env__exposure_levels=LEVELS, **changes)
        space = action_space(config.env)
        self.levels, self.p = space.levels, build_params(config, space)[0]
        self.rows = bar_rows([100.0, 100.0])
        self.record = np.zeros(1, ACCOUNT_DTYPE)[0]
        self.out = np.zeros(1, OUTCOME_DTYPE)[0]
        report = _report(cash, shares)
        self.short = adopt_account(self.record, self.rows, self.levels, self.p, report)

    def follow(self, ordered: int, cash: float, shares: float, *fills: Fills, **told: float) -> Any:
        rows = np.array(fills, dtype=np.float64).reshape(len(fills), 3)
        report, start = _report(cash, shares, **told), int(self.record["rung"])
        self.short = follow_account(
            self.record, self.rows, self.levels, self.p, self.short, start, ordered, NAN, rows,
            report, self.out,
        )  # fmt: skip
        return self.record


def _report(cash: float, shares: float, **told: float) -> Any:
    report = np.array([(cash, shares, NAN, NAN, NAN, 0.0, 0.0, 1.0)], dtype=REPORT_DTYPE)[0]
    for name, value in told.items():
        report[name] = value
    return report


_STANDS = [
    (0, 2, False),
    (1, 3, True),  # a lot is no dust
    (0.5, 2, False),
    (100, 3, True),
    (449, 3, True),
    (450, 3, False),  # a tenth of the way off
    (500, 3, False),
    (549, 3, False),
    (551, 4, True),
    (949, 4, True),
    (951, 4, False),
    (1500, 4, False),
    (-300, 1, True),
    (-500, 1, False),
    (-990, 0, False),
]


@pytest.mark.parametrize(("shares", "rung", "short"), _STANDS)
def test_adopted_account_stands_on_a_level_or_short_of_one(
    shares: float, rung: int, short: bool
) -> None:
    followed = _Followed(CASH - 100.0 * shares, shares)
    assert (followed.record["rung"], followed.short) == (rung, short)
    assert followed.record["peak"] == CASH


@pytest.mark.parametrize(
    ("ordered", "shares", "rung", "short"),
    [
        (4, 1000.0, 4, False),  # whole
        (4, 700.0, 4, True),  # partly
        (4, 10.0, 3, True),  # hardly
        (4, 1e-8, 2, False),  # dust
        (4, 0.0, 2, False),  # rejected
        (3, 100.0, 3, True),
        (0, -300.0, 1, True),
        (2, 990.0, 4, False),  # nothing was ordered, somebody else traded
    ],
)
def test_rung_follows_the_position_and_not_the_order(
    ordered: int, shares: float, rung: int, short: bool
) -> None:
    fills = [(shares, 100.0, 0.0)] if shares else []
    followed = _Followed()
    record = followed.follow(ordered, CASH - 100.0 * shares, shares, *fills)
    assert (record["rung"], followed.short) == (rung, short)
    assert record["session_opens"] == bool(shares)


def test_closing_order_that_fills_in_part_leaves_a_position_that_can_be_closed() -> None:
    followed = _Followed(0.0, 1000.0)
    record = followed.follow(2, 95_000.0, 50.0, (-950.0, 100.0, 0.0))
    assert (record["rung"], followed.short) == (3, True)
    assert record["bars_held"] == 1


@pytest.mark.parametrize("action_set", ["step", "target"])
def test_short_of_a_level_adding_is_asked_from_below_and_reducing_from_above(
    action_set: str,
) -> None:
    rules = {"env__action_set": ActionSet(action_set), "risk__volatility__enabled": True}
    followed = _Followed(CASH - 70_000.0, 700.0, **rules)
    expected = [4, 4, 3] if action_set == "step" else [4, 4, 4, 4, 4, 3]
    starts = [start_rung(k, 4, True, followed.p) for k in range(len(expected))]
    assert starts == expected
    row = np.zeros(len(starts), dtype=np.int64)
    bar = followed.rows[1]
    bar["rule_bits"] = VOLATILITY
    action_reasons(followed.record, bar, followed.levels, followed.p, row)
    plain = row.copy()
    reasons_when_short(followed.record, bar, followed.levels, followed.p, row)
    adds = np.array(starts) == 3
    assert not plain[adds].any()  # from above it looks like holding
    assert (row[adds] == VOLATILITY).all()
    assert np.array_equal(row[~adds], plain[~adds])
    assert followed.record["rung"] == 4


def test_several_fills_average_their_price_and_pay_their_costs() -> None:
    followed = _Followed()
    cash = CASH - 400 * 100.0 - 600 * 101.0 - 5.0
    record = followed.follow(4, cash, 1000.0, (400.0, 100.0, 2.0), (600.0, 101.0, 3.0))
    assert record["average_price"] == pytest.approx(100.6)
    assert (record["rung"], record["cash"]) == (4, cash)
    assert (followed.out["fill_quantity"], followed.out["cost"]) == (1000.0, 5.0)


def test_reported_profit_replaces_the_remembered_one_and_the_mark_not_the_anchor() -> None:
    record = _Followed().follow(2, CASH, 0.0, session_pnl=-1500.0, high_water_mark=120_000.0)
    assert record["session_equity"] == CASH + 1500.0
    assert (record["peak"], record["episode_peak"]) == (CASH, 120_000.0)
    assert record["drawdown"] == pytest.approx(1 / 6)


_LADDER = {
    "risk__drawdown__enabled": True,
    "risk__drawdown__caution_frac": 0.03,
    "risk__drawdown__flatten_frac": 0.04,
    "risk__drawdown__pause_bars": 390,
}


def test_steady_distance_from_the_mark_pauses_once_and_then_never() -> None:
    followed = _Followed(**_LADDER)
    adopt_account(
        followed.record, followed.rows, followed.levels, followed.p,
        _report(CASH, 0.0, high_water_mark=CASH / 0.95),
    )  # fmt: skip
    assert followed.record["flatten_drawdown"] == 1  # at the first decision already
    paused = []
    for _ in range(5000):
        followed.follow(2, CASH, 0.0, high_water_mark=CASH / 0.95)
        paused.append(int(followed.record["pause_left"] > 0 or followed.record["flatten_drawdown"]))
    assert sum(paused) == 389
    assert not any(paused[389:])


@pytest.mark.parametrize("flow", [-50_000.0, 25_000.0])
def test_money_that_moves_is_no_profit_or_loss_where_it_is_told(flow: float) -> None:
    told, untold = _Followed(**_LADDER), _Followed(**_LADDER)
    for followed, amount in ((told, flow), (untold, 0.0)):
        followed.record["peak"], followed.record["episode_peak"] = 102_000.0, 110_000.0
        followed.follow(2, CASH + flow, 0.0, flow=amount)
    scale = (CASH + flow) / CASH
    assert told.record["peak"] == pytest.approx(102_000 * scale)
    assert told.record["episode_peak"] == pytest.approx(110_000 * scale)
    assert told.record["session_equity"] == CASH + flow
    assert told.record["flatten_drawdown"] == 0
    assert told.record["sharpe_a"] == pytest.approx(0.0, abs=1e-9)
    assert untold.record["flatten_drawdown"] == (flow < 0)
    assert untold.record["peak"] == max(102_000.0, CASH + flow)


def test_dividend_is_a_profit_and_a_fee_no_cost_of_a_trade() -> None:
    followed = _Followed(0.0, 1000.0)
    record = followed.follow(4, 300.0, 1000.0, income=300.0)
    assert (record["equity"], followed.out["carry"], followed.out["cost"]) == (100_300, 300, 0)
    sold = _Followed(0.0, 1000.0)
    sold.follow(2, 99_993.0 - 20.0, 0.0, income=-20.0)  # fills unreported: 7 were paid
    assert sold.out["cost"] == pytest.approx(7.0)


def test_split_changes_shares_and_price_and_nothing_else() -> None:
    followed = _Followed(0.0, 1000.0)
    followed.rows["close"] = 50.0
    followed.rows["open"] = 50.0
    record = followed.follow(4, 0.0, 2000.0, split=2.0)
    assert (record["shares"], record["average_price"], record["equity"]) == (2000, 50, 100_000)
    assert (record["rung"], followed.short, record["session_opens"]) == (4, False, 0)


def test_account_that_is_emptied_and_filled_again_goes_on() -> None:
    followed = _Followed(**_LADDER)
    followed.follow(2, 0.0, 0.0, flow=-CASH)
    record = followed.follow(2, 50_000.0, 0.0, flow=50_000.0)
    assert (record["peak"], record["session_equity"]) == (50_000.0, 50_000.0)
    assert all(np.isfinite(record[name]) for name in ("sharpe_a", "sharpe_b", "drawdown"))


def test_rules_between_bars_know_the_reported_loss_and_the_clock() -> None:
    followed = _Followed(
        0.0, 1000.0, risk__daily_loss__enabled=True, risk__daily_loss__flatten=True,
        risk__daily_loss__max_loss_frac=0.02, risk__session__enabled=True,
    )  # fmt: skip
    found = [
        flatten_bits_between(
            followed.record.copy(),
            followed.rows[1],
            followed.p,
            _report(0.0, 1000.0, session_pnl=pnl),
            ends,
        )
        for pnl, ends in ((-1999.0, False), (-2000.0, False), (0.0, True))
    ]
    assert found == [0, DAILY_LOSS, SESSION_FLATTEN]
