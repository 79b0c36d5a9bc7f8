"""Linear models, projections and layers of neurons: sums with constant weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dbscore.compiler.affine import weighted_sum
from dbscore.compiler.operators.reductions import classes_of, most_probable, softmaxed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dbscore.compiler.expression import Expression
    from dbscore.compiler.graph import Node, Tensor


def mat_mul(node: Node, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return the row times a constant matrix, or a constant matrix times the column."""
    left, right = inputs
    if right.is_constant and left.values.ndim <= 2 and right.values.ndim <= 2:  # noqa: PLR2004 - matrices
        matrix = right.values.reshape(len(right.values), -1)
        made = _rows(node, node.expressions(left).reshape(-1, len(matrix)), matrix, None, left.dtype)
        shape = (*left.values.shape[:-1], *right.values.shape[1:])
        return [node.tensor(made.reshape(shape), left.dtype)]
    if left.is_constant and left.values.ndim == right.values.ndim == 2:  # noqa: PLR2004
        made = _rows(node, node.expressions(right).T, left.values.T, None, left.dtype)
        return [node.tensor(made.T, left.dtype)]
    raise NotImplementedError("two factors that depend on the row, or more dimensions than two")


def gemm(node: Node, inputs: Sequence[Tensor | None]) -> list[Tensor]:
    """Return alpha times the row times a constant matrix, and beta times another row."""
    left, right = inputs[0], node.constant(inputs[1], "weights")
    assert left is not None  # noqa: S101 - the operator's first input is not optional
    rows = node.expressions(left)
    rows = rows.T if node.get("transA", 0) else rows
    matrix = (right.T if node.get("transB", 0) else right).astype(np.float64) * node.get("alpha", 1.0)
    added, beta = inputs[2] if len(inputs) > 2 else None, node.get("beta", 1.0)  # noqa: PLR2004 - the third is optional
    bias = None
    if added is not None and added.is_constant:
        bias = np.broadcast_to(added.values.astype(np.float64) * beta, (1, matrix.shape[1])).reshape(-1)
    made = node.tensor(_rows(node, rows, matrix, bias, left.dtype), left.dtype)
    if added is None or added.is_constant:
        return [made]
    factor = node.pool.const(beta, left.dtype)
    return [node.each(lambda a, b: node.pool.add(a, node.pool.mul(b, factor)), made, added)]


def _rows(
    node: Node,
    rows: Any,  # noqa: ANN401 - an array of expressions
    matrix: np.ndarray[Any, Any],
    bias: np.ndarray[Any, Any] | None,
    dtype: str,
) -> np.ndarray[Any, Any]:
    made = np.empty((len(rows), matrix.shape[1]), object)
    for place in np.ndindex(made.shape):
        constant = 0.0 if bias is None else float(bias[place[1]])
        made[place] = weighted_sum(node.pool, rows[place[0]], matrix[:, place[1]].tolist(), constant, dtype)
    return made


def scaler(node: Node, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return (x - offset) * scale, in float32."""
    values = np.array([node.pool.cast(e, "float32") for e in node.expressions(inputs[0]).reshape(-1)], object)
    offsets, scales = (np.broadcast_to(node.get(name), values.shape).tolist() for name in ("offset", "scale"))
    pool = node.pool
    made = [
        pool.mul(pool.sub(value, pool.const(offset, "float32")), pool.const(scale, "float32"))
        for value, offset, scale in zip(values, offsets, scales, strict=True)
    ]
    return [node.tensor(np.array(made, object).reshape(inputs[0].values.shape), "float32")]


def _scores(node: Node, tensor: Tensor, count: int) -> list[Expression]:
    """Return the row times the coefficients, a line of them for each score, and the intercepts; in float32."""
    values = node.expressions(tensor).reshape(-1)
    weights = np.array(node.get("coefficients"), np.float64).reshape(count, -1)
    constants = node.get("intercepts") or [0.0] * count
    return [
        weighted_sum(node.pool, values, line.tolist(), float(constant), "float32")
        for line, constant in zip(weights, constants, strict=True)
    ]


def regressor(node: Node, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return the numbers of a linear regression."""
    if node.get("post_transform", "NONE") != "NONE":
        raise NotImplementedError(f"post_transform {node.get('post_transform')}")
    return [node.tensor([_scores(node, inputs[0], node.get("targets", 1))], "float32")]


def classifier(node: Node, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return the label and the scores of a linear classifier."""
    labels, dtype = classes_of(node, "classlabels_ints", "classlabels_strings")
    transform = node.get("post_transform", "NONE")
    count = len(node.get("coefficients")) // inputs[0].values.size
    if count != len(labels) or transform not in ("NONE", "LOGISTIC", "SOFTMAX"):
        raise NotImplementedError(f"{count} scores for {len(labels)} classes and post_transform {transform}")
    scores = _scores(node, inputs[0], count)
    label = most_probable(node, scores, labels, dtype)
    if transform == "LOGISTIC":
        scores = [node.pool.logistic(s) for s in scores]
    elif transform == "SOFTMAX":
        scores = softmaxed(node, scores)
    return [label, node.tensor([scores], "float32")]
