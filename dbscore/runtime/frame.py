"""The frame: rows of numbers as bytes, one array behind the other, and the call that scores it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from dbscore.runtime.batch import Batch
from dbscore.runtime.row import Refusal
from dbscore.runtime.sessions import SESSIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    import plpy

# the element types of the arrays in a frame, as PostgreSQL numbers them
ELEMENTS = {"float32": 700, "float64": 701, "int64": 20}


def unpack(frame: bytes, dtype: str, width: int) -> np.ndarray[Any, Any]:
    """Return the numbers of a frame, shape (rows, width): a view of arrays' bodies that lie one behind the other.

    Raises:
        Refusal: The frame was cut short, or holds something other than arrays of `width` numbers without NULLs.
    """
    import numpy as np

    row = np.dtype([("header", "=i8", 2), ("lower", "=i4"), ("values", dtype, (width,))])
    if len(frame) % row.itemsize:
        raise Refusal(
            f"a frame of {len(frame)} bytes holds no whole number of rows of {width} x {dtype}, {row.itemsize} bytes",
            "Pack the rows with dbscore_engine.frame, in the order that the version's features have.",
        )
    rows = np.frombuffer(frame, row)
    # dimensions, offset of the NULL bitmap, element type, length; compared two at a time, which is quicker
    expected = np.array([1, 0, ELEMENTS[dtype], width], np.int32)
    pairs = expected.view(np.int64)
    wrong = (rows["header"][:, 0] != pairs[0]) | (rows["header"][:, 1] != pairs[1])
    if wrong.any():
        index = int(wrong.argmax())
        found = rows["header"][index].view(np.int32).tolist()
        raise Refusal(
            f"row {index} of the frame is no array of {width} x {dtype} without NULLs: its header is {found},"
            f" not {expected.tolist()}",
            "Pack the rows with dbscore_engine.frame, NULLs replaced by dbscore_engine.null_double() or null_real().",
        )
    return rows["values"]


def frame_scorer(name: str, sha256: str, signature_json: str) -> Callable[[list[Any]], Any]:
    """Return the call of the PL/Python function that scores a frame.

    Args:
        name: The version, for messages: `tip_v3`.
        sha256: The model.
        signature_json: Its signature.

    Returns:
        A function of the pin, the numbers' frame, the integers' frame and the texts, one feature's after the other's.
        It gives predictions and probabilities as raw numbers, the labels that text
        predictions are numbers of, which rows are NULL (a byte each; NULL where none is), and the errors as JSON.
    """
    signature = json.loads(signature_json)
    batch = Batch(name, signature)
    key = (sha256, signature_json)

    def tick() -> None:
        # what PostgreSQL has been told meanwhile, a cancel above all, is heard here
        plpy.execute("select 1")

    def call(args: list[Any]) -> Any:
        import numpy as np

        _, frame, integer_frame, texts = args
        try:
            numbers = unpack(frame or b"", batch.dtype, batch.width) if batch.width else None
            integers = unpack(integer_frame or b"", "int64", 2 * len(batch.integers)) if batch.integers else None
            answer = batch.score(
                SESSIONS.get(key, signature), numbers, integers, _columns(texts or [], len(batch.texts)), tick=tick
            )
        except Refusal as refusal:
            plpy.error(refusal.message, hint=refusal.hint, sqlstate="ML002")
        predictions, labels = answer.predictions, None
        if predictions.dtype == object:
            predictions, labels = _coded(predictions, signature["classes"])
        errors = [{"row": row + 1, "reason": reason} for row, reason in answer.errors.items()]
        return (
            predictions.tobytes(),
            None if answer.probabilities is None else answer.probabilities.tobytes(),
            labels,
            answer.nulls.astype(np.uint8).tobytes() if answer.nulls.any() else None,
            json.dumps(errors) if errors else None,
        )

    return call


def _columns(texts: Sequence[str | None], features: int) -> list[Sequence[str | None]]:
    """Return the texts of each feature, which stand one feature's after the other's."""
    if features == 0:
        return []
    rows = len(texts) // features
    if len(texts) != rows * features:
        raise Refusal(
            f"{len(texts)} texts are no whole number of rows of {features}",
            "Pass all rows' texts of the first feature, then those of the next.",
        )
    return [texts[i * rows : (i + 1) * rows] for i in range(features)]


def _coded(predictions: np.ndarray[Any, Any], classes: Sequence[Any] | None) -> tuple[np.ndarray[Any, Any], list[str]]:
    """Return texts as int32 numbers, from 1, of the labels that come with them."""
    import numpy as np

    codes = {str(label): number for number, label in enumerate(classes or (), 1)}
    flat = [codes.setdefault(str(text), len(codes) + 1) for text in predictions.reshape(-1).tolist()]
    return np.array(flat, np.int32).reshape(predictions.shape), list(codes)
