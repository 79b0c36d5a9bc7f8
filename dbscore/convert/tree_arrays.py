"""Fitted scikit-learn trees as arrays: what every family of tree models becomes on its way to ONNX."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from dbscore.errors import ConversionError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    Floats = np.ndarray[Any, np.dtype[np.float64]]
    Integers = np.ndarray[Any, np.dtype[np.int64]]

__all__ = [
    "CategoryTable",
    "Ensemble",
    "Tree",
    "binary_tree",
    "constant",
    "float32_split",
    "histogram_ensemble",
    "original_columns",
]

LEAF = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """One tree, node by node; node 0 is the root. A row goes left where its value is <= the threshold.

    Attributes:
        column: The matrix's column that a node looks at, shape (n_nodes,).
        threshold: float64, to be compared with the float64 value, shape (n_nodes,).
        left: The node's left child, -1 in a leaf, shape (n_nodes,).
        right: Its right child.
        missing_left: Whether NaN goes left, shape (n_nodes,).
        values: What a leaf adds to each target, float64, shape (n_nodes, n_targets).
        first_target: The target that the first column of `values` adds to.
    """

    column: Integers
    threshold: Floats
    left: Integers
    right: Integers
    missing_left: np.ndarray[Any, np.dtype[np.bool_]]
    values: Floats
    first_target: int = 0

    def single(self) -> Iterator[tuple[Tree, int]]:
        """Yield the tree once per target, with the target, without the splits that do not matter to it.

        A leaf of ONNX's TreeEnsemble adds to one target only. Two leaves of one parent that say the same
        become one, so that the copies together are not much larger than the tree was.
        """
        for i in range(self.values.shape[1]):
            left, right, values = self.left.copy(), self.right.copy(), self.values[:, i].copy()
            while True:
                inner = np.flatnonzero(left != LEAF)
                a, b = left[inner], right[inner]
                same = (left[a] == LEAF) & (left[b] == LEAF) & (values[a] == values[b])
                if not same.any():
                    break
                values[inner[same]] = values[a[same]]
                left[inner[same]] = right[inner[same]] = LEAF
            yield replace(self, left=left, right=right, values=values[:, None]), self.first_target + i

    def levels(self) -> Integers:
        """Return the nodes that a row can reach, level by level from the root."""
        level = np.zeros(1, dtype=np.int64)
        found = []
        while level.size:
            found.append(level)
            inner = level[self.left[level] != LEAF]
            level = np.stack([self.left[inner], self.right[inner]], axis=1).ravel()
        return np.concatenate(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class CategoryTable:
    """Splits on a categorical column, as new columns to be appended to the matrix: 0.0 goes left, 1.0 right.

    Attributes:
        column: The matrix's column that holds the category.
        categories: The known ones, as the column holds them.
        directions: Row 0 is for unknown and missing, row i for categories[i - 1]; shape
            (1 + n_categories, n_splits).
    """

    column: int
    categories: Floats
    directions: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Ensemble:
    """Trees whose leaves are added up, in their order, to each target.

    Attributes:
        trees: In the order of addition, on which the last bit depends.
        n_targets: Numbers per row.
        tables: Columns that the trees look at besides those of the matrix: they follow it, in this order.
    """

    trees: Sequence[Tree]
    n_targets: int
    tables: Sequence[CategoryTable] = ()


def binary_tree(tree: Any, values: Floats, *, target: int = 0, columns: Integers | None = None) -> Tree:  # noqa: ANN401
    """Return a scikit-learn `Tree` (the `tree_` of an estimator) whose leaves add these values.

    Args:
        tree: The `tree_`.
        values: Shape (n_nodes,) or (n_nodes, n_targets).
        target: The target that the first value adds to.
        columns: The matrix's columns that the tree was fitted on, None for all.
    """
    left = np.asarray(tree.children_left, dtype=np.int64)
    # a leaf has the feature -2, which is no column
    column = np.where(left == LEAF, 0, tree.feature).astype(np.int64)
    return Tree(
        column=column if columns is None else np.asarray(columns, dtype=np.int64)[column],
        threshold=float32_split(np.asarray(tree.threshold, dtype=np.float64)),
        left=left,
        right=np.asarray(tree.children_right, dtype=np.int64),
        missing_left=np.asarray(tree.missing_go_to_left, dtype=bool),
        values=np.asarray(values, dtype=np.float64).reshape(len(left), -1),
        first_target=target,
    )


def constant(values: Floats) -> Tree:
    """Return a tree that is one leaf: what a sum begins with, shape (n_targets,)."""
    one = np.full(1, LEAF)
    return Tree(
        column=np.zeros(1, dtype=np.int64),
        threshold=np.zeros(1),
        left=one,
        right=one,
        missing_left=np.zeros(1, dtype=bool),
        values=np.asarray(values, dtype=np.float64).reshape(1, -1),
    )


def float32_split(thresholds: Floats) -> Floats:
    """Return u such that, for every float64 x, `x <= u` is `float32(x) <= threshold`.

    scikit-learn's trees cast the features to float32 and compare them with float64 thresholds. What rounds to
    the largest float32 that is <= threshold ends half-way to the next one; the half itself rounds to the even
    of the two. So no cast is needed, in ONNX or in SQL, where PostgreSQL's refuses what rounds to zero.

    Args:
        thresholds: float64, any shape; infinity stays infinity.
    """
    with np.errstate(over="ignore"):
        below = thresholds.astype(np.float32)
        below = np.where(below > thresholds, np.nextafter(below, np.float32(-np.inf)), below)
        above = np.nextafter(below, np.float32(np.inf))
    half = (below.astype(np.float64) + above.astype(np.float64)) / 2
    is_even = (below.view(np.int32) & 1) == 0
    return np.where(is_even, half, np.nextafter(half, -np.inf))


def original_columns(model: Any) -> Integers:  # noqa: ANN401 - a fitted HistGradientBoosting estimator
    """Return the matrix's column for each that its trees know: categorical ones were moved to the front."""
    if model.is_categorical_ is None:
        return np.arange(model.n_features_in_)
    return np.argsort(~model.is_categorical_, kind="stable")


def histogram_ensemble(model: Any) -> Ensemble:  # noqa: ANN401
    """Return the raw predictions of a fitted HistGradientBoosting estimator as an ensemble.

    Raises:
        ConversionError: A categorical feature is not numeric.
    """
    columns = original_columns(model)
    splits = _CategorySplits(model, columns)
    trees = [constant(model._baseline_prediction)]  # noqa: SLF001 - scikit-learn keeps it nowhere else
    for iteration in model._predictors:  # noqa: SLF001
        for target, predictor in enumerate(iteration):
            nodes = predictor.nodes
            is_leaf = nodes["is_leaf"] == 1
            column = np.where(is_leaf, 0, columns[np.where(is_leaf, 0, nodes["feature_idx"])])
            threshold = nodes["num_threshold"].copy()
            for i in np.flatnonzero(~is_leaf & (nodes["is_categorical"] == 1)):
                # once known and unknown are told apart, NaN cannot reach the split
                column[i] = splits.column(predictor, nodes[i])
                threshold[i] = 0.5
            trees.append(
                Tree(
                    column=column,
                    threshold=threshold,
                    left=np.where(is_leaf, LEAF, nodes["left"].astype(np.int64)),
                    right=np.where(is_leaf, LEAF, nodes["right"].astype(np.int64)),
                    missing_left=nodes["missing_go_to_left"] == 1,
                    values=nodes["value"].reshape(-1, 1),
                    first_target=target,
                )
            )
    tables, order = splits.tables()
    trees = [replace(t, column=np.where(t.column < 0, order[np.minimum(t.column, -1)], t.column)) for t in trees]
    return Ensemble(trees=trees, n_targets=model.n_trees_per_iteration_, tables=tables)


class _CategorySplits:
    """Collects a model's distinct categorical splits; a split's column is negative until all are known."""

    def __init__(self, model: Any, columns: Integers) -> None:  # noqa: ANN401
        self._columns = columns
        self._n_features = len(columns)
        self._seen: dict[tuple[int, bytes], int] = {}
        self._categories: list[Floats] = []
        if model.is_categorical_ is not None:
            encoder = model._preprocessor.named_transformers_["encoder"]  # noqa: SLF001
            names = getattr(model, "feature_names_in_", columns)
            self._categories = [_numeric(c, names[columns[i]]) for i, c in enumerate(encoder.categories_)]

    def column(self, predictor: Any, node: Any) -> int:  # noqa: ANN401
        """Return -1, -2, ... for the split of this node, the same number for the same split."""
        feature = int(node["feature_idx"])
        left = _members(predictor.raw_left_cat_bitsets[node["bitset_idx"]], len(self._categories[feature]))
        goes_right = np.concatenate([[not node["missing_go_to_left"]], ~left]).astype(np.float64)
        return -1 - self._seen.setdefault((feature, goes_right.tobytes()), len(self._seen))

    def tables(self) -> tuple[list[CategoryTable], Integers]:
        """Return a table per column and, at index -1, -2, ..., the column that each split became."""
        order = np.zeros(len(self._seen) or 1, dtype=np.int64)
        tables: list[CategoryTable] = []
        n_columns = self._n_features
        for feature, categories in enumerate(self._categories):
            mine = [(key[1], i) for key, i in self._seen.items() if key[0] == feature]
            for position, (_, i) in enumerate(mine):
                order[-1 - i] = n_columns + position
            if mine:
                directions = np.stack([np.frombuffer(d) for d, _ in mine], axis=1)
                tables.append(
                    CategoryTable(column=int(self._columns[feature]), categories=categories, directions=directions)
                )
            n_columns += len(mine)
        return tables, order


def _members(bitset: Any, count: int) -> np.ndarray[Any, np.dtype[np.bool_]]:  # noqa: ANN401 - uint32, shape (8,)
    bits = np.unpackbits(np.asarray(bitset, dtype="<u4").view(np.uint8), bitorder="little")
    return bits[:count].astype(bool)


def _numeric(categories: Any, name: Any) -> Floats:  # noqa: ANN401
    if categories.dtype.kind not in "biuf":
        raise ConversionError(
            f"categorical feature {name} of HistGradientBoosting has categories that are no numbers: "
            f"{categories[:3].tolist()}",
            remedy="Put OrdinalEncoder(handle_unknown='use_encoded_value', unknown_value=numpy.nan) in front "
            "for this column, in a ColumnTransformer, name its output in categorical_features, fit again.",
        )
    known: Floats = categories.astype(np.float64)
    return known[~np.isnan(known)]
