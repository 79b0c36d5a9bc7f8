"""Running an ONNX graph on one row of expressions instead of numbers: what comes out is what each output computes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from dbscore.compiler.expression import Expression, Pool
from dbscore.errors import CompilationError
from dbscore.signature import NullPolicy, SqlType

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from dbscore.signature import Feature, Signature

__all__ = ["Node", "Operator", "Tensor", "run"]

# the dtype in which a feature's value is compared and computed with
DTYPES = {
    SqlType.BOOLEAN: "bool",
    SqlType.SMALLINT: "int32",
    SqlType.INTEGER: "int32",
    SqlType.BIGINT: "int64",
    SqlType.REAL: "float32",
    SqlType.DOUBLE: "float64",
    SqlType.TEXT: "string",
    SqlType.REAL_ARRAY: "float32",
    SqlType.DOUBLE_ARRAY: "float64",
    SqlType.BIGINT_ARRAY: "int64",
    SqlType.BOOLEAN_ARRAY: "bool",
}


@dataclass(frozen=True, slots=True)
class Tensor:
    """A value in the graph, for one row: its leading dimension is 1.

    Attributes:
        values: Of expressions, dtype object; or of numbers, booleans or texts where it is the same for all rows.
        dtype: As ONNX has it: `float64`, `string` and so on.
    """

    values: np.ndarray[Any, Any]
    dtype: str

    @property
    def is_constant(self) -> bool:
        """Whether it is the same for all rows."""
        return not (self.values.size and isinstance(self.values.flat[0], Expression))


@dataclass(frozen=True, slots=True)
class Node:
    """A node that is being run, and where its expressions are made."""

    op: str
    attributes: Mapping[str, Any]
    pool: Pool
    opset: int
    outputs: int

    def get(self, name: str, default: Any = None) -> Any:  # noqa: ANN401 - any attribute
        """Return an attribute, or the default; a text is a str."""
        value = self.attributes.get(name, default)
        return value.decode() if isinstance(value, bytes) else value

    def texts(self, name: str) -> list[str]:
        """Return an attribute that is a list of texts."""
        return [text.decode() if isinstance(text, bytes) else text for text in self.attributes.get(name, ())]

    def expressions(self, tensor: Tensor) -> Any:  # noqa: ANN401 - an array of objects, whose kind numpy does not tell
        """Return a tensor's expressions, constant ones too: an array of its shape."""
        if not tensor.is_constant:
            return tensor.values
        made = np.empty(tensor.values.shape, object)
        for place, value in np.ndenumerate(tensor.values):
            made[place] = self.pool.const(value, tensor.dtype)
        return made

    def tensor(self, values: Any, dtype: str) -> Tensor:  # noqa: ANN401 - an array, or lists
        """Return expressions as a tensor, a constant one where they all are."""
        array = np.asarray(values, object)
        if array.size and all(isinstance(e, Expression) and e.is_constant for e in array.flat):
            known = [np.nan if e.value is None else e.value for e in array.flat]
            return Tensor(np.array(known, object if dtype == "string" else dtype).reshape(array.shape), dtype)
        return Tensor(array, dtype)

    def each(self, make: Callable[..., Expression], *tensors: Tensor, dtype: str | None = None) -> Tensor:
        """Return what a function makes of the elements of tensors, broadcast as ONNX does."""
        arrays = np.broadcast_arrays(*(self.expressions(t) for t in tensors))
        made = np.empty(arrays[0].shape, object)
        for place in np.ndindex(made.shape):
            made[place] = make(*(a[place] for a in arrays))
        return self.tensor(made, dtype or tensors[0].dtype)

    def constant(self, tensor: Tensor | None, what: str) -> np.ndarray[Any, Any]:
        """Return the values of a tensor that must be the same for all rows.

        Raises:
            NotImplementedError: It is not.
        """
        if tensor is None or not tensor.is_constant:
            raise NotImplementedError(f"{what} that depend on the row")
        return tensor.values


Operator = "Callable[[Node, Sequence[Tensor | None]], Sequence[Tensor]]"


def run(
    content: bytes, signature: Signature, wanted: Iterable[str], operators: Mapping[tuple[str, str], Any]
) -> tuple[dict[str, Tensor], Pool]:
    """Return what outputs of a graph compute for one row.

    Args:
        content: The ONNX model.
        signature: Which features fill its inputs.
        wanted: The outputs' names; what only others need is not run.
        operators: What runs a node, by domain and name.

    Raises:
        CompilationError: A node has no operator, or one that does not do what this node asks.
    """
    model = onnx.load_from_string(content)
    graph, pool = model.graph, Pool()
    opsets = {o.domain or "ai.onnx": o.version for o in model.opset_import}
    if model.functions:
        raise CompilationError("the graph has functions of its own, which are not compiled", remedy=_REMEDY)
    tensors: dict[str, Tensor | None] = {"": None}
    tensors |= {t.name: _constant(numpy_helper.to_array(t)) for t in graph.initializer}
    tensors |= _inputs(signature, pool)
    wanted = list(wanted)
    for node in _needed(graph.node, wanted):
        domain = node.domain or "ai.onnx"
        operator = operators.get((domain, node.op_type))
        if operator is None:
            why = _WHY_NOT.get((domain, node.op_type), "")
            raise CompilationError(f"the operator {domain}.{node.op_type} is not compiled to SQL{why}", remedy=_REMEDY)
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        asked = Node(node.op_type, attributes, pool, opsets.get(domain, 1), len(node.output))
        try:
            made = operator(asked, [tensors[name] for name in node.input])
        except NotImplementedError as error:
            raise CompilationError(
                f"the operator {domain}.{node.op_type} is not compiled to SQL with {error}", remedy=_REMEDY
            ) from error
        tensors |= zip(node.output, made, strict=False)
    return {name: tensor for name in wanted if (tensor := tensors[name]) is not None}, pool


_REMEDY = "Leave --engine out, or say --engine onnx: ONNX Runtime scores the version."

# what others may well expect to be compiled
_WHY_NOT: Mapping[tuple[str, str], str] = {
    ("ai.onnx", "TopK"): ": an expression does not sort a row's numbers",
    ("ai.onnx", "Scan"): ": an expression has no loop",
    ("ai.onnx", "Loop"): ": an expression has no loop",
    ("ai.onnx.ml", "SVMClassifier"): ": it compares a row with thousands of others",
    ("ai.onnx.ml", "SVMRegressor"): ": it compares a row with thousands of others",
}


def _constant(values: np.ndarray[Any, Any]) -> Tensor:
    return Tensor(values, "string" if values.dtype.kind in "OSU" else values.dtype.name)


def _inputs(signature: Signature, pool: Pool) -> dict[str, Tensor | None]:
    """Return the graph's inputs, made of the features."""
    made: dict[str, Tensor | None] = {}
    for tensor in signature.tensors:
        row = np.empty((1, tensor.width), object)
        for index, feature in enumerate(signature.features):
            if feature.tensor == tensor.name:
                for offset, value in enumerate(_feature(pool, index, feature)):
                    row[0, feature.position + offset] = pool.cast(value, tensor.dtype)
        made[tensor.name] = Tensor(row if tensor.rank != 1 else row.reshape(-1), tensor.dtype)
    return made


def _feature(pool: Pool, index: int, feature: Feature) -> list[Expression]:
    """Return a feature's values: one, or those of an array."""
    dtype = DTYPES.get(feature.type)
    if dtype is None:
        raise CompilationError(f"the feature {feature.name} is of type {feature.type}", remedy=_REMEDY)
    nullable = feature.null_policy is NullPolicy.NAN
    whole = pool.feature(index, dtype, is_nullable=nullable)
    if feature.type.is_array:
        # an element may be NULL where the whole array may be
        return [pool.make("item", dtype, (whole,), place, is_nullable=nullable) for place in range(feature.width)]
    if feature.type is SqlType.TEXT and nullable:
        return [pool.choose(pool.missing(whole), pool.const(feature.missing or "", "string"), whole)]
    return [whole]


def _needed(nodes: Sequence[Any], wanted: Sequence[str]) -> list[Any]:
    """Return the nodes that the wanted values need, in the graph's order."""
    names, needed = set(wanted), []
    for node in reversed(nodes):
        if names.intersection(node.output):
            needed.append(node)
            names.update(node.input)
    return needed[::-1]
