"""Exact float64 converters for linear classifiers, whose label scikit-learn takes from the scores themselves.

skl2onnx has those without probabilities in float32 only, and takes the label of the others from probabilities,
of which several may be 1 where the scores still differ. Of two classes scikit-learn's first has the complement of
the second's probability, not a probability of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, Int64TensorType, StringTensorType
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import (
    LogisticRegression,
    LogisticRegressionCV,
    Perceptron,
    RidgeClassifier,
    RidgeClassifierCV,
    SGDClassifier,
)
from sklearn.svm import LinearSVC

from dbscore.convert.nodes import Nodes

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["linear_converters"]

# of these, skl2onnx's ensembles expect one score for two classes; of the others, one per class
_ONE_SCORE = (LinearSVC, RidgeClassifier, RidgeClassifierCV)
_LOGISTIC = (LogisticRegression, LogisticRegressionCV, LinearDiscriminantAnalysis)
_CLASSES = (*_ONE_SCORE, *_LOGISTIC, Perceptron, SGDClassifier)


def linear_converters(
    precision: str,
) -> tuple[dict[type, Callable[[Any], None]], dict[type, Callable[[Any, Any, Any], None]]]:
    """Return shape calculators and converters by estimator class, as convert_sklearn takes them.

    The second output has probabilities where the model has them, else scores.
    """
    number = DoubleTensorType if precision == "float64" else FloatTensorType

    def calculate(operator: Any) -> None:  # noqa: ANN401 - skl2onnx's own, untyped
        model = operator.raw_operator
        if isinstance(model.classes_, list) or np.ndim(model.classes_) != 1:
            raise NotImplementedError(f"{type(model).__name__} with several targets")
        label = StringTensorType if model.classes_.dtype.kind in "OUS" else Int64TensorType
        operator.outputs[0].type = label([None])
        single = isinstance(model, _ONE_SCORE) and len(model.classes_) == 2  # noqa: PLR2004
        operator.outputs[1].type = number([None, 1 if single else len(model.classes_)])

    def convert(scope: Any, operator: Any, container: Any) -> None:  # noqa: ANN401
        nodes = Nodes(scope, container, precision, "")
        model = operator.raw_operator
        scores = _scores(nodes, nodes.joined(operator.inputs), model)
        nodes.name(_label(nodes, scores, model.classes_), operator)
        options = container.get_options(model, {"raw_scores": False}, fail=False) or {}
        loss = "" if options.get("raw_scores") else _loss(model)
        if not isinstance(model, _ONE_SCORE):
            scores = _probabilities(nodes, scores, len(model.classes_), loss)
        nodes.name(scores, operator, output=1)

    return dict.fromkeys(_CLASSES, calculate), dict.fromkeys(_CLASSES, convert)


def _loss(model: Any) -> str:  # noqa: ANN401
    """The loss whose link gives the probabilities; scikit-learn before 1.8 has a choice for LogisticRegression."""
    if not isinstance(model, _LOGISTIC):
        return getattr(model, "loss", "")
    two = len(model.classes_) == 2  # noqa: PLR2004
    asked = getattr(model, "multi_class", "auto")
    if asked == "multinomial":
        return "multinomial"
    alone = asked == "ovr" or getattr(model, "solver", "") == "liblinear"
    return "log_loss" if two or alone else "multinomial"


def _scores(nodes: Nodes, matrix: str, model: Any) -> str:  # noqa: ANN401
    """scikit-learn's decision_function; shape (rows, 1) for two classes, else (rows, classes)."""
    coefficients = np.atleast_2d(np.asarray(model.coef_, dtype=np.float64))
    intercept = np.broadcast_to(np.asarray(model.intercept_, dtype=np.float64), (len(coefficients),))
    product = nodes.add("MatMul", [matrix, nodes.numbers(coefficients.T.tolist())])
    return nodes.add("Add", [product, nodes.numbers([intercept.tolist()])])


def _label(nodes: Nodes, scores: str, classes: np.ndarray[Any, Any]) -> str:
    if len(classes) > 2:  # noqa: PLR2004 - two classes have one score
        index = nodes.add("ArgMax", [scores], axis=1, keepdims=0)
    else:
        positive = nodes.add("Greater", [scores, nodes.numbers([[0.0]])])
        index = nodes.add("Cast", [positive], to=TensorProto.INT64)
    picked = nodes.add("ArrayFeatureExtractor", [nodes.labels(classes), index], domain="ai.onnx.ml")
    return nodes.add("Reshape", [picked, nodes.integers([-1])])


def _probabilities(nodes: Nodes, scores: str, count: int, loss: str) -> str:
    """One number per class: softmax, logistic or modified Huber one-against-rest (Zadrozny & Elkan), or the scores.

    Source:
        Zadrozny & Elkan (2002), Transforming classifier scores into accurate multiclass probability estimates.
    """
    one = nodes.numbers([[1.0]])
    two = count == 2  # noqa: PLR2004
    if loss not in ("log_loss", "modified_huber"):
        each = nodes.concat([nodes.add("Neg", [scores]), scores]) if two else scores
        return nodes.add("Softmax", [each], axis=1) if loss == "multinomial" else each
    if loss == "log_loss":
        each = nodes.logistic(scores)
    else:
        bounded = nodes.add("Min", [nodes.add("Max", [scores, nodes.numbers([[-1.0]])]), one])
        each = nodes.add("Div", [nodes.add("Add", [bounded, one]), nodes.numbers([[2.0]])])
    if two:
        return nodes.concat([nodes.add("Sub", [one, each]), each])
    total = nodes.add("ReduceSum", [each, nodes.integers([1])], keepdims=1)
    shares = nodes.add("Div", [each, total])
    # all zero: scikit-learn divides evenly
    none = nodes.add("Equal", [total, nodes.numbers([[0.0]])])
    return nodes.add("Where", [none, nodes.numbers([[1.0 / count] * count]), shares])
