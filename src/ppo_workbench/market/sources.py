"""Name of a source -> its bars. A new source is one file and one test (docs/extending.md).

A source that is not listed here is the module of its name in the namespace package
`ppo_workbench_sources`, wherever Python finds it: its function `load` takes the `DataConfig`
and returns the `Bars`.  A name can reach no other module, so a stored configuration cannot
run what nobody installed as a source.

A source that cannot deliver raises `BarsError`; nothing ever falls back to synthetic data.
"""

import difflib
import importlib
import importlib.util
import pkgutil
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ppo_workbench.config import BarsError, DataConfig, Volume, WorkbenchError
from ppo_workbench.market.bars import Bars, validate_bars

if TYPE_CHECKING:
    from pandas import DataFrame

Source = Callable[[DataConfig], Bars]
OWN = "ppo_workbench_sources"


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
    """Call the source; a fault in one of the user's own is told as such."""
    load = _find(config.source)
    if config.source in SOURCES:
        return load(config)
    try:
        bars = load(config)
    except WorkbenchError:
        raise
    except Exception as error:
        raise _fault(config.source, error) from error
    if not isinstance(bars, Bars):
        kind = type(bars).__name__
        raise BarsError(
            f"data.source={config.source}: load returned {kind}; return Bars, as "
            "market.reader.table.bars_from_table makes them"
        )
    return bars


def _fault(name: str, error: Exception) -> BarsError:
    """Name what went wrong in a user's own source, and its last line that was reached there."""
    own = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename).name == f"{name}.py"
    ]
    line = error.lineno if isinstance(error, SyntaxError) else own[-1] if own else None
    where = f"{OWN}/{name}.py" + (f", line {line}" if line else "")
    return BarsError(f"data.source={name}: {type(error).__name__} in {where} ({error}); mend it")


def _find(name: str) -> Source:
    """Return the source of a name, listed here or of the user's own."""
    if name in SOURCES:
        return SOURCES[name]
    own = _own_sources()
    if name not in own:
        known = [*SOURCES, *own]
        near = difflib.get_close_matches(name, known, n=1)
        raise BarsError(
            f"data.source={name!r} is unknown; use one of {', '.join(known)}"
            f"{f' (did you mean {near[0]}?)' if near else ''}"
        )
    try:
        module = importlib.import_module(f"{OWN}.{name}")
    except Exception as error:
        raise _fault(name, error) from error
    load: Source | None = getattr(module, "load", None)
    if load is None:
        raise BarsError(f"data.source={name!r}: {OWN}/{name}.py has no function load; define it")
    return load


def _own_sources() -> list[str]:
    """Return the names of the modules in the user's namespace package, none without one."""
    try:
        package = importlib.import_module(OWN)
    except ModuleNotFoundError:
        return []
    return sorted(module.name for module in pkgutil.iter_modules(package.__path__))


def load_synthetic(config: DataConfig) -> Bars:
    """Generate the synthetic minute market of `config.synthetic`."""
    from ppo_workbench.market.synthetic import generate

    return generate(config.synthetic).bars


def load_sp500(config: DataConfig) -> Bars:
    """Load the S&P 500 index, daily 1999-2018, that ships inside the `arch` package (NCSA).

    On 95-98 % of the days of 1999-2005 the open equals the prior close: use next-close fills.
    """
    from ppo_workbench.market.reader.table import bars_from_table

    return bars_from_table("sp500", "SP500", arch_table("sp500"), _plain(config), source="sp500")


def load_nasdaq(config: DataConfig) -> Bars:
    """Load the Nasdaq Composite index, daily 1999-2018, that ships inside `arch` (NCSA)."""
    from ppo_workbench.market.reader.table import bars_from_table

    table = arch_table("nasdaq")
    return bars_from_table("nasdaq", "NASDAQ_COMPOSITE", table, _plain(config), source="nasdaq")


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


def _plain(config: DataConfig) -> DataConfig:
    """Drop the settings that describe a user's file: they are about other columns."""
    return replace(config, columns={}, timezone=None, feature_columns=[], header=[])


SOURCES: dict[str, Source] = {
    "synthetic": load_synthetic,
    "sp500": load_sp500,
    "nasdaq": load_nasdaq,
    "file": _load_file,
}
