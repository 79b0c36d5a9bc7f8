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
    from collections.abc import Collection, Mapping, Sequence

    from dbscore.convert.lineage import Visit
    from dbscore.convert.native import Answers, Native
    from dbscore.convert.sample import Column

__all__ = ["Nulls", "decide"]

PROBES = 8
FLOAT32_MAX = float(np.finfo(np.float32).max)
# the largest double that rounds to a finite float32, and the next, which does not
_ROUNDED_MAX = math.nextafter(2.0**128 - 2.0**103, 0.0)
_FLOAT64_MAX = float(np.finfo(np.float64).max)
# a number that numbers in use stay below
_ORDINARY = 2.0**40
# a bound is searched to this fraction, and is never above the true one
_PRECISION = 1e-6
_FEW = 3
_MANY = 16
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
    every = range(len(columns))
    meant = [i for i in every if columns[i].has_missing or any(c in covered for c in spans[i])]
    groups = _alike(columns, seen, spans)
    prober = _Prober(native, probes, columns, groups)
    # probing costs a call: only where the answer decides something
    takes = prober.accepting([i for i in every if i in meant or i in asked], None) if probes else set(meant)
    floats = [i for i in every if columns[i].type in _FLOATS] if probes else []
    infinite = prober.accepting(prober.accepting(floats, math.inf), -math.inf)
    largest = prober.largest([i for i in floats if i not in infinite])
    decisions = []
    for i, column in enumerate(columns):
        policy = NullPolicy.NAN if i in meant and i in takes else NullPolicy.NULL
        if i in asked:
            policy = asked[i]
            if policy is NullPolicy.NAN and probes and i not in takes:
                raise FeatureError(
                    f"null_policy is 'nan' for {column.name}, but the native model refuses a missing value there",
                    remedy="Put an imputer before the model, or leave the policy at 'null'.",
                )
        decisions.append(Nulls(policy=policy, accepts_infinity=i in infinite, largest=largest.get(i)))
    notes = [] if probes else ["no sample to probe: NULL policies follow from the imputers alone"]
    return decisions, notes


def _alike(columns: Sequence[Column], seen: Sequence[Visit], spans: Sequence[range]) -> list[list[int]]:
    """The features in groups of one type that the same estimators see, and thus treat alike but for the values."""
    seers: dict[int, set[int]] = {}
    for visit in seen:
        for origin in visit.columns:
            if origin is not None:
                seers.setdefault(origin.column, set()).add(id(visit.estimator))
    groups: dict[Any, list[int]] = {}
    by_type: dict[Any, list[int]] = {}
    for i, column in enumerate(columns):
        key = frozenset(e for raw in spans[i] for e in seers.get(raw, ()))
        groups.setdefault((column.type, key), []).append(i)
        by_type.setdefault(column.type, []).append(i)
    # the members of a bagging each see columns of their own
    return list((groups if len(groups) <= _MANY else by_type).values())


class _Prober:
    """Asks the native model about many features at once: the calls do not grow with the features where all are alike.

    Where the model refuses a value in all features of a group together, and in three of them alone, it refuses it in
    all of the group: scikit-learn checks a matrix as a whole. To refuse too much is an error, to accept too much a
    wrong answer.
    """

    def __init__(
        self, native: Native, probes: list[tuple[Any, ...]], columns: Sequence[Column], groups: list[list[int]]
    ) -> None:
        self._native = native
        self._probes = probes
        self._columns = columns
        self._groups = groups

    def accepting(self, indexes: Collection[int], value: Any) -> set[int]:  # noqa: ANN401 - any SQL value
        """Return the features in which the model takes the value, with finite answers."""
        asked = set(indexes)
        if not asked or self._takes(sorted(asked), value):
            return asked
        found: set[int] = set()
        for group in self._groups:
            found |= self._accepting([i for i in group if i in asked], value)
        return found

    def _accepting(self, group: list[int], value: Any) -> set[int]:  # noqa: ANN401
        if not group or self._takes(group, value):
            return set(group)
        if len(group) == 1:
            return set()
        some = {group[0], group[len(group) // 2], group[-1]}
        taken = {i for i in some if self._takes([i], value)}
        if not taken or len(group) <= _FEW:
            return taken
        try:
            each = self._native.answer([self._changed(self._probes[0], [i], value) for i in group])
        except Exception:  # noqa: BLE001 - whatever it raises, it refuses
            middle = len(group) // 2
            return self._accepting(group[:middle], value) | self._accepting(group[middle:], value)
        return {i for i, fine in zip(group, _finite(each), strict=True) if fine}

    def largest(self, indexes: Collection[int]) -> dict[int, float]:
        """Return a magnitude that the model takes in these features, and none larger; without those that take any.

        Features that are alike have one bound: the least of theirs.
        """
        found: dict[int, float] = {}
        for group in self._groups:
            asked = [i for i in group if i in set(indexes)]
            bound = self._largest(asked) if asked else None
            if bound is not None:
                found |= dict.fromkeys(asked, bound)
        return found

    def _largest(self, group: list[int]) -> float | None:
        high = _FLOAT64_MAX if self._columns[group[0]].type in _WIDE else FLOAT32_MAX
        # what an encoder refuses is a value that it does not know, whatever its size
        if not self._refuses(group, high) or self._refuses(group, _ORDINARY):
            return None
        low = _ORDINARY
        if high > _ROUNDED_MAX:
            if self._refuses(group, _ROUNDED_MAX):
                high = _ROUNDED_MAX
            else:
                low = _ROUNDED_MAX
                # scikit-learn's trees refuse what float32 cannot hold
                if self._refuses(group, math.nextafter(low, math.inf)):
                    return low
        while high / low > 1 + _PRECISION:
            middle = math.sqrt(low) * math.sqrt(high)
            low, high = (low, middle) if self._refuses(group, middle) else (middle, high)
        return low

    def _refuses(self, group: list[int], size: float) -> bool:
        # a logarithm refuses one sign, which is no matter of size
        for value in (size, -size):
            try:
                self._native.answer([self._changed(row, group, value) for row in self._probes[:1]])
            except Exception:  # noqa: BLE001, S112 - whatever it raises, it refuses
                continue
            return False
        return True

    def _takes(self, group: list[int], value: Any) -> bool:  # noqa: ANN401
        try:
            answers = self._native.answer([self._changed(row, group, value) for row in self._probes])
        except Exception:  # noqa: BLE001 - whatever it raises, it refuses
            return False
        return bool(_finite(answers).all())

    def _changed(self, row: tuple[Any, ...], group: list[int], value: Any) -> tuple[Any, ...]:  # noqa: ANN401
        changed = list(row)
        for i in group:
            column = self._columns[i]
            changed[i] = [value] * column.width if column.type.is_array and value is not None else value
        return tuple(changed)


def _finite(answers: Answers) -> np.ndarray[Any, Any]:
    """Whether each row's numbers are finite, shape (rows,)."""
    fine = np.ones(len(answers.predictions), dtype=bool)
    for array in (answers.predictions, answers.probabilities):
        if array is not None and array.dtype.kind == "f":
            fine &= np.isfinite(array).reshape(len(fine), -1).all(axis=1)
    return fine


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
