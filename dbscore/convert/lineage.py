"""Which raw feature each estimator inside a pipeline sees in each of its columns."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    AdaBoostClassifier,
    AdaBoostRegressor,
    BaggingClassifier,
    BaggingRegressor,
    StackingClassifier,
    StackingRegressor,
    VotingClassifier,
    VotingRegressor,
)
from sklearn.feature_selection import SelectorMixin
from sklearn.impute import KNNImputer, SimpleImputer
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier
from sklearn.multioutput import MultiOutputClassifier, MultiOutputRegressor
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    RobustScaler,
    StandardScaler,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

from dbscore.convert.groups import is_gap

__all__ = ["Origin", "Visit", "selected", "visits"]

_SAME_COLUMNS = (
    AdaBoostClassifier,
    AdaBoostRegressor,
    MultiOutputClassifier,
    MultiOutputRegressor,
    OneVsOneClassifier,
    OneVsRestClassifier,
    StackingClassifier,
    StackingRegressor,
    VotingClassifier,
    VotingRegressor,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a column inside the pipeline comes from.

    Attributes:
        column: The raw column, counted in the pipeline's own input.
        scale: The raw value is `scale * value + offset`, up to rounding.
        offset: See `scale`.
    """

    column: int
    scale: float = 1.0
    offset: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """An estimator inside the pipeline, with the origin of each of its input columns (None: computed)."""

    estimator: Any
    columns: tuple[Origin | None, ...]


def visits(estimator: Any, width: int, names: Sequence[str] | None = None) -> list[Visit]:  # noqa: ANN401
    """Return every estimator that the raw columns pass through, in order, with where its columns come from.

    The walk follows Pipeline, ColumnTransformer, FeatureUnion, imputers, scalers and selectors, and the estimators
    inside ensembles of estimators. What lies behind any other transformer is computed, not followed.

    Args:
        estimator: The fitted estimator.
        width: How many raw columns it takes.
        names: Their names, where a ColumnTransformer selects by name.
    """
    found: list[Visit] = []
    _walk(estimator, tuple(Origin(column=i) for i in range(width)), names, found)
    return found


def selected(transformer: ColumnTransformer, names: Sequence[str] | None, width: int) -> list[list[int]]:
    """Return the input columns of each of a fitted ColumnTransformer's transformers, dropped ones empty."""
    chosen: list[list[int]] = []
    for _, step, columns in transformer.transformers_:
        chosen.append([] if isinstance(step, str) and step == "drop" else _indexes(columns, names, width))
    return chosen


def _indexes(columns: Any, names: Sequence[str] | None, width: int) -> list[int]:  # noqa: ANN401
    every = [] if names is None else list(names)
    if isinstance(columns, str | int | np.integer):
        columns = [columns]
    if isinstance(columns, slice):
        if isinstance(columns.start, str) or isinstance(columns.stop, str):
            start = 0 if columns.start is None else every.index(columns.start)
            # pandas slices by label include their end
            stop = width if columns.stop is None else every.index(columns.stop) + 1
            return list(range(start, stop, columns.step or 1))
        return list(range(width))[columns]
    picked = list(columns)
    if picked and all(isinstance(c, bool | np.bool_) for c in picked):
        return [i for i, c in enumerate(picked) if c]
    return [every.index(c) if isinstance(c, str) else range(width)[c] for c in picked]


_Columns = tuple[Origin | None, ...]


def _walk(
    step: Any,  # noqa: ANN401 - an estimator
    columns: _Columns,
    names: Sequence[str] | None,
    found: list[Visit],
) -> _Columns | None:
    """Record the visits below `step`, and return the origins of its output; None where even their number is unknown."""
    if step is None or isinstance(step, str):
        return () if step == "drop" else columns
    if isinstance(step, Pipeline):
        return _walk_pipeline(step, columns, names, found)
    if isinstance(step, ColumnTransformer):
        return _walk_columns(step, columns, names, found)
    if isinstance(step, FeatureUnion):
        return _joined([_walk(inner, columns, names, found) for _, inner in step.transformer_list])
    found.append(Visit(estimator=step, columns=columns))
    for inner, kept in _inside(step, columns):
        _walk(inner, kept, None, found)
    return _through(step, columns)


def _walk_pipeline(
    step: Pipeline, columns: _Columns, names: Sequence[str] | None, found: list[Visit]
) -> _Columns | None:
    current: _Columns | None = columns
    for i, (_, inner) in enumerate(step.steps):
        if current is None:
            return None
        current = _walk(inner, current, names if i == 0 else None, found)
    return current


def _walk_columns(
    step: ColumnTransformer, columns: _Columns, names: Sequence[str] | None, found: list[Visit]
) -> _Columns | None:
    if names is None:
        names = getattr(step, "feature_names_in_", None)
    parts = []
    chosen = selected(step, names, len(columns))
    for (_, inner, _), indexes in zip(step.transformers_, chosen, strict=True):
        if indexes:
            own = [names[i] for i in indexes] if names is not None else None
            parts.append(_walk(inner, tuple(columns[i] for i in indexes), own, found))
    return _joined(parts)


def _joined(parts: list[_Columns | None]) -> _Columns | None:
    whole: list[Origin | None] = []
    for part in parts:
        if part is None:
            return None
        whole.extend(part)
    return tuple(whole)


def _inside(step: Any, columns: _Columns) -> Iterator[tuple[Any, _Columns]]:  # noqa: ANN401
    if isinstance(step, BaggingClassifier | BaggingRegressor):
        for inner, features in zip(step.estimators_, step.estimators_features_, strict=True):
            yield inner, tuple(columns[i] for i in features)
    elif isinstance(step, _SAME_COLUMNS):
        for inner in step.estimators_:
            yield inner, columns
    elif hasattr(step, "calibrated_classifiers_"):
        for calibrated in step.calibrated_classifiers_:
            yield calibrated.estimator, columns
    elif hasattr(step, "regressor_"):
        yield step.regressor_, columns
    elif hasattr(step, "best_estimator_"):
        yield step.best_estimator_, columns
    elif hasattr(step, "estimator_") and hasattr(step, "best_threshold_"):
        yield step.estimator_, columns


def _through(step: Any, columns: _Columns) -> _Columns | None:  # noqa: ANN401
    if isinstance(step, SimpleImputer | KNNImputer):
        return _through_imputer(step, columns)
    if isinstance(step, FunctionTransformer) and step.func is None:
        # what a fitted ColumnTransformer makes of 'passthrough'
        return columns
    if isinstance(step, SelectorMixin):
        return tuple(c for c, keep in zip(columns, step.get_support(), strict=True) if keep)
    scaling = _scaling(step)
    if scaling is not None:
        return _scaled(columns, *scaling)
    try:
        return (None,) * len(step.get_feature_names_out())
    except (AttributeError, ValueError, TypeError):
        return None


def _scaling(step: Any) -> tuple[Any, Any] | None:  # noqa: ANN401
    """Return scale and offset that give back what a scaler was given; None for anything else."""
    if isinstance(step, StandardScaler):
        return step.scale_, step.mean_ if step.with_mean else None
    if isinstance(step, RobustScaler):
        return step.scale_, step.center_
    if isinstance(step, MaxAbsScaler):
        return step.scale_, None
    if isinstance(step, MinMaxScaler):
        return 1.0 / step.scale_, -step.min_ / step.scale_
    return None


def _through_imputer(step: Any, columns: _Columns) -> _Columns:  # noqa: ANN401
    # a column without any value has no statistic, and is dropped
    simple = isinstance(step, SimpleImputer)
    kept = [not is_gap(s) for s in step.statistics_] if simple else list(step._valid_mask)  # noqa: SLF001
    everything = bool(step.keep_empty_features)
    through = [c for c, keep in zip(columns, kept, strict=True) if keep or everything]
    flags = len(step.indicator_.features_) if step.add_indicator else 0
    return (*through, *([None] * flags))


def _scaled(columns: _Columns, scale: Any, offset: Any) -> _Columns:  # noqa: ANN401 - arrays or None
    scales = np.ones(len(columns)) if scale is None else scale
    offsets = np.zeros(len(columns)) if offset is None else offset
    return tuple(
        None if c is None else replace(c, scale=c.scale * float(s), offset=c.scale * float(o) + c.offset)
        for c, s, o in zip(columns, scales, offsets, strict=True)
    )
