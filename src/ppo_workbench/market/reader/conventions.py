"""How a user's bars are written: what a stream has to have in common with the file."""

from dataclasses import dataclass, field, fields, replace
from typing import Any

from ppo_workbench.config import Adjust, DataConfig, TimestampConvention, Volume

PRICES = ("open", "high", "low", "close", "volume")
QUOTES = ("bid", "ask")
EVIDENCE = ("adj_close", "split", "dividend")
OURS = ("timestamp", "time", "instrument", *PRICES, *QUOTES, *EVIDENCE)


@dataclass(frozen=True)
class Conventions:
    """What was said of a file (`data.*`) and what was concluded from it.

    Attributes:
        columns: Ours to the file's; `time` only where it is joined to a date, and what the
            file lacks (quotes, an instrument) is not named.
        timezone: IANA name of stamps without an offset.
        timestamp: Stamps mark the start or the end of a bar.
        instrument: Value of the column `instrument` whose rows are read.
        long: The file has rows of other instruments too, which are left out.
        calendar: Name of the calendar.
        bar_seconds: Length of a bar; 86400 for daily ones.
        feature_columns: The user's columns that become features.
        feature_lag_bars: Rows that a feature is older than its bar.
        volume: What it counts; unread if none.
        adjust: How prices are adjusted for splits and dividends.
        separator: Between the fields of text.
        decimal: Point or comma.
        header: Names of the columns of text that has no header row.
    """

    columns: dict[str, str] = field(default_factory=dict)
    timezone: str | None = None
    timestamp: TimestampConvention = TimestampConvention.bar_start
    instrument: str | None = None
    long: bool = False
    calendar: str = "XNYS"
    bar_seconds: int = 60
    feature_columns: tuple[str, ...] = ()
    feature_lag_bars: int = 1
    volume: Volume = Volume.traded
    adjust: Adjust = Adjust.none
    separator: str = ","
    decimal: str = "."
    header: tuple[str, ...] = ()

    @property
    def daily(self) -> bool:
        """Whether a bar is a session."""
        return self.bar_seconds >= 86_400

    def said(self, config: DataConfig) -> "Conventions":
        """Return them with what a command says of a stream that is written otherwise.

        Only what decides how a row is read may differ from the file's, and only where it is
        named: `data.columns`, `data.timezone`, `data.timestamp`, `data.header`.
        """
        said: dict[str, Any] = {"columns": self.columns | dict(config.columns)}
        plain = DataConfig()
        for name in ("timezone", "timestamp", "header"):
            if (value := getattr(config, name)) != getattr(plain, name):
                said[name] = tuple(value) if name == "header" else value
        return replace(self, **said)


def conventions_of(config: DataConfig, **concluded: Any) -> Conventions:
    """Make conventions of what is configured and what was concluded.

    Args:
        config: The user's settings.
        concluded: Further fields of `Conventions`.
    """
    names = [one.name for one in fields(Conventions) if hasattr(config, one.name)]
    values = {name: getattr(config, name) for name in names}
    values |= {"columns": dict(config.columns), "adjust": config.adjust or Adjust.none}
    values |= concluded
    for name in ("feature_columns", "header"):
        values[name] = tuple(values[name])
    return Conventions(**values)
