"""Files that are there whole or not at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_beside(path: Path, content: bytes) -> Iterator[Path]:
    """Write a temporary file beside `path`, synced; at the end it is removed if still there.

    Raises:
        OSError: The disk is full or the folder cannot be written.
    """
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            os.fsync(file.fileno())
        yield Path(temporary)
    finally:
        Path(temporary).unlink(missing_ok=True)


def write_whole(path: Path, content: str | bytes) -> None:
    """Replace a file by `content`, whole and synced; after an error the former one stays.

    Raises:
        OSError: The disk is full or the folder cannot be written.
    """
    data = content.encode() if isinstance(content, str) else content
    with written_beside(path, data) as temporary:
        temporary.replace(path)
