"""Compile the numeric kernels with numba, with a cache that never goes stale.

numba's own cache notices a change in the file of a kernel, but not in a kernel that it
calls from another file.  So the cache folder is named after a hash of all the sources
that kernels depend on, plug-ins included: any change starts a new folder, and folders that
no process has started with for a month are removed.  Where no folder can be written (a
read-only or full disk) the kernels compile in memory and nothing else changes.
"""

import hashlib
import os
import platform
import re
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
from numba import types
from numba.experimental import structref
from numba.extending import intrinsic

from ppo_workbench import plugins

F = TypeVar("F", bound=Callable[..., Any])

# Threads of OpenMP that wait for each other spin; for as long as is their default, a run that
# shares its cores with other work was measured ten times slower.  Read when OpenMP loads.
os.environ.setdefault("GOMP_SPINCOUNT", "20000")

UNUSED_DAYS = 30
UNUSED_DAYS_WITH_PLUGINS = 1  # whose code changes from hour to hour
WITH_PLUGINS = "-plugins"
BYTES_NEEDED = 50_000_000
_PACKAGE_DIR = Path(__file__).resolve().parent


def source_hash() -> str:
    """Return 16 hex digits that change with any source that compiled code can depend on.

    Those are the files with kernels and whatever they import from this package.
    """
    digest = hashlib.sha256(f"{numba.__version__} {platform.machine()}".encode())
    sources = {path: path.read_bytes() for path in _PACKAGE_DIR.rglob("*.py")}
    waiting = [
        path
        for path, source in sources.items()
        if re.search(rb"^@\w*kernel$", source, re.MULTILINE)
    ]
    found = {Path(__file__).resolve()}
    while waiting:
        path = waiting.pop()
        if path in sources and path not in found:
            found.add(path)
            waiting += _imported_files(sources[path])
    for path in sorted(found):
        digest.update(path.relative_to(_PACKAGE_DIR).as_posix().encode())
        digest.update(sources[path])
    for name, own in plugins.digests().items():
        digest.update(f"{name} {own}".encode())
    return digest.hexdigest()[:16]


def _imported_files(source: bytes) -> list[Path]:
    modules = re.findall(rb"^\s*(?:from|import) ppo_workbench\.([\w.]+)", source, re.MULTILINE)
    places = [_PACKAGE_DIR / name.decode().replace(".", "/") for name in modules]
    files = [place.with_suffix(".py") for place in places]
    return files + [path for place in places if place.is_dir() for path in place.glob("*.py")]


def cache_root() -> Path:
    """Return the folder of everything that the next process would otherwise make again."""
    root = os.environ.get("PPO_WORKBENCH_CACHE")
    base = Path(root) if root else Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser()
    return base / "ppo_workbench"


def _prepare_cache() -> bool:
    """Point numba at a private folder for this version of the sources, if one can be made."""
    kind = WITH_PLUGINS if plugins.active() else ""
    folder = cache_root() / f"kernels-{source_hash()}{kind}"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.chmod(0o700)
        probe = folder / f".write-{os.getpid()}"
        probe.touch()  # a folder's time is that of the last start which used it
        probe.unlink()
        # numba would end the program when it finds no room for its machine code.
        if shutil.disk_usage(folder).free < BYTES_NEEDED and not any(folder.rglob("*.nbc")):
            return False
    except OSError:
        return False
    numba.config.CACHE_DIR = str(folder)  # type: ignore[attr-defined]
    _remove_unused(folder)
    return True


def _remove_unused(own: Path) -> None:
    """Remove the folders of other sources that have not been used for a month, or a day.

    A folder is renamed first: a process that starts with its sources at this moment finds a
    whole folder or none, which numba makes anew.
    """
    for folder in own.parent.glob("kernels-*"):
        short = folder.name.endswith(WITH_PLUGINS)
        days = UNUSED_DAYS_WITH_PLUGINS if short else UNUSED_DAYS
        try:
            if folder == own or folder.stat().st_mtime > time.time() - days * 86_400:
                continue
            doomed = folder.with_name(f"{folder.name.partition('.')[0]}.old-{os.getpid()}")
            folder.rename(doomed)
        except OSError:  # another process was faster, or may and we may not
            continue
        shutil.rmtree(doomed, ignore_errors=True)


CACHE_ENABLED = _prepare_cache()


def kernel(function: F) -> F:
    """Compile `function` in nopython mode, without fast-math: results are reproducible.

    It runs without the GIL, so another thread can import or write meanwhile.

    The annotated Python signature is kept for type checkers.
    """
    return _compiled(function)


def lean_kernel(function: F) -> F:
    """Compile like `kernel`, without counting references to arrays.

    Where small functions hand arrays on at every bar, counting took four fifths of the time.
    Every array has to be the caller's: numba, whose own sort is compiled so, refuses a function
    that makes one or returns a part of one.
    """
    return _compiled(function, _nrt=False)


def _uncounted(context: Any, builder: Any, kind: Any, value: Any) -> Any:
    if isinstance(kind, types.Array):
        array = context.make_array(kind)(context, builder, value)
        array.meminfo = array.meminfo.type(None)
        return array._getvalue()
    if isinstance(kind, types.BaseTuple):
        parts = [
            _uncounted(context, builder, kind[k], builder.extract_value(value, k))  # type: ignore[index]
            for k in range(len(kind))
        ]
        return context.make_tuple(builder, kind, parts)
    return value


@intrinsic
def _borrowed(typing: Any, given: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _uncounted(context, builder, given, arguments[0])

    return given(given), generate


borrowed: Any = _borrowed
"""Return an array, or a tuple with arrays, whose references are not counted.

numba counts them atomically wherever a function hands an array on, a fifth of a backtest.  A
kernel borrows at its start what it was given, for its caller keeps that alive.  Not what it made
itself, which would be freed under it, and nothing borrowed may be returned to Python.
"""


@structref.register
class _KeptType(types.StructRef):
    """A reference to a tuple, as numba's own structures are (numba manual, "structref")."""


class Kept(structref.StructRefProxy):
    """A tuple that kernels take by reference, as `kept.value`; made by `keep`.

    To hand an array to a kernel costs a tenth of a microsecond, to hand fifty of them more than
    all that is computed with them in a bar.  So they are handed over once.
    """

    value: tuple[Any, ...]


structref.define_proxy(Kept, _KeptType, ["value"])  # type: ignore[no-untyped-call]


def direct(function: Callable[..., Any], *example: Any) -> Callable[..., Any]:
    """Return a kernel as compiled for arguments of the types of `example`, without dispatch.

    Telling the types of arguments at each call costs what handing them over does.  Arguments of
    other types are not noticed: for callers that make all of them themselves.
    """
    signature = tuple(map(numba.typeof, example))
    compiled: Any = function
    compiled.compile(signature)
    entry: Callable[..., Any] = compiled.overloads[signature].entry_point
    return entry


def fused_kernel(function: F) -> F:
    """Compile like `kernel`, but let a product and a sum be rounded once (FMA).

    On one kind of processor the results are reproducible; between processors with and
    without the instruction they differ by a rounding.
    """
    return _compiled(function, fastmath={"contract"})


def inlined_kernel(function: F) -> F:
    """Compile like `kernel`, into its callers: a call with many arrays costs by array."""
    return _compiled(function, forceinline=True)


def parallel_kernel(function: F) -> F:
    """Compile like `kernel`, with the loops over `numba.prange` spread over threads."""
    return _compiled(function, parallel=True)


def lean_composed_kernel(source: str, parts: Mapping[str, Callable[..., Any]]) -> Any:
    """Compile the one function that `source` defines, which calls `parts` by their names.

    How parts of a plug-in come into the step: as calls that are known when it is compiled.  Not
    cached by itself, for it has no file; its callers are.
    """
    return _composed(source, parts, _nrt=False)


def composed_kernel(source: str, parts: Mapping[str, Callable[..., Any]]) -> Any:
    """Compile like `lean_composed_kernel`, counting references to arrays."""
    return _composed(source, parts)


def _composed(source: str, parts: Mapping[str, Callable[..., Any]], **options: Any) -> Any:
    known = {name: _compiled(part, **options) for name, part in parts.items()}
    before = set(known)
    exec(source, known)
    (name,) = set(known) - before - {"__builtins__"}
    return _compiled(known[name], cache=False, **options)


def _compiled(function: F, **options: Any) -> F:
    settings = {"cache": CACHE_ENABLED, "error_model": "numpy", "fastmath": False, "nogil": True}
    settings |= options
    compile_: Any = cast(Any, numba.njit)(**settings)
    compiled: F = compile_(function)
    return compiled


@kernel
def keep(value: Any) -> Kept:
    """Hand a tuple to the kernels once: arrays in it stay the ones that are given, not copies."""
    return Kept(value)  # type: ignore[no-untyped-call]
