"""A fault of a file: one kind of it, at all of its rows, so that a check can name them all."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from ppo_workbench.config import BarsError
from ppo_workbench.config.arrays import Bools, Ints

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
        rows: Sequence[int] | Ints = (),
        fix: Mapping[str, object] = NO_FIX,
    ) -> None:
        """Say it in one sentence: rule, value, remedy."""
        super().__init__(sentence)
        self.kind, self.rows, self.fix = kind, [int(row) for row in rows], dict(fix)


def refuse(
    broken: Bools,
    labels: Any,
    kind: str,
    say: Callable[[int], str],
    fix: Mapping[str, object] = NO_FIX,
) -> None:
    """Raise a Fault if one of T rows, whose data rows `labels` names, is broken.

    `say` makes the sentence from the position of the first.
    """
    if broken.any():
        at = np.flatnonzero(broken)
        raise Fault(say(int(at[0])), kind, np.asarray(labels)[at], fix)


def refuse_values(
    label: str,
    labels: Any,
    name: str,
    values: Any,
    broken: Bools,
    rule: str,
) -> None:
    """Raise a Fault for values of a column that break a rule, if there are any."""

    def say(row: int) -> str:
        value = values[row]
        shown = f"{value:g}" if isinstance(value, float) else repr(str(value)[:40])
        return f"{label}: data row {labels[row]} has {name}={shown}, but {rule}"

    refuse(broken, labels, f"bad {name}", say)
