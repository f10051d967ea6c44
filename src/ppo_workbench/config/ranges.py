"""Ranges that several sections share."""

from typing import Annotated, TypeVar

from pydantic import Field

Fraction = Annotated[float, Field(ge=0, le=1)]
Bps = Annotated[float, Field(ge=0, le=10_000)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
CountOrZero = Annotated[int, Field(ge=0)]

FourLoadings = Annotated[list[float], Field(min_length=4, max_length=4)]
FourPositive = Annotated[list[Positive], Field(min_length=4, max_length=4)]
FourRates = Annotated[list[NonNegative], Field(min_length=4, max_length=4)]

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=60)]
Horizon = CountOrZero | None  # null: follows from the bars (market/horizons.py)

FolderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]*$", max_length=200)]

T = TypeVar("T")


def settled(value: T | None) -> T:
    """Return a value that `trading.experiment` fills in from bars; null is a bug of the caller."""
    assert value is not None, "a value that follows from the bars is null: prepare(...) fills it in"
    return value
