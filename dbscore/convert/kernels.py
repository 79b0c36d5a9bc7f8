"""Exact float64 converters for support vector machines of numbers: ONNX's SVMRegressor is float32."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, Int64TensorType
from sklearn.svm import SVR, NuSVR, OneClassSVM

from dbscore.convert.nodes import Nodes

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["kernel_converters"]


def kernel_converters(
    precision: str,
) -> tuple[dict[type, Callable[[Any], None]], dict[type, Callable[[Any, Any, Any], None]]]:
    """Return shape calculators and converters by estimator class, as convert_sklearn takes them."""
    number = DoubleTensorType if precision == "float64" else FloatTensorType

    def shape_of_number(operator: Any) -> None:  # noqa: ANN401 - skl2onnx's own, untyped
        operator.outputs[0].type = number([None, 1])

    def shape_of_label(operator: Any) -> None:  # noqa: ANN401
        operator.outputs[0].type = Int64TensorType([None, 1])
        operator.outputs[1].type = number([None, 1])

    def regress(scope: Any, operator: Any, container: Any) -> None:  # noqa: ANN401
        nodes = Nodes(scope, container, precision, "")
        nodes.name(_decision(nodes, nodes.joined(operator.inputs), operator.raw_operator), operator)

    def detect(scope: Any, operator: Any, container: Any) -> None:  # noqa: ANN401
        nodes = Nodes(scope, container, precision, "")
        scores = _decision(nodes, nodes.joined(operator.inputs), operator.raw_operator)
        inside = nodes.add("Cast", [nodes.add("Greater", [scores, nodes.numbers([[0.0]])])], to=TensorProto.INT64)
        # 1 inside and 0 outside becomes 1 and -1
        label = nodes.add("Sub", [nodes.add("Add", [inside, inside]), nodes.integers([1])])
        nodes.name(label, operator)
        nodes.name(scores, operator, output=1)

    return (
        {SVR: shape_of_number, NuSVR: shape_of_number, OneClassSVM: shape_of_label},
        {SVR: regress, NuSVR: regress, OneClassSVM: detect},
    )


def _decision(nodes: Nodes, matrix: str, model: Any) -> str:  # noqa: ANN401
    """sum(dual_coef * kernel(support vectors, x)) + intercept; shape (rows, 1)."""
    if hasattr(model.support_vectors_, "toarray"):
        raise NotImplementedError(f"{type(model).__name__} fitted on a sparse matrix")
    vectors = np.asarray(model.support_vectors_, dtype=np.float64)
    similar = _kernel(nodes, matrix, model, vectors)
    total = nodes.add("MatMul", [similar, nodes.numbers(model.dual_coef_.T.tolist())])
    return nodes.add("Add", [total, nodes.numbers([model.intercept_.tolist()])])


def _kernel(nodes: Nodes, matrix: str, model: Any, vectors: np.ndarray[Any, Any]) -> str:  # noqa: ANN401
    gamma = nodes.numbers([[float(model._gamma)]])  # noqa: SLF001 - what 'scale' and 'auto' came to
    if model.kernel == "rbf":
        # distances do not change when everything moves; about the middle they cancel least
        middle = vectors.mean(axis=0)
        centred = vectors - middle
        moved = nodes.add("Sub", [matrix, nodes.numbers([middle.tolist()])])
        squares = nodes.add("ReduceSumSquare", [moved, nodes.integers([1])], keepdims=1)
        own = nodes.numbers([(centred**2).sum(axis=1).tolist()])
        cross = nodes.add("MatMul", [moved, nodes.numbers((-2.0 * centred.T).tolist())])
        distances = nodes.add("Add", [nodes.add("Add", [cross, own]), squares])
        return nodes.add("Exp", [nodes.add("Neg", [nodes.add("Mul", [distances, gamma])])])
    product = nodes.add("MatMul", [matrix, nodes.numbers(vectors.T.tolist())])
    if model.kernel == "linear":
        return product
    if model.kernel not in ("poly", "sigmoid"):
        raise NotImplementedError(f"kernel {model.kernel!r}")
    shifted = nodes.add("Add", [nodes.add("Mul", [product, gamma]), nodes.numbers([[float(model.coef0)]])])
    if model.kernel == "sigmoid":
        return nodes.add("Tanh", [shifted])
    return nodes.add("Pow", [shifted, nodes.numbers([[float(model.degree)]])])
