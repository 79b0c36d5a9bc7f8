"""Several numbers of a row to one: sums, norms, the greatest, probabilities."""

from __future__ import annotations

import math
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np

from dbscore.compiler.affine import weighted_sum
from dbscore.compiler.graph import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dbscore.compiler.expression import Expression
    from dbscore.compiler.graph import Node


def _reduced(
    node: Node, inputs: Sequence[Tensor | None], make: Callable[[list[Expression]], Expression]
) -> list[Tensor]:
    """Return what a function makes of the elements along the node's axes."""
    tensor = inputs[0]
    assert tensor is not None  # noqa: S101 - the operator's first input is not optional
    axes = node.get("axes")
    if len(inputs) > 1 and inputs[1] is not None:
        axes = node.constant(inputs[1], "axes").reshape(-1).tolist()
    values = node.expressions(tensor)
    if not axes:
        if node.get("noop_with_empty_axes", 0):
            return [tensor]
        axes = range(values.ndim)
    axes = sorted(int(a) % values.ndim for a in axes)
    kept = [a for a in range(values.ndim) if a not in axes]
    lines = np.transpose(values, [*kept, *axes]).reshape(*(values.shape[a] for a in kept), -1)
    made = np.empty(lines.shape[:-1], object)
    for place in np.ndindex(made.shape):
        made[place] = make(list(lines[place]))
    if node.get("keepdims", 1):
        made = np.expand_dims(made, tuple(axes))
    return [node.tensor(made, tensor.dtype)]


def _summed(node: Node, line: list[Expression]) -> Expression:
    if line[0].dtype == "float64":
        return weighted_sum(node.pool, line, [1.0] * len(line), 0.0, "float64")
    return reduce(node.pool.add, line)


def sums(node: Node, inputs: Sequence[Tensor | None]) -> list[Tensor]:
    """Return the sum."""
    return _reduced(node, inputs, lambda line: _summed(node, line))


def means(node: Node, inputs: Sequence[Tensor | None]) -> list[Tensor]:
    """Return the mean."""
    pool = node.pool
    return _reduced(node, inputs, lambda line: pool.div(_summed(node, line), pool.const(len(line), line[0].dtype)))


def greatest(node: Node, inputs: Sequence[Tensor | None]) -> list[Tensor]:
    """Return the greatest."""
    return _reduced(node, inputs, lambda line: node.pool.extreme("max", line))


def least(node: Node, inputs: Sequence[Tensor | None]) -> list[Tensor]:
    """Return the least."""
    return _reduced(node, inputs, lambda line: node.pool.extreme("min", line))


def products(node: Node, inputs: Sequence[Tensor | None]) -> list[Tensor]:
    """Return the product."""
    return _reduced(node, inputs, lambda line: reduce(node.pool.mul, line))


def l1(node: Node, inputs: Sequence[Tensor | None]) -> list[Tensor]:
    """Return the sum without signs."""
    return _reduced(node, inputs, lambda line: _summed(node, [_absolute(node, e) for e in line]))


def l2(node: Node, inputs: Sequence[Tensor | None]) -> list[Tensor]:
    """Return the root of the sum of squares."""
    return _reduced(node, inputs, lambda line: _norm(node, line))


def squares(node: Node, inputs: Sequence[Tensor | None]) -> list[Tensor]:
    """Return the sum of squares."""
    return _reduced(node, inputs, lambda line: _squared(node, line))


def log_sums(node: Node, inputs: Sequence[Tensor | None]) -> list[Tensor]:
    """Return the logarithm of the sum of the exponentials."""

    def made(line: list[Expression]) -> Expression:
        top, powers = _powers(node, line)
        return node.pool.add(node.pool.call("ln", _at_least_one(node, powers), math.log, low=0.0), top)

    return _reduced(node, inputs, made)


def running_sums(node: Node, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return the sums of each element and those before it."""
    if node.get("exclusive", 0) or node.get("reverse", 0):
        raise NotImplementedError("exclusive or reverse")
    values = node.expressions(inputs[0])
    axis = int(node.constant(inputs[1], "an axis").item())
    lines = np.moveaxis(values, axis, -1).copy()
    for place in np.ndindex(lines.shape[:-1]):
        for i in range(1, lines.shape[-1]):
            lines[(*place, i)] = node.pool.add(lines[(*place, i - 1)], lines[(*place, i)])
    return [node.tensor(np.moveaxis(lines, -1, axis), inputs[0].dtype)]


def _absolute(node: Node, a: Expression) -> Expression:
    return node.pool.call("abs", a, abs, low=0.0)


def _squared(node: Node, line: list[Expression]) -> Expression:
    return reduce(node.pool.add, [node.pool.mul(e, e) for e in line])


def _norm(node: Node, line: list[Expression]) -> Expression:
    return node.pool.call("sqrt", _squared(node, line), math.sqrt, low=0.0)


# --- places ---


def arg_max(node: Node, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return the place of the first of the greatest."""
    return _places(node, inputs[0], lambda line: line)


def arg_min(node: Node, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return the place of the first of the least."""
    return _places(node, inputs[0], lambda line: [node.pool.neg(e) for e in line])


def _places(node: Node, tensor: Tensor, turned: Callable[[list[Expression]], list[Expression]]) -> list[Tensor]:
    if node.get("select_last_index", 0):
        raise NotImplementedError("the last of several")
    values, axis = node.expressions(tensor), node.get("axis", 0)
    lines = np.moveaxis(values, axis, -1)
    made = np.empty(lines.shape[:-1], object)
    for place in np.ndindex(made.shape):
        made[place] = node.pool.greatest_at(turned(list(lines[place])))
    return [node.tensor(np.expand_dims(made, axis) if node.get("keepdims", 1) else made, "int64")]


def classes_of(node: Node, integers: str, texts: str) -> tuple[list[Any], str]:
    """Return a classifier's labels, and their dtype."""
    labels = node.texts(texts)
    return (labels, "string") if labels else (list(node.get(integers, ())), "int64")


def most_probable(node: Node, scores: Sequence[Expression], labels: Sequence[Any], dtype: str) -> Tensor:
    """Return the label with the greatest score, the first of several."""
    return node.tensor([node.pool.element(labels, node.pool.greatest_at(scores), dtype)], dtype)


# --- probabilities ---


def softmax(node: Node, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return exponentials as shares of their sum."""
    return [_lines(node, inputs[0], lambda line: softmaxed(node, line))]


def log_softmax(node: Node, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return the logarithms of such shares."""

    def made(line: list[Expression]) -> list[Expression]:
        top, powers = _powers(node, line)
        total = node.pool.call("ln", _at_least_one(node, powers), math.log, low=0.0)
        return [node.pool.sub(node.pool.sub(e, top), total) for e in line]

    return [_lines(node, inputs[0], made)]


def softmaxed(node: Node, line: Sequence[Expression]) -> list[Expression]:
    """Return exponentials as shares of their sum; with the greatest taken away first, none is too large."""
    if len(line) == 1:
        return [node.pool.const(1, line[0].dtype)]
    _, powers = _powers(node, line)
    total = _at_least_one(node, powers)
    return [node.pool.div(power, total) for power in powers]


def logistic_in_steps(node: Node, a: Expression) -> Expression:
    """Return 1 / (1 + exp(-a)) as the operators of ai.onnx.ml do: each step rounded, a share below a half as the rest.

    Source:
        ComputeLogistic in onnxruntime/core/providers/cpu/ml/ml_common.h.
    """
    pool = node.pool
    if a.is_constant:
        return pool.logistic(a)
    one = pool.const(1, a.dtype)
    power = pool.exp(pool.neg(pool.call("abs", a, abs, low=0.0)))
    share = pool.make("div", a.dtype, (one, pool.add(one, power)), low=0.5, high=1.0)
    return pool.choose(pool.compare("lt", a, pool.const(0, a.dtype)), pool.sub(one, share), share)


def _powers(node: Node, line: Sequence[Expression]) -> tuple[Expression, list[Expression]]:
    top = node.pool.extreme("max", line)
    # what is not above 0 has a power of its own, which is 0 a little early rather than an error
    return top, [node.pool.call("power_below_one", node.pool.sub(e, top), math.exp, low=0.0, high=1.0) for e in line]


def _at_least_one(node: Node, powers: Sequence[Expression]) -> Expression:
    """Return the sum of powers of which one is 1."""
    if all(p.is_constant for p in powers):
        return reduce(node.pool.add, powers)
    return node.pool.make("total", powers[0].dtype, powers, low=1.0, high=float(len(powers)))


def _lines(node: Node, tensor: Tensor, make: Callable[[list[Expression]], list[Expression]]) -> Tensor:
    axis = node.get("axis", -1 if node.opset >= 13 else 1)  # noqa: PLR2004 - the operator set that changed it
    return _along(tensor, axis, node, make)


def _along(tensor: Tensor, axis: int, node: Node, make: Callable[[list[Expression]], list[Expression]]) -> Tensor:
    values = node.expressions(tensor)
    lines = np.moveaxis(values, axis, -1)
    made = np.empty(lines.shape, object)
    for place in np.ndindex(lines.shape[:-1]):
        made[place] = make(list(lines[place]))
    return node.tensor(np.moveaxis(made, -1, axis), tensor.dtype)


def normalizer(node: Node, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return each row by its norm, in float32; a row of zeros stays one."""
    casted = node.each(lambda a: node.pool.cast(a, "float32"), inputs[0], dtype="float32")
    line = list(node.expressions(casted).reshape(-1))
    kind = node.get("norm", "MAX")
    if kind == "MAX":
        norm = node.pool.extreme("max", line)
    elif kind == "L1":
        norm = reduce(node.pool.add, [_absolute(node, e) for e in line])
    else:
        norm = _norm(node, line)
    zero = node.pool.const(0, "float32")
    is_zero = node.pool.compare("eq", norm, zero)
    divisor = node.pool.choose(is_zero, node.pool.const(1, "float32"), norm)
    made = [node.pool.div(e, divisor) for e in line]
    return [Tensor(np.array(made, object).reshape(inputs[0].values.shape), "float32")]


def lp_normalization(node: Node, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return numbers by their norm along an axis; zeros stay zeros."""
    if node.get("p", 2) not in (1, 2):
        raise NotImplementedError(f"p {node.get('p')}")

    def made(line: list[Expression]) -> list[Expression]:
        norm = _norm(node, line) if node.get("p", 2) == 2 else _summed(node, [_absolute(node, e) for e in line])  # noqa: PLR2004
        zero, one = (node.pool.const(value, norm.dtype) for value in (0, 1))
        divisor = node.pool.choose(node.pool.compare("eq", norm, zero), one, norm)
        return [node.pool.div(e, divisor) for e in line]

    return [_along(inputs[0], node.get("axis", -1), node, made)]
