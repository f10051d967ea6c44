"""What the Decider does when bars, accounts and clocks are not as in a backtest."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from tests.delivery.builders import Walk, experiment_of, small_config, store_model, walk

from ppo_workbench.config import ArtifactError, BarsError
from ppo_workbench.delivery.artifact import Artifact
from ppo_workbench.delivery.decider import Decider
from ppo_workbench.delivery.decider_state import DeciderState
from ppo_workbench.delivery.live.account import SimulatedAccount
from ppo_workbench.delivery.messages import Account, Bar, Fill, Order, Status, bar_messages
from ppo_workbench.market.splits import Split

CASH = 100_000.0
FLAT = Account(cash=CASH, shares=0.0)
ALL_ON = (
    "risk.drawdown.caution_frac=0.01",
    "risk.drawdown.flatten_frac=0.02",
    "risk.drawdown.pause_bars=60",
    "risk.cooldown.enabled=true",
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Artifact, list[Bar], int, Walk]:
    """Return a model, its bars as messages, the first decision's row and the backtest's walk."""
    experiment = experiment_of(small_config(*ALL_ON))
    artifact = store_model(experiment, tmp_path_factory.mktemp("model"), seed=3)
    start = experiment.splits["train"].start
    rows = walk(experiment, artifact, Split("part", start, start + 800))
    return artifact, list(bar_messages(experiment.bars)), start, rows


Model = tuple[Artifact, list[Bar], int, Walk]


def _warm(model: Model, bars: int = 0) -> Decider:
    """Return a Decider that has decided on the first `bars` bars of the walk."""
    artifact, messages, start, rows = model
    decider = Decider(artifact)
    decider.warm_up(messages[:start])
    for i in range(bars):
        decider.decide(messages[start + i], rows.account(i))
    return decider


def test_first_bars_are_answered_with_what_is_missing(model: Model) -> None:
    artifact, bars, _, _ = model
    start = artifact.metadata.warmup_bars
    decider = Decider(artifact)
    first = decider.decide(bars[0], FLAT)
    assert first.status is Status.no_decision
    assert first.reason == f"{start} more bars are needed to warm the features up"
    assert first.action is None
    assert first.target_exposure is None
    assert first.reduce_only
    for bar in bars[1:start]:
        assert decider.decide(bar, FLAT).status is Status.no_decision
    assert decider.market.needed == 0
    assert decider.decide(bars[start], FLAT).status is Status.decided


def test_repeated_bar_gets_the_same_decision_and_changes_nothing(model: Model) -> None:
    _, bars, start, rows = model
    decider, plain = _warm(model, 50), _warm(model, 50)
    once = decider.decide(bars[start + 50], rows.account(50))
    again = decider.decide(bars[start + 50], FLAT)
    assert again is once
    plain.decide(bars[start + 50], rows.account(50))
    for i in range(51, 80):
        found = decider.decide(bars[start + i], rows.account(i))
        assert found == plain.decide(bars[start + i], rows.account(i))


@pytest.mark.parametrize("wrong", ["bar", "account", "no account"])
def test_bar_or_account_of_a_wrong_type_is_refused_and_changes_nothing(
    model: Model, wrong: str
) -> None:
    _, bars, start, rows = model
    decider = _warm(model, 50)
    before = decider.state()
    bar: Any = bars[start + 50]
    account: Any = {"account": rows.account(50).model_dump(), "no account": None}.get(wrong, FLAT)
    bar = bar.model_dump() if wrong == "bar" else bar
    with pytest.raises(BarsError, match=f"^{wrong.split()[-1]}: must be of type .* make one with "):
        decider.decide(bar, account)
    after = decider.state()
    assert after.document == before.document
    assert all(after.arrays[name].tobytes() == x.tobytes() for name, x in before.arrays.items())
    retried = decider.decide(bars[start + 50], rows.account(50))
    assert retried.action_index == rows.actions[50]
    assert decider.observation.tobytes() == rows.observations[50].tobytes()


def test_history_and_clock_of_a_wrong_type_are_refused(model: Model) -> None:
    artifact, bars, _, _ = model
    mapping: Any = bars[0].model_dump()
    with pytest.raises(BarsError, match="bar: must be of type Bar, not dict"):
        Decider(artifact).warm_up([mapping])
    decider, account = _warm(model, 1), cast(Any, {"cash": CASH, "shares": 0.0})
    with pytest.raises(BarsError, match="account: must be of type Account, not dict"):
        decider.on_clock(bars[0].start, account)
    for fresh in (decider, Decider(artifact)):
        with pytest.raises(BarsError, match=r"now: .* must be a datetime with an offset"):
            fresh.on_clock(bars[0].start.replace(tzinfo=None), FLAT)


def test_late_bar_is_ignored_and_changes_nothing(model: Model) -> None:
    _, bars, start, rows = model
    decider = _warm(model, 50)
    late = decider.decide(bars[start + 20], FLAT)
    assert late.status is Status.ignored
    assert "late" in late.reason
    for i in range(50, 80):
        decision = decider.decide(bars[start + i], rows.account(i))
        assert decision.action_index == rows.actions[i]
        assert decider.observation.tobytes() == rows.observations[i].tobytes()


@pytest.mark.parametrize(
    "change",
    [
        {"close": None},
        {"close": float("nan")},
        {"open": float("nan")},
        {"high": float("inf")},
        {"low": 0.0},
        {"high": 1.0},
        {"volume": float("nan")},
        {"volume": -1.0},
    ],
)
def test_bad_bar_is_no_decision_and_a_corrected_one_is_decided(
    model: Model, change: dict[str, float | None]
) -> None:
    _, bars, start, rows = model
    decider = _warm(model, 50)
    bad = decider.decide(bars[start + 50].model_copy(update=change), rows.account(50))
    assert bad.status is Status.no_decision
    assert bad.action is None
    assert bad.reduce_only
    assert bad.reason
    good = decider.decide(bars[start + 50], rows.account(50))
    assert good.action_index == rows.actions[50]
    assert decider.observation.tobytes() == rows.observations[50].tobytes()


def test_bad_bar_that_is_never_corrected_is_a_missing_one(model: Model) -> None:
    _, bars, start, rows = model
    decider = _warm(model, 50)
    decider.decide(bars[start + 50].model_copy(update={"close": None}), rows.account(50))
    after = decider.decide(bars[start + 51], FLAT)
    assert (after.status, after.reason) == (Status.decided, "")


def test_after_a_gap_nothing_is_added_until_the_features_recovered(model: Model) -> None:
    _, bars, start, _ = model
    decider = _warm(model)
    assert decider.decide(bars[start], FLAT).reason == ""
    after = [decider.decide(bar, FLAT) for bar in bars[start + 7 : start + 7 + 40]]
    assert {x.status for x in after} == {Status.decided}
    assert after[0].reason == "gap: the features recover from missing bars"
    assert [x.reduce_only for x in after] == [True] * 30 + [False] * 10
    assert all("gap" in x.blocked_by[side] for x in after[:30] for side in ("SELL", "BUY"))
    assert {x.action for x in after[:30]} == {"HOLD"}


def test_position_is_managed_after_a_gap(model: Model) -> None:
    _, bars, start, _ = model
    decider = _warm(model)
    long = Account(cash=0.0, shares=CASH / float(bars[start].close or 0))
    decider.decide(bars[start], long)
    after = decider.decide(bars[start + 7], long)
    assert after.mask == {"SELL": True, "HOLD": True, "BUY": False}  # HOLD asks for what is held
    assert after.blocked_by == {}
    last = [bar for bar in bars[start + 7 :] if bar.start.date() == bars[start].start.date()]
    for bar in last:
        decision = decider.decide(bar, long)
    assert decision.order_quantity == -long.shares


def test_silence_as_long_as_the_halt_rule_allows_is_no_gap(model: Model) -> None:
    _, bars, start, rows = model
    decider = _warm(model, 50)
    assert decider.decide(bars[start + 55], rows.account(50)).status is Status.decided


def test_missed_bars_sent_as_history_close_the_gap(model: Model) -> None:
    _, bars, start, rows = model
    decider = _warm(model, 50)
    decider.warm_up(bars[start + 50 : start + 80])
    decision = decider.decide(bars[start + 80], rows.account(80))
    assert decision.status is Status.decided
    market = rows.observations.shape[1] - 6
    assert decider.observation[:market].tobytes() == rows.observations[80, :market].tobytes()


def test_history_from_the_beginning_heals_a_gap_and_keeps_the_account(model: Model) -> None:
    _, bars, start, rows = model
    decider = _warm(model, 50)
    assert decider.decide(bars[start + 90], FLAT).reduce_only
    opens = int(decider.accounts["session_opens"][0])
    decider.warm_up(bars[: start + 100])
    decision = decider.decide(bars[start + 100], rows.account(100))
    assert (decision.status, decision.reduce_only) == (Status.decided, False)
    market = rows.observations.shape[1] - 6
    assert decider.observation[:market].tobytes() == rows.observations[100, :market].tobytes()
    assert int(decider.accounts["session_opens"][0]) >= opens


def test_history_out_of_order_or_bad_is_refused(model: Model) -> None:
    artifact, bars, _, _ = model
    with pytest.raises(BarsError, match="not later than the one before"):
        Decider(artifact).warm_up([bars[0], bars[2], bars[1]])
    with pytest.raises(BarsError, match="price or the volume of the bar is missing"):
        Decider(artifact).warm_up([bars[0], bars[1].model_copy(update={"low": None})])


def _half_a_minute_later(bar: Bar, **change: float | None) -> Bar:
    return bar.model_copy(update={"start": bar.start + timedelta(seconds=30), **change})


def test_overlapping_bars_are_no_decision_and_change_nothing(model: Model) -> None:
    _, bars, start, rows = model
    decider = _warm(model, 50)
    for i in range(50, 80):
        decision = decider.decide(bars[start + i], rows.account(i))
        assert decision.action_index == rows.actions[i]
        assert decider.observation.tobytes() == rows.observations[i].tobytes()
        before = decider.state()
        for change in ({}, {"close": None}):  # a bad one that overlaps is no gap later
            stray = decider.decide(_half_a_minute_later(bars[start + i], **change), FLAT)
            assert stray.status is Status.no_decision
            assert stray.reduce_only
            assert stray.reason.startswith("overlap: the bar of ")
            assert stray.reason.endswith(" has not ended, bars of the model last 60 seconds")
        assert decider.state().document == before.document
        assert decider.decide(bars[start + i], FLAT) is decision


def test_overlapping_bars_leave_the_simulated_account_as_it_is(model: Model) -> None:
    artifact, bars, start, _ = model
    answers = []
    for strays in (False, True):
        decider = Decider(artifact)
        account, found = SimulatedAccount(decider), []
        for bar in bars[: start + 200]:
            found.append(decider.decide(bar, account.step(bar)))
            account.take(found[-1])
            if strays:
                stray = _half_a_minute_later(bar)
                account.take(decider.decide(stray, account.step(stray)))
        answers.append((found, account.record.tobytes()))
    assert answers[0] == answers[1]
    assert sum(decision.order_quantity != 0.0 for decision in answers[0][0]) > 5


def test_overlapping_bars_of_a_record_are_taken(model: Model) -> None:
    _, bars, start, rows = model
    decider = _warm(model, 50)
    decider.market.overlapping = True
    stray = _half_a_minute_later(bars[start + 49])
    assert decider.decide(stray, rows.account(50)).status is Status.decided


def test_date_without_a_session_is_no_decision_and_no_gap(model: Model) -> None:
    _, bars, start, rows = model
    decider = _warm(model, 50)
    last = bars[start + 49].start
    saturday = last + timedelta(days=(5 - last.weekday()) % 7)
    stray = decider.decide(bars[start + 50].model_copy(update={"start": saturday}), FLAT)
    assert stray.status is Status.no_decision
    assert "date without a session" in stray.reason
    assert decider.decide(bars[start + 50], rows.account(50)).status is Status.decided


def test_rejected_order_leaves_the_account_as_it_is(model: Model) -> None:
    _, bars, start, rows = model
    i = next(k for k in range(800) if rows.outcomes["fill_quantity"][k] != 0.0)
    decider = _warm(model, i + 1)
    held = rows.account(i)
    decision = decider.decide(bars[start + i + 1], held.model_copy(update={"fills": []}))
    a = decider.accounts[0]
    assert decision.status is Status.decided
    assert a["rung"] == rows.accounts["rung"][i]
    assert a["shares"] == held.shares
    assert a["session_opens"] == rows.accounts["session_opens"][i]


def test_partial_fill_is_believed_and_the_rest_ordered_or_not(model: Model) -> None:
    _, bars, start, rows = model
    i = next(
        k
        for k in range(800)
        if rows.outcomes["fill_quantity"][k] != 0.0 and rows.accounts["shares"][k] == 0.0
    )
    decider, full = _warm(model, i + 1), rows.outcomes["fill_quantity"][i]
    price, part = float(rows.outcomes["fill_price"][i]), float(np.trunc(full / 3))
    cash = float(rows.accounts["cash"][i]) - part * price
    report = Account(cash=cash, shares=part, fills=[Fill(quantity=part, price=price)])
    decision = decider.decide(bars[start + i + 1], report)
    a = decider.accounts[0]
    assert a["shares"] == part
    assert a["cash"] == cash
    assert a["rung"] == rows.accounts["rung"][i + 1]
    assert decision.target_quantity is not None
    rest = decision.target_quantity - part
    assert decision.order_quantity == (rest if decision.action != "HOLD" else 0.0)
    assert a["average_price"] == price
    assert a["equity"] == cash + part * float(bars[start + i + 1].close or 0.0)


def test_position_without_reported_fills_is_booked_at_the_bars_price(model: Model) -> None:
    _, bars, start, _ = model
    decider = _warm(model, 1)
    price = bars[start + 1].open
    assert price is not None
    report = Account(cash=CASH - 100 * price - 7.0, shares=100.0)
    decider.decide(bars[start + 1], report)
    a = decider.accounts[0]
    assert a["average_price"] == price
    assert a["session_opens"] == 1
    assert a["cash"] == report.cash


def test_open_orders_are_counted_in_the_next_order(model: Model) -> None:
    _, bars, start, rows = model
    i = next(k for k in range(800) if rows.outcomes["fill_quantity"][k] != 0.0)
    alone = _warm(model, i).decide(bars[start + i], rows.account(i))
    working = rows.account(i).model_copy(update={"open_orders": [Order(quantity=10.0)]})
    counted = _warm(model, i).decide(bars[start + i], working)
    assert alone.order_quantity != 0.0
    assert counted.order_quantity == alone.order_quantity - 10.0


def test_account_found_with_a_position_is_adopted(model: Model) -> None:
    _, bars, start, _ = model
    decider = _warm(model)
    report = Account(cash=2 * CASH, shares=-500.0, session_pnl=-40.0, average_price=99.0)
    decision = decider.decide(bars[start], report)
    a = decider.accounts[0]
    assert decision.status is Status.decided
    assert (a["rung"], a["average_price"], a["shares"]) == (0, 99.0, -500.0)
    assert a["session_equity"] == a["equity"] + 40.0
    assert (decision.held_quantity, decision.taken) == (-500.0, True)


def test_feature_beyond_what_training_saw_is_flagged(model: Model) -> None:
    _, bars, start, rows = model
    decider = _warm(model, 50)
    calm = decider.decide(bars[start + 50], rows.account(50))
    close = bars[start + 51].close
    assert close is not None
    wild = bars[start + 51].model_copy(update={"close": 1.5 * close, "high": 1.6 * close})
    assert calm.out_of_range == []
    assert "ema_distance_10" in decider.decide(wild, rows.account(51)).out_of_range


def test_blocked_actions_name_their_rules(model: Model) -> None:
    _, bars, start, rows = model
    decider = _warm(model, 380)
    decision = decider.decide(bars[start + 380], rows.account(380))
    assert decision.mask == {
        name: bool(x) for name, x in zip(("SELL", "HOLD", "BUY"), rows.masks[380], strict=True)
    }
    forbidden = {name for name, allowed in decision.mask.items() if not allowed}
    assert set(decision.blocked_by) == forbidden
    assert all("session_no_open" in decision.blocked_by[name] for name in forbidden)
    assert all(decision.probabilities[name] == 0.0 for name in forbidden)
    assert sum(decision.probabilities.values()) == pytest.approx(1.0)


def _at(bar: Bar, minutes: float) -> datetime:
    return bar.start + timedelta(minutes=minutes)


def test_clock_is_idle_while_the_feed_is_in_time(model: Model) -> None:
    _, bars, start, rows = model
    decider = _warm(model, 50)
    idle = decider.on_clock(_at(bars[start + 49], 2.5), rows.account(50))
    assert idle.status is Status.idle


def test_clock_says_that_the_feed_is_stale(model: Model) -> None:
    _, bars, start, _ = model
    stale = _warm(model, 50).on_clock(_at(bars[start + 49], 7.0), FLAT)
    assert stale.status is Status.no_decision
    assert stale.reason.startswith("stale: 6 bars")
    assert stale.reduce_only


def test_clock_flattens_before_the_session_ends_without_bars(model: Model) -> None:
    _, bars, start, _ = model
    decider = _warm(model, 50)
    held = Account(cash=CASH - 50 * 100.0, shares=50.0, open_orders=[Order(quantity=-20.0)])
    end = _at(bars[start], 390)
    flat = decider.on_clock(end - timedelta(minutes=5), held)
    assert flat.status is Status.flatten
    assert flat.order_quantity == -30.0
    assert flat.target_exposure == 0.0
    assert "session_flatten" in flat.reason
    assert decider.on_clock(end - timedelta(minutes=5), FLAT).status is Status.no_decision
    closed = decider.on_clock(end + timedelta(minutes=1), held)
    assert (closed.status, closed.reason) == (Status.idle, "the market is closed")


def test_clock_flattens_when_the_drawdown_kills_between_bars(model: Model) -> None:
    _, bars, start, rows = model
    decider = _warm(model, 50)
    a = rows.accounts[50]
    loss = float(a["equity"] - a["session_equity"]) - 0.03 * CASH
    held = Account(cash=CASH, shares=10.0, session_pnl=loss)
    before = decider.state()
    kill = decider.on_clock(_at(bars[start + 49], 1.5), held)
    assert kill.status is Status.flatten
    assert kill.reason == "rules in force: drawdown"
    after = decider.state()
    assert all(after.arrays[name].tobytes() == x.tobytes() for name, x in before.arrays.items())


def test_clock_before_the_first_bar_is_no_decision(model: Model) -> None:
    artifact, bars, _, _ = model
    assert Decider(artifact).on_clock(bars[0].start, FLAT).status is Status.no_decision


def test_restored_decider_goes_on_bit_for_bit(model: Model, tmp_path: Path) -> None:
    artifact, bars, start, rows = model
    first = _warm(model, 333)
    first.state().save(tmp_path / "state.npz")
    second = Decider(artifact)
    second.restore(DeciderState.load(tmp_path / "state.npz"))
    again = second.decide(bars[start + 332], FLAT)
    assert again == first.decide(bars[start + 332], FLAT)
    for i in range(333, 700):
        found = second.decide(bars[start + i], rows.account(i))
        assert found == first.decide(bars[start + i], rows.account(i))
        assert second.observation.tobytes() == rows.observations[i].tobytes()
        assert found.action_index == rows.actions[i]


def test_state_of_another_model_or_damaged_is_refused(model: Model, tmp_path: Path) -> None:
    artifact, _, _, _ = model
    state = _warm(model, 3).state()
    with pytest.raises(ArtifactError, match="belongs to another model"):
        Decider(artifact).restore(DeciderState(state.arrays, {**state.document, "pth_sha256": "0"}))
    lacking = {name: x for name, x in state.arrays.items() if name != "mask"}
    with pytest.raises(ArtifactError, match="is damaged"):
        Decider(artifact).restore(DeciderState(lacking, state.document))
    (tmp_path / "broken.npz").write_bytes(b"PK broken")
    with pytest.raises(ArtifactError, match="cannot be read"):
        DeciderState.load(tmp_path / "broken.npz")


@pytest.mark.parametrize("told", [{"version": 2}, {"version": 1}, {}], ids=str)
def test_state_of_an_older_version_is_refused_by_name(model: Model, told: dict[str, int]) -> None:
    artifact, _, _, _ = model
    state = _warm(model, 3).state()
    assert state.document["version"] == 3
    older = told.get("version", 1)  # version 1 did not say it
    kept = {key: value for key, value in state.document.items() if key != "version"}
    document: Any = {**kept, **told}
    for use in (Decider(artifact).restore, Decider(artifact).take_over):
        with pytest.raises(ArtifactError, match=rf"state: has version {older}, .* reads 3; warm"):
            use(DeciderState(state.arrays, document))


def test_state_that_no_decider_saved_is_refused_in_our_words(tmp_path: Path) -> None:
    (tmp_path / "bars.csv").write_text("timestamp,open\n")
    (tmp_path / "empty").touch()
    np.save(tmp_path / "array.npy", np.zeros(2))
    np.savez(tmp_path / "other.npz", a=np.zeros(2))
    for name in ("bars.csv", "empty", "array.npy", "other.npz"):
        with pytest.raises(
            ArtifactError, match=r"cannot be read \(no Decider saved it, or"
        ) as error:
            DeciderState.load(tmp_path / name)
        assert "pickle" not in str(error.value)
    with pytest.raises(ArtifactError, match=r"cannot be read \(No such file"):
        DeciderState.load(tmp_path / "absent")


def test_state_is_not_saved_as_a_folder_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, folder = DeciderState({}, {}), tmp_path / "folder"
    folder.mkdir()
    for path in (folder, Path()):
        with pytest.raises(ArtifactError, match="is a folder; name a file"):
            state.save(path)
    monkeypatch.setattr(Path, "replace", lambda *_: Path("absent").rename("there"))
    with pytest.raises(OSError, match="No such file"):
        state.save(tmp_path / "state.npz")
    assert list(tmp_path.iterdir()) == [folder]
