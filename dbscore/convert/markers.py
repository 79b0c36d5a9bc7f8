"""What stands for a missing text in the native estimator's input: what it was fitted with, whatever the sample has."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder

from dbscore.convert.groups import is_gap
from dbscore.signature import SqlType

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dbscore.convert.lineage import Visit
    from dbscore.convert.sample import Column, Sample

__all__ = ["passing_imputers", "with_markers"]


def with_markers(sample: Sample, spans: Sequence[range], seen: Sequence[Visit]) -> Sample:
    """Return the sample with None or NaN for a missing text as the estimator knows it.

    scikit-learn tells None from NaN: to an encoder they are two categories, and an imputer of one leaves the other.
    A table's NULL is either, depending on how pandas read it. An encoder's category says which it was; else an
    imputer's `missing_values` does; else the sample.
    """
    columns = [
        _marked(column, _fitted_gaps(seen, span.start)) if column.type is SqlType.TEXT else column
        for column, span in zip(sample.columns, spans, strict=True)
    ]
    return replace(sample, columns=tuple(columns))


def passing_imputers(sample: Sample, spans: Sequence[range], seen: Sequence[Visit]) -> frozenset[int]:
    """Return the ids of the imputers to which no missing text is missing: it is None, and they take NaN."""
    owners = {raw: column for column, span in zip(sample.columns, spans, strict=True) for raw in span}
    found = set()
    for visit in seen:
        step = visit.estimator
        if not isinstance(step, SimpleImputer | MissingIndicator) or not _is_nan(step.missing_values):
            continue
        given = [owners[origin.column] for origin in visit.columns if origin is not None]
        if given and all(c.type is SqlType.TEXT and c.marker is None for c in given):
            found.add(id(step))
    return frozenset(found)


def _is_nan(value: Any) -> bool:  # noqa: ANN401 - any missing value
    return isinstance(value, float | np.floating) and bool(np.isnan(value))


def _fitted_gaps(seen: Sequence[Visit], column: int) -> list[Any]:
    """The missing values that a raw column was fitted with: the encoders', else the imputers'; each kind once."""
    known: list[Any] = []
    replaced: list[Any] = []
    for visit in seen:
        step = visit.estimator
        for i, origin in enumerate(visit.columns):
            if origin is None or origin.column != column:
                continue
            if isinstance(step, OneHotEncoder | OrdinalEncoder):
                known += [c for c in step.categories_[i].tolist() if is_gap(c)]
            elif isinstance(step, SimpleImputer) and is_gap(step.missing_values):
                replaced.append(step.missing_values)
    by_kind = {type(gap): gap for gap in known or replaced}
    return list(by_kind.values())


def _marked(column: Column, gaps: list[Any]) -> Column:
    # pandas's categorical columns have one missing value of their own
    if len(gaps) != 1 or type(gaps[0]) is type(column.marker) or type(column.dtype).__name__ == "CategoricalDtype":
        return column
    # the str dtype holds no None
    return replace(column, marker=gaps[0], dtype=np.dtype(object))
