"""Rows to compare beside the sample: those with NULLs; and which of all rows the native model answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dbscore.errors import FeatureError
from dbscore.signature import NullPolicy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dbscore.convert.native import Answers, Native
    from dbscore.convert.nulls import Nulls

__all__ = ["answer_all", "null_rows"]


def null_rows(rows: Sequence[tuple[Any, ...]], nulls: Sequence[Nulls], seed: int) -> list[tuple[Any, ...]]:
    """Rows in which each feature that may be missing is, alone; and rows in which all of them are."""
    free = [i for i, null in enumerate(nulls) if null.policy is NullPolicy.NAN]
    if not rows or not free:
        return []
    whole = [row for row in rows if all(v is not None for v in row)] or list(rows)
    random = np.random.default_rng(seed)
    each = max(1, min(20, 1000 // len(free)))
    made = []
    for gap in [*([i] for i in free), free]:
        for _ in range(each):
            row = list(whole[int(random.integers(len(whole)))])
            for i in gap:
                row[i] = None
            made.append(tuple(row))
    return made


def answer_all(native: Native, rows: list[tuple[Any, ...]]) -> tuple[Answers | None, dict[int, str]]:
    """Return the native answers for all rows it takes, and its error for each row that it refuses."""
    if not rows:
        return None, {}
    try:
        return native.answer(rows), {}
    except Exception as error:  # noqa: BLE001 - whatever it raises, it refuses
        first = error
    refused: dict[int, str] = {}

    def halve(indexes: list[int]) -> None:
        try:
            native.answer([rows[i] for i in indexes])
        except Exception as error:  # noqa: BLE001
            if len(indexes) == 1:
                refused[indexes[0]] = str(error).splitlines()[0]
                return
            middle = len(indexes) // 2
            halve(indexes[:middle])
            halve(indexes[middle:])

    halve(list(range(len(rows))))
    kept = [row for i, row in enumerate(rows) if i not in refused]
    if not kept:
        raise FeatureError(
            f"the native estimator refuses every row of the sample: {first}",
            remedy="Pass rows such as it was fitted on.",
        ) from first
    return native.answer(kept), refused
