"""What a NULL means for each feature, and whether the native model takes infinities."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.impute import KNNImputer, SimpleImputer

from dbscore.errors import FeatureError
from dbscore.signature import NullPolicy, SqlType

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dbscore.convert.lineage import Visit
    from dbscore.convert.native import Native
    from dbscore.convert.sample import Column

__all__ = ["Nulls", "decide"]

PROBES = 8
FLOAT32_MAX = float(np.finfo(np.float32).max)
_HUGE = 1e300
# a power of two that numbers in use stay below
_ORDINARY = 40
_WIDE = (SqlType.DOUBLE, SqlType.DOUBLE_ARRAY)
_FLOATS = (SqlType.REAL, SqlType.DOUBLE, SqlType.REAL_ARRAY, SqlType.DOUBLE_ARRAY)


@dataclass(frozen=True, slots=True, kw_only=True)
class Nulls:
    """What was decided for one feature."""

    policy: NullPolicy
    accepts_infinity: bool
    largest: float | None


def decide(
    native: Native,
    columns: Sequence[Column],
    rows: Sequence[tuple[Any, ...]],
    *,
    seen: Sequence[Visit],
    spans: Sequence[range],
    asked: Mapping[int, NullPolicy],
) -> tuple[list[Nulls], list[str]]:
    """Decide for each feature by asking the native model: it is given rows in which that feature is missing.

    A NULL is a missing value (`nan`) where the model answers such rows, and was fitted for them: the sample has
    missing values there, an imputer covers the feature, or the model is a HistGradientBoosting.

    Args:
        native: The native model.
        columns: The features.
        rows: Sampled rows, values in the features' order; without any nothing is probed.
        seen: Every estimator in the pipeline with the origins of its columns.
        spans: The raw columns of each feature.
        asked: Policies that the caller asked for, by feature index.

    Returns:
        A decision per feature, and notes.

    Raises:
        FeatureError: The caller asked for `nan` where the native model refuses a missing value.
    """
    covered = _covered(seen)
    probes = _complete(rows)
    decisions = []
    for i, column in enumerate(columns):
        meant = column.has_missing or any(c in covered for c in spans[i])
        # probing costs a call: only where the answer decides something
        takes = _takes(native, probes, i, None) if probes and (meant or i in asked) else meant
        policy = NullPolicy.NAN if meant and takes else NullPolicy.NULL
        if i in asked:
            policy = asked[i]
            if policy is NullPolicy.NAN and probes and not takes:
                raise FeatureError(
                    f"null_policy is 'nan' for {column.name}, but the native model refuses a missing value there",
                    remedy="Put an imputer before the model, or leave the policy at 'null'.",
                )
        infinite = column.type in _FLOATS and bool(probes) and _takes_infinity(native, probes, i, column)
        largest = _largest(native, probes, i, column) if probes and column.type in _WIDE else None
        decisions.append(Nulls(policy=policy, accepts_infinity=infinite, largest=largest))
    notes = [] if probes else ["no sample to probe: NULL policies follow from the imputers alone"]
    return decisions, notes


def _covered(seen: Sequence[Visit]) -> set[int]:
    """Raw columns that some estimator was fitted to take missing values in, by what it is."""
    covered: set[int] = set()
    for visit in seen:
        if isinstance(visit.estimator, HistGradientBoostingClassifier | HistGradientBoostingRegressor) or (
            isinstance(visit.estimator, SimpleImputer | KNNImputer) and _is_nan(visit.estimator.missing_values)
        ):
            covered |= {origin.column for origin in visit.columns if origin is not None}
    return covered


def _is_nan(value: Any) -> bool:  # noqa: ANN401 - an imputer's missing_values
    return value is None or type(value).__name__ == "NAType" or (isinstance(value, float) and math.isnan(value))


def _complete(rows: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    whole = [row for row in rows if all(v is not None for v in row)]
    return (whole or list(rows))[:PROBES]


def _takes_infinity(native: Native, probes: list[tuple[Any, ...]], index: int, column: Column) -> bool:
    for value in (math.inf, -math.inf):
        given: Any = [value] * column.width if column.type.is_array else value
        if not _takes(native, probes, index, given):
            return False
    return True


def _largest(native: Native, probes: list[tuple[Any, ...]], index: int, column: Column) -> float | None:
    """The largest magnitude that the model does not refuse; None where it takes 1e300.

    scikit-learn's trees refuse what float32 cannot hold; behind a scaler that bound is another one.
    """

    def refuses(size: float) -> bool:
        # a logarithm refuses one sign, which is no matter of size
        for value in (size, -size):
            given: Any = [value] * column.width if column.type.is_array else value
            try:
                native.answer_changed(probes, index, given)
            except Exception:  # noqa: BLE001, S112 - whatever it raises, it refuses
                continue
            return False
        return True

    if not refuses(_HUGE):
        return None
    if not refuses(FLOAT32_MAX):
        return FLOAT32_MAX
    low, high = _ORDINARY, 127
    if refuses(2.0**low):
        # what an encoder refuses is a value that it does not know, whatever its size
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if refuses(2.0**middle) else (middle, high)
    return 2.0**low


def _takes(native: Native, probes: list[tuple[Any, ...]], index: int, value: Any) -> bool:  # noqa: ANN401
    try:
        answers = native.answer_changed(probes, index, value)
    except Exception:  # noqa: BLE001 - whatever it raises, it refuses
        return False
    for array in (answers.predictions, answers.probabilities):
        if array is not None and array.dtype.kind == "f" and not np.isfinite(array).all():
            return False
    return True
