"""The result table at the end of a training: every policy on the open splits."""

from collections.abc import Mapping

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from ppo_workbench.learning.progress import WorkbenchConsole
from ppo_workbench.pipeline.train.scores import Scores
from ppo_workbench.scoring.metrics import Scorecard

RETURN = "annual\nreturn"
GAIN, LOSS = "green", "red"


def show_results(console: WorkbenchConsole, scores: Scores) -> None:
    """Print a table for each split; where columns are few, without the annual return.

    Policies and splits appear in the order of the scores.
    """
    for split in dict.fromkeys(split for cards in scores.values() for split in cards):
        own = {policy: cards[split] for policy, cards in scores.items() if split in cards}
        console.show(_SplitTable(split, own))
        console.show()
    console.show("Sharpe: annual, from daily returns over cash, with its 95 % interval over days")
    for label, detail in dict(map(_label, scores)).items():
        if detail:
            console.show(f"{label}: {detail}")
    console.show(_against_simple(scores))
    console.show("test split: closed")


def _against_simple(scores: Scores) -> str:
    """Say which policies that learned nothing did better than the model, the first of all."""
    own, *others = scores
    sharpe = {name: cards["validation"].sharpe_annual for name, cards in scores.items()}
    simple = [name for name in others if not name.startswith(own)]
    better = [name for name in simple if sharpe[name] > sharpe[own]]
    named = ", ".join(f"{_label(name)[0]} ({sharpe[name]:+.2f})" for name in better)
    if not named:
        return f"on validation no simple policy has a higher Sharpe ratio than {_label(own)[0]}"
    return f"on validation {named} did better than {_label(own)[0]} ({sharpe[own]:+.2f})"


class _SplitTable:
    """The policies on one split, as wide as its console lets it be."""

    def __init__(self, split: str, cards: Mapping[str, Scorecard]) -> None:
        self._split, self._cards = split, cards

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        wide = self._table(returns=True)
        # Measured without a limit: within the console's options every table "fits".
        needed = Measurement.get(console, options.update(max_width=10_000), wide).maximum
        yield wide if needed <= options.max_width else self._table(returns=False)

    def _table(self, *, returns: bool) -> Table:
        table = Table(box=None, padding=(0, 2 if returns else 1, 0, 0), header_style="bold")
        table.add_column(f"{self._split}\npolicy", no_wrap=True)
        rows = {policy: _cells(card) for policy, card in self._cards.items()}
        if not returns:
            for cells in rows.values():
                del cells[RETURN]
        for name in next(iter(rows.values())):
            table.add_column(name, justify="right", no_wrap=True, vertical="bottom")
        for policy, cells in rows.items():
            table.add_row(Text(_label(policy)[0]), *cells.values())
        return table


def _label(policy: str) -> tuple[str, str]:
    """Split "threshold rule (against ...)" into what the table has room for and the rest."""
    label, _, detail = policy.partition(" (")
    return label, detail.removesuffix(")")


def _cells(card: Scorecard) -> dict[str, Text]:
    """Return the figures by heading, coloured by sign; an interval only if it leaves 0 out."""
    low, high = card.sharpe_low_95, card.sharpe_high_95
    violations = sum(card.violations.values())
    return {
        "annual\nSharpe": _signed(f"{card.sharpe_annual:+.2f}", card.sharpe_annual),
        "95 %\ninterval": _signed(f"{low:+.1f} {high:+.1f}", max(low, 0.0) + min(high, 0.0)),
        RETURN: _signed(f"{card.annual_return_frac:+.1%}", card.annual_return_frac),
        "max\ndrawdown": Text(f"{card.max_drawdown_frac:.1%}"),
        "win\nrate": Text(f"{card.win_rate_frac:.0%}" if card.n_trades else "-"),
        "trades": Text(f"{card.n_trades:,}"),
        "exposure": Text(f"{card.exposure_mean_abs:.2f}"),
        "violations": _signed(f"{violations:,}", -violations),
    }


def _signed(text: str, value: float) -> Text:
    return Text(text, style=GAIN if value > 0 else LOSS if value < 0 else "")
