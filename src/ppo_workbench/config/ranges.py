"""Ranges that several sections share."""

from typing import Annotated

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
FolderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]*$", max_length=200)]
