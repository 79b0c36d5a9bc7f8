"""Ensembles of trees as ONNX nodes: the sum of their leaves, probabilities, labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto, numpy_helper

from dbscore.convert.nodes import Nodes
from dbscore.errors import ConversionError

if TYPE_CHECKING:
    from dbscore.convert.tree_arrays import CategoryTable, Ensemble

__all__ = ["TreeNodes", "class_labels", "label_of", "labels_are_text", "leaf_sums", "probabilities"]

ML_DOMAIN = "ai.onnx.ml"
SUM = 1
BRANCH_LEQ = 0
# skl2onnx 1.20 refuses to build with version 5 of the domain; trees.declare_ml_opset says it afterwards
DECLARED_VERSION = 3


class TreeNodes(Nodes):
    """A writer of float64 nodes, which also sorts."""

    def __init__(self, scope: Any, container: Any) -> None:  # noqa: ANN401 - skl2onnx's own, untyped
        super().__init__(scope, container, "float64", missing="")

    def sort(self, matrix: str, count: int) -> tuple[str, str]:
        """Sort each row, least first: the values, and the columns they came from."""
        outputs: list[str] = [self._scope.get_unique_variable_name(o) for o in ("sorted", "places")]
        name = self._scope.get_unique_operator_name("TopK")
        inputs = [matrix, self.integers([count])]
        self._container.add_node("TopK", inputs, outputs, name=name, axis=1, largest=0, sorted=1)
        return outputs[0], outputs[1]


def leaf_sums(nodes: Nodes, matrix: str, ensemble: Ensemble) -> str:
    """Add the nodes that sum an ensemble's leaves: float64, shape (rows, n_targets).

    ONNX Runtime adds the leaves tree by tree, beginning with zero, when it runs on one thread; with more, on
    many rows, each thread adds up its own share of the trees.

    Args:
        nodes: Where to.
        matrix: The name of the float64 matrix.
        ensemble: Its trees see the matrix and, to its right, the columns of the ensemble's tables.
    """
    parts = [matrix, *(_directions(nodes, matrix, table) for table in ensemble.tables)]
    return nodes.add(
        "TreeEnsemble",
        [nodes.concat(parts)],
        domain=ML_DOMAIN,
        op_version=DECLARED_VERSION,
        **_attributes(ensemble),
    )


def _directions(nodes: Nodes, matrix: str, table: CategoryTable) -> str:
    # NaN equals nothing, so the first maximum of a row of zeros is position 0: neither known nor present.
    # TreeEnsemble's own BRANCH_MEMBER is not used: ONNX Runtime 1.32 cuts values to integers (1.5 is in {1}).
    known = nodes.numbers([np.concatenate([[np.nan], table.categories]).tolist()])
    equal = nodes.add("Equal", [nodes.columns(matrix, [table.column]), known])
    hits = nodes.add("Cast", [equal], to=TensorProto.INT32)
    position = nodes.add("ArgMax", [hits], axis=1, keepdims=0)
    return nodes.add("Gather", [nodes.numbers(table.directions.tolist()), position], axis=0)


def _attributes(ensemble: Ensemble) -> dict[str, Any]:
    """Return the attributes of a TreeEnsemble node.

    Interior nodes and leaves are numbered separately, each across all trees.

    Source:
        https://onnx.ai/onnx/operators/onnx_aionnxml_TreeEnsemble.html (version 5)
    """
    roots: list[int] = []
    inner: dict[str, list[Any]] = {
        k: [] for k in ("column", "split", "missing", "true", "true_leaf", "false", "false_leaf")
    }
    targets: list[int] = []
    weights: list[float] = []
    for multiple in ensemble.trees:
        for tree, target in multiple.single():
            reached = tree.levels()
            is_leaf = tree.left == -1
            leaves, splits = reached[is_leaf[reached]], reached[~is_leaf[reached]]
            number = np.zeros(len(is_leaf), dtype=np.int64)
            number[leaves] = np.arange(len(leaves)) + len(targets)
            number[splits] = np.arange(len(splits)) + len(inner["split"])
            roots.append(len(inner["split"]))
            # the operator has no tree without a split: one that is a leaf splits, and both ways lead to it
            splits = splits if splits.size else np.zeros(1, dtype=np.int64)
            left, right = (np.maximum(child[splits], 0) for child in (tree.left, tree.right))
            inner["column"] += tree.column[splits].tolist()
            inner["split"] += tree.threshold[splits].tolist()
            inner["missing"] += tree.missing_left[splits].astype(int).tolist()
            inner["true"] += number[left].tolist()
            inner["true_leaf"] += is_leaf[left].astype(int).tolist()
            inner["false"] += number[right].tolist()
            inner["false_leaf"] += is_leaf[right].astype(int).tolist()
            targets += [target] * len(leaves)
            weights += tree.values[leaves, 0].tolist()
    return {
        "aggregate_function": SUM,
        "n_targets": ensemble.n_targets,
        "tree_roots": roots,
        "nodes_featureids": inner["column"],
        "nodes_modes": numpy_helper.from_array(np.full(len(inner["split"]), BRANCH_LEQ, dtype=np.uint8), "modes"),
        "nodes_splits": numpy_helper.from_array(np.array(inner["split"], dtype=np.float64), "splits"),
        "nodes_missing_value_tracks_true": inner["missing"],
        "nodes_truenodeids": inner["true"],
        "nodes_trueleafs": inner["true_leaf"],
        "nodes_falsenodeids": inner["false"],
        "nodes_falseleafs": inner["false_leaf"],
        "leaf_targetids": targets,
        "leaf_weights": numpy_helper.from_array(np.array(weights, dtype=np.float64), "weights"),
    }


def probabilities(nodes: Nodes, raw: str, *, n_classes: int) -> str:
    """Add the link of the log loss: a sigmoid of one column, right of its complement, else a softmax."""
    if n_classes > 2:  # noqa: PLR2004
        return nodes.add("Softmax", [raw], axis=1)
    positive = nodes.logistic(raw)
    return nodes.concat([nodes.add("Sub", [nodes.numbers([[1.0]]), positive]), positive])


def label_of(nodes: Nodes, classes: Any, position: str) -> str:  # noqa: ANN401 - an array
    """Add the look-up of labels: int64 or string, shape (rows,), by the class's position, any shape.

    Raises:
        ConversionError: The labels are neither integers nor booleans nor text.
    """
    labels = class_labels(classes)
    flat = nodes.add("Reshape", [position, nodes.integers([-1])])
    if labels_are_text(classes):
        texts = nodes.add("Reshape", [nodes.texts([labels]), nodes.integers([-1])])
        return nodes.add("Gather", [texts, flat], axis=0)
    return nodes.add("Gather", [nodes.integers(labels), flat], axis=0)


def class_labels(classes: Any) -> list[Any]:  # noqa: ANN401
    """Return a classifier's classes as ONNX has them: text, or integers (0 and 1 for booleans).

    Raises:
        ConversionError: They are something else, or there are several outputs with classes of their own.
    """
    if isinstance(classes, list):
        raise ConversionError(
            f"the classifier has {len(classes)} outputs with classes of their own",
            remedy="Fit one classifier per output and deploy each as a model of its own.",
        )
    labels: list[Any] = classes.tolist()
    if all(isinstance(label, str) for label in labels):
        return labels
    if all(isinstance(label, bool | int) or (isinstance(label, float) and label.is_integer()) for label in labels):
        return [int(label) for label in labels]
    raise ConversionError(
        f"the classes {labels[:5]} are neither all text nor all integers nor booleans",
        remedy="Fit with labels of one of these types.",
    )


def labels_are_text(classes: Any) -> bool:  # noqa: ANN401
    """Whether the labels are strings in ONNX; else they are int64."""
    return isinstance(class_labels(classes)[0], str)
