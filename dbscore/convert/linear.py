"""Exact float64 converters for linear classifiers that have no probabilities, which skl2onnx has in float32 only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, Int64TensorType, StringTensorType
from sklearn.linear_model import RidgeClassifier, RidgeClassifierCV
from sklearn.svm import LinearSVC

from dbscore.convert.nodes import Nodes

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["linear_converters"]


def linear_converters(
    precision: str,
) -> tuple[dict[type, Callable[[Any], None]], dict[type, Callable[[Any, Any, Any], None]]]:
    """Return shape calculators and converters by estimator class, as convert_sklearn takes them."""
    number = DoubleTensorType if precision == "float64" else FloatTensorType

    def calculate(operator: Any) -> None:  # noqa: ANN401 - skl2onnx's own, untyped
        model = operator.raw_operator
        if isinstance(model.classes_, list) or np.ndim(model.classes_) != 1:
            raise NotImplementedError(f"{type(model).__name__} with several targets")
        label = StringTensorType if model.classes_.dtype.kind in "OUS" else Int64TensorType
        operator.outputs[0].type = label([None])
        operator.outputs[1].type = number([None, np.atleast_2d(model.coef_).shape[0]])

    def convert(scope: Any, operator: Any, container: Any) -> None:  # noqa: ANN401
        _classify(Nodes(scope, container, precision, ""), scope, operator, container)

    classes = (LinearSVC, RidgeClassifier, RidgeClassifierCV)
    return dict.fromkeys(classes, calculate), dict.fromkeys(classes, convert)


def _classify(nodes: Nodes, scope: Any, operator: Any, container: Any) -> None:  # noqa: ANN401
    """Labels of the highest score, or of the sign where there are two classes: scikit-learn's decision_function."""
    model = operator.raw_operator
    coefficients = np.atleast_2d(np.asarray(model.coef_, dtype=np.float64))
    intercept = np.broadcast_to(np.asarray(model.intercept_, dtype=np.float64), (len(coefficients),))
    product = nodes.add("MatMul", [nodes.joined(operator.inputs), nodes.numbers(coefficients.T.tolist())])
    scores = nodes.add("Add", [product, nodes.numbers([intercept.tolist()])])
    if len(coefficients) == 1:
        positive = nodes.add("Greater", [scores, nodes.numbers([[0.0]])])
        index = nodes.add("Cast", [positive], to=TensorProto.INT64)
    else:
        index = nodes.add("ArgMax", [scores], axis=1, keepdims=0)
    labels = scope.get_unique_variable_name("classes")
    values = model.classes_.tolist()
    if model.classes_.dtype.kind in "OUS":
        container.add_initializer(labels, TensorProto.STRING, [len(values)], [str(v).encode() for v in values])
    else:
        container.add_initializer(labels, TensorProto.INT64, [len(values)], [int(v) for v in values])
    picked = nodes.add("ArrayFeatureExtractor", [labels, index], domain="ai.onnx.ml")
    flat = nodes.add("Reshape", [picked, nodes.integers([-1])])
    nodes.name(flat, operator)
    nodes.name(scores, operator, output=1)
