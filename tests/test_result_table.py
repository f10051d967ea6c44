"""The table at the end of a training: its columns, its width and its colours."""

import io
import re
from typing import Any
from unittest.mock import Mock

import pytest
from rich.cells import cell_len
from tests.learning.test_progress import TerminalStream

from ppo_workbench.learning.progress import WorkbenchConsole
from ppo_workbench.pipeline.train.result_table import show_results
from ppo_workbench.scoring.metrics import Scorecard


def _card(sharpe: tuple[float, float, float], rest: tuple[float, ...], violations: int) -> Any:
    names = (
        *("sharpe_annual", "sharpe_low_95", "sharpe_high_95", "annual_return_frac"),
        *("max_drawdown_frac", "win_rate_frac", "n_trades", "exposure_mean_abs"),
    )
    figures = dict(zip(names, (*sharpe, *rest), strict=True))
    return Mock(spec=Scorecard, violations={"house": violations}, **figures)


WON = _card((2.1, 1.06, 3.14), (-0.073, 0.0421, 0.684, 12_345, 0.45), 7)
LOST = _card((-2.1, -3.1, -1.1), (-0.2, 0.1, 0.5, 1, 0.1), 0)
HEADS = ("Sharpe", "interval", "return", "drawdown", "rate", "trades", "exposure", "violations")


@pytest.mark.parametrize("width", [80, 100, 140])
def test_results_fit_the_width_with_whole_words(width: int) -> None:
    stream = io.StringIO()
    console = WorkbenchConsole(stream, width=width)
    policies = ("MaskablePPO, last", "threshold rule", "random-legal", "buy-and-hold", "flat")
    show_results(console, {name: {"train": WON, "validation": WON} for name in policies})
    text = stream.getvalue()
    assert max(map(cell_len, text.splitlines())) <= width
    assert "…" not in text
    assert "-\n" not in text
    heads = [line.split()[1:] for line in text.splitlines() if line.startswith("policy")]
    assert heads == [[head for head in HEADS if width > 80 or head != "return"]] * 2
    for figure in ("+2.10", "+1.1 +3.1", "4.2%", "68%", "12,345", "0.45", "7"):
        assert text.count(figure) >= 2 * len(policies)
    assert text.count("-7.3%") == (0 if width == 80 else 2 * len(policies))
    assert text.splitlines()[-1] == "test split: closed"


def _coloured(monkeypatch: pytest.MonkeyPatch, **variables: str) -> str:
    for name, value in {"TERM": "xterm-256color", **variables}.items():
        monkeypatch.setenv(name, value)
    stream = TerminalStream()
    console = WorkbenchConsole(stream, width=100)
    show_results(console, {"winner": {"validation": WON}, "loser": {"validation": LOST}})
    return stream.getvalue()


def test_results_are_coloured_by_sign_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    text = _coloured(monkeypatch)
    for figure, colour in {
        "+2.10": 32,
        "-2.10": 31,
        "+1.1 +3.1": 32,
        "-20.0%": 31,
        "7": 31,
    }.items():
        assert re.search(rf"\x1b\[{colour}m *{re.escape(figure)}\x1b", text), figure


def test_results_have_no_colour_where_none_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\x1b[3" not in _coloured(monkeypatch, NO_COLOR="1")


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (LOST, "on validation threshold rule (+2.10), flat (+2.10) did better than MaskablePPO ("),
        (WON, "on validation no simple policy has a higher Sharpe ratio than MaskablePPO"),
    ],
)
def test_results_say_which_simple_policies_did_better(model: Any, said: str) -> None:
    stream = io.StringIO()
    cards = {"MaskablePPO": model, "MaskablePPO, last": WON, "threshold rule (tuned)": WON}
    cards |= {"buy-and-hold": LOST, "flat": WON}
    scores = {name: {"validation": card} for name, card in cards.items()}
    show_results(WorkbenchConsole(stream, width=140), scores)
    assert said in stream.getvalue()
