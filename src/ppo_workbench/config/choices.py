"""The named choices of the configuration; values are what a YAML file holds."""

from enum import Enum


class Task(Enum):
    """What one command does."""

    train = "train"
    evaluate = "evaluate"
    analyse = "analyse"
    compare = "compare"
    report = "report"
    power = "power"
    export = "export"
    decide = "decide"
    paper = "paper"
    promote = "promote"
    rollback = "rollback"
    verify = "verify"
    audit = "audit"
    check_data = "check_data"
    deliver_records = "deliver_records"


class PromotionProfile(Enum):
    """Which gates a promotion asks for (docs/promotion.md)."""

    production = "production"
    targets = "targets"
    research = "research"


class TimestampConvention(Enum):
    """What a bar's stamp marks."""

    bar_start = "bar_start"
    bar_end = "bar_end"


class Keep(Enum):
    """Which copy of a bar that comes several times is kept."""

    first = "first"
    last = "last"


class Adjust(Enum):
    """How prices are adjusted: not, for the splits that a column names, or by adjusted closes."""

    none = "none"
    splits = "splits"
    adj_close = "adj_close"


class Volume(Enum):
    """What the volume of a series counts; only what was traded says how much can be."""

    traded = "traded"
    ticks = "ticks"
    none = "none"


class ActionSet(Enum):
    """How action indices move the position (docs/glossary.md)."""

    step = "step"
    target = "target"


class Sizing(Enum):
    """What an order of a level is worth (docs/rules.md)."""

    level = "level"
    volatility = "volatility"


class Fill(Enum):
    """Where an order decided at the close of bar t is filled."""

    next_open = "next_open"
    next_close = "next_close"


class ForbiddenAction(Enum):
    """What happens to regulatory and house rules that an unmasked agent breaks."""

    reject = "reject"
    execute = "execute"


class Severity(Enum):
    """Who forbids: the broker or exchange, a regulator, or the house's own risk policy."""

    impossible = "impossible"
    regulatory = "regulatory"
    house = "house"


class ModelType(Enum):
    """Which algorithm is trained."""

    maskable_ppo = "maskable_ppo"
    ppo = "ppo"


class Learner(Enum):
    """Who runs the algorithm: jitted kernels, or stable-baselines3 as it is."""

    native = "native"
    sb3 = "sb3"


class Select(Enum):
    """Which checkpoint becomes the artefact."""

    best = "best"
    last = "last"


class ScoredSplit(Enum):
    """Which bars `task=evaluate` scores; `test` and `all` are accesses to the test."""

    train = "train"
    validation = "validation"
    test = "test"
    all = "all"


class Schedule(Enum):
    """How a hyperparameter changes over the training budget."""

    constant = "constant"
    linear = "linear"


class Protocol(Enum):
    """How train, validation and test are laid out (docs/protocols.md)."""

    holdout = "holdout"
    walk_forward_anchored = "walk_forward_anchored"
    walk_forward_rolling = "walk_forward_rolling"
    purged_kfold = "purged_kfold"
    cpcv = "cpcv"


class Activation(Enum):
    """Activation of the hidden layers."""

    tanh = "tanh"
    relu = "relu"


class LineFormat(Enum):
    """How bars are written, one a line."""

    jsonl = "jsonl"
    csv = "csv"


class AccountSource(Enum):
    """Whose account a decision is made for."""

    simulated = "simulated"
    given = "given"
