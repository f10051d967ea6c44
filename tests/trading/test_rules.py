"""Masks: what is legal in any state (DESIGN, rule 3), and why it is not."""

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.trading.builders import (
    BUY,
    HOLD,
    RISKS,
    SELL,
    Account,
    bar_rows,
    configure,
    names,
    only,
)

from ppo_workbench.config import ActionSet, Config, ForbiddenAction, Sizing
from ppo_workbench.trading.actions import action_space
from ppo_workbench.trading.rules.names import BIT, RULE_NAMES, rule_severity
from ppo_workbench.trading.rules.params import build_params
from ppo_workbench.trading.rules.reasons import maintenance_breached

LADDERS = ([-1.0, 0.0, 1.0], [0.0, 1.0], [-1.0, -0.5, 0.0, 0.25, 0.5, 1.0], [-2.0, 0.0, 3.0])
SHORT, FLAT, LONG = 1, 2, 3  # indices of the action set "target" on -1, 0, +1


def _everything(**changes: Any) -> Config:
    """Return every rule with its default parameters."""
    return only(*configure().risk.rules(), risk__daily_loss__flatten=True, **changes)


_SETTINGS: list[Config] = []
for _kind in ActionSet:
    for _levels in LADDERS:
        _changes = {"env__action_set": _kind, "env__exposure_levels": list(_levels)}
        _SETTINGS += [configure(risk, **_changes) for risk in RISKS]
        _SETTINGS.append(_everything(**_changes))


_MONEY = st.floats(-1e6, 1e7) | st.sampled_from([0.0, 1999.0, 2000.0, 24_999.0, 1e5])
_COUNTS = st.integers(0, 30)
_ANYTHING: dict[str, st.SearchStrategy[Any]] = {
    "equity": _MONEY,
    "session_equity": st.floats(1.0, 1e7),
    "unsettled_cash": st.floats(0.0, 1e7),
    "session_opens": _COUNTS,
    "cooldown_left": _COUNTS,
    "pause_left": _COUNTS,
    "day_trades": st.tuples(*[st.integers(0, 4)] * 5),
    "flatten_drawdown": st.integers(0, 1),
    "recovery_equity": st.sampled_from([0.0, 1e5]),
}
_ANY_BITS = st.sampled_from(list(BIT.values())) | st.integers(0, (1 << len(RULE_NAMES)) - 1)


@st.composite
def _states(draw: st.DrawFn) -> tuple[Config, Account]:
    """Any account on any bar: the position's sign agrees with its rung, nothing else does.

    Quiet but for a few things at a time, so that no rule hides behind the others.
    """
    config = draw(st.sampled_from(_SETTINGS))
    price = draw(st.just(100.0) | st.floats(0.01, 2e5) | st.sampled_from([4.99, 5.0]))
    rows = bar_rows(
        [price],
        sigma=draw(st.just(1e-3) | st.floats(0, 0.5)),
        volatility_ratio=draw(st.floats(0, 5)),
        mean_notional=draw(st.just(1e11) | st.floats(0, 1e8) | st.just(math.inf)),
        rule_bits=draw(st.just(0) | _ANY_BITS),
    )
    account = Account(config, rows)
    a, space = account.state, account.space
    for name in draw(st.just([]) | st.lists(st.sampled_from(list(_ANYTHING)), max_size=9)):
        a[name] = draw(_ANYTHING[name])
    a["rung"] = draw(st.integers(0, len(space.levels) - 1))
    level = float(space.levels[a["rung"]])
    shares = level * abs(a["equity"]) / price * draw(st.just(1.0) | st.floats(0.01, 30.0))
    a["shares"] = shares if shares != 0 else np.sign(level)
    a["cash"] = a["equity"] - a["shares"] * price
    return config, account


def _flattening(config: Config, account: Account) -> set[str]:
    """Return the flatten rules in force, by the specification."""
    a, risk = account.state, config.risk
    loss = a["equity"] <= a["session_equity"] * (1 - risk.daily_loss.max_loss_frac)
    conditions = {
        "session_flatten": risk.session.enabled
        and bool(account.rows["rule_bits"][0] & BIT["session_flatten"]),
        "drawdown": risk.drawdown.enabled and a["flatten_drawdown"] == 1,
        "daily_loss": risk.daily_loss.enabled and risk.daily_loss.flatten and bool(loss),
    }
    return {name for name, fires in conditions.items() if fires}


def _stopped(config: Config, account: Account) -> set[str]:
    sections: dict[str, Any] = {
        "halt": config.risk.halt,
        "closed_session": config.risk.closed_session,
    }
    bits = int(account.rows["rule_bits"][0])
    return {name for name, rule in sections.items() if rule.enabled and bits & BIT[name]}


def _exposure_after(account: Account, action: int) -> float:
    """Return the level that an action asks for, by the words of the specification."""
    levels, rung = account.space.levels, int(account["rung"])
    if account.space.kind is ActionSet.target:
        return float(levels[rung] if action == 0 else levels[action - 1])
    return float(levels[min(max(rung + action - 1, 0), len(levels) - 1)])


@settings(max_examples=600)
@given(_states())
def test_mask_any_state_obeys_rule_three(state: tuple[Config, Account]) -> None:
    config, account = state
    legal, space = account.legal(), account.space
    held = float(space.levels[account["rung"]])
    asked = [_exposure_after(account, action) for action in range(space.size)]
    seconds = [action != space.hold and level == held for action, level in enumerate(asked)]
    outcomes = [level for level, ok in zip(asked, legal, strict=True) if ok]
    assert len(outcomes) == len(set(outcomes))
    assert any(legal)
    if _stopped(config, account):
        assert legal == [action == space.hold for action in range(space.size)]
    elif _flattening(config, account):
        # While held only what leads towards flat (the step set goes all the way).
        expected = [
            level == 0 or (space.kind is ActionSet.step and abs(level) < abs(held))
            for level in asked
        ]
        expected = [ok and not second for ok, second in zip(expected, seconds, strict=True)]
        assert legal == expected
    else:
        closer = [level * held >= 0 and abs(level) <= abs(held) for level in asked]
        assert legal[space.hold]
        expected = [near and not second for near, second in zip(closer, seconds, strict=True)]
        assert all(ok for ok, towards_flat in zip(legal, expected, strict=True) if towards_flat)


@settings(max_examples=300)
@given(_states())
def test_mask_any_state_every_false_carries_enabled_reasons(state: tuple[Config, Account]) -> None:
    config, account = state
    risk, stopped = config.risk, _stopped(config, account)
    for action, bits in enumerate(account.reasons()):
        for rule in names(int(bits)):
            section = "session" if rule.startswith("session_") else rule
            assert getattr(risk, section).enabled
        assert 0 <= bits < 1 << len(RULE_NAMES)
        if stopped and action != account.space.hold:
            assert names(int(bits)) == stopped


@dataclass(frozen=True)
class Case:
    """A state in which one rule alone forbids `action`; the other rules are on and silent."""

    action: int = BUY
    changes: dict[str, Any] = field(default_factory=dict)
    bar: dict[str, Any] = field(default_factory=dict)
    state: dict[str, Any] = field(default_factory=dict)
    price: float = 100.0

    def account(self, rule: str, enabled: bool) -> Account:
        """Return the account under the moderate preset with `rule` on or off."""
        section = "session" if rule.startswith("session_") else rule
        switch = {f"risk__{section}__enabled": enabled}
        config = configure("moderate", **(self.changes | switch))
        account = Account(config, bar_rows([self.price, self.price], **self.bar))
        for name, value in self.state.items():
            account.state[name] = value
        return account


def _by_market(rule: str, action: int = BUY) -> Case:
    return Case(action, bar={"rule_bits": BIT[rule]})


_HELD = {"shares": 1000.0, "cash": 0.0, "rung": 2}
_LEVERED = {"risk__capital__max_gross_exposure": 4.0, "risk__concentration__max_exposure": 4.0}
CASES = {
    "halt": _by_market("halt"),
    "closed_session": _by_market("closed_session", SELL),
    "session_flatten": _by_market("session_flatten"),
    "drawdown": Case(state={"pause_left": 3, "flatten_drawdown": 1}),
    "daily_loss": Case(state={"session_equity": 100_000 / 0.98 + 0.01}),
    "capital": Case(price=100_001.0),
    "initial_margin": Case(changes=_LEVERED | {"env__exposure_levels": [0.0, 2.01]}),
    "locate": Case(SELL, changes={"risk__locate__available": False}),
    "settlement": Case(state={"unsettled_cash": 200.0}),
    "maintenance_margin": Case(SELL, changes={"env__initial_cash_usd": 1999.0}),
    "intraday_margin": Case(
        changes=_LEVERED
        | {"env__exposure_levels": [0.0, 1.7], "risk__intraday_margin__margin_frac": 0.6}
    ),
    "short_sale_restriction": _by_market("short_sale_restriction", SELL),
    "pattern_day_trader": Case(
        changes={"env__initial_cash_usd": 24_999.0}, state={"day_trades": [1, 0, 1, 0, 1]}
    ),
    "session_no_open": _by_market("session_no_open"),
    "position": Case(changes={"risk__position__max_notional_usd": 99_000.0}),
    "concentration": Case(changes={"risk__concentration__max_exposure": 0.99}),
    "volatility": _by_market("volatility"),
    "regime": _by_market("regime", SELL),
    "event": _by_market("event"),
    "liquidity": Case(bar={"mean_notional": 999_000.0}),
    "order_rate": Case(
        changes={"risk__order_rate__max_opens_per_session": 4}, state={"session_opens": 4}
    ),
    "gap": Case(bar={"rule_bits": BIT["gap"]}),
    "cooldown": Case(state={"cooldown_left": 1}),
    "stop_loss": Case(HOLD, state=_HELD | {"average_price": 100 / 0.98 + 0.01}),
    "take_profit": Case(HOLD, state=_HELD | {"average_price": 100 / 1.04 - 0.01}),
}


@pytest.mark.parametrize("rule", RULE_NAMES)
def test_rule_alone_blocks_with_its_own_reason(rule: str) -> None:
    case = CASES[rule]
    assert case.account(rule, enabled=True).blocked(case.action) == {rule}


@pytest.mark.parametrize("rule", RULE_NAMES)
def test_rule_switched_off_lets_the_same_action_pass(rule: str) -> None:
    case = CASES[rule]
    assert case.account(rule, enabled=False).legal()[case.action]


@pytest.mark.parametrize(
    ("rule", "change"),
    [
        ("daily_loss", {"state": {"session_equity": 100_000 / 0.98 - 0.01}}),
        ("capital", {"price": 100_000.0}),
        ("initial_margin", {"changes": _LEVERED | {"env__exposure_levels": [0.0, 2.0]}}),
        ("settlement", {"state": {"unsettled_cash": 0.0}}),
        ("maintenance_margin", {"changes": {"env__initial_cash_usd": 2000.0}}),
        ("pattern_day_trader", {"state": {"day_trades": [1, 0, 1, 0, 0]}}),
        ("position", {"changes": {"risk__position__max_notional_usd": 100_000.0}}),
        ("concentration", {"changes": {"risk__concentration__max_exposure": 1.0}}),
        ("liquidity", {"bar": {"mean_notional": 1_000_000.0}}),
        ("liquidity", {"bar": {"mean_notional": math.inf}}),  # no volume in the data: no rule
        ("order_rate", {"state": {"session_opens": 3}}),
        ("cooldown", {"state": {"cooldown_left": 0}}),
        ("stop_loss", {"state": _HELD | {"average_price": 100 / 0.98 - 0.01}}),
        ("take_profit", {"state": _HELD | {"average_price": 100 / 1.04 + 0.01}}),
    ],
)
def test_rule_at_its_limit_lets_the_action_pass(rule: str, change: dict[str, Any]) -> None:
    case = CASES[rule]
    near = replace(case, **change)
    assert near.account(rule, enabled=True).legal()[case.action]


@pytest.mark.parametrize(
    "rule", ["session_flatten", "drawdown", "daily_loss", "stop_loss", "take_profit"]
)
@pytest.mark.parametrize("kind", list(ActionSet))
@pytest.mark.parametrize("side", [-1.0, 1.0])
def test_flatten_rule_while_held_leaves_only_what_flattens(
    rule: str, kind: ActionSet, side: float
) -> None:
    levels = [-1.0, -0.5, 0.0, 0.5, 1.0]
    config = _everything(env__action_set=kind, env__exposure_levels=levels)
    config.risk.settlement.enabled = False  # a cash account could not be short
    towards = BUY if side > 0 else SELL
    way = [towards, towards] if kind is ActionSet.step else [1 + levels.index(side)]
    rows = bar_rows([100.0] * (2 + len(way)))
    account = Account(config, rows)
    for action in way:
        account.step(action)
    if rule == "session_flatten":
        rows["rule_bits"] = BIT[rule]
    elif rule == "drawdown":
        account.state["pause_left"], account.state["flatten_drawdown"] = 9, 1
    elif rule in ("stop_loss", "take_profit"):
        account.state["average_price"] = 100.0 + (5 if rule == "stop_loss" else -5) * side
    else:
        account.state["session_equity"] = 2 * account["equity"]
    flattens = (2 - towards) if kind is ActionSet.step else 1 + levels.index(0.0)
    assert account.legal() == [action == flattens for action in range(account.space.size)]
    assert all(rule in account.blocked(a) for a in range(account.space.size) if a != flattens)
    account.step(flattens)  # in one order, from the outermost rung
    assert account["shares"] == 0
    assert account.legal()[account.space.hold]


def test_halt_outranks_a_flatten_rule() -> None:
    config = configure("moderate", risk__halt__enabled=True)
    rows = bar_rows([100.0] * 3)
    account = Account(config, rows)
    account.step(BUY)
    rows["rule_bits"] = BIT["session_flatten"] | BIT["halt"]
    assert account.legal() == [False, True, False]
    assert account.blocked(SELL) == {"halt"}


def test_flip_blocked_by_a_house_rule_leaves_closing_legal() -> None:
    config = configure("moderate", env__action_set=ActionSet.target)
    rows = bar_rows([100.0] * 3)
    account = Account(config, rows)
    account.step(LONG)
    rows["rule_bits"] = BIT["volatility"]
    assert account.legal() == [True, False, True, False]  # LONG is held, so HOLD says it
    assert account.blocked(SHORT) == {"volatility"}
    assert account.blocked(LONG) == set()


def test_maintenance_breach_is_reduce_only() -> None:
    levels = [-1.0, -0.5, 0.0, 0.5, 1.0]
    config = only("maintenance_margin", env__exposure_levels=levels)
    account = Account(config, bar_rows([100.0, 100.0, 250.0]))
    account.step(SELL)  # half short at 100, equity 50 000 against 125 000 at 250
    account.step(HOLD)
    assert account["equity"] == pytest.approx(100_000 - 500 * 150.0)
    assert account.blocked(SELL) == {"maintenance_margin"}
    assert account.legal() == [False, True, True]


@pytest.mark.parametrize(
    ("price", "required"),
    [(100.0, 30.0), (10.0, 5.0), (5.0, 5.0), (4.0, 4.0), (2.0, 2.5)],  # FINRA 4210(c)
)
def test_maintenance_of_a_short_is_the_larger_of_share_and_fraction(
    price: float, required: float
) -> None:
    account = Account(only("maintenance_margin"), bar_rows([price] * 2))
    account.state["shares"] = -10_000.0
    for excess in (0.01, -0.01):
        account.state["equity"] = 10_000 * required + excess
        assert maintenance_breached(account.state, price, account.params[0]) is (excess < 0)


def test_day_trades_legacy_forbid_the_fourth_open_of_five_sessions() -> None:
    config = only("pattern_day_trader", env__initial_cash_usd=20_000.0)
    rows = bar_rows([100.0] * 20, session=[0] * 8 + list(range(1, 13)))
    account = Account(config, rows)
    for action in (BUY, SELL, BUY, SELL, BUY, SELL):
        assert account.legal()[action]
        account.step(action)
    assert account.blocked(BUY) == {"pattern_day_trader"}
    assert account.legal() == [False, True, False]
    while account["session"] < 4:
        account.step(HOLD)
        assert account.blocked(SELL) == {"pattern_day_trader"}
    account.step(HOLD)  # the fifth session after the trades: they are out of the window
    assert account.legal() == [True, True, True]


def test_day_trade_is_not_counted_when_held_overnight() -> None:
    config = only("pattern_day_trader", env__initial_cash_usd=20_000.0)
    account = Account(config, bar_rows([100.0] * 6, session=[0, 0, 1, 1, 2, 2]))
    account.step(BUY)
    account.step(SELL)  # filled in session 1
    assert sum(account["day_trades"]) == 0


def test_settlement_sold_today_can_be_spent_tomorrow() -> None:
    account = Account(only("settlement"), bar_rows([100.0] * 6, session=[0, 0, 0, 0, 1, 1]))
    account.step(BUY)
    account.step(SELL)
    assert account.blocked(BUY) == {"settlement"}
    assert account.blocked(SELL) == {"settlement"}  # a cash account cannot sell short
    account.step(HOLD)
    account.step(HOLD)
    assert account.legal()[BUY]


def test_order_rate_counts_opens_of_the_session_only() -> None:
    config = only("order_rate", risk__order_rate__max_opens_per_session=2)
    account = Account(config, bar_rows([100.0] * 8, session=[0] * 6 + [1, 1]))
    for action in (BUY, SELL, SELL, BUY):
        account.step(action)
    assert account.blocked(BUY) == {"order_rate"}
    account.step(HOLD)
    account.step(HOLD)
    assert account.legal() == [True, True, True]


def test_cooldown_follows_a_losing_round_trip_and_ends() -> None:
    config = only("cooldown", risk__cooldown__bars_after_loss=3)
    account = Account(config, bar_rows([100.0, 100.0, 99.0, 99.0, 99.0, 99.0, 99.0]))
    account.step(BUY)
    account.step(SELL)
    blocked = []
    for _ in range(4):
        blocked.append(account.blocked(BUY) == {"cooldown"})
        account.step(HOLD)
    assert blocked == [True, True, True, False]


def test_cooldown_does_not_follow_a_winning_round_trip() -> None:
    account = Account(only("cooldown"), bar_rows([100.0, 100.0, 101.0, 101.0]))
    account.step(BUY)
    account.step(SELL)
    assert account.legal() == [True, True, True]


@pytest.mark.parametrize("risk", RISKS)
def test_sell_after_an_all_in_buy_is_legal(risk: str) -> None:
    account = Account(configure(risk, costs__half_spread_bps=5.0), bar_rows([100.0] * 4))
    account.step(BUY)
    assert account["cash"] < 100.0  # all in: less than one share is left
    assert account.legal()[SELL]
    account.step(SELL)
    assert account["shares"] == 0


@pytest.mark.parametrize("risk", RISKS)
def test_buy_from_a_short_reaches_flat(risk: str) -> None:
    account = Account(configure(risk, costs__half_spread_bps=5.0), bar_rows([100.0] * 4))
    account.step(SELL)
    assert account["shares"] < 0
    assert account.legal()[BUY]
    account.step(BUY)
    assert account["shares"] == 0


def test_severity_defaults_are_those_of_the_sources() -> None:
    severity = dict(zip(RULE_NAMES, rule_severity(configure("moderate").risk), strict=True))
    by_class = {kind: {r for r, s in severity.items() if s == kind} for kind in severity.values()}
    assert by_class["impossible"] == {
        "halt", "closed_session", "capital", "initial_margin", "locate",
    }  # fmt: skip
    assert by_class["regulatory"] == {
        "maintenance_margin", "intraday_margin", "short_sale_restriction", "settlement",
        "pattern_day_trader",
    }  # fmt: skip


def test_every_parameter_of_a_rule_is_read_from_its_setting() -> None:
    """Those of rules that ask the account under the setting's name, no other is in the record."""
    config = configure("moderate", risk__drawdown__pause_bars=7)
    market = {"halt", "short_sale_restriction", "volatility", "regime", "event"}
    expected = {}
    for rule, section in config.risk.rules().items():
        for k, (name, value) in enumerate(vars(section).items()):
            if name in ("enabled", "severity") or rule in market:
                continue
            changed = not value if isinstance(value, bool) else value + k + 1
            setattr(section, name, changed)
            expected[f"{rule}__{name}"] = changed
    config.risk.drawdown.enabled = True
    row = build_params(config, action_space(config.env))[0]
    named = {name: row[name].item() for name in row.dtype.names or () if "__" in name}
    assert len(expected) == 25
    assert named == expected


def test_reduced_size_is_whole_where_the_drawdown_rule_does_not_work() -> None:
    config = configure("moderate", risk__drawdown__pause_bars=7)
    for change in ("off", "executed"):
        config.risk.drawdown.enabled = change != "off"
        config.env.forbidden_action = ForbiddenAction("execute" if change != "off" else "reject")
        row = build_params(config, action_space(config.env))[0]
        assert row["drawdown__reduced_size"] == 1.0


def test_cooldown_runs_on_while_other_orders_fill() -> None:
    """Three bars are three bars: one with a fill in it counts like any other."""
    levels = [-1.0, -0.5, 0.0, 0.5, 1.0]
    config = only(
        "cooldown",
        risk__cooldown__bars_after_loss=3,
        env__exposure_levels=levels,
        env__action_set=ActionSet.target,
        env__forbidden_action=ForbiddenAction.execute,
    )
    account = Account(config, bar_rows([100.0, 100.0, 90.0, *[90.0] * 6]))
    wishes = [5, 1, 2, 0, 0, 0, 0]  # long, flip to short with a loss, half of it back, HOLD
    blocked = []
    for wish in wishes:
        blocked.append("cooldown" in account.blocked(5))
        account.step(wish)
    assert blocked == [False, False, True, True, True, False, False]


def test_cooldown_counts_a_flip_by_the_share_of_its_cost() -> None:
    """Both trips gain 0.025 a share and pay 0.01 on each side: no loss in either."""
    config = only("cooldown", costs__fee_per_share_usd=0.01, env__action_set=ActionSet.target)
    account = Account(config, bar_rows([100.0, 100.0, 100.025, 100.0, 100.0]))
    for wish in (3, 1, 2):  # long, short, flat
        account.step(wish)
        assert account["cooldown_left"] == 0


@pytest.mark.parametrize("rule", ["daily_loss", "drawdown"])
def test_holding_on_by_a_rejected_order_under_a_flatten_rule_is_a_violation(rule: str) -> None:
    """In execute mode the broker flattens nothing, and what it rejects leaves the position."""
    config = only(
        rule,
        "locate",
        risk__daily_loss__flatten=True,
        risk__locate__available=False,
        env__action_set=ActionSet.target,
        env__forbidden_action=ForbiddenAction.execute,
    )
    account = Account(config, bar_rows([100.0, 100.0, 90.0, 90.0, 90.0]))
    account.step(3)
    account.step(0)
    out = account.step(1)  # no borrow for the short
    assert names(int(out["rejected"])) == {rule, "locate"}
    assert out["fill_quantity"] == 0.0
    assert names(int(out["violated"])) == {rule}


def test_stop_loss_closes_at_the_next_fill_and_lets_the_account_open_again() -> None:
    config = only("stop_loss", risk__stop_loss__loss_frac=0.02)
    account = Account(config, bar_rows([100.0, 100.0, 97.9, 97.0, 97.0, 97.0]))
    account.step(BUY)
    assert account.blocked(HOLD) == set()
    account.step(HOLD)  # the close is 97.9
    assert account.legal() == [True, False, False]
    account.step(SELL)
    assert account["equity"] == pytest.approx(100_000 - 1000 * 3.0)  # filled at 97, not at 98
    assert account.legal() == [True, True, True]
    account.step(BUY)
    assert account.blocked(HOLD) == set()


def test_volatility_sizing_scales_orders_down_alone() -> None:
    # A year of the training bars moves ten times as much as a bar: .1 a year is .01 a bar.
    config = configure(
        env__sizing=Sizing.volatility,
        env__volatility_target_annual_frac=0.1,
        reward__bar_volatility_frac=0.001,
        reward__annual_volatility_frac=0.01,
    )
    for sigma, expected in ((0.005, 1000), (0.01, 1000), (0.02, 500), (0.04, 250), (0.0, 1000)):
        account = Account(config, bar_rows([100.0] * 4, sigma=sigma))
        account.step(BUY)
        assert account["shares"] == expected, sigma
        account.rows["sigma"] = 0.08
        account.step(HOLD)  # what is held is not rebalanced
        assert account["shares"] == expected, sigma
