"""Any stream of messages: no crash, no forbidden order, no trace of what was not taken."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tests.delivery.builders import experiment_of, small_config, store_model

from ppo_workbench.config import BarsError
from ppo_workbench.delivery.artifact import Artifact
from ppo_workbench.delivery.decider import Decider
from ppo_workbench.delivery.decider_state import DeciderState
from ppo_workbench.delivery.messages import Account, Bar, Decision, Status, bar_messages

LENGTH = 400
RULES = (
    *("risk=conservative", "risk.halt.enabled=true", "risk.drawdown.pause_bars=20"),
    *("market.lot=0", "env.exposure_levels=[-1,-0.5,0,0.5,1]"),
)


@dataclass(frozen=True)
class World:
    """Two models, bars that follow the warm-up, and the state of the first one then."""

    models: tuple[Artifact, Artifact]
    history: list[Bar]
    bars: list[Bar]
    state: DeciderState

    def __repr__(self) -> str:
        """Leave the models out of hypothesis's reports."""
        return "world"

    def begin(self) -> Decider:
        decider = Decider(self.models[0])
        decider.restore(self.state)
        return decider


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Return what every stream begins with."""
    experiment = experiment_of(small_config(*RULES))
    folder = tmp_path_factory.mktemp("models")
    models = store_model(experiment, folder, "a", 3), store_model(experiment, folder, "b", 4)
    start = experiment.splits["train"].start
    messages = list(bar_messages(experiment.bars.slice(0, start + LENGTH)))
    decider = Decider(models[0])
    decider.warm_up(messages[:start])
    return World(models, messages[:start], messages[start:], decider.state())


_BAD = st.sampled_from([None, float("nan"), float("inf"), 0.0, -1.0, 1e300])
_STEP = st.one_of(
    st.tuples(st.just("bar"), st.integers(1, 1)),
    st.tuples(st.just("bar"), st.sampled_from([1, 2, 7, 12, 60, 390])),
    st.tuples(st.just("again"), st.integers(0, 3)),
    st.tuples(st.just("broken"), st.tuples(st.sampled_from(["open", "low", "volume"]), _BAD)),
    st.tuples(st.just("moved"), st.sampled_from([30, -30, 86_400 * 365 * 30, -86_400 * 365 * 30])),
    st.tuples(st.just("corrected"), st.floats(0.9, 1.1)),
    st.tuples(st.just("clock"), st.integers(-1000, 5000)),
    st.tuples(st.just("restart"), st.none()),
)
_MONEY = st.fixed_dictionaries(
    {
        "exposure": st.sampled_from([0.0, 0.0, 1e-12, 0.01, 0.3, 0.5, 1.0, 3.0, -0.2, -1.0, -5.0]),
        "equity": st.sampled_from([1e5, 1e5, 1e5, 9e4, 2e5, 1.0, 0.0, -1e3]),
        "flow": st.sampled_from(["", "", "", "deposit", "withdrawal", "dividend", "fee"]),
        "split": st.sampled_from([None] * 8 + [2.0, 0.1]),
        "mark": st.sampled_from([None, None, 1e5, 1.5e5]),
        "working": st.sampled_from([0.0, 0.0, 10.0, -10.0]),
        "fill": st.booleans(),
    }
)
_STREAMS = st.lists(st.tuples(_STEP, _MONEY), min_size=1, max_size=30)


def _account(bar: Bar, money: dict[str, Any]) -> Account:
    close = float(bar.close or 1.0)
    shares = money["exposure"] * max(money["equity"], 1.0) / close
    flows = [{"kind": money["flow"], "amount": 2e4}] if money["flow"] else []
    return Account.model_validate(
        {
            "cash": money["equity"] - shares * close,
            "shares": shares,
            "fills": [{"quantity": shares, "price": close}] if money["fill"] and shares else [],
            "open_orders": [{"quantity": money["working"]}] if money["working"] else [],
            "cash_flows": flows,
            "splits": [{"ratio": money["split"]}] if money["split"] else [],
            "high_water_mark": money["mark"],
        }
    )


def _no_forbidden_order(decision: Decision, account: Account) -> None:
    after = account.shares + decision.order_quantity + sum(x.quantity for x in account.open_orders)
    adds = abs(after) > abs(account.shares) * (1 + 1e-9) or after * account.shares < 0
    if decision.status in (Status.no_decision, Status.ignored, Status.idle):
        assert decision.order_quantity == 0.0
    if decision.status is Status.flatten:
        assert after == pytest.approx(0.0, abs=1e-9 * abs(account.shares) + 1e-12)
    if decision.action is not None:
        assert decision.mask[decision.action]
        if decision.order_quantity and adds:
            assert not decision.reduce_only
            assert decision.target_quantity == pytest.approx(after)


class _Stream:
    """A Decider that gets anything, and one that gets only what the first has taken."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.dirty, self.clean = world.begin(), world.begin()

    @property
    def at(self) -> int:
        """Number of the bar to come."""
        last = self.dirty.market.last_ns
        return min(sum(bar.start_ns <= last for bar in self.world.bars), LENGTH - 12)

    def step(self, kind: str, value: Any, money: dict[str, Any]) -> None:
        bar = self.world.bars[self.at]
        account = _account(bar, money)
        if kind == "restart":
            state = self.dirty.state()
            self.dirty = Decider(self.world.models[0])
            self.dirty.restore(state)
            assert self.dirty.state().document == state.document
            return
        if kind == "clock":
            _no_forbidden_order(
                self.dirty.on_clock(bar.start + timedelta(seconds=value), account), account
            )
            return
        bar, taken = self._changed(kind, value, bar), self.dirty.market.taken
        decision = self.dirty.decide(bar, account)
        if self.dirty.market.taken > taken:
            assert decision.taken
            assert self.clean.decide(bar, account) == decision
        if self.dirty.market.taken > taken or not decision.taken:
            _no_forbidden_order(decision, account)

    def _changed(self, kind: str, value: Any, bar: Bar) -> Bar:
        if kind == "bar":
            return self.world.bars[min(self.at + int(value) - 1, LENGTH - 12)]
        if kind == "again":
            return self.world.bars[max(self.at - 1 - int(value), 0)]
        if kind == "moved":
            return bar.model_copy(update={"start": bar.start + timedelta(seconds=value)})
        if kind == "corrected":
            before = self.world.bars[max(self.at - 1, 0)]
            return before.model_copy(update={"volume": float(before.volume or 0) * value + 1})
        return bar.model_copy(update={value[0]: value[1]})


def _check(world: World, steps: list[tuple[tuple[str, Any], dict[str, Any]]]) -> None:
    stream = _Stream(world)
    for (kind, value), money in steps:
        stream.step(kind, value, money)
    last = stream.dirty.market.last_ns
    rest = [bar for bar in world.bars if bar.start_ns > last][:5]
    for bar in rest:
        account = Account(cash=1e5, shares=0.0)
        assert stream.dirty.decide(bar, account) == stream.clean.decide(bar, account)
    ours, theirs = stream.dirty.state(), stream.clean.state()
    assert ours.document == theirs.document
    assert all(ours.arrays[k].tobytes() == theirs.arrays[k].tobytes() for k in ours.arrays)
    memory = stream.dirty.account_memory()
    if memory is not None:  # another model can go on
        other = Decider(world.models[1])
        other.take_over(memory)
        assert other.account_memory() == memory


_SETTINGS: dict[str, Any] = {
    "deadline": None,
    "suppress_health_check": list(HealthCheck),
    "database": None,
    "phases": (Phase.generate, Phase.target),  # shrinking takes minutes
}


@settings(max_examples=25, derandomize=True, **_SETTINGS)
@given(steps=_STREAMS)
def test_any_stream_of_messages_is_answered(world: World, steps: Any) -> None:
    _check(world, steps)


@pytest.mark.slow
@settings(max_examples=1000, **_SETTINGS)
@given(steps=_STREAMS)
def test_a_thousand_streams_of_messages_are_answered(world: World, steps: Any) -> None:
    _check(world, steps)


def test_messages_that_are_none_change_nothing(world: World) -> None:
    decider = world.begin()
    before = decider.state().document
    for wrong in (None, {}, "bar", world.bars[0].model_dump()):
        with pytest.raises(BarsError):
            decider.decide(wrong, Account(cash=1.0, shares=0.0))  # type: ignore[arg-type]
    with pytest.raises(BarsError):
        decider.on_clock(datetime(2024, 1, 2), Account(cash=1.0, shares=0.0))
    assert decider.state().document == before
