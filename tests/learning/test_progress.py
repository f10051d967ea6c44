import io
import shlex

import pytest
from rich.cells import cell_len
from rich.console import Console

from ppo_workbench.learning.progress import (
    LiveProgress,
    PlainProgress,
    ProgressState,
    WorkbenchConsole,
    command_line,
    live_view,
    plain_line,
)


class TerminalStream(io.StringIO):
    def isatty(self) -> bool:
        return True


def state(elapsed: float = 60.0, **changes: object) -> ProgressState:
    values: dict[str, object] = {
        "elapsed_seconds": elapsed,
        "budget_seconds": 600.0,
        "timesteps": 1_000_000,
        "total_timesteps": 4_000_000,
        "episodes": 500,
        "steps_per_second": 20_000.0,
        "passes": 3.25,
        "episode_reward": -1.5,
        "validation_sharpe": 1.234,
        "validation_max_drawdown_frac": 0.0421,
        "blocked": {"session": 0.04, "volatility": 0.15, "capital": 0.0, "drawdown": 0.01},
    }
    return ProgressState(**{**values, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("model_type", "first", "also"),
    [
        ("maskable_ppo", "⭐ PRIMARY FOCUS MODEL: MaskablePPO", ["🎭 action mask", "🛡️ risk man"]),
        ("ppo", "📊 comparison model: standard PPO", []),
    ],
)
def test_banner_names_the_model_type_first(model_type: str, first: str, also: list[str]) -> None:
    console = WorkbenchConsole(io.StringIO(), width=80)
    console.show_banner(model_type)
    assert console.log_text.splitlines()[0] == first
    assert all(text in console.log_text for text in also)


def test_banner_on_an_ascii_stream_does_not_fail() -> None:
    raw = io.BytesIO()
    console = WorkbenchConsole(io.TextIOWrapper(raw, encoding="ascii"), width=80)
    console.show_banner("maskable_ppo")
    assert raw.getvalue().startswith(b"? PRIMARY FOCUS MODEL")
    assert console.log_text.startswith("⭐")


def test_choices_keep_square_brackets_and_long_paths() -> None:
    console = WorkbenchConsole(io.StringIO(), width=80)
    path = "/folder" * 20 + "[bold]"
    console.show_choices([("writes to", path)])
    folded = "".join(line[len("writes to") :].strip() for line in console.log_text.splitlines())
    assert folded == path


def test_done_frac_is_that_of_the_limit_nearest_its_end() -> None:
    assert state().done_frac() == pytest.approx(0.25)
    assert state(540.0).done_frac() == pytest.approx(0.9)
    assert state(9_999.0).done_frac() == 1.0
    assert state(budget_seconds=None, total_timesteps=None).done_frac() is None


def test_seconds_left_is_the_shortest_estimate() -> None:
    assert state().seconds_left() == pytest.approx(3_000_000 / 20_000)
    assert state(590.0).seconds_left() == pytest.approx(10.0)
    assert state(total_episodes=1_000).seconds_left() == pytest.approx(60.0)
    assert state(budget_seconds=None, steps_per_second=0.0).seconds_left() is None


def test_plain_line_names_everything_and_the_three_top_rules() -> None:
    assert plain_line(state()) == (
        "01:00 (25%) | 02:30 left | 1,000,000 of 4,000,000 steps, 20,000/s | 3.2 passes | "
        "episode reward -1.50 | validation Sharpe +1.23, drawdown 4.2% | "
        "blocked: volatility 15.0%, session 4.0%, drawdown 1.0%"
    )


def test_plain_progress_prints_every_ten_seconds_at_evaluations_and_new_plans() -> None:
    console = WorkbenchConsole(io.StringIO(), width=80)
    progress = console.training_progress()
    assert isinstance(progress, PlainProgress)
    progress.start("10 minutes")
    for elapsed in (0, 4, 8, 12, 16, 21):
        progress.update(state(float(elapsed)))
    progress.update(state(22.0, evaluations=1))
    progress.update(state(23.0, evaluations=1))
    progress.update(state(23.5, evaluations=1, planned_timesteps=5_000_000))
    progress.update(state(24.0, evaluations=1, planned_timesteps=5_000_000))
    progress.stop()
    progress.stop()
    lines = console.log_text.splitlines()
    assert lines[0] == "training: 10 minutes"
    assert [line[:5] for line in lines[1:]] == ["00:00", "00:12", "00:22", "00:24", "00:24"]


def test_plain_progress_writes_one_unbroken_line_an_update() -> None:
    stream = io.StringIO()
    progress = WorkbenchConsole(stream, width=40).training_progress()
    progress.start("10 minutes")
    progress.update(state())
    assert stream.getvalue().splitlines() == ["training: 10 minutes", plain_line(state())]


def test_training_progress_ignores_forced_colour_without_a_terminal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert not WorkbenchConsole(io.StringIO()).is_live


def test_live_progress_draws_on_the_terminal_and_logs_plain_lines(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream = TerminalStream()
    console = WorkbenchConsole(stream, width=80)
    progress = console.training_progress()
    assert isinstance(progress, LiveProgress)
    progress.start("10 minutes")
    progress.update(state())
    progress.stop()
    progress.stop()
    assert "20,000/s, 3.2 passes over the bars" in stream.getvalue()
    assert console.log_text == f"training: 10 minutes\n{plain_line(state())}\n"


def test_live_view_fits_80_columns_and_shows_budget_left() -> None:
    rules = {"short_sale_restriction": 0.99, "maintenance_margin": 0.9, "pattern_day_trader": 0.8}
    console = Console(file=io.StringIO(), width=80)
    with console.capture() as capture:
        console.print(live_view(state(1e5, budget_seconds=1.2e5, blocked=rules), 10.0))
    lines = capture.get().splitlines()
    assert len(lines) == 5
    assert max(map(cell_len, lines)) <= 80
    assert "27:46:50 elapsed, 02:20 left" in lines[0]


def test_live_view_before_the_first_evaluation_says_so() -> None:
    console = Console(file=io.StringIO(), width=80)
    early = state(validation_sharpe=None, blocked={}, budget_seconds=None, total_timesteps=None)
    with console.capture() as capture:
        console.print(live_view(early))
    assert "not evaluated yet" in capture.get()
    assert "masks block nothing" in capture.get()


def test_next_commands_can_be_copied_and_hold_no_secret() -> None:
    address = "trial.storage=postgresql://user:canary-7f3a@host/db"
    console = WorkbenchConsole(io.StringIO(), width=60)
    go_on = command_line(["--multirun", "model.net_arch=[64, 64]", address])
    console.show_next([("a page", command_line(["task=report", "run=x"])), ("go on", go_on)])
    first, second = console.log_text.splitlines()[2:]
    assert shlex.split(first, comments=True) == [
        "python",
        "-m",
        "ppo_workbench",
        "task=report",
        "run=x",
    ]
    assert shlex.split(second, comments=True)[3:5] == ["--multirun", "model.net_arch=[64, 64]"]
    assert "canary" not in console.log_text


def test_waiting_moves_on_a_terminal_and_says_nothing_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    for stream, shown in ((TerminalStream(), True), (io.StringIO(), False)):
        console = WorkbenchConsole(stream, width=80)
        with console.waiting("reading bars"):
            pass
        assert ("reading bars ..." in stream.getvalue()) == shown
        assert console.log_text == ""


def test_no_color_leaves_no_colour_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    stream = TerminalStream()
    WorkbenchConsole(stream, width=80).show_choices([("data", "synthetic")])
    assert "\x1b[3" not in stream.getvalue()


def test_log_is_plain_text_without_trailing_spaces() -> None:
    console = WorkbenchConsole(TerminalStream(), width=80)
    console.show_banner("maskable_ppo")
    console.show_choices([("policy", "MaskablePPO")])
    text = console.log_text
    assert "\x1b" not in text
    assert all(line == line.rstrip() for line in text.splitlines())
