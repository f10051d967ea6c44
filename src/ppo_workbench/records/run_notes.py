"""What a run's list and its page in MLflow show first: four figures, a table, the report."""

import json
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean

from ppo_workbench.scoring.documents import Card
from ppo_workbench.scoring.figures import (
    figure_title,
    interval_text,
    invalid_trades,
    is_told,
    of_card,
    shown,
    unit_of,
)

NOTE = "mlflow.note.content"
HEADLINE = ("sharpe_annual", "max_drawdown_frac", "win_rate_frac")
INVALID = "invalid_trades"
_TOLD = (*HEADLINE, "annual_return_frac", "n_trades", "exposure_mean_abs")
VIEW = "workbench"
COLUMNS = (
    *(f"metrics.`{name}`" for name in (*HEADLINE, INVALID)),
    *("tags.`study`", "tags.`status`", "tags.`overrides`"),
)
# MLflow has no default columns that can be set, only shared views of an experiment, by address.
EXPERIMENT_TAGS = {
    "mlflow.experimentKind": "custom_model_development",
    f"mlflow.sharedViewState.{VIEW}": json.dumps({"selectedColumns": list(COLUMNS)}),
    NOTE: "[Open the list with Sharpe ratio, drawdown, win rate, invalid trades, study and status "
    "as columns](#/experiments/{experiment}/runs?viewStateShareKey=" + VIEW + ")",
}


def headline_metrics(cards: Sequence[Card]) -> dict[str, float]:
    """Return the figures of a run's columns, means over its scorecards; none that means nothing.

    Args:
        cards: Flat scorecards of the split that the run is judged by, one a seed.
    """
    if not cards:
        return {}
    told = [name for name in HEADLINE if is_told(cards, name)]
    found = {name: fmean(card[name] for card in cards) for name in told}
    return found | {INVALID: fmean(_invalid(card) for card in cards)}


def run_note(cards: Mapping[str, Card], lines: Iterable[str] = ()) -> str:
    """Return the description of a run: its scorecards as a table, then lines of text.

    Args:
        cards: Column's heading -> flat scorecard.
        lines: Where the report is, and the like; markdown.
    """
    head = f"| (95 % interval over days) | {' | '.join(cards)} |"
    table = [head, f"|---|{'---:|' * len(cards)}"] if cards else []
    for name in _TOLD if cards else ():
        cells = " | ".join(_cell(card, name) for card in cards.values())
        table.append(f"| {figure_title(name)} | {cells} |")
    if cards:
        invalid = " | ".join(f"{_invalid(card):,}" for card in cards.values())
        table.append(f"| Invalid trades | {invalid} |")
    return "\n".join(table) + "\n\n" + "\n\n".join(lines)


def _cell(card: Card, name: str) -> str:
    own = of_card(card, name)
    span = interval_text(own.low, own.high)
    return shown(own.value, unit_of(name)) + (f" ({span})" if span else "")


def _invalid(card: Card) -> int:
    """Return the orders that broke a rule, carried out or rejected."""
    return sum(invalid_trades([card]).values())
