"""Ensembles of trees, in both of ONNX's encodings.

Source:
    https://onnx.ai/onnx/operators/onnx_aionnxml_TreeEnsemble.html and those of TreeEnsembleRegressor and
    TreeEnsembleClassifier; where they leave open what is computed, ONNX Runtime 1.32 does what is done here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import numpy_helper

from dbscore.compiler.expression import Tree
from dbscore.compiler.operators.reductions import classes_of, logistic_in_steps, most_probable, softmaxed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dbscore.compiler.expression import Expression
    from dbscore.compiler.graph import Node, Tensor

MODES = {
    "BRANCH_LEQ": "le",
    "BRANCH_LT": "lt",
    "BRANCH_GTE": "ge",
    "BRANCH_GT": "gt",
    "BRANCH_EQ": "eq",
    "BRANCH_NEQ": "ne",
}
NUMBERED_MODES = ("le", "lt", "ge", "gt", "eq", "ne", "in")
SUM, AVERAGE = 1, 0


@dataclass(slots=True)
class _Split:
    """The trees of an ensemble as they are read: a list of inner nodes each, and what the leaves hold.

    A leaf holds a weight for each target it has one for.
    """

    columns: list[int]
    thresholds: list[Any]
    comparisons: list[str]
    missing: list[bool]
    yes: list[int]
    no: list[int]
    leaves: list[dict[int, float]]


def ensemble(node: Node, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return the sums of leaves' weights, for each target (version 5 of the domain)."""
    aggregate = node.get("aggregate_function", SUM)
    if aggregate not in (SUM, AVERAGE) or node.get("post_transform", 0) != 0:
        raise NotImplementedError(f"aggregate_function {aggregate} or post_transform {node.get('post_transform')}")
    modes = [NUMBERED_MODES[m] for m in numpy_helper.to_array(node.get("nodes_modes")).tolist()]
    splits = numpy_helper.to_array(node.get("nodes_splits")).tolist()
    if "in" in modes:
        # ONNX Runtime 1.32 cuts the values that are looked for to integers
        raise NotImplementedError("mode BRANCH_MEMBER")
    weights = numpy_helper.to_array(node.get("leaf_weights")).tolist()
    targets, columns = node.get("leaf_targetids"), node.get("nodes_featureids")
    missing = node.get("nodes_missing_value_tracks_true") or [0] * len(columns)
    ways = [
        (node.get("nodes_truenodeids"), node.get("nodes_trueleafs")),
        (node.get("nodes_falsenodeids"), node.get("nodes_falseleafs")),
    ]
    trees = []
    for root in node.get("tree_roots"):
        tree = _Split([], [], [], [], [], [], [])
        numbers, order = {root: 0}, [root]
        for number in order:
            tree.columns.append(columns[number])
            tree.thresholds.append(splits[number])
            tree.comparisons.append(modes[number])
            tree.missing.append(bool(missing[number]))
            for (ids, are_leaves), to in zip(ways, (tree.yes, tree.no), strict=True):
                child = ids[number]
                if are_leaves[number]:
                    to.append(~len(tree.leaves))
                    tree.leaves.append({targets[child]: weights[child]})
                else:
                    numbers[child] = len(order)
                    to.append(len(order))
                    order.append(child)
        trees.append(tree)
    sums = _sums(node, inputs[0], trees, node.get("n_targets"), inputs[0].dtype)
    if aggregate == AVERAGE:
        sums = [node.pool.div(s, node.pool.const(len(trees), s.dtype)) for s in sums]
    return [node.tensor([sums], inputs[0].dtype)]


def _older(node: Node, prefix: str) -> list[_Split]:
    """Read the trees of the older encoding: nodes by tree and number, weights by leaf."""
    keys = list(zip(node.get("nodes_treeids"), node.get("nodes_nodeids"), strict=True))
    modes = node.texts("nodes_modes")
    values = _numbers(node, "nodes_values")
    missing = node.get("nodes_missing_value_tracks_true") or [0] * len(keys)
    held: dict[tuple[int, int], dict[int, float]] = {}
    weights = zip(
        node.get(f"{prefix}_treeids"),
        node.get(f"{prefix}_nodeids"),
        node.get(f"{prefix}_ids"),
        _numbers(node, f"{prefix}_weights"),
        strict=True,
    )
    for tree_id, node_id, target, weight in weights:
        leaf = held.setdefault((tree_id, node_id), {})
        leaf[target] = leaf.get(target, 0.0) + weight
    by_key = {key: place for place, key in enumerate(keys)}
    columns = node.get("nodes_featureids")
    children = node.get("nodes_truenodeids"), node.get("nodes_falsenodeids")
    trees = []
    for tree_id in dict.fromkeys(tree for tree, _ in keys):
        root = next(place for place, key in enumerate(keys) if key[0] == tree_id)
        tree = _Split([], [], [], [], [], [], [])
        if modes[root] == "LEAF":
            tree.leaves.append(held.get(keys[root], {}))
        order = [root] if modes[root] != "LEAF" else []
        for place in order:
            if modes[place] not in MODES:
                raise NotImplementedError(f"mode {modes[place]}")
            tree.columns.append(columns[place])
            tree.thresholds.append(values[place])
            tree.comparisons.append(MODES[modes[place]])
            tree.missing.append(bool(missing[place]))
            for ids, to in zip(children, (tree.yes, tree.no), strict=True):
                child = by_key[(tree_id, ids[place])]
                if modes[child] == "LEAF":
                    to.append(~len(tree.leaves))
                    tree.leaves.append(held.get(keys[child], {}))
                else:
                    to.append(len(order))
                    order.append(child)
        trees.append(tree)
    return trees


def _numbers(node: Node, name: str) -> list[float]:
    tensor = node.get(f"{name}_as_tensor")
    if tensor is not None:
        found: list[float] = numpy_helper.to_array(tensor).tolist()
        return found
    return list(node.get(name, ()))


def _sums(node: Node, tensor: Tensor, trees: Sequence[_Split], targets: int, dtype: str) -> list[Expression]:
    """Return, for each target, the sum of what the trees' leaves hold for it, tree by tree."""
    row = node.expressions(tensor).reshape(-1)
    whole = [node.pool.cast(e, "float32") if e.dtype not in ("float32", "float64") else e for e in row]
    terms: list[list[Expression]] = [[] for _ in range(targets)]
    for tree in trees:
        used = sorted(set(tree.columns))
        place = {column: i for i, column in enumerate(used)}
        columns = [place[column] for column in tree.columns]
        args = [whole[column] for column in used]
        for target in sorted({t for leaf in tree.leaves for t in leaf}):
            leaves = [leaf.get(target, 0.0) for leaf in tree.leaves]
            made = Tree(columns, tree.thresholds, tree.comparisons, tree.missing, tree.yes, tree.no, leaves)
            terms[target].append(node.pool.tree(made, args, dtype))
    return [node.pool.total(kept, dtype) if (kept := _not_zero(t)) else node.pool.const(0, dtype) for t in terms]


def _refuse_uncovered(trees: Sequence[_Split], base: Sequence[float]) -> None:
    """Refuse base values that ONNX Runtime leaves out of rows of which no leaf has the target."""
    for target, value in enumerate(base):
        if value and not any(all(target in leaf for leaf in tree.leaves) for tree in trees):
            raise NotImplementedError("base_values for targets that a row may have no leaf of")


def _not_zero(terms: Sequence[Expression]) -> list[Expression]:
    return [t for t in terms if not (t.is_constant and t.value == 0)]


def regressor(node: Node, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return the numbers of a regression (version 3 of the domain, and before), in float32."""
    aggregate = node.get("aggregate_function", "SUM")
    if aggregate not in ("SUM", "AVERAGE") or node.get("post_transform", "NONE") != "NONE":
        raise NotImplementedError(f"aggregate_function {aggregate} or post_transform {node.get('post_transform')}")
    trees = _older(node, "target")
    dtype = _arithmetic(node)
    sums = _sums(node, inputs[0], trees, node.get("n_targets", 1), dtype)
    if aggregate == "AVERAGE":
        sums = [node.pool.div(s, node.pool.const(len(trees), dtype)) for s in sums]
    base = _numbers(node, "base_values") or [0.0] * len(sums)
    _refuse_uncovered(trees, base)
    made = [node.pool.add(s, node.pool.const(b, dtype)) for s, b in zip(sums, base, strict=True)]
    return [node.tensor([[node.pool.cast(e, "float32") for e in made]], "float32")]


def classifier(node: Node, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return the label and the scores of a classifier (version 3 of the domain, and before), in float32."""
    labels, label_dtype = classes_of(node, "classlabels_int64s", "classlabels_strings")
    transform = node.get("post_transform", "NONE")
    if transform not in ("NONE", "LOGISTIC", "SOFTMAX"):
        raise NotImplementedError(f"post_transform {transform}")
    trees = _older(node, "class")
    dtype = _arithmetic(node)
    base = _numbers(node, "base_values")
    weights, ids = _numbers(node, "class_weights"), set(node.get("class_ids"))
    if len(labels) == 2 and len(ids) == 1:  # noqa: PLR2004 - two classes, told apart by one score
        score = _sums(node, inputs[0], trees, max(ids) + 1, dtype)[max(ids)]
        label, scores = _of_one_score(node, score, base, labels, label_dtype, min(weights) >= 0)
    else:
        scores = _sums(node, inputs[0], trees, len(labels), dtype)
        if base:
            _refuse_uncovered(trees, base)
            scores = [node.pool.add(s, node.pool.const(b, dtype)) for s, b in zip(scores, base, strict=True)]
        label = most_probable(node, scores, labels, label_dtype)
        if transform == "LOGISTIC":
            scores = [logistic_in_steps(node, s) for s in scores]
        elif transform == "SOFTMAX":
            scores = softmaxed(node, scores)
    return [label, node.tensor([[node.pool.cast(s, "float32") for s in scores]], "float32")]


def _of_one_score(
    node: Node,
    score: Expression,
    base: Sequence[float],
    labels: Sequence[Any],
    dtype: str,
    all_positive: bool,  # noqa: FBT001
) -> tuple[Tensor, list[Expression]]:
    """Return label and scores where one score tells two classes apart: its sign does, or a half where it is a share."""
    pool = node.pool
    if base:
        score = pool.add(score, pool.const(base[-1], score.dtype))
    bound = pool.const(0.5 if all_positive else 0.0, score.dtype)
    is_second = pool.cast(pool.compare("gt", score, bound), "int64")
    label = node.tensor([pool.element(labels, is_second, dtype)], dtype)
    if all_positive:
        return label, [pool.sub(pool.const(1, score.dtype), score), score]
    if node.get("post_transform") == "LOGISTIC":
        return label, [logistic_in_steps(node, pool.neg(score)), logistic_in_steps(node, score)]
    return label, [pool.neg(score), score]


def _arithmetic(node: Node) -> str:
    """Return the dtype in which leaves are added up: double where the thresholds are."""
    tensor = node.get("nodes_values_as_tensor")
    return "float64" if tensor is not None and numpy_helper.to_array(tensor).dtype == np.float64 else "float32"
