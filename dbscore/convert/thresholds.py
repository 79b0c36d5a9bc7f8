"""Rows at the split thresholds of tree models and one float step either side, where a wrong cast shows."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from dbscore.convert.sqlvalue import INTEGER_RANGES
from dbscore.convert.trees import split_thresholds
from dbscore.signature import SqlType

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dbscore.convert.lineage import Origin, Visit
    from dbscore.convert.sample import Column

__all__ = ["steps_around", "threshold_rows"]

# a large forest has millions of splits: the first of them are as good as any
_MOST = 200_000


def threshold_rows(
    rows: Sequence[tuple[Any, ...]],
    columns: Sequence[Column],
    *,
    seen: Sequence[Visit],
    spans: Sequence[range],
    limit: int,
    seed: int,
) -> tuple[list[tuple[Any, ...]], list[str]]:
    """Return sample rows in which one feature sits at a split threshold or one float step beside it.

    Args:
        rows: Sampled rows, values in the features' order.
        columns: The features.
        seen: Every estimator in the pipeline with the origins of its columns.
        spans: The raw columns of each feature.
        limit: At most so many rows; thresholds are picked at random where there are more.
        seed: Picks thresholds and rows.

    Returns:
        The rows, and a note where some thresholds belong to no feature directly.
    """
    whole = [row for row in rows if all(v is not None for v in row)] or list(rows)
    if not whole:
        return [], []
    owner = {column: i for i, span in enumerate(spans) for column in span}
    found: set[tuple[int, int, float]] = set()
    computed = 0
    for origin, threshold in islice(_splits(seen), _MOST):
        if origin is None or origin.column not in owner:
            computed += 1
            continue
        feature = owner[origin.column]
        if columns[feature].type is not SqlType.TEXT:
            raw = origin.scale * threshold + origin.offset
            found.add((feature, origin.column - spans[feature].start, raw))
    random = np.random.default_rng(seed)
    places = sorted(found)
    # five values at most around each threshold
    if len(places) * 5 > limit:
        chosen = np.sort(random.choice(len(places), size=limit // 5, replace=False))
        places = [places[i] for i in chosen]
    made = []
    for feature, element, raw in places:
        for value in steps_around(raw, columns[feature].type):
            row = list(whole[int(random.integers(len(whole)))])
            row[feature] = _placed(row[feature], columns[feature], element, value)
            made.append(tuple(row))
    notes = [f"{computed} split thresholds are on computed columns and were not probed"] if computed else []
    return made[:limit], notes


def steps_around(threshold: float, type_: SqlType) -> list[float | int | bool]:
    """Return the values of a SQL type at a threshold and nearest to it on either side.

    For `double precision` that is one float64 step and one float32 step, as trees compare in either.
    """
    if not np.isfinite(threshold):
        return []
    if type_ is SqlType.BOOLEAN:
        return [False, True]
    if type_ in INTEGER_RANGES:
        low, high = INTEGER_RANGES[type_]
        near = {int(np.floor(threshold)), int(np.ceil(threshold))}
        near |= {min(near) - 1} if len(near) == 1 else set()
        return sorted(v for v in near if low <= v <= high)
    with np.errstate(over="ignore"):
        single = np.float32(threshold)
    steps = {float(single)}
    steps |= {float(np.nextafter(single, np.float32(side))) for side in (-np.inf, np.inf)}
    if type_ in (SqlType.DOUBLE, SqlType.DOUBLE_ARRAY):
        steps |= {threshold, float(np.nextafter(threshold, -np.inf)), float(np.nextafter(threshold, np.inf))}
    return sorted(s for s in steps if np.isfinite(s))


def _splits(seen: Sequence[Visit]) -> Iterator[tuple[Origin | None, float]]:
    for visit in seen:
        for column, threshold in split_thresholds(visit.estimator):
            yield visit.columns[column], float(threshold)


def _placed(old: Any, column: Column, element: int, value: Any) -> Any:  # noqa: ANN401 - SQL values
    if not column.type.is_array:
        return value
    changed = list(old)
    changed[element] = value
    return changed
