"""Converters of scikit-learn's tree models that answer as scikit-learn does, in float64.

skl2onnx's own write the older operators, which return float32, and lose where the trees learned to send
missing values. These write TreeEnsemble of ai.onnx.ml version 5, one node for a whole ensemble, which adds up
in scikit-learn's order. Labels follow from the numbers by scikit-learn's rule for ties.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto
from skl2onnx._supported_operators import sklearn_operator_name_map
from skl2onnx.common._registration import get_converter, get_shape_calculator
from skl2onnx.common.data_types import (
    DoubleTensorType,
    FloatTensorType,
    Int64TensorType,
    StringTensorType,
    guess_proto_type,
)
from sklearn.base import ClassifierMixin
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.ensemble import (
    AdaBoostClassifier,
    AdaBoostRegressor,
    BaggingClassifier,
    BaggingRegressor,
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.ensemble._iforest import _average_path_length
from sklearn.tree import (
    DecisionTreeClassifier,
    DecisionTreeRegressor,
    ExtraTreeClassifier,
    ExtraTreeRegressor,
)

from dbscore.convert.tree_arrays import Ensemble, binary_tree, constant, histogram_ensemble, original_columns
from dbscore.convert.tree_operators import (
    ML_DOMAIN,
    TreeNodes,
    label_of,
    labels_are_text,
    leaf_sums,
    probabilities,
)
from dbscore.errors import ConversionError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from onnx import ModelProto

    Compute = Callable[[TreeNodes, Any, str, bool], list[str]]

__all__ = ["MINIMUM_ML_OPSET", "declare_ml_opset", "split_thresholds", "tree_converters"]

MINIMUM_ML_OPSET = 5

_TREES = (DecisionTreeClassifier, DecisionTreeRegressor, ExtraTreeClassifier, ExtraTreeRegressor)
_FORESTS = (RandomForestClassifier, RandomForestRegressor, ExtraTreesClassifier, ExtraTreesRegressor)
_GRADIENT = (GradientBoostingClassifier, GradientBoostingRegressor)
_HISTOGRAM = (HistGradientBoostingClassifier, HistGradientBoostingRegressor)
_OVER_ANYTHING = (BaggingClassifier, BaggingRegressor, AdaBoostClassifier, AdaBoostRegressor)


def tree_converters() -> tuple[dict[type, Callable[..., None]], dict[type, Callable[..., None]]]:
    """Return (custom_shape_calculators, custom_conversion_functions) for skl2onnx.convert_sklearn.

    A classifier's outputs are the label, shape (rows,), int64 (0 and 1 for booleans) or string, and the
    probabilities, (rows, n_classes). A regressor's is (rows, n_outputs). IsolationForest's are the label, -1
    or 1, and decision_function, both (rows, 1). Numbers are float64, or float32 where the first input is;
    the arithmetic is float64 always. Call `declare_ml_opset` on the converted model.

    Raises:
        ConversionError: From within the conversion, where a model cannot be reproduced.
    """
    classifiers: dict[type, Compute] = {
        **dict.fromkeys(
            [c for c in (*_TREES, *_FORESTS, BaggingClassifier) if issubclass(c, ClassifierMixin)],
            _averaged_classes,
        ),
        GradientBoostingClassifier: _boosted_classes,
        HistGradientBoostingClassifier: _boosted_classes,
        AdaBoostClassifier: _adaptive_classes,
    }
    others: dict[type, Compute] = {
        **dict.fromkeys(
            [c for c in (*_TREES, *_FORESTS, BaggingRegressor) if not issubclass(c, ClassifierMixin)],
            _averaged_numbers,
        ),
        GradientBoostingRegressor: _boosted_numbers,
        HistGradientBoostingRegressor: _boosted_numbers,
        AdaBoostRegressor: _weighted_median,
        IsolationForest: _isolation,
    }
    shapes: dict[type, Callable[..., None]] = dict.fromkeys(classifiers, _classifier_shapes)
    shapes |= {**dict.fromkeys(others, _regressor_shapes), IsolationForest: _isolation_shapes}
    return (
        {c: _unless_other_estimators(f, get_shape_calculator) for c, f in shapes.items()},
        {c: _unless_other_estimators(_converter(f), get_converter) for c, f in (classifiers | others).items()},
    )


def declare_ml_opset(model: ModelProto) -> None:
    """Say in a converted model that it needs ai.onnx.ml 5, which skl2onnx 1.20 does not let a converter say.

    A model without TreeEnsemble stays as it is.

    Raises:
        ConversionError: The model also has a tree operator that version 5 withdrew.
    """
    types = {node.op_type for node in model.graph.node if node.domain == ML_DOMAIN}
    if "TreeEnsemble" not in types:
        return
    withdrawn = sorted(types & {"TreeEnsembleClassifier", "TreeEnsembleRegressor"})
    if withdrawn:
        raise ConversionError(
            f"the model mixes scikit-learn's trees with {withdrawn[0]}, of another converter, in one graph",
            remedy="Use tree models of one library within a pipeline or an ensemble.",
        )
    for opset in model.opset_import:
        if opset.domain == ML_DOMAIN:
            opset.version = max(opset.version, MINIMUM_ML_OPSET)


def split_thresholds(estimator: Any) -> Iterator[tuple[int, float]]:  # noqa: ANN401 - any fitted estimator
    """Yield the numeric splits of a fitted tree model: the column of the matrix it sees, the threshold.

    A value equal to the threshold goes left. HistGradientBoosting compares the float64 value, all others its
    float32 rounding. Categorical splits and those that only tell missing values from others are left out; an
    estimator that is no tree model has none.
    """
    if isinstance(estimator, _TREES):
        tree = estimator.tree_
        inner = (tree.children_left >= 0) & np.isfinite(tree.threshold)
        yield from zip(tree.feature[inner].tolist(), tree.threshold[inner].tolist(), strict=True)
    elif isinstance(estimator, _HISTOGRAM):
        columns = original_columns(estimator)
        for iteration in estimator._predictors:  # noqa: SLF001 - scikit-learn keeps its trees nowhere else
            for predictor in iteration:
                splits = predictor.nodes[(predictor.nodes["is_leaf"] == 0) & (predictor.nodes["is_categorical"] == 0)]
                splits = splits[np.isfinite(splits["num_threshold"])]
                yield from zip(columns[splits["feature_idx"]].tolist(), splits["num_threshold"].tolist(), strict=True)
    elif isinstance(estimator, (*_FORESTS, *_GRADIENT, *_OVER_ANYTHING, IsolationForest)):
        for member, columns in _members(estimator):
            for column, threshold in split_thresholds(member):
                yield (column if columns is None else int(columns[column])), threshold


def _members(model: Any) -> list[tuple[Any, Any]]:  # noqa: ANN401
    """Return an ensemble's fitted members in scikit-learn's order, each with its columns, None for all."""
    members = list(np.ravel(model.estimators_))
    return list(zip(members, getattr(model, "estimators_features_", [None] * len(members)), strict=True))


def _unless_other_estimators(
    ours: Callable[..., None], theirs: Callable[[str], Callable[..., None]]
) -> Callable[..., None]:
    """Leave ensembles of anything but trees to skl2onnx, which converts their members one by one."""

    def call(*arguments: Any) -> None:  # noqa: ANN401 - (operator) or (scope, operator, container)
        model = arguments[len(arguments) // 2].raw_operator
        if not isinstance(model, _OVER_ANYTHING) or isinstance(model.estimators_[0], _TREES):
            ours(*arguments)
        elif isinstance(model, AdaBoostClassifier):
            raise ConversionError(
                f"AdaBoostClassifier over {type(model.estimators_[0]).__name__} has no float64 conversion",
                remedy="Boost decision trees, the default, or use the estimator itself.",
            )
        else:
            theirs(sklearn_operator_name_map[type(model)])(*arguments)

    return call


def _converter(compute: Compute) -> Callable[..., None]:
    def convert(scope: Any, operator: Any, container: Any) -> None:  # noqa: ANN401 - skl2onnx's own, untyped
        model = operator.raw_operator
        nodes = TreeNodes(scope, container)
        options = container.get_options(model, {"raw_scores": False}, fail=False) or {}
        values = compute(nodes, model, nodes.joined(operator.inputs), bool(options.get("raw_scores")))
        for value, output in zip(values, operator.outputs, strict=False):
            name = scope.get_unique_operator_name("Cast")
            to = guess_proto_type(output.type)
            container.add_node("Cast", [value], [output.full_name], name=name, to=to)

    return convert


def _classifier_shapes(operator: Any) -> None:  # noqa: ANN401
    classes = operator.raw_operator.classes_
    label = StringTensorType if labels_are_text(classes) else Int64TensorType
    operator.outputs[0].type = label([None])
    operator.outputs[1].type = _number(operator)([None, len(classes)])


def _regressor_shapes(operator: Any) -> None:  # noqa: ANN401
    operator.outputs[0].type = _number(operator)([None, getattr(operator.raw_operator, "n_outputs_", 1)])


def _isolation_shapes(operator: Any) -> None:  # noqa: ANN401
    operator.outputs[0].type = Int64TensorType([None, 1])
    for output in operator.outputs[1:]:
        output.type = _number(operator)([None, 1])


def _number(operator: Any) -> Any:  # noqa: ANN401
    return FloatTensorType if isinstance(operator.inputs[0].type, FloatTensorType) else DoubleTensorType


def _averaged(nodes: TreeNodes, model: Any, matrix: str) -> str:  # noqa: ANN401
    """Add a tree, or the mean over the trees of a forest: per class or per output."""
    if isinstance(model, _TREES):
        values = _leaf_values(model, model)
        ensemble = Ensemble(trees=[binary_tree(model.tree_, values)], n_targets=values.shape[1])
        return leaf_sums(nodes, matrix, ensemble)
    members = _members(model)
    values = [_leaf_values(member, model) for member, _ in members]
    trees = [binary_tree(m.tree_, v, columns=c) for (m, c), v in zip(members, values, strict=True)]
    total = leaf_sums(nodes, matrix, Ensemble(trees=trees, n_targets=values[0].shape[1]))
    return nodes.add("Div", [total, nodes.numbers([[len(trees)]])])


def _leaf_values(tree: Any, model: Any) -> Any:  # noqa: ANN401
    """Return what a tree answers per node, shape (n_nodes, n_classes or n_outputs) of the model around it."""
    values = tree.tree_.value
    if not hasattr(model, "classes_"):
        return values[:, :, 0]
    if len(tree.classes_) == len(model.classes_):
        return values[:, 0, :]
    # Bagging numbers the classes, and a member that never drew one of them does not know it
    known = np.zeros((len(values), len(model.classes_)))
    known[:, tree.classes_.astype(int)] = values[:, 0, :]
    return known


def _averaged_classes(nodes: TreeNodes, model: Any, matrix: str, _raw: bool) -> list[str]:  # noqa: ANN401, FBT001
    mean = _averaged(nodes, model, matrix)
    return [label_of(nodes, model.classes_, nodes.add("ArgMax", [mean], axis=1)), mean]


def _averaged_numbers(nodes: TreeNodes, model: Any, matrix: str, _raw: bool) -> list[str]:  # noqa: ANN401, FBT001
    return [_averaged(nodes, model, matrix)]


def _boosted(nodes: TreeNodes, model: Any, matrix: str) -> str:  # noqa: ANN401
    """Add the raw predictions: the first guess, then tree by tree."""
    if isinstance(model, _HISTOGRAM):
        return leaf_sums(nodes, matrix, histogram_ensemble(model))
    if not (model.init_ == "zero" or isinstance(model.init_, DummyClassifier | DummyRegressor)) or (
        getattr(model.init_, "strategy", "") in ("stratified", "uniform")
    ):
        raise ConversionError(
            f"gradient boosting begins with the answers of {model.init_!r}, which are no constants",
            remedy="Fit with init=None or init='zero'.",
        )
    first = model._raw_predict_init(np.zeros((1, model.n_features_in_), dtype=np.float32))  # noqa: SLF001
    rate = model.learning_rate
    trees = [
        binary_tree(tree.tree_, rate * tree.tree_.value[:, 0, 0], target=target)
        for stage in model.estimators_
        for target, tree in enumerate(stage)
    ]
    return leaf_sums(nodes, matrix, Ensemble(trees=[constant(first), *trees], n_targets=first.shape[1]))


def _boosted_classes(nodes: TreeNodes, model: Any, matrix: str, raw_scores: bool) -> list[str]:  # noqa: ANN401, FBT001
    raw = _boosted(nodes, model, matrix)
    n_classes = len(model.classes_)
    if n_classes > 2:  # noqa: PLR2004
        position = nodes.add("ArgMax", [raw], axis=1)
    else:
        # at zero exactly, GradientBoosting says the second class and HistGradientBoosting the first
        comparison = "Greater" if isinstance(model, _HISTOGRAM) else "GreaterOrEqual"
        position = _as_position(nodes, nodes.add(comparison, [raw, nodes.numbers([[0.0]])]))
    label = label_of(nodes, model.classes_, position)
    if raw_scores:
        return [label, raw if n_classes > 2 else nodes.concat([nodes.add("Neg", [raw]), raw])]  # noqa: PLR2004
    if getattr(model, "loss", "") == "exponential":
        raw = nodes.add("Mul", [raw, nodes.numbers([[2.0]])])
    return [label, probabilities(nodes, raw, n_classes=n_classes)]


def _boosted_numbers(nodes: TreeNodes, model: Any, matrix: str, _raw: bool) -> list[str]:  # noqa: ANN401, FBT001
    raw = _boosted(nodes, model, matrix)
    has_log_link = isinstance(model, _HISTOGRAM) and model.loss in ("poisson", "gamma")
    return [nodes.add("Exp", [raw]) if has_log_link else raw]


def _adaptive_classes(nodes: TreeNodes, model: Any, matrix: str, raw_scores: bool) -> list[str]:  # noqa: ANN401, FBT001
    """Add AdaBoost's vote: a tree's weight goes to the class it names, and a share of it from the others."""
    classes = model.classes_
    if len(classes) == 1:
        raise ConversionError(
            f"AdaBoostClassifier was fitted on one class only, {classes.tolist()[0]!r}",
            remedy="Fit on a sample that has rows of every class.",
        )
    votes = []
    for tree, weight in zip(model.estimators_, model.estimator_weights_, strict=False):
        named = tree.classes_.take(np.argmax(tree.tree_.value[:, 0, :], axis=1))
        vote = np.where(named[:, None] == classes, weight, -1 / (len(classes) - 1) * weight)
        votes.append(binary_tree(tree.tree_, vote if len(classes) > 2 else vote[:, 1]))  # noqa: PLR2004
    n_targets = len(classes) if len(classes) > 2 else 1  # noqa: PLR2004
    total = leaf_sums(nodes, matrix, Ensemble(trees=votes, n_targets=n_targets))
    decision = nodes.add("Div", [total, nodes.numbers([[model.estimator_weights_.sum()]])])
    if n_targets > 1:
        scaled = nodes.add("Div", [decision, nodes.numbers([[len(classes) - 1.0]])])
        position = nodes.add("ArgMax", [decision], axis=1)
    else:
        # the first class's votes are those of the second with the sign changed: scikit-learn adds them up
        scaled = nodes.concat([nodes.add("Neg", [decision]), decision])
        position = _as_position(nodes, nodes.add("Greater", [decision, nodes.numbers([[0.0]])]))
        decision = nodes.add("Add", [scaled, scaled])
    numbers = decision if raw_scores else nodes.add("Softmax", [scaled], axis=1)
    return [label_of(nodes, classes, position), numbers]


def _as_position(nodes: TreeNodes, condition: str) -> str:
    return nodes.add("Cast", [condition], to=TensorProto.INT64)


def _weighted_median(nodes: TreeNodes, model: Any, matrix: str, _raw: bool) -> list[str]:  # noqa: ANN401, FBT001
    """Add AdaBoost's regression: the first of the sorted answers at which half the weight is reached."""
    count = len(model.estimators_)
    trees = [binary_tree(e.tree_, e.tree_.value[:, 0, 0], target=i) for i, e in enumerate(model.estimators_)]
    answers = leaf_sums(nodes, matrix, Ensemble(trees=trees, n_targets=count))
    ordered, places = nodes.sort(answers, count)
    weights = nodes.add("Gather", [nodes.numbers([model.estimator_weights_[:count].tolist()]), places], axis=1)
    weights = nodes.add("Reshape", [weights, nodes.integers([-1, count])])
    reached = nodes.add("CumSum", [weights, nodes.integers([1])])
    half = nodes.add("Mul", [nodes.columns(reached, [count - 1]), nodes.numbers([[0.5]])])
    enough = nodes.add("Cast", [nodes.add("GreaterOrEqual", [reached, half])], to=TensorProto.INT32)
    return [nodes.add("GatherElements", [ordered, nodes.add("ArgMax", [enough], axis=1)], axis=1)]


def _isolation(nodes: TreeNodes, model: Any, matrix: str, _raw: bool) -> list[str]:  # noqa: ANN401, FBT001
    """Add the label, decision_function and score_samples of an isolation forest."""
    unit = len(model.estimators_) * float(_average_path_length([model._max_samples])[0])  # noqa: SLF001
    if unit == 0:
        raise ConversionError(
            f"IsolationForest drew one row per tree (max_samples={model.max_samples!r}), so no scores differ",
            remedy="Fit with more rows per tree.",
        )
    lengths = zip(model._decision_path_lengths, model._average_path_length_per_tree, strict=True)  # noqa: SLF001
    trees = [
        binary_tree(member.tree_, path + average - 1.0, columns=columns)
        for (member, columns), (path, average) in zip(_members(model), lengths, strict=True)
    ]
    depth = leaf_sums(nodes, matrix, Ensemble(trees=trees, n_targets=1))
    exponent = nodes.add("Neg", [nodes.add("Div", [depth, nodes.numbers([[unit]])])])
    score = nodes.add("Neg", [nodes.add("Pow", [nodes.numbers([[2.0]]), exponent])])
    decision = nodes.add("Sub", [score, nodes.numbers([[model.offset_]])])
    # a score may equal the offset to the last bit, in which powers differ: the label goes by the depth
    is_outlier = nodes.add("Less", [depth, nodes.numbers([[_least_inlier_depth(model.offset_, unit)]])])
    labels = [nodes.add("Reshape", [nodes.integers([v]), nodes.integers([1, 1])]) for v in (-1, 1)]
    return [nodes.add("Where", [is_outlier, *labels]), decision, score]


def _least_inlier_depth(offset: float, unit: float) -> float:
    """Return the least sum of depths whose score, as scikit-learn computes it, is not below the offset."""

    def is_outlier(depth: float) -> bool:
        score = -(2 ** (-np.divide(np.array([depth]), unit)))
        return bool((score - offset)[0] < 0)

    low, high = 0.0, 2000.0 * unit
    if not is_outlier(low):
        return -math.inf
    if is_outlier(high):
        return math.inf
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if is_outlier(middle) else (low, middle)
    return high
