"""A Trace as a parquet file: for a report, an audit or any other tool, and back bit for bit."""

import io
import json
from dataclasses import fields
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from ppo_workbench.config.files import write_whole
from ppo_workbench.scoring.trace import Trace, TraceError

META = b"ppo_workbench.trace"
_FORMAT_VERSION = 2


class _Header(TypedDict):
    """Dimensions of the arrays by name, and what else a trace has."""

    format_version: int
    arrays: dict[str, int]
    values: dict[str, object]


def write_trace(trace: Trace, path: Path) -> None:
    """Write one row per decision; two-dimensional arrays become columns `NAME.0`, `NAME.1`, ...

    Args:
        trace: What a policy did.
        path: File, replaced whole or not at all.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns: dict[str, np.ndarray[Any, Any]] = {}
    header: _Header = {"format_version": _FORMAT_VERSION, "arrays": {}, "values": {}}
    for item in fields(Trace):
        value = getattr(trace, item.name)
        if not isinstance(value, np.ndarray):
            header["values"][item.name] = value
            continue
        header["arrays"][item.name] = value.ndim
        if value.ndim == 1:
            columns[item.name] = value
        else:
            columns |= {f"{item.name}.{k}": value[:, k].copy() for k in range(value.shape[1])}
    table = pa.table({name: pa.array(values) for name, values in columns.items()})
    table = table.replace_schema_metadata({META: json.dumps(header).encode()})
    content = io.BytesIO()
    pq.write_table(table, content, compression="zstd")
    write_whole(path, content.getvalue())


def read_trace(path: Path) -> Trace:
    """Read what `write_trace` wrote.

    Raises:
        TraceError: The file is missing, or is not a trace of this format.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
        header: _Header = json.loads((table.schema.metadata or {})[META])
        if header["format_version"] != _FORMAT_VERSION:
            raise KeyError("format_version")
    except (OSError, pa.ArrowInvalid, KeyError, ValueError) as error:
        raise TraceError(f"{path}: is no trace file of this version ({error})") from None
    values: dict[str, Any] = {name: _tuples(value) for name, value in header["values"].items()}
    for name, dimensions in header["arrays"].items():
        if dimensions == 1:
            values[name] = table[name].to_numpy()
        else:
            own = [c for c in table.column_names if c.rpartition(".")[0] == name]
            values[name] = np.stack([table[column].to_numpy() for column in own], axis=1)
    return Trace(**values)


def _tuples(value: Any) -> Any:
    """Turn JSON's lists back into tuples."""
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
