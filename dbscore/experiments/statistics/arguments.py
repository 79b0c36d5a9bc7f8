"""What the statistics refuse to compute with, and how they say so."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from dbscore.errors import ExperimentError

if TYPE_CHECKING:
    from collections.abc import Sized

__all__ = [
    "Booleans",
    "Floats",
    "booleans",
    "floats",
    "refused",
    "require_positive",
    "require_same_length",
    "require_share",
]

Floats: TypeAlias = npt.NDArray[np.float64]
Booleans: TypeAlias = npt.NDArray[np.bool_]


def refused(message: str, *, remedy: str) -> ExperimentError:
    """Return the error for an argument that makes no sense, to be raised.

    Args:
        message: What was wrong, with the offending value.
        remedy: What to pass instead.
    """
    return ExperimentError(message, remedy=remedy)


def require_share(name: str, value: float) -> None:
    """Refuse what is not strictly between 0 and 1.

    Args:
        name: The argument's.
        value: A significance level, a power, a quantile or a proportion.

    Raises:
        ExperimentError: It is 0 or less, 1 or more, or NaN.
    """
    if not 0 < value < 1:
        raise refused(f"{name} is {value}", remedy="It is a share: more than 0 and less than 1.")


def require_positive(name: str, value: float) -> None:
    """Refuse what is not a finite number above 0.

    Args:
        name: The argument's.
        value: Of any unit.

    Raises:
        ExperimentError: It is 0 or less, infinite or NaN.
    """
    if not (value > 0 and math.isfinite(value)):
        raise refused(f"{name} is {value}", remedy="It is a finite number above 0.")


def require_same_length(**arrays: Sized) -> None:
    """Refuse arrays that are not about the same units.

    Args:
        arrays: By the arguments' names.

    Raises:
        ExperimentError: Two of them have different lengths.
    """
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name} has {length}" for name, length in lengths.items())
        raise refused(f"different numbers of units: {told}", remedy="Pass one value per unit, in the same order.")


def floats(name: str, values: npt.ArrayLike) -> Floats:
    """Return numbers as a float64 array.

    Args:
        name: The argument's.
        values: Shape (n_units,), of any numeric dtype.

    Returns:
        Shape (n_units,), float64, all of it finite.

    Raises:
        ExperimentError: It has another shape, or something in it is NULL, NaN or infinite.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1:
        raise refused(f"{name} has {array.ndim} dimensions", remedy="Pass one number per unit.")
    wrong = int(np.count_nonzero(~np.isfinite(array)))
    if wrong:
        raise refused(f"{wrong} of {len(array)} values of {name} are NULL, NaN or infinite", remedy="Leave them out.")
    return array


def booleans(name: str, values: npt.ArrayLike) -> Booleans:
    """Return labels as booleans.

    Args:
        name: The argument's.
        values: Shape (n_units,): booleans, or numbers that are 0 or 1.

    Returns:
        Shape (n_units,).

    Raises:
        ExperimentError: It has another shape, or holds something else.
    """
    array = floats(name, values)
    others = array[(array != 0) & (array != 1)]
    if len(others):
        raise refused(f"{name} holds {others[0]:g}", remedy="Labels are 0 or 1, false or true.")
    return np.asarray(array == 1)
