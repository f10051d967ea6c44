"""Bars and features of one configuration, kept in the cache folder for the next process.

A study reads the same bars in each trial.  A kept market is one file that is mapped, not read:
its name is a hash of all that the content depends on, the bytes of the user's file among them.  It
ends where the configuration's validation ends, so no test bar is in it.
"""

import hashlib
import json
import mmap
import os
import platform
from dataclasses import asdict, dataclass, fields
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import numpy as np
from pydantic import JsonValue, TypeAdapter, ValidationError
from pydantic_core import to_jsonable_python

from ppo_workbench import plugins
from ppo_workbench.config import Config
from ppo_workbench.config.arrays import Ints
from ppo_workbench.config.files import write_whole
from ppo_workbench.jit import cache_root
from ppo_workbench.market.bars import Bars
from ppo_workbench.market.features import MarketTable
from ppo_workbench.market.sources import SOURCES
from ppo_workbench.market.splits import Split

_T = TypeVar("_T")
_Arrays = dict[str, np.ndarray[Any, Any]]

LEAST_BARS = 20_000  # of fewer, making them is as fast
MOST_BYTES = 2 * 2**30
_SECTIONS = ("data", "features", "splits", "env", "market")
_ALIGNED = 64
_READERS = ("numpy", "pandas", "pyarrow", "exchange_calendars", "numba")


@dataclass(frozen=True)
class PreparedMarket:
    """What a configuration's bars come to, up to the end of its validation split.

    Attributes:
        bars: The bars.
        table: Features and context of the bars.
        splits: `train` and `validation`.
        test_range: UTC nanoseconds of the first and last bar of the test split.
    """

    bars: Bars
    table: MarketTable
    splits: dict[str, Split]
    test_range: tuple[int, int]


def market_key(config: Config) -> str | None:
    """Return the name of a configuration's market, None beside a plug-in, whose code may change.

    It changes with the sections that say what is read and computed, with each byte of the files
    and of this package, and with the versions of what reads them.
    """
    if config.data.source not in SOURCES or plugins.active():
        return None
    digest = hashlib.sha256(_code().encode())
    said = {name: asdict(getattr(config, name)) for name in _SECTIONS}
    digest.update(json.dumps(said, default=str, sort_keys=True).encode())
    for path in (config.data.path, config.data.events_path):
        if path is not None:
            try:
                with Path(path).open("rb") as file:
                    digest.update(hashlib.file_digest(file, "sha256").digest())
            except OSError:  # whoever reads it says why
                return None
    return digest.hexdigest()[:32]


@cache
def _code() -> str:
    digest = hashlib.sha256(platform.machine().encode())
    package = Path(__file__).resolve().parents[1]
    for path in sorted(package.rglob("*.py")):
        digest.update(path.read_bytes())
    for name in _READERS:
        digest.update(version(name).encode())
    return digest.hexdigest()


def read_market(key: str) -> PreparedMarket | None:
    """Return a kept market, None where there is none or its file is damaged."""
    path = _folder() / f"{key}.market"
    try:
        with path.open("rb") as file:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        facts, arrays = _unpacked(content)
        os.utime(path)
        return PreparedMarket(
            _object(Bars, facts["bars"], arrays, "bars."),
            _object(MarketTable, facts["table"], arrays, "table."),
            TypeAdapter(dict[str, Split]).validate_python(facts["splits"]),
            TypeAdapter(tuple[int, int]).validate_python(facts["test_range"]),
        )
    except (OSError, ValueError, KeyError, TypeError, ValidationError):
        return None


def keep_market(key: str, market: PreparedMarket) -> None:
    """Write a market for later processes; where that cannot be, they make it again."""
    if len(market.bars) < LEAST_BARS:
        return
    facts: dict[str, object] = {"splits": market.splits, "test_range": market.test_range}
    arrays: _Arrays = {}
    for name in ("bars", "table"):
        values = vars(getattr(market, name))
        own = {item.name: values[item.name] for item in fields(getattr(market, name))}
        arrays |= {f"{name}.{k}": v for k, v in own.items() if isinstance(v, np.ndarray)}
        facts[name] = {k: v for k, v in own.items() if not isinstance(v, np.ndarray)}
    content = _packed(to_jsonable_python(facts), arrays)
    folder = _folder()
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        _make_room(folder, len(content))
        write_whole(folder / f"{key}.market", content)
    except OSError:
        return


def _folder() -> Path:
    return cache_root() / "markets"


def _make_room(folder: Path, size: int) -> None:
    """Remove the markets that were not used for longest until `size` bytes more may lie there."""
    kept = sorted(folder.glob("*.market"), key=lambda path: path.stat().st_mtime)
    total = sum(path.stat().st_size for path in kept) + size
    for path in kept:
        if total <= MOST_BYTES:
            return
        total -= path.stat().st_size
        path.unlink(missing_ok=True)


def _packed(facts: JsonValue, arrays: _Arrays) -> bytes:
    """Return length of the head, head, arrays at multiples of 64 bytes."""
    rows = {name: np.ascontiguousarray(values) for name, values in arrays.items()}
    body = b"".join(values.tobytes() + bytes(-values.nbytes % _ALIGNED) for values in rows.values())
    shapes = {name: [values.dtype.str, values.shape] for name, values in rows.items()}
    head = json.dumps({"facts": facts, "arrays": shapes, "sum": _sum(body)}).encode()
    head += b" " * (-(len(head) + 8) % _ALIGNED)
    return len(head).to_bytes(8, "little") + head + body


def _unpacked(content: mmap.mmap) -> tuple[dict[str, JsonValue], _Arrays]:
    """Return facts and arrays, which are private copies of the file once written to.

    Raises:
        ValueError: Content and head do not agree.
    """
    first = start = 8 + int.from_bytes(content[:8], "little")
    head = json.loads(content[8:start])
    arrays: _Arrays = {}
    for name, (dtype, shape) in head["arrays"].items():
        count = int(np.prod(shape))
        values = np.frombuffer(content, np.dtype(dtype), count, start)
        arrays[name] = values.reshape(shape)
        start += values.nbytes + -values.nbytes % _ALIGNED
    if start != len(content) or _sum(memoryview(content)[first:]) != head["sum"]:
        raise ValueError("the file is damaged")
    return head["facts"], arrays


def _sum(body: "bytes | memoryview") -> int:
    """Return the sum of 8-byte words: it takes a tenth of what a hash takes, and no attacker."""
    words: Ints = np.frombuffer(body, np.int64)
    return int(words.sum())


def _object(kind: type[_T], facts: JsonValue, arrays: _Arrays, prefix: str) -> _T:
    hints, own = get_type_hints(kind), TypeAdapter(dict[str, object]).validate_python(facts)
    plain = {name: TypeAdapter(hints[name]).validate_python(value) for name, value in own.items()}
    rows = {
        name.removeprefix(prefix): values
        for name, values in arrays.items()
        if name.startswith(prefix)
    }
    return kind(**plain, **rows)
