"""Decision trees; what is computed from one alone is computed at its leaves, and is a tree again, often smaller."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dbscore.compiler.expression import Expression

__all__ = ["Tree", "at_leaves", "is_alike", "pruned"]


@dataclass(frozen=True, slots=True, eq=False)
class Tree:
    """One decision tree: inner nodes numbered from 0, the first one its root.

    Attributes:
        columns: Which argument each node compares, shape (nodes,).
        thresholds: What with, in the dtype of the comparison.
        comparisons: How: `le`, `lt`, `ge`, `gt`, `eq` or `ne`; or `in`, where the threshold is a tuple.
        missing: Whether a missing value goes where the comparison is true.
        yes: The next node where it is true; a leaf is ~ its number.
        no: The next node where it is false.
        leaves: The leaves' values.
    """

    columns: Sequence[int]
    thresholds: Sequence[Any]
    comparisons: Sequence[str]
    missing: Sequence[bool]
    yes: Sequence[int]
    no: Sequence[int]
    leaves: Sequence[float]


def at_leaves(args: Sequence[Expression], compute: Callable[..., Any]) -> Tree | None:
    """Return the tree of what a function makes of expressions' values at the leaves.

    Args:
        args: Trees that differ in their leaves only, and constants.
        compute: Takes one value for each.

    Returns:
        The tree, whose arguments are those of the trees; None where the expressions are no such trees.
    """
    trees = [a for a in args if a.op == "tree"]
    if not trees or any(a.op != "tree" and (not a.is_constant or a.value is None) for a in args):
        return None
    first: Tree = trees[0].value
    if any(not is_alike(first, t.value) or t.args != trees[0].args for t in trees[1:]):
        return None
    lines = [a.value.leaves if a.op == "tree" else [a.value] * len(first.leaves) for a in args]
    leaves = [compute(*values) for values in zip(*lines, strict=True)]
    if any(leaf is None for leaf in leaves):
        # a leaf whose value is missing is none that a tree has
        return None
    return Tree(first.columns, first.thresholds, first.comparisons, first.missing, first.yes, first.no, leaves)


def is_alike(one: Tree, other: Tree) -> bool:
    """Say whether two trees have the same splits."""
    names = ("columns", "thresholds", "comparisons", "missing", "yes", "no")
    return one is other or all(getattr(one, name) == getattr(other, name) for name in names)


def pruned(tree: Tree) -> Tree:
    """Return a tree without the splits of which both ways lead to the same value."""
    same: dict[int, int] = {}

    def settled(way: int) -> int:
        return same.get(way, way)

    # children come after their parents
    for node in reversed(range(len(tree.columns))):
        ways = [settled(way) for way in (tree.yes[node], tree.no[node])]
        if all(way < 0 for way in ways) and _is_same(tree.leaves[~ways[0]], tree.leaves[~ways[1]]):
            same[node] = ways[0]
    if not same:
        return tree
    root = settled(0)
    if root < 0:
        return Tree([], [], [], [], [], [], [tree.leaves[~root]])
    numbers, order = {root: 0}, [root]
    ways_of: tuple[list[int], list[int]] = ([], [])
    leaves: list[Any] = []
    for node in order:
        for children, to in zip((tree.yes, tree.no), ways_of, strict=True):
            way = settled(children[node])
            if way < 0:
                to.append(~len(leaves))
                leaves.append(tree.leaves[~way])
            else:
                numbers[way] = len(order)
                to.append(len(order))
                order.append(way)
    return Tree(
        [tree.columns[n] for n in order],
        [tree.thresholds[n] for n in order],
        [tree.comparisons[n] for n in order],
        [tree.missing[n] for n in order],
        *ways_of,
        leaves,
    )


def _is_same(one: Any, other: Any) -> bool:  # noqa: ANN401 - numbers, booleans or texts
    # 0.0 and -0.0 are equal, and not the same
    return type(one) is type(other) and repr(one) == repr(other)
