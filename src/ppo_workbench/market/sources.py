"""Name of a source -> its bars, of those listed here and of plug-ins (docs/extending.md).

A source that cannot deliver raises `BarsError`; nothing ever falls back to synthetic data.
"""

import difflib
import importlib.util
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ppo_workbench.config import BarsError, DataConfig, Volume, WorkbenchError
from ppo_workbench.market.bars import Bars, validate_bars
from ppo_workbench.plugins import refuse_built_in, registered, told_fault

if TYPE_CHECKING:
    from pandas import DataFrame

Source = Callable[[DataConfig], Bars]


def load_bars(config: DataConfig) -> Bars:
    """Load, check and annotate the bars that `config` names.

    Raises:
        BarsError: If the source is unknown, or its bars break a rule.
    """
    bars = _load(config)
    if config.instrument is not None:
        bars = replace(bars, instrument=config.instrument)
    validate_bars(bars)
    bars = _with_volume(bars, config.volume)
    if config.events_path is not None:
        from ppo_workbench.market.events import add_events

        bars = add_events(bars, config.events_path)
    return bars


def _with_volume(bars: Bars, kind: Volume) -> Bars:
    """Say whether the volume tells what was traded, and note what is silent if it does not."""
    if kind is Volume.traded and (bars.volume > 0).any():
        return replace(bars, has_volume=True)
    why = {
        Volume.traded: "no bar has volume",
        Volume.ticks: "volume counts ticks",
        Volume.none: "the series has no volume",
    }[kind]
    note = f"{why}: liquidity, impact and the rule of no fill without volume are silent"
    return replace(bars, has_volume=False, notes=(*bars.notes, note))


def _load(config: DataConfig) -> Bars:
    """Call the source; a fault in that of a plug-in is told as such."""
    own = registered().sources
    refuse_built_in("source", own, SOURCES)
    if config.source in SOURCES:
        return SOURCES[config.source](config)
    if config.source not in own:
        known = [*SOURCES, *own]
        near = difflib.get_close_matches(config.source, known, n=1)
        raise BarsError(
            f"data.source={config.source!r} is unknown; use one of {', '.join(known)}"
            f"{f' (did you mean {near[0]}?)' if near else ''}; that of a plug-in needs plugins=[X]"
        )
    load = own[config.source]
    try:
        bars = load(config)
    except WorkbenchError:
        raise
    except Exception as error:
        told = told_fault(error, load.__module__)
        raise BarsError(f"data.source={config.source}: {told}; correct it") from error
    if not isinstance(bars, Bars):
        raise BarsError(
            f"data.source={config.source}: returned {type(bars).__name__}; return Bars, as "
            "market.reader.table.bars_from_table makes them"
        )
    return bars


def load_synthetic(config: DataConfig) -> Bars:
    """Generate the synthetic minute market of `config.synthetic`."""
    from ppo_workbench.market.synthetic import generate

    return generate(config.synthetic).bars


def _load_index(name: str, instrument: str, config: DataConfig) -> Bars:
    """Load an index, daily 1999-2018, that ships inside the `arch` package (NCSA).

    On 95-98 % of the days of 1999-2005 the open of the S&P 500 equals the prior close: use
    next-close fills.
    """
    from ppo_workbench.market.reader.table import bars_from_table

    # The settings that describe a user's file are about other columns.
    config = replace(config, columns={}, timezone=None, feature_columns=[], header=[])
    return bars_from_table(name, instrument, arch_table(name), config, source=name)


def arch_table(name: str) -> "DataFrame":
    """Return a series of `arch.data` as its own loader does, without importing its models.

    These take seconds to import, in every process that loads bars.

    Args:
        name: Folder and file of the series.

    Raises:
        BarsError: The package is not there.
    """
    import pandas as pd

    package = importlib.util.find_spec("arch")
    if package is None or package.origin is None:
        raise BarsError(
            f"data.source={name} is shipped with the package arch, which is not installed; "
            "install ppo-workbench[research]"
        )
    path = Path(package.origin).parent / "data" / name / f"{name}.csv.gz"
    return pd.read_csv(path, index_col="Date", parse_dates=["Date"])


def _load_file(config: DataConfig) -> Bars:
    """Load the file `data.path`."""
    from ppo_workbench.market.reader.table import load_file as load

    return load(config)


SOURCES: dict[str, Source] = {
    "synthetic": load_synthetic,
    "sp500": partial(_load_index, "sp500", "SP500"),
    "nasdaq": partial(_load_index, "nasdaq", "NASDAQ_COMPOSITE"),
    "file": _load_file,
}
