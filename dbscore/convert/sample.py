"""The columns of a sample as the database would hold them: names, SQL types, values with None for NULL."""

from __future__ import annotations

import datetime as dt
import math
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np

from dbscore.convert.sqlvalue import as_sql, integer_type
from dbscore.errors import FeatureError
from dbscore.signature import SqlType, feature_identifiers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Column", "Sample", "is_frame", "read_sample", "without_sample"]

_DATETIME_REMEDY = "Extract a number in SQL, e.g. extract(hour from pickup_at), and fit on that."


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One feature, with its values in the sample.

    Attributes:
        source: The name the estimator knows it by.
        name: Its SQL identifier.
        type: Its SQL type.
        width: How many of the estimator's columns it takes.
        values: A value per sampled row as psycopg gives it; NULL is None.
        has_missing: Whether a value is missing anywhere in the whole sample.
        dtype: The pandas dtype it had, for giving it back to the native estimator; None outside a DataFrame.
        marker: What stands for a missing text there: None, NaN or pandas.NA.
    """

    source: str
    name: str
    type: SqlType
    width: int = 1
    values: tuple[Any, ...] = ()
    has_missing: bool = False
    dtype: Any = None
    marker: Any = math.nan


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What the estimator's input looks like, with the rows picked for the comparison.

    Attributes:
        form: `frame` for a DataFrame, `matrix` for a 2-D array, `texts` for a list of strings.
        columns: In the estimator's order.
        rows: How many rows were picked.
        dtype: A matrix's dtype; None otherwise.
        notes: What was done to the values.
    """

    form: str
    columns: tuple[Column, ...]
    rows: int = 0
    dtype: np.dtype[Any] | None = None
    notes: tuple[str, ...] = ()

    def tuples(self, indexes: Sequence[int]) -> list[tuple[Any, ...]]:
        """Return the rows of these columns, in this order."""
        chosen = [self.columns[i].values for i in indexes]
        return list(zip(*chosen, strict=True)) if chosen else []


def is_frame(sample: Any) -> bool:  # noqa: ANN401 - anything a caller may pass
    """Whether it is a pandas DataFrame; without importing pandas."""
    return hasattr(sample, "iloc") and hasattr(sample, "columns")


def read_sample(
    sample: Any,  # noqa: ANN401 - a DataFrame, an array, a Series or a list
    *,
    names: Sequence[str] | None,
    width: int | None,
    types: Mapping[str, SqlType],
    embedding: str | None = None,
    max_rows: int = 2000,
    seed: int = 0,
) -> Sample:
    """Read the features' names, types and values from a sample.

    Args:
        sample: A DataFrame, a 2-D array of shape (rows, width), or a Series or list of texts.
        names: The names the estimator was fitted with; None where it was fitted on an array.
        width: How many columns the estimator takes; None where it does not say.
        types: SQL types by column name or identifier, which win over the sample's.
        embedding: The whole array is one feature of this name.
        max_rows: How many rows to pick.
        seed: Picks them.

    Raises:
        FeatureError: A feature is absent from the sample, or a value does not fit its type, or its type has none
            in SQL; or the sample has another number of columns than the estimator.
        NameRefusedError: A column's name makes no identifier.
    """
    picked = _pick(len(sample), max_rows, seed)
    if is_frame(sample) and embedding is None:
        return _read_frame(sample, names=names, width=width, types=types, picked=picked)
    array = sample.to_numpy() if hasattr(sample, "to_numpy") else np.asarray(sample)
    if array.ndim == 1:
        return _read_texts(sample, array, types=types, picked=picked)
    if array.ndim != 2:  # noqa: PLR2004 - rows and columns
        raise FeatureError(
            f"the sample has {array.ndim} dimensions, not 2",
            remedy="Pass one row per prediction: shape (n, k).",
        )
    if width is not None and array.shape[1] != width:
        raise FeatureError(
            f"the sample has {array.shape[1]} columns, the estimator was fitted on {width}",
            remedy="Pass the columns it was fitted on, without the target.",
        )
    if embedding is not None:
        return _read_embedding(array, embedding, types=types, picked=picked)
    sources = list(names) if names is not None else [f"f{i}" for i in range(array.shape[1])]
    columns = [
        _column(source, name, array[:, i], types=types, picked=picked, dtype=None)
        for i, (source, name) in enumerate(zip(sources, feature_identifiers(sources), strict=True))
    ]
    return Sample(
        form="matrix" if names is None else "frame",
        columns=tuple(columns),
        rows=len(picked),
        dtype=array.dtype,
        notes=_float32_note(columns),
    )


def without_sample(names: Sequence[str], *, types: Mapping[str, SqlType], texts: Sequence[bool], form: str) -> Sample:
    """Return the columns as far as the estimator and the table's types tell; numbers are double precision."""
    columns = tuple(
        Column(
            source=source,
            name=name,
            type=_given(types, source, name) or (SqlType.TEXT if text else SqlType.DOUBLE),
        )
        for source, name, text in zip(names, feature_identifiers(list(names)), texts, strict=True)
    )
    return Sample(form=form, columns=columns)


def _pick(rows: int, max_rows: int, seed: int) -> np.ndarray[Any, Any]:
    if rows <= max_rows:
        return np.arange(rows)
    return np.sort(np.random.default_rng(seed).choice(rows, size=max_rows, replace=False))


def _read_frame(
    frame: Any,  # noqa: ANN401 - pandas is not typed here
    *,
    names: Sequence[str] | None,
    width: int | None,
    types: Mapping[str, SqlType],
    picked: np.ndarray[Any, Any],
) -> Sample:
    labels = list(frame.columns)
    if len(set(labels)) < len(labels):
        twice = next(label for label in labels if labels.count(label) > 1)
        raise FeatureError(f"the sample has two columns {twice!r}", remedy="Rename one of them.")
    if names is not None:
        absent = [name for name in names if name not in set(labels)]
        if absent:
            raise FeatureError(
                f"the sample lacks the columns {', '.join(map(repr, absent))}",
                remedy="Pass rows such as the estimator was fitted on.",
            )
        labels = list(names)
    sources = [str(label) for label in labels]
    columns = [
        _column(source, name, _values(frame[label]), types=types, picked=picked, dtype=frame[label].dtype)
        for label, source, name in zip(labels, sources, feature_identifiers(sources), strict=True)
    ]
    total = sum(c.width for c in columns)
    if width is not None and total != width:
        raise FeatureError(
            f"the sample has {total} columns, the estimator was fitted on {width}",
            remedy="Pass the columns it was fitted on, without the target.",
        )
    # an array-valued column has no place in a DataFrame that scikit-learn takes: it was fitted on the matrix
    matrix = names is None and any(c.width > 1 or c.type.is_array for c in columns)
    return Sample(
        form="matrix" if matrix else "frame",
        columns=tuple(columns),
        rows=len(picked),
        dtype=np.dtype(np.float64) if matrix else None,
        notes=_float32_note(columns),
    )


def _values(series: Any) -> np.ndarray[Any, Any]:  # noqa: ANN401 - pandas is not typed here
    # a nullable integer would become a float, and lose what is beyond 2**53
    nullable = getattr(series.dtype, "na_value", None) is not None and series.dtype.kind in "biu"
    return np.asarray(series.astype(object) if nullable else series)


def _read_texts(
    sample: Any,  # noqa: ANN401 - a Series or a list
    array: np.ndarray[Any, Any],
    *,
    types: Mapping[str, SqlType],
    picked: np.ndarray[Any, Any],
) -> Sample:
    source = str(getattr(sample, "name", None) or "text")
    column = _column(
        source, feature_identifiers([source])[0], array.astype(object), types=types, picked=picked, dtype=None
    )
    if column.type is not SqlType.TEXT:
        raise FeatureError(
            f"the sample has one dimension and its values are {column.type}, not text",
            remedy="Pass a DataFrame, or an array of shape (n, k).",
        )
    return Sample(form="texts", columns=(column,), rows=len(picked))


def _read_embedding(
    array: np.ndarray[Any, Any], source: str, *, types: Mapping[str, SqlType], picked: np.ndarray[Any, Any]
) -> Sample:
    name = feature_identifiers([source])[0]
    known = SqlType.REAL_ARRAY if array.dtype == np.float32 else SqlType.DOUBLE_ARRAY
    type_ = _given(types, source, name) or known
    values = tuple(as_sql(row, type_, name) for row in array[picked].tolist())
    column = Column(
        source=source,
        name=name,
        type=type_,
        width=array.shape[1],
        values=values,
        has_missing=bool(np.isnan(array.astype(float)).any()),
    )
    return Sample(
        form="matrix",
        columns=(column,),
        rows=len(picked),
        dtype=np.dtype(np.float64),
        notes=_float32_note([column]),
    )


def _column(
    source: str,
    name: str,
    values: np.ndarray[Any, Any],
    *,
    types: Mapping[str, SqlType],
    picked: np.ndarray[Any, Any],
    dtype: Any,  # noqa: ANN401 - a pandas dtype
) -> Column:
    missing = _missing(values)
    present = values[~missing]
    type_, width = _infer(name, values.dtype, present, dtype)
    type_ = _given(types, source, name) or type_
    gap = next((v for v in values[missing]), math.nan) if values.dtype == object else math.nan
    taken = values[picked].tolist()
    gone = missing[picked]
    return Column(
        source=source,
        name=name,
        type=type_,
        width=width,
        values=tuple(None if out else as_sql(v, type_, name) for v, out in zip(taken, gone, strict=True)),
        has_missing=bool(missing.any()),
        dtype=dtype,
        marker=gap,
    )


def _missing(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if values.dtype.kind == "f":
        return np.asarray(np.isnan(values))
    if values.dtype.kind == "M":
        return np.asarray(np.isnat(values))
    if values.dtype != object:
        return np.zeros(len(values), dtype=bool)
    # pandas.NA is recognised by its type's name, so that pandas stays optional
    return np.array(
        [
            v is None or (isinstance(v, float) and math.isnan(v)) or type(v).__name__ in ("NAType", "NaTType")
            for v in values
        ],
        dtype=bool,
    )


def _given(types: Mapping[str, SqlType], source: str, name: str) -> SqlType | None:
    found = types.get(source, types.get(name))
    return None if found is None else SqlType(found)


def _infer(  # noqa: PLR0911 - one line per kind of dtype
    name: str,
    dtype: np.dtype[Any],
    present: np.ndarray[Any, Any],
    pandas_dtype: Any,  # noqa: ANN401 - a pandas dtype
) -> tuple[SqlType, int]:
    # nullable numbers arrive as objects, with their width in the pandas dtype
    nullable = getattr(pandas_dtype, "numpy_dtype", None)
    if nullable is not None and np.dtype(nullable).kind in "biuf":
        return _infer(name, np.dtype(nullable), present, None)
    kind = dtype.kind
    if kind == "b":
        return SqlType.BOOLEAN, 1
    if kind == "f":
        return (SqlType.DOUBLE if dtype.itemsize > 4 else SqlType.REAL), 1  # noqa: PLR2004 - bytes of a float
    if kind in "iu":
        # an integer literal is no smallint, and would find no function: the argument is an integer at least
        whole = integer_type(dtype)
        return (SqlType.INTEGER if whole is SqlType.SMALLINT else whole), 1
    if kind in "US":
        return SqlType.TEXT, 1
    if kind == "c":
        raise FeatureError(f"{name} is a {dtype}: SQL has no complex numbers", remedy="Split it into two columns.")
    if kind in "Mm":
        raise FeatureError(f"{name} is a {dtype}: dates are no features", remedy=_DATETIME_REMEDY)
    if len(present) == 0:
        return SqlType.TEXT, 1
    return _infer_objects(name, present)


def _infer_objects(name: str, present: np.ndarray[Any, Any]) -> tuple[SqlType, int]:
    kinds = {type(v) for v in present}
    if all(issubclass(k, str) for k in kinds):
        return SqlType.TEXT, 1
    if all(issubclass(k, bool | np.bool_) for k in kinds):
        return SqlType.BOOLEAN, 1
    if all(issubclass(k, int | np.integer | bool | np.bool_) for k in kinds):
        return SqlType.BIGINT, 1
    if all(issubclass(k, int | float | Decimal | np.integer | np.floating | bool | np.bool_) for k in kinds):
        return SqlType.DOUBLE, 1
    if all(issubclass(k, list | tuple | np.ndarray) for k in kinds):
        return _infer_arrays(name, present)
    if any(issubclass(k, dt.date | dt.time | dt.timedelta | np.datetime64) for k in kinds):
        raise FeatureError(f"{name} holds dates or times: they are no features", remedy=_DATETIME_REMEDY)
    raise FeatureError(
        f"{name} holds values of {', '.join(sorted(k.__name__ for k in kinds))}, which have no SQL type here",
        remedy="Make it one of text, numbers, booleans or arrays of numbers.",
    )


def _infer_arrays(name: str, present: np.ndarray[Any, Any]) -> tuple[SqlType, int]:
    widths = sorted({len(v) for v in present})
    if len(widths) > 1:
        raise FeatureError(
            f"{name} has arrays of {widths[0]} and of {widths[-1]} elements",
            remedy="An array feature has one length.",
        )
    single = all(isinstance(v, np.ndarray) and v.dtype == np.float32 for v in present)
    return (SqlType.REAL_ARRAY if single else SqlType.DOUBLE_ARRAY), widths[0]


def _float32_note(columns: Sequence[Column]) -> tuple[str, ...]:
    real = [c.name for c in columns if c.type in (SqlType.REAL, SqlType.REAL_ARRAY)]
    if not real:
        return ()
    return (f"float32 values ({', '.join(real[:5])}) are given to the native estimator as float64",)
