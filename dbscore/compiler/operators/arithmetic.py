"""Arithmetic, element by element."""

from __future__ import annotations

import math
from functools import reduce
from typing import TYPE_CHECKING

from dbscore.compiler.operators.reductions import logistic_in_steps

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dbscore.compiler.expression import Expression
    from dbscore.compiler.graph import Node, Tensor


def add(node: Node, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return a + b."""
    return [node.each(node.pool.add, *inputs)]


def sub(node: Node, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return a - b."""
    return [node.each(node.pool.sub, *inputs)]


def mul(node: Node, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return a * b."""
    return [node.each(node.pool.mul, *inputs)]


def div(node: Node, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return a / b."""
    return [node.each(node.pool.div, *inputs)]


def neg(node: Node, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return -a."""
    return [node.each(node.pool.neg, *inputs)]


def reciprocal(node: Node, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return 1 / a."""
    return [node.each(lambda a: node.pool.div(node.pool.const(1, a.dtype), a), *inputs)]


def absolute(node: Node, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return a without its sign."""
    return [node.each(lambda a: node.pool.call("abs", a, abs, low=0.0), *inputs)]


def sqrt(node: Node, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return the square root; missing below 0."""
    return [node.each(lambda a: node.pool.call("sqrt", a, math.sqrt, low=0.0), *inputs)]


def exp(node: Node, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return e to the power of a."""
    return [node.each(node.pool.exp, *inputs)]


def log(node: Node, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return the natural logarithm: minus infinity at 0, missing below."""
    return [node.each(lambda a: node.pool.call("ln", a, _log), *inputs)]


def _log(value: float) -> float:
    return -math.inf if value == 0 else math.log(value)


def floor(node: Node, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return the next whole number below."""
    return [node.each(lambda a: node.pool.call("floor", a, _floor), *inputs)]


def _floor(value: float) -> float:
    return value if math.isinf(value) else float(math.floor(value))


def ceil(node: Node, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return the next whole number above."""
    return [node.each(lambda a: node.pool.call("ceil", a, lambda x: -_floor(-x)), *inputs)]


def sign(node: Node, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return -1, 0 or 1."""
    return [node.each(lambda a: node.pool.call("sign", a, lambda x: (x > 0) - (x < 0), low=-1.0, high=1.0), *inputs)]


def tanh(node: Node, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return the hyperbolic tangent."""
    return [node.each(lambda a: node.pool.call("tanh", a, math.tanh, low=-1.0, high=1.0), *inputs)]


def sigmoid(node: Node, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return 1 / (1 + exp(-a))."""
    if inputs[0].dtype == "float64":
        # a share below a half is what the other leaves of 1: ONNX Runtime has no more digits of it
        return [node.each(lambda a: logistic_in_steps(node, a), *inputs)]
    return [node.each(node.pool.logistic, *inputs)]


def relu(node: Node, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return a, or 0 where it is less."""
    return [node.each(lambda a: node.pool.extreme("max", [a, node.pool.const(0, a.dtype)]), *inputs)]


def leaky_relu(node: Node, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return a, or a share of it where it is less than 0."""
    pool, share = node.pool, node.get("alpha", 0.01)

    def made(a: Expression) -> Expression:
        below = pool.compare("lt", a, pool.const(0, a.dtype))
        return pool.choose(below, pool.mul(a, pool.const(share, a.dtype)), a)

    return [node.each(made, *inputs)]


def clip(node: Node, inputs: Sequence[Tensor | None]) -> list[Tensor]:
    """Return a within bounds."""
    tensor = inputs[0]
    assert tensor is not None  # noqa: S101 - the operator's first input is not optional
    bounds = [inputs[i] if i < len(inputs) else None for i in (1, 2)]
    limits = [
        node.get(name) if bound is None else node.constant(bound, "bounds").item()
        for name, bound in zip(("min", "max"), bounds, strict=True)
    ]

    def clipped(a: Expression) -> Expression:
        for op, limit in zip(("max", "min"), limits, strict=True):
            if limit is not None:
                a = node.pool.extreme(op, [a, node.pool.const(limit, a.dtype)])
        return a

    return [node.each(clipped, tensor)]


def minimum(node: Node, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return the least."""
    return [node.each(lambda *a: node.pool.extreme("min", a), *inputs)]


def maximum(node: Node, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return the greatest."""
    return [node.each(lambda *a: node.pool.extreme("max", a), *inputs)]


def total(node: Node, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return the sum."""
    return [node.each(lambda *a: reduce(node.pool.add, a), *inputs)]


def power(node: Node, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return a to the power of b: of small whole numbers by multiplication, of 2 by exp2."""
    base, exponent = inputs
    if exponent.is_constant and set(map(float, exponent.values.flat)) <= {1.0, 2.0, 3.0}:
        return [node.each(lambda a, b: reduce(node.pool.mul, [a] * int(b.value)), base, exponent)]
    if exponent.is_constant and set(map(float, exponent.values.flat)) == {0.5}:
        return [node.each(lambda a, _: node.pool.call("sqrt", a, math.sqrt, low=0.0), base, exponent)]

    def raised(a: Expression, b: Expression) -> Expression:
        if a.is_constant and b.is_constant:
            return node.pool.const(float(a.value) ** float(b.value), a.dtype)
        low = 0.0 if a.low >= 0 else -math.inf
        return node.pool.make("power", a.dtype, (a, b), is_nullable=True, low=low)

    return [node.each(raised, base, exponent)]
