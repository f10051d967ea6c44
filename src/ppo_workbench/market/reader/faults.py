"""A fault of a file: one kind of it, at all of its rows, so that a check can name them all."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from ppo_workbench.config import BarsError

NO_FIX: Mapping[str, object] = MappingProxyType({})


class Fault(BarsError):
    """One kind of fault in a table.

    Attributes:
        kind: In a word or two.
        rows: Data rows of the file that have it; empty where it concerns the whole file.
        fix: Fields of `DataConfig` that mend it, none where no option does.
    """

    def __init__(
        self,
        sentence: str,
        kind: str = "",
        rows: Sequence[int] | npt.NDArray[np.int64] = (),
        fix: Mapping[str, object] = NO_FIX,
    ) -> None:
        """Say it in one sentence: rule, value, remedy."""
        super().__init__(sentence)
        self.kind, self.rows, self.fix = kind, [int(row) for row in rows], dict(fix)


def refuse(
    broken: npt.NDArray[np.bool_],
    labels: Sequence[int],
    kind: str,
    say: Callable[[int], str],
    fix: Mapping[str, object] = NO_FIX,
) -> None:
    """Raise a Fault if there is a broken row.

    Args:
        broken: bool (T,).
        labels: T data rows of the file.
        kind: Of the fault.
        say: The sentence for the position of the first broken row.
        fix: See `Fault`.
    """
    if broken.any():
        at = np.flatnonzero(broken)
        raise Fault(say(int(at[0])), kind, [labels[i] for i in at.tolist()], fix)
