"""Trees as nested choices."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbscore.compiler.expression import Expression, reachable
from dbscore.compiler.literals import literal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dbscore.compiler.expression import Tree

__all__ = ["nested", "splits"]

_OPPOSITE = {"lt": "ge", "le": "gt", "gt": "le", "ge": "lt", "eq": "ne", "ne": "eq"}


def splits(roots: Sequence[Expression]) -> int:
    """Return how many splits trees have in all."""
    return sum(len(e.value.columns) for e in reachable(roots) if e.op == "tree")


def nested(one: Expression, compared: Callable[[str, Expression, Expression], str]) -> str:
    """Return a tree's text, written without recursion: a tree may be deeper than Python's stack.

    Args:
        one: The tree.
        compared: Returns the text of a comparison, NULL where what is compared is.
    """
    tree: Tree = one.value
    done: dict[int, str] = {}
    leaves = [literal(value, one.dtype) for value in tree.leaves]
    stack = [0]
    while stack:
        node = stack[-1]
        ways = [tree.yes[node], tree.no[node]]
        waiting = [way for way in ways if way >= 0 and way not in done]
        if waiting:
            stack += waiting
            continue
        stack.pop()
        yes, no = (leaves[~way] if way < 0 else done.pop(way) for way in ways)
        column, op = one.args[tree.columns[node]], tree.comparisons[node]
        # what is missing goes where the condition is not true: NaN differs from everything, and is nothing else
        if column.is_nullable and (tree.missing[node] or op == "ne"):
            op, yes, no = _OPPOSITE[op], no, yes
        bound = Expression("const", column.dtype, value=tree.thresholds[node])
        done[node] = f"case when {compared(op, column, bound)} then {yes} else {no} end"
    return done[0]
