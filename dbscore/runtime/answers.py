"""What many rows' scores are: arrays of the types that SQL has for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


# how numpy calls what SQL has; a text is an object
DTYPES = {
    "double precision": "float64",
    "real": "float32",
    "bigint": "int64",
    "integer": "int32",
    "smallint": "int16",
    "boolean": "bool",
}


class Answer:
    """What a frame gave.

    Attributes:
        predictions: Of the output's own dtype, shape (rows,) or (rows, width); any value where `nulls` is true.
        probabilities: float64, shape (rows, classes); None where the model has none.
        nulls: bool, shape (rows,): rows without a prediction, for a NULL feature or an error.
        errors: The rows that the model cannot take, and why.
    """

    def __init__(
        self,
        predictions: np.ndarray[Any, Any],
        probabilities: np.ndarray[Any, Any] | None,
        nulls: np.ndarray[Any, Any],
        errors: dict[int, str],
    ) -> None:
        self.predictions = predictions
        self.probabilities = probabilities
        self.nulls = nulls
        self.errors = errors


def alike(first: np.ndarray[Any, Any], second: np.ndarray[Any, Any]) -> tuple[Any, Any]:
    """Return two answers with the same number of columns: a row that could not be scored has none."""
    import numpy as np

    model = first if first.shape[1] >= second.shape[1] else second

    def like(answer: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        shape = (len(answer), model.shape[1])
        return answer.astype(model.dtype) if answer.shape == shape else np.zeros(shape, model.dtype)

    return like(first), like(second)


def typed(answer: np.ndarray[Any, Any], output: dict[str, Any], rows: int) -> np.ndarray[Any, Any]:
    """Return an output in the dtype of its SQL type, shape (rows,), or (rows, width) where it is an array."""
    import numpy as np

    dtype = np.dtype(DTYPES.get(output["type"].removesuffix("[]"), "object"))
    many = output["type"].endswith("[]")
    if answer.size == 0:
        return np.zeros((rows, output["width"]) if many else rows, dtype)
    return answer.astype(dtype, copy=False).reshape((rows, -1) if many else rows)
