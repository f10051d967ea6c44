"""Compile the numeric kernels with numba, with a cache that never goes stale.

numba's own cache notices a change in the file of a kernel, but not in a kernel that it
calls from another file.  So the cache folder is named after a hash of every source file
of the package: any change starts a new folder.  Where no folder can be written (a
read-only disk) the kernels compile in memory and nothing else changes.
"""

import hashlib
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numba

F = TypeVar("F", bound=Callable[..., Any])

_PACKAGE_DIR = Path(__file__).resolve().parent


def source_hash() -> str:
    """Return 16 hex digits that change with any source file of the package."""
    digest = hashlib.sha256(f"{numba.__version__} {platform.machine()}".encode())
    for path in sorted(_PACKAGE_DIR.rglob("*.py")):
        if b"kernel" in (source := path.read_bytes()):
            digest.update(path.relative_to(_PACKAGE_DIR).as_posix().encode())
            digest.update(source)
    return digest.hexdigest()[:16]


def _prepare_cache() -> bool:
    """Point numba at a private folder for this version of the sources, if one can be made."""
    root = os.environ.get("PPO_WORKBENCH_CACHE")
    base = Path(root) if root else Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser()
    folder = base / "ppo_workbench" / f"kernels-{source_hash()}"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.chmod(0o700)
        probe = folder / f".write-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError:
        return False
    numba.config.CACHE_DIR = str(folder)  # type: ignore[attr-defined]
    return True


CACHE_ENABLED = _prepare_cache()


def kernel(function: F) -> F:
    """Compile `function` in nopython mode, without fast-math: results are reproducible.

    The annotated Python signature is kept for type checkers.
    """
    compile_: Any = numba.njit(cache=CACHE_ENABLED, fastmath=False, error_model="numpy")
    compiled: F = compile_(function)
    return compiled
