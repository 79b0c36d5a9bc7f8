"""Truth, choices and types, element by element."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnx import helper

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dbscore.compiler.graph import Node, Tensor


def cast(node: Node, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return the values in another dtype."""
    return [_cast(node, inputs[0], _dtype(node.get("to")))]


def cast_like(node: Node, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return the values in the dtype of other values."""
    return [_cast(node, inputs[0], inputs[1].dtype)]


def _cast(node: Node, tensor: Tensor, dtype: str) -> Tensor:
    return node.each(lambda a: node.pool.cast(a, dtype), tensor, dtype=dtype)


def _dtype(number: int) -> str:
    kind = helper.tensor_dtype_to_np_dtype(number)
    name = "string" if kind.kind in "OSU" else kind.name
    if name not in ("float64", "float32", "int64", "int32", "bool", "string"):
        raise NotImplementedError(f"numbers of type {name}")
    return name


def where(node: Node, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return one value or the other."""
    return [node.each(node.pool.choose, *inputs, dtype=inputs[1].dtype)]


def is_nan(node: Node, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return whether a number is missing."""
    return [node.each(node.pool.missing, *inputs, dtype="bool")]


def negate(node: Node, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return whether it is false."""
    return [node.each(node.pool.negate, *inputs, dtype="bool")]


def both(node: Node, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return whether both are true."""
    return [node.each(lambda a, b: node.pool.both("and", a, b), *inputs, dtype="bool")]


def either(node: Node, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return whether one is true."""
    return [node.each(lambda a, b: node.pool.both("or", a, b), *inputs, dtype="bool")]


def differ(node: Node, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return whether exactly one is true."""
    pool = node.pool
    return [node.each(lambda a, b: pool.choose(a, pool.negate(b), b), *inputs, dtype="bool")]


def equal(node: Node, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return whether a = b."""
    return [_compared(node, "eq", inputs)]


def less(node: Node, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return whether a < b."""
    return [_compared(node, "lt", inputs)]


def less_or_equal(node: Node, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return whether a <= b."""
    return [_compared(node, "le", inputs)]


def greater(node: Node, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return whether a > b."""
    return [_compared(node, "gt", inputs)]


def greater_or_equal(node: Node, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return whether a >= b."""
    return [_compared(node, "ge", inputs)]


def _compared(node: Node, op: str, inputs: Sequence[Tensor]) -> Tensor:
    if op == "eq" and inputs[0].is_constant:
        # what is constant stands on the right, where it is looked for
        inputs = inputs[::-1]
    return node.each(lambda a, b: node.pool.compare(op, a, b), *inputs, dtype="bool")
