"""The native estimator: what it takes, what it answers, and in which types."""

from __future__ import annotations

import functools
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import is_classifier, is_clusterer, is_outlier_detector, is_regressor
from sklearn.feature_selection import SelectorMixin
from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

from dbscore.convert.sqlvalue import integer_type
from dbscore.errors import ConversionError
from dbscore.signature import SqlType, Task

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dbscore.convert.sample import Column, Sample

__all__ = ["Answers", "Native", "class_values", "label_type", "qualified", "task_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What a model answers for some rows.

    Attributes:
        predictions: Shape (rows,) or (rows, width).
        probabilities: Shape (rows, classes), float64; None where the model has none.
    """

    predictions: np.ndarray[Any, Any]
    probabilities: np.ndarray[Any, Any] | None = None


@functools.cache
def _threads() -> ThreadpoolController:
    return ThreadpoolController()


def qualified(estimator: Any) -> str:  # noqa: ANN401 - an estimator
    """Return the class of an estimator, of a pipeline's last step, as `module.Class`."""
    last = _last(estimator)
    return f"{type(last).__module__}.{type(last).__qualname__}"


def _last(estimator: Any) -> Any:  # noqa: ANN401 - an estimator
    while hasattr(estimator, "steps"):
        estimator = estimator.steps[-1][1]
    return estimator


def task_of(estimator: Any) -> Task:  # noqa: ANN401 - an estimator
    """Return what kind of answer an estimator gives.

    Raises:
        ConversionError: It neither predicts nor transforms rows that it was not fitted on.
    """
    # a selector such as RFE passes predict on to its estimator, but what it is converted to is a transformer
    predicts = hasattr(estimator, "predict") and not isinstance(_last(estimator), SelectorMixin)
    kinds = {
        Task.CLASSIFICATION: is_classifier,
        Task.REGRESSION: is_regressor,
        Task.OUTLIER: is_outlier_detector,
        Task.CLUSTERING: is_clusterer,
    }
    found = next((task for task, is_kind in kinds.items() if predicts and is_kind(estimator)), None)
    if found is not None:
        return found
    if predicts and not hasattr(estimator, "transform"):
        # a mixture model, which scikit-learn calls a density estimator, predicts its component
        return Task.CLUSTERING
    if hasattr(estimator, "transform"):
        return Task.TRANSFORM
    raise ConversionError(
        f"{qualified(estimator)} has neither predict nor transform for new rows",
        remedy="Fit an estimator that has one (LocalOutlierFactor: novelty=True).",
    )


def label_type(dtype: np.dtype[Any], values: Sequence[Any] = ()) -> SqlType:
    """Return the SQL type of labels of a numpy dtype; an object dtype is told by its values."""
    if dtype.kind == "O" and values:
        if all(isinstance(v, bool | np.bool_) for v in values):
            return SqlType.BOOLEAN
        if all(isinstance(v, int | np.integer) for v in values):
            return SqlType.BIGINT
    if dtype.kind in "iu":
        return integer_type(dtype)
    return {"b": SqlType.BOOLEAN, "f": SqlType.DOUBLE}.get(dtype.kind, SqlType.TEXT)


def class_values(estimator: Any) -> tuple[Any, ...] | None:  # noqa: ANN401 - an estimator
    """Return a classifier's classes as Python values; None for several targets at once."""
    classes = getattr(estimator, "classes_", None)
    if classes is None or isinstance(classes, list) or np.ndim(classes) != 1:
        return None
    return tuple(c.item() if isinstance(c, np.generic) else c for c in classes)


class Native:
    """The fitted estimator behind the interface that SQL will have: rows of values, None for NULL.

    float32 columns are given to it as float64, in which their values are the same: what it computes is then the
    most exact answer, and does not depend on how the sample was stored.

    Args:
        estimator: The fitted estimator.
        sample: What its input looks like.
        used: The sample's columns that are features; the others get a value of the sample.
    """

    def __init__(self, estimator: Any, sample: Sample, used: Sequence[int]) -> None:  # noqa: ANN401
        self._estimator = estimator
        self._sample = sample
        self._used = {column: i for i, column in enumerate(used)}
        self.task = task_of(estimator)
        # with several targets there is a matrix per target, which no SQL type holds
        self.has_probabilities = (
            self.task is Task.CLASSIFICATION
            and hasattr(estimator, "predict_proba")
            and class_values(estimator) is not None
        )

    def answer(self, rows: Sequence[tuple[Any, ...]]) -> Answers:
        """Return the estimator's answers; its own errors pass through, its warnings do not."""
        return self._answer(self._given(rows))

    def _answer(self, given: Any) -> Answers:  # noqa: ANN401 - a frame, a matrix or texts
        # one thread: the rows are few, and OpenMP's threads wait for each other on a busy machine
        with warnings.catch_warnings(), np.errstate(all="ignore"), _threads().limit(limits=1):
            warnings.simplefilter("ignore")
            if self.task is Task.TRANSFORM:
                return Answers(predictions=_dense(self._estimator.transform(given)))
            predictions = np.asarray(self._estimator.predict(given))
            if not self.has_probabilities:
                return Answers(predictions=predictions)
            probabilities = self._estimator.predict_proba(given)
        return Answers(predictions=predictions, probabilities=np.asarray(probabilities, dtype=np.float64))

    def _given(self, rows: Sequence[tuple[Any, ...]]) -> Any:  # noqa: ANN401 - a frame, a matrix or texts
        columns = self._sample.columns
        values = self._values(rows)
        if self._sample.form == "texts":
            return [columns[0].marker if v is None else v for v in values[0]]
        if self._sample.form == "matrix":
            return _matrix(columns, values, self._sample.dtype)
        import pandas as pd

        names = [c.source for c in columns]
        if all(
            c.type in (SqlType.REAL, SqlType.DOUBLE) and isinstance(c.dtype, np.dtype) and c.dtype.kind == "f"
            for c in columns
        ):
            # what `_series` makes of them, one by one: with thousands of features that costs more than the estimator
            return pd.DataFrame(np.array(values, dtype=np.float64).reshape(len(columns), len(rows)).T, columns=names)
        return pd.DataFrame(self._series_by_name(rows), columns=names)

    def _values(self, rows: Sequence[tuple[Any, ...]]) -> list[list[Any]]:
        """Return the rows column by column, columns that are no features filled."""
        return [
            [row[self._used[i]] for row in rows] if i in self._used else [_filler(column)] * len(rows)
            for i, column in enumerate(self._sample.columns)
        ]

    def _series_by_name(self, rows: Sequence[tuple[Any, ...]]) -> dict[str, Any]:
        import pandas as pd

        named = zip(self._sample.columns, self._values(rows), strict=True)
        return {column.source: _series(pd, column, values) for column, values in named}


def _filler(column: Column) -> Any:  # noqa: ANN401 - any SQL value
    found = next((v for v in column.values if v is not None), None)  # noqa: PD011 - not a pandas column
    if found is not None:
        return found
    return "" if column.type is SqlType.TEXT else 0


def _matrix(columns: Sequence[Column], values: list[list[Any]], dtype: np.dtype[Any] | None) -> np.ndarray[Any, Any]:
    rows = len(values[0]) if values else 0
    if dtype is not None and dtype.kind in "OUS":
        texts = np.empty((rows, len(columns)), dtype=object)
        for i, (column, taken) in enumerate(zip(columns, values, strict=True)):
            texts[:, i] = [column.marker if v is None else v for v in taken]
        return texts
    parts = []
    for column, taken in zip(columns, values, strict=True):
        shaped = [
            [np.nan] * column.width
            if v is None
            else [np.nan if w is None else w for w in (v if column.type.is_array else [v])]
            for v in taken
        ]
        parts.append(np.array(shaped, dtype=np.float64).reshape(rows, column.width))
    matrix = np.hstack(parts)
    whole = dtype is not None and dtype.kind in "iub" and np.isfinite(matrix).all()
    return matrix.astype(dtype) if whole else matrix


def _series(pd: Any, column: Column, values: list[Any]) -> Any:  # noqa: ANN401 - pandas is not typed here
    gaps = any(v is None for v in values)
    dtype = column.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        return pd.Series(pd.Categorical(values, dtype=dtype))
    if column.type is SqlType.TEXT:
        filled = [column.marker if v is None else v for v in values]
        # the new str dtype holds NaN for a missing text, an object column whatever it was given
        return pd.Series(filled, dtype=object if dtype is None else dtype)
    if dtype is not None and pd.api.types.is_extension_array_dtype(dtype):
        fits = all(v is None or float(v).is_integer() for v in values) or column.dtype.kind == "f"
        return pd.Series(values, dtype=dtype if fits else "Float64")
    if gaps or column.type in (SqlType.REAL, SqlType.DOUBLE) or any(isinstance(v, float) for v in values):
        whole = dtype is not None and dtype.kind in "iu" and not gaps
        numbers = pd.Series([np.nan if v is None else v for v in values], dtype=np.float64)
        return numbers.astype(dtype) if whole and (numbers % 1 == 0).all() else numbers
    return pd.Series(values, dtype=None if dtype is None or dtype.kind == "O" else dtype)


def _dense(out: Any) -> np.ndarray[Any, Any]:  # noqa: ANN401 - an array, a DataFrame, a sparse matrix
    dense = np.asarray(out.toarray() if hasattr(out, "toarray") else out)
    if dense.ndim == 1:
        dense = dense.reshape(-1, 1)
    return dense.astype(np.float64)
