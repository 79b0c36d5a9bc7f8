"""Whether two models answer alike: native against converted, row by row."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from dbscore.convert.conversion import Checks, Mismatch, Parity, Tolerance
from dbscore.convert.feeds import scorable
from dbscore.convert.outputs import plain
from dbscore.signature import OutputKind, SqlType

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dbscore.convert.native import Answers
    from dbscore.signature import Signature

__all__ = ["FLOAT32", "FLOAT64", "compare", "differences", "pick_checks"]

FLOAT64 = Tolerance(relative=1e-9, absolute=1e-12)
FLOAT32 = Tolerance(relative=1e-5, absolute=1e-6)
EXAMPLES = 10
CHECK_ROWS = 256
_NUMBERS = (SqlType.DOUBLE, SqlType.REAL, SqlType.DOUBLE_ARRAY, SqlType.REAL_ARRAY)


def differences(
    native: np.ndarray[Any, Any], converted: np.ndarray[Any, Any], tolerance: Tolerance
) -> tuple[np.ndarray[Any, Any], float, float]:
    """Compare numbers: |converted - native| <= absolute + relative * |native|; NaN equals NaN, an infinity itself.

    Args:
        native: Shape (rows, width), float64.
        converted: The same shape.
        tolerance: What is allowed.

    Returns:
        Whether each row is beyond the tolerance, shape (rows,); the largest absolute and relative difference
        among finite numbers (the relative one where the native number is not 0).
    """
    same = (native == converted) | (np.isnan(native) & np.isnan(converted))
    finite = np.isfinite(native) & np.isfinite(converted)
    with np.errstate(invalid="ignore", over="ignore"):
        gap = np.where(finite, np.abs(converted - native), 0.0)
        allowed = tolerance.absolute + tolerance.relative * np.abs(native)
        beyond = ~same & (~finite | (gap > allowed))
    nonzero = finite & (native != 0)
    relative = gap[nonzero] / np.abs(native[nonzero])
    return beyond.any(axis=1), float(gap.max(initial=0.0)), float(relative.max(initial=0.0))


def compare(
    *,
    signature: Signature,
    rows: Sequence[tuple[Any, ...]],
    origins: Sequence[str],
    native: Answers,
    converted: Answers,
    tolerance: Tolerance,
) -> Parity:
    """Return how two models' answers compare on the same rows.

    Args:
        signature: What the converted model takes and gives.
        rows: Values in the order of the signature's features.
        origins: `sample`, `threshold` or `null` for each row.
        native: What the native model answers for them.
        converted: What the converted one does.
        tolerance: What is allowed for numbers; labels must be equal.
    """
    beyond = np.zeros(len(rows), dtype=bool)
    absolute = relative = 0.0
    kinds = [(signature.prediction.type, native.predictions, converted.predictions)]
    if native.probabilities is not None and converted.probabilities is not None:
        kinds.append((SqlType.DOUBLE_ARRAY, native.probabilities, converted.probabilities))
    for type_, left, right in kinds:
        if type_ in _NUMBERS and left.dtype.kind not in "OUS":
            shaped = left.astype(np.float64).reshape(len(rows), -1)
            other = right.astype(np.float64).reshape(len(rows), -1)
            if shaped.shape != other.shape:
                wrong, gap, share = np.ones(len(rows), dtype=bool), math.inf, math.inf
            else:
                wrong, gap, share = differences(shaped, other, tolerance)
            absolute, relative = max(absolute, gap), max(relative, share)
        else:
            wrong = np.array([plain(a, type_) != plain(b, type_) for a, b in zip(left, right, strict=True)], dtype=bool)
        beyond |= wrong
    counts = Counter(origins)
    bad = Counter(o for o, b in zip(origins, beyond, strict=True) if b)
    examples = [
        Mismatch(
            origin=origins[i],
            row={f.name: v for f, v in zip(signature.features, rows[i], strict=True)},
            native=_answer(signature, native, i),
            converted=_answer(signature, converted, i),
        )
        for i in np.flatnonzero(beyond)[:EXAMPLES]
    ]
    return Parity(
        rows=dict(counts),
        mismatches={origin: bad.get(origin, 0) for origin in counts},
        max_absolute=absolute,
        max_relative=relative,
        tolerance=tolerance,
        examples=tuple(examples),
    )


def pick_checks(
    *,
    signature: Signature,
    rows: Sequence[tuple[Any, ...]],
    origins: Sequence[str],
    native: Answers,
    seed: int,
) -> Checks:
    """Return up to 256 of the rows, of every origin, with the native answers; and some that a NULL leaves without.

    Args:
        signature: What the converted model takes and gives.
        rows: Scorable rows, values in the order of the signature's features.
        origins: Where each came from.
        native: What the native model answers for them.
        seed: Picks them.
    """
    random = np.random.default_rng(seed)
    strict = [i for i, f in enumerate(signature.features) if f.null_policy == "null"]
    spare = min(len(strict), 8) if rows else 0
    by_origin: dict[str, list[int]] = {}
    for i, origin in enumerate(origins):
        by_origin.setdefault(origin, []).append(i)
    share = (CHECK_ROWS - spare) // max(len(by_origin), 1)
    chosen: list[int] = []
    for members in by_origin.values():
        size = min(share, len(members))
        chosen.extend(sorted(random.choice(members, size=size, replace=False).tolist()))
    left = sorted(set(range(len(rows))) - set(chosen))
    more = min(CHECK_ROWS - spare - len(chosen), len(left))
    chosen.extend(sorted(random.choice(left, size=more, replace=False).tolist()) if more > 0 else [])
    type_ = signature.prediction.type
    taken = [rows[i] for i in chosen]
    predictions = [plain(native.predictions[i], type_) for i in chosen]
    probabilities: list[tuple[float, ...] | None] = [
        None if native.probabilities is None else tuple(native.probabilities[i].tolist()) for i in chosen
    ]
    for feature in strict[:spare]:
        row = list(rows[int(random.integers(len(rows)))])
        row[feature] = None
        taken.append(tuple(row))
        predictions.append(None)
        probabilities.append(None)
    has = any(o.kind is OutputKind.PROBABILITIES for o in signature.outputs)
    # a prediction NULL for every row that has a NULL where the policy is `null`
    assert scorable(signature, taken)[: len(chosen)] == [True] * len(chosen)  # noqa: S101 - the callers' promise
    return Checks(
        rows=tuple(taken),
        predictions=tuple(predictions),
        probabilities=tuple(probabilities) if has else None,
    )


def _answer(signature: Signature, answers: Answers, row: int) -> Any:  # noqa: ANN401 - any answer
    prediction = plain(answers.predictions[row], signature.prediction.type)
    if answers.probabilities is None:
        return prediction
    return {"prediction": prediction, "probabilities": answers.probabilities[row].tolist()}
