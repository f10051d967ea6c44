"""What a comparison writes as JSON: its document, and what each of its cells leaves.

Where every number is finite or None a page reads the same keys.
"""

from collections.abc import Mapping, Sequence
from typing import NotRequired, TypedDict

Card = Mapping[str, float]  # a flat scorecard, or a part of one
Figures = dict[str, float | None]  # the same where a number is not finite


class Summary(TypedDict):
    """A figure over runs: mean and median with their 95 % intervals."""

    values: list[float]
    mean: float
    low: float | None
    high: float | None
    median: float
    median_low: float | None
    median_high: float | None


Summaries = dict[str, dict[str, Summary]]  # arm -> figure -> summary


class PairedDifference(TypedDict):
    """`first` minus `second` in one figure; `p_holm` answers for all pairs of it together."""

    first: str
    second: str
    figure: str
    method: str
    estimate: float
    low: float | None
    high: float | None
    p_value: float | None
    p_holm: NotRequired[float]
    excludes_zero: bool
    decided: bool
    better_in: int | None
    runs: int


class TargetVerdict(TypedDict):
    """What is said of one target of the specification for one arm."""

    arm: str
    figure: str
    target: float
    sense: str
    value: float
    low: float | None
    high: float | None
    verdict: str
    years_to_decide: float | None
    median: float
    median_low: float | None
    median_high: float | None
    median_verdict: str | None
    trades_enough: bool


class SeedVerdict(TypedDict):
    """One seed's figures, whether it holds the targets, and how it went wrong."""

    seed: int
    validation: Card
    test: Card
    meets_on_validation: bool
    meets_on_test: bool
    entropy_nats: float | None
    diverged: list[str]
    failures: list[str]


class Stability(TypedDict):
    """How many seeds of an arm hold all targets, diverge or fail."""

    runs: int
    validation_years: float
    meet_on_validation: int
    meet_on_test: int
    diverged: int
    failed: int
    seeds: list[SeedVerdict]


class AboveZero(TypedDict):
    """Probability that the true Sharpe ratio is above 0, over the runs of an arm."""

    median: float
    lowest: float
    runs: int


class AuditCounts(TypedDict):
    """What independent audits counted, and the rules that no check knows."""

    violations: int
    by_rule: dict[str, int]
    unaudited: list[str]


class BreakEvenPart(TypedDict):
    """A `stress.BreakEven` with its multiple."""

    cost_bps: float | None
    verdict: str
    cap_bps: float
    configured_bps: float
    multiple_of_configured: float | None


class ScenarioPart(TypedDict):
    """A scorecard under changed conditions."""

    change: str
    figures: Figures


class StressPart(TypedDict):
    """A `stress.Stress`."""

    policy: str
    split: str
    scenarios: dict[str, ScenarioPart]
    break_even: BreakEvenPart
    whole: Figures
    by_regime: dict[str, Figures]
    by_hour: dict[str, Figures]
    by_year: dict[str, Figures]


class MarketPart(TypedDict):
    """What an arm was scored on; of a single model without the dates of a test."""

    name: str
    instrument: str
    bar_seconds: int
    test_start: NotRequired[str]
    test_stop: NotRequired[str]
    sessions: int
    years: float
    looks: int
    synthetic: bool


class Setup(TypedDict):
    """How the runs were made."""

    timesteps: int
    seeds: Sequence[int]
    markets: list[MarketPart]


class ArmPart(TypedDict):
    """One arm: its key, what a reader calls it, `trained` or `yardstick`."""

    name: str
    title: str
    kind: str
    overrides: list[str]


class OtherMarket(TypedDict):
    """Figures and differences on a market that the report is not about."""

    figures: Summaries
    differences: list[PairedDifference]


class _Always(TypedDict):
    """What the document of a comparison and that of one model have."""

    format_version: int
    name: str
    protocol: str
    setup: Setup
    arms: list[ArmPart]
    cards: Mapping[str, Mapping[str, Sequence[Card]]]
    invalid_trades: dict[str, dict[str, int]]
    audit: dict[str, AuditCounts]
    conclusion: list[str]


class Compared(TypedDict, total=False):
    """What needs enough sessions."""

    method: str
    figures: Summaries
    targets: list[TargetVerdict]
    differences: list[PairedDifference]


class Document(_Always, Compared, total=False):
    """The document of a comparison (docs/comparison.md) or of one model."""

    kind: str
    preset: str
    created_utc: str
    git_commit: str | None
    mlflow_run_id: str | None
    stability: dict[str, Stability]
    seeds: Mapping[str, object] | None
    selection: Mapping[str, object]
    probability_above_zero: dict[str, AboveZero | None]
    other_markets: dict[str, OtherMarket]
    path_sharpes: dict[str, list[list[float]]]
    winner: str
    stress: StressPart | None


class RangePart(TypedDict):
    """First and last bar of a split, ISO 8601 in UTC."""

    start: str
    stop: str


class BarsPart(TypedDict, total=False):
    """A `delivery.metadata.Data`, with the file's unresolved `path`, if any."""

    source: str
    instrument: str
    fingerprint: str
    calendar: str
    timezone: str
    bar_seconds: int
    bars_per_session: int | None
    has_volume: bool
    conventions: Mapping[str, object] | None
    splits: dict[str, RangePart]
    path: str | None


class LookPart(TypedDict):
    """First and last bar of a test, and how many variants had been scored on it."""

    start: str
    stop: str
    looks: int


class CellScores(TypedDict, total=False):
    """What a policy reached; without the card of a test where there are several."""

    validation: Card
    validation_lower_bound: float
    test: Card
    audit: AuditCounts


class CellResult(TypedDict, total=False):
    """`result.json` of a cell; from `training` on of a trained arm, `stress` of its own cell."""

    arm: str
    market: str | None
    seed: int
    fold: int
    instrument: str
    bar_seconds: int
    synthetic: bool
    data: BarsPart
    test: LookPart
    scores: dict[str, CellScores]
    seconds: float
    training: Mapping[str, object]
    curve: list[dict[str, float]]
    entropy_nats: float | None
    finite: bool
    stress: StressPart | None
