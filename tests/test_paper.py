"""Paper trading and `task=decide` against the backtest of the same model."""

import io
import json
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.delivery.builders import SMALL, experiment_of, small_config, store_model

from ppo_workbench.cli.main import command
from ppo_workbench.delivery.artifact import Artifact
from ppo_workbench.delivery.decider import Decider
from ppo_workbench.delivery.decider_state import DeciderState
from ppo_workbench.delivery.messages import Account, Bar, Decision, Status, bar_messages, moment_of
from ppo_workbench.learning.progress import WorkbenchConsole
from ppo_workbench.market.splits import Split
from ppo_workbench.pipeline.models import deciding
from ppo_workbench.pipeline.models.paper import paper, replay
from ppo_workbench.pipeline.models.stored import stored_policy
from ppo_workbench.pipeline.models.view import paper_view
from ppo_workbench.scoring.backtest import backtest
from ppo_workbench.scoring.metrics import scorecard
from ppo_workbench.scoring.trace import Trace
from ppo_workbench.trading.experiment import Experiment

RULES = (
    "risk.drawdown.caution_frac=0.01",
    "risk.drawdown.flatten_frac=0.02",
    "risk.drawdown.pause_bars=60",
    "costs.borrow_annual_bps=50",
    "costs.cash_interest_annual_bps=300",
    "costs.slippage_volatility_frac=0.05",  # so that a fill's cost depends on the bar decided at
    "costs.impact_volatility_frac=0.05",
)
Stored = tuple[Path, Experiment, Artifact, Trace]


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Stored:
    """Return a home with the model `m`, its experiment, and its backtest on validation."""
    home = tmp_path_factory.mktemp("home")
    experiment = experiment_of(small_config(*RULES))
    artifact = store_model(experiment, home / "trained_models", seed=3)
    return home, experiment, artifact, _backtest(experiment, artifact)


def _backtest(experiment: Experiment, artifact: Artifact) -> Trace:
    policy = stored_policy(artifact.metadata, artifact.tensors, experiment)
    part = experiment.splits["validation"]
    return backtest(policy, experiment.bars, experiment.market, part, experiment.config)


@pytest.fixture
def home(stored: Stored, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run commands in the model's home."""
    monkeypatch.setenv("PPO_WORKBENCH_HOME", str(stored[0]))
    return stored[0]


def test_replay_does_what_the_backtest_did_to_the_last_bit(stored: Stored) -> None:
    _, experiment, artifact, expected = stored
    split = experiment.splits["validation"]
    decider = Decider(artifact)
    decider.warm_up(experiment.bars.slice(0, split.start))
    found = replay(decider, experiment.bars, split)
    assert (expected.fill_quantity != 0).sum() > 20
    for name, value in vars(expected).items():
        other = getattr(found, name)
        same = other.tobytes() == value.tobytes() if hasattr(value, "tobytes") else other == value
        assert same, name


def test_paper_ends_with_the_scorecard_of_the_backtest(stored: Stored, home: Path) -> None:
    config = replace(small_config(*RULES), artifact="m", result_json=str(home / "paper.json"))
    screen = io.StringIO()
    card = paper(config, WorkbenchConsole(screen))
    assert card == scorecard(stored[3])
    assert json.loads((home / "paper.json").read_text())["scorecards"]["m"]["validation"]
    assert "m on validation of" in screen.getvalue()
    assert "paper: bar " in screen.getvalue()


def test_paper_on_test_bars_is_recorded_as_a_look(home: Path) -> None:
    assert command(["task=paper", "artifact=m", "split=test", *SMALL, *RULES]) == 0
    entries = (home / "mlruns" / "test_openings.jsonl").read_text().splitlines()
    assert "paper trading of m" in entries[-1]


def test_paper_refuses_bars_of_another_length(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(["task=paper", "artifact=m", "experiment=sp500", "tracking=none"]) == 2
    assert "its bars last 60 seconds" in capsys.readouterr().err


def test_live_view_draws_facts_on_a_terminal(stored: Stored) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    _, experiment, artifact, _ = stored
    start = experiment.splits["validation"].start
    decider, screen = Decider(artifact), Terminal()
    decider.warm_up(experiment.bars.slice(0, start))
    short = replace(experiment.splits["validation"], stop=start + 50)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TERM", "xterm")
        console = WorkbenchConsole(screen, width=100)
        with paper_view(console, 49) as view:
            replay(decider, experiment.bars, short, view=view)
    assert "49 of 49" in screen.getvalue()
    assert "\x1b[" in screen.getvalue()
    assert "paper: bar 49 of 49" in console.log_text


def _decide(home: Path, monkeypatch: pytest.MonkeyPatch, text: str, *more: str) -> list[Decision]:
    target = home / "decisions.jsonl"
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    more = more if any(x.startswith("artifact=") for x in more) else ("artifact=m", *more)
    arguments = ["task=decide", f"decide.output={target}", "tracking=none", *more]
    assert command(arguments) == 0
    return [Decision.model_validate_json(line) for line in target.read_text().splitlines()]


def test_decide_answers_json_lines_as_the_backtest_decides(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = experiment_of(small_config())  # no interest: cash alone waits unchanged
    artifact = store_model(experiment, home / "trained_models", "plain", seed=3)
    warm = artifact.metadata.warmup_bars
    policy = stored_policy(artifact.metadata, artifact.tensors, experiment)
    split = Split("part", warm, warm + 1201)
    trace = backtest(policy, experiment.bars, experiment.market, split, experiment.config)
    bars = bar_messages(experiment.bars.slice(0, warm + 1200))
    text = "\n".join(bar.model_dump_json() for bar in bars)
    found = _decide(home, monkeypatch, text, "artifact=plain")
    assert {x.status for x in found[:warm]} == {Status.no_decision}
    assert [x.action_index for x in found[warm:]] == trace.action.tolist()
    assert (trace.fill_quantity != 0).sum() > 5


def test_decide_in_two_starts_goes_on_mid_session_as_in_one(
    stored: Stored, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = stored[2]
    count = artifact.metadata.warmup_bars + 500
    lines = [bar.model_dump_json() for bar in bar_messages(stored[1].bars.slice(0, count))]
    whole = _decide(home, monkeypatch, "\n".join(lines))
    ordered = [i for i in range(count - 100) if whole[i].action and whole[i].order_quantity]
    cut, state = ordered[-1] + 1, f"decide.state={home / 'state.npz'}"
    # In the middle of a session, with an order that is not filled yet.
    assert stored[1].bars.bars_left[cut] > 0

    first = _decide(home, monkeypatch, "\n".join(lines[:cut]), state)
    # What is sent again because nobody knows whether it came changes nothing.
    both = _decide(home, monkeypatch, "\n".join(lines[cut - 3 :]), state)

    assert first == whole[:cut]
    assert both[:cut] == first  # what was decided before the restart is still there
    second = both[cut:]
    assert [x.status for x in second[:2]] == [Status.ignored] * 2
    assert second[2:] == whole[cut - 1 :]


def test_decide_refuses_a_state_that_it_cannot_go_on_from(
    stored: Stored,
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    Decider(stored[2]).state().save(tmp_path / "given.npz")
    (tmp_path / "broken.npz").write_bytes(b"PK broken")
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    for name, problem in {
        "given.npz": "holds no simulated account",
        "broken.npz": "cannot be read",
        "no/folder.npz": "cannot be written",
        ".": f"decide.state={tmp_path}: is a folder; name a file",
    }.items():
        arguments = ["artifact=m", "tracking=none", f"decide.state={tmp_path / name}"]
        assert command(["task=decide", *arguments]) == 2
        assert problem in capsys.readouterr().err


@pytest.mark.parametrize("link", ["none", "soft", "hard"])
def test_decide_refuses_to_write_over_the_file_that_it_reads(
    stored: Stored,
    home: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    link: str,
) -> None:
    text = next(bar_messages(stored[1].bars)).model_dump_json()
    source = tmp_path / "a.jsonl"
    source.write_text(text)
    target = source if link == "none" else tmp_path / "b.jsonl"
    if link == "soft":
        target.symlink_to(source)
    elif link == "hard":
        target.hardlink_to(source)
    base = ["task=decide", "artifact=m", "tracking=none"]

    assert command([*base, f"decide.input={source}", f"decide.output={target}"]) == 2
    error = capsys.readouterr().err
    assert "is the file of decide.input too; name another file" in error
    assert error.count("\n") == 1
    assert command([*base, f"decide.input={source}", f"decide.state={target}"]) == 2
    assert source.read_text() == text


def test_decide_refuses_one_file_for_decisions_and_state_or_for_standard_input(
    stored: Stored, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, target = ["task=decide", "artifact=m", "tracking=none"], tmp_path / "out"
    assert command([*base, f"decide.output={target}", f"decide.state={target}"]) == 2
    assert not target.exists()
    target.write_text("a line")
    with target.open(encoding="utf-8") as standard:
        monkeypatch.setattr(sys, "stdin", standard)
        assert command([*base, f"decide.output={target}"]) == 2
    assert target.read_text() == "a line"


def test_decide_counts_listed_events_itself_and_asks_for_them(
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    plain = experiment_of(small_config())
    hours = [moment_of(int(ns)).isoformat() for ns in plain.bars.end_ns[::60]]
    events = tmp_path / "events.csv"
    events.write_text("\n".join(["time,kind", *(f"{hour},CPI" for hour in hours)]))
    rule = ("risk.event.enabled=true", "risk.event.large_move_bars=0", f"data.events_path={events}")
    artifact = store_model(experiment_of(small_config(*rule)), home / "trained_models", "news")
    count = artifact.metadata.warmup_bars + 420
    bars = list(bar_messages(plain.bars.slice(0, count)))
    text = "\n".join(bar.model_dump_json() for bar in bars)

    def named(*more: str) -> bool:
        found = _decide(home, monkeypatch, text, "artifact=news", *more)
        return any("event" in rules for x in found for rules in x.blocked_by.values())

    assert named(f"data.events_path={events}")
    assert not named()  # bars that count nothing
    (tmp_path / "bars.csv").write_text("timestamp,open,high,low,close,volume\n")
    csv = ["task=decide", "artifact=news", f"decide.input={tmp_path / 'bars.csv'}"]
    assert command([*csv, "tracking=none"]) == 2
    assert "write data.events_path=FILE" in capsys.readouterr().err


def test_decide_reads_csv_and_answers_a_bad_row_without_a_decision(
    stored: Stored, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bars = stored[1].bars
    rows = ["timestamp,open,high,low,close,volume"]
    for bar in bar_messages(bars.slice(0, 30)):
        values = [bar.open, bar.high, bar.low, bar.close, bar.volume]
        rows.append(",".join([bar.start.isoformat(), *map(str, values)]))
    rows[11] = rows[11].rsplit(",", 2)[0] + ",,1"
    (home / "bars.csv").write_text("\n".join(rows))
    found = _decide(home, monkeypatch, "", f"decide.input={home / 'bars.csv'}")
    assert len(found) == 30
    assert found[10].reason == "a price or the volume of the bar is missing"
    assert found[11].reason.endswith("more bars are needed to warm the features up")


@pytest.mark.parametrize("standard", [False, True])
def test_decide_names_the_line_that_is_not_utf_8_after_those_before_it(
    stored: Stored,
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    standard: bool,
) -> None:
    lines = [bar.model_dump_json() for bar in bar_messages(stored[1].bars.slice(0, 2))]
    source, target = tmp_path / "bars.jsonl", tmp_path / "decisions.jsonl"
    source.write_bytes("\n".join(lines).encode() + b'\n{"start": "\xff"}\n')
    with source.open(encoding="utf-8") as opened:
        monkeypatch.setattr(sys, "stdin", opened)
        more = () if standard else (f"decide.input={source}",)
        base = ["task=decide", "artifact=m", "tracking=none", f"decide.output={target}"]
        assert command([*base, *more]) == 2
    error = capsys.readouterr().err
    assert error == "error: input line 3: is not UTF-8 text; correct the line\n"
    assert len(target.read_text().splitlines()) == 2


@pytest.mark.parametrize("count", [0, 2])
def test_decide_that_is_interrupted_says_what_is_kept(
    stored: Stored,
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    count: int,
) -> None:
    def typed() -> Iterator[str]:
        for bar in bar_messages(stored[1].bars.slice(0, count)):
            yield bar.model_dump_json()
        raise KeyboardInterrupt

    monkeypatch.setattr(sys, "stdin", typed())
    target, state = tmp_path / "decisions.jsonl", tmp_path / "state.npz"
    base = ["task=decide", "artifact=m", "tracking=none", f"decide.output={target}"]
    assert command([*base, f"decide.state={state}"]) == 130
    kept = f"the decisions written so far stay, and so does decide.state={state}"
    assert capsys.readouterr().err == f"interrupted: {kept}\n"
    assert len(target.read_text().splitlines()) == count
    assert DeciderState.load(state).document["market"]["taken"] == count


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Let SIGINT interrupt also where a shell began the tests in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class _InTheMiddle:
    """Ctrl-C, once or twice, when the account has moved with bar `at` and nothing is decided."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: int, times: int) -> None:
        self.left = at
        decide = Decider.decide

        def interrupted(decider: Decider, bar: Bar, account: Account) -> Decision:
            self.left -= 1
            if self.left == 0:
                for _ in range(times):
                    os.kill(os.getpid(), signal.SIGINT)
            return decide(decider, bar, account)

        monkeypatch.setattr(Decider, "decide", interrupted)


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.usefixtures("ctrl_c")
def test_decide_interrupted_in_the_middle_of_a_bar_goes_on_as_if_it_had_not_been(
    stored: Stored, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: bool
) -> None:
    account = {"cash": 1000.0, "shares": 0.0}
    bars = [json.loads(bar.model_dump_json()) for bar in bar_messages(stored[1].bars)]
    lines = [json.dumps({"bar": bar, "account": account} if given else bar) for bar in bars]
    first, second, state = lines[:300], lines[300:330], tmp_path / "state.npz"
    base = ["task=decide", "artifact=m", "tracking=none", f"decide.state={state}"]
    base += ["decide.account=given"] if given else []
    target = tmp_path / "decisions.jsonl"

    def run(given_lines: list[str]) -> int:
        monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(given_lines)))
        return command([*base, f"decide.output={target}"])

    assert run([*first, *second]) == 0
    whole = DeciderState.load(state)
    decided = target.read_text().splitlines()
    state.unlink()
    with monkeypatch.context() as patch:
        _InTheMiddle(patch, 300, times=1)
        assert run([*first, *second]) == 130
    assert DeciderState.load(state).document["market"]["taken"] == 300

    assert run(lines[299:330]) == 0  # the last one again: it may not have been answered

    assert _same(DeciderState.load(state), whole)
    assert target.read_text().splitlines()[-30:] == decided[-30:]


@pytest.mark.usefixtures("ctrl_c")
def test_decide_interrupted_twice_in_one_bar_keeps_the_state_of_an_earlier_one(
    stored: Stored, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [bar.model_dump_json() for bar in bar_messages(stored[1].bars.slice(0, 20))]
    state = tmp_path / "state.npz"
    base = ["task=decide", "artifact=m", "tracking=none", f"decide.state={state}"]
    base += [f"decide.output={tmp_path / 'decisions.jsonl'}"]
    monkeypatch.setattr(deciding, "SAVE_SECONDS", 0.0)  # after every bar
    _InTheMiddle(monkeypatch, 10, times=2)
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(lines)))
    before = signal.getsignal(signal.SIGINT)

    assert command(base) == 130

    kept = DeciderState.load(state)
    assert kept.document["market"]["taken"] == 9
    assert kept.part("simulated.")["bars"][1]["close"] == stored[1].bars.close[8]
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.usefixtures("ctrl_c")
def test_decide_waiting_for_a_bar_is_interrupted_at_once_and_where_ignored_never(
    stored: Stored, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bars = [bar.model_dump_json() for bar in bar_messages(stored[1].bars.slice(0, 5))]

    def typed() -> Iterator[str]:
        yield from bars[:3]
        os.kill(os.getpid(), signal.SIGINT)
        yield from bars[3:]

    target = tmp_path / "decisions.jsonl"
    base = ["task=decide", "artifact=m", "tracking=none", f"decide.output={target}"]
    monkeypatch.setattr(sys, "stdin", typed())
    assert command(base) == 130
    assert len(target.read_text().splitlines()) == 3

    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        monkeypatch.setattr(sys, "stdin", typed())
        assert command(base) == 0
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(target.read_text().splitlines()) == 5


def _same(one: DeciderState, other: DeciderState) -> bool:
    arrays = one.arrays.keys() == other.arrays.keys() and all(
        one.arrays[name].tobytes() == other.arrays[name].tobytes() for name in one.arrays
    )
    return arrays and one.document == other.document


def test_decide_takes_a_given_account_and_the_clock(
    stored: Stored, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bar = next(bar_messages(stored[1].bars))
    account = {"cash": 1000.0, "shares": 0.0}
    lines = [
        {"bar": json.loads(bar.model_dump_json()), "account": account},
        {"clock": "2010-01-04T15:00:00Z", "account": account},
    ]
    text = "\n".join(map(json.dumps, lines))
    found = _decide(home, monkeypatch, text, "decide.account=given")
    assert [x.status for x in found] == [Status.no_decision, Status.no_decision]
    assert found[1].reason.startswith("stale: 29 bars")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["artifact=absent"], "no such model"),
        ([], "artifact: a value is needed"),
        (["artifact=m", "decide.input=absent.jsonl"], "cannot be opened"),
        (["artifact=m", "decide.account=given"], "has no account, but decide.account=given"),
        (["artifact=m", "decide.format=csv"], "column 'timestamp' is missing"),
    ],
)
def test_decide_refuses_what_it_cannot_use(
    stored: Stored,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    problem: str,
) -> None:
    bar = next(bar_messages(stored[1].bars))
    monkeypatch.setattr(sys, "stdin", io.StringIO(bar.model_dump_json()))
    assert command(["task=decide", "tracking=none", *arguments]) == 2
    assert problem in capsys.readouterr().err
