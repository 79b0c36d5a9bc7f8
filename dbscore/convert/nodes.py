"""Writing nodes into a graph that skl2onnx is building."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto
from skl2onnx.common.data_types import StringTensorType

from dbscore.convert.groups import is_gap

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["Nodes"]


class Nodes:
    """A writer of nodes and constants in one precision.

    Args:
        scope: skl2onnx's scope, which keeps names unique.
        container: skl2onnx's container, which keeps nodes.
        precision: `float64` or `float32`: the type of numbers.
        missing: The string that stands for a missing text.
    """

    def __init__(self, scope: Any, container: Any, precision: str, missing: str) -> None:  # noqa: ANN401
        self._scope = scope
        self._container = container
        self.type = TensorProto.DOUBLE if precision == "float64" else TensorProto.FLOAT
        self.boolean = TensorProto.BOOL
        self._dtype = np.dtype(precision)
        self.missing = missing

    def add(self, op: str, inputs: Sequence[str], *, domain: str = "", **attributes: Any) -> str:  # noqa: ANN401
        """Add a node with one output and return the output's name."""
        output: str = self._scope.get_unique_variable_name(op.lower())
        name = self._scope.get_unique_operator_name(op)
        self._container.add_node(op, list(inputs), [output], op_domain=domain, name=name, **attributes)
        return output

    def name(self, value: str, operator: Any, *, output: int = 0) -> None:  # noqa: ANN401
        """Make a value an output of the operator that is being converted."""
        name = self._scope.get_unique_operator_name("Identity")
        self._container.add_node("Identity", [value], [operator.outputs[output].full_name], name=name)

    def numbers(self, rows: Sequence[Sequence[float]]) -> str:
        """Add a constant matrix of this precision."""
        array = np.array(rows, dtype=self._dtype)
        return self._constant(self.type, list(array.shape), array.ravel().tolist())

    def texts(self, rows: Sequence[Sequence[Any]]) -> str:
        """Add a constant matrix of strings."""
        flat = [self.text(value).encode() for row in rows for value in row]
        return self._constant(TensorProto.STRING, [len(rows), len(rows[0])], flat)

    def integers(self, values: Sequence[int]) -> str:
        """Add a constant vector of int64."""
        return self._constant(TensorProto.INT64, [len(values)], list(values))

    def labels(self, classes: np.ndarray[Any, Any]) -> str:
        """Add a constant vector of class labels: strings, or int64.

        Raises:
            NotImplementedError: A label is a number with a fraction.
        """
        values = classes.tolist()
        if classes.dtype.kind in "OUS":
            return self._constant(TensorProto.STRING, [len(values)], [str(v).encode() for v in values])
        if any(int(v) != v for v in values):
            raise NotImplementedError(f"class labels with fractions: {values}")
        return self._constant(TensorProto.INT64, [len(values)], [int(v) for v in values])

    def text(self, value: Any) -> str:  # noqa: ANN401 - a category
        """Return a category as the ONNX input spells it.

        Raises:
            NotImplementedError: It is neither text nor missing.
        """
        if is_gap(value):
            return self.missing
        if not isinstance(value, str):
            raise NotImplementedError(f"category {value!r} of a text column is no text")
        return str(value)

    def nothing(self, taken: Sequence[str]) -> str:
        """Return a string that is none of these."""
        text = "?"
        while text in taken:
            text += "?"
        return text

    def cast(self, value: str) -> str:
        """Cast to this precision."""
        return self.add("Cast", [value], to=self.type)

    def logistic(self, value: str) -> str:
        """Compute 1 / (1 + exp(-x)): ONNX Runtime's own Sigmoid is not exact for small probabilities."""
        one = self.numbers([[1.0]])
        power = self.add("Exp", [self.add("Neg", [value])])
        return self.add("Div", [one, self.add("Add", [power, one])])

    def columns(self, matrix: str, indexes: Sequence[int]) -> str:
        """Take columns of a matrix."""
        return self.add("Gather", [matrix, self.integers(indexes)], axis=1)

    def concat(self, parts: Sequence[str]) -> str:
        """Put matrices side by side."""
        return parts[0] if len(parts) == 1 else self.add("Concat", parts, axis=1)

    def joined(self, inputs: Sequence[Any]) -> str:
        """Return an operator's inputs as one matrix: of strings as they are, of numbers in this precision."""
        return self.concat([self._typed(value) for value in inputs])

    def singles(self, inputs: Sequence[Any]) -> Iterator[tuple[str, bool]]:
        """Yield an operator's input columns one by one, each with whether it is text."""
        for value in inputs:
            matrix = self._typed(value)
            text = isinstance(value.type, StringTensorType)
            width = value.type.shape[1]
            for i in range(width):
                yield (matrix if width == 1 else self.columns(matrix, [i])), text

    def _typed(self, value: Any) -> str:  # noqa: ANN401
        name: str = value.full_name
        return name if isinstance(value.type, StringTensorType) else self.cast(name)

    def _constant(self, type_: int, shape: list[int], content: list[Any]) -> str:
        name: str = self._scope.get_unique_variable_name("constant")
        self._container.add_initializer(name, type_, shape, content)
        return name
