"""Large ensembles as data: their splits are arrays, and a loop walks from block to block.

PostgreSQL parses, plans and keeps every split that is written as a choice, in every connection: 500 trees of depth 8
take a second and a half and 435 MB. As arrays they take a tenth of both. A row takes about as long either way, since so
many choices are no longer in a processor's cache; where there are fewer of them, choices are faster.

A step of the loop costs more than what it looks up, so one step takes two splits, one below the other: a block is a
split, the two below it, and the four ways on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dbscore.compiler.expression import ARRAY, FLOATS, Expression
from dbscore.compiler.literals import NAMES, array_literal, literal
from dbscore.compiler.tree import is_alike

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dbscore.compiler.tree import Tree

__all__ = ["NODE", "Walk", "walks"]

# with more splits in one function than this, walking is as fast, and the first call much faster
MOST_CHOICES = 25_000
# what is smaller is a small part of the function
LEAST_WALKED = 1_000
# the variable that says where a walk is: a block, or a leaf below zero
NODE = "node"
SPLITS_IN_BLOCK = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Walk:
    """Sums of trees' leaves, or one tree's leaf each, that are found on the same way through the same trees.

    Attributes:
        results: The expressions: totals, or a tree.
        args: What the trees' splits compare.
    """

    results: tuple[Expression, ...]
    args: tuple[Expression, ...]

    def statements(self, features: str, names: Sequence[str]) -> list[str]:
        """Return the statements that compute the results.

        Args:
            features: The variable that has the arguments, as double precision[].
            names: The results' variables.
        """
        blocks = _Blocks(any(arg.is_nullable for arg in self.args))
        places = {arg.number: place for place, arg in enumerate(self.args, 1)}
        roots = [blocks.add(tree, [places[a.number] for a in tree.args]) for tree in _trees(self.results[0])]
        found = []
        if self.results[0].op == "total":
            found += [f"{name} := '0';" for name in names]
        found += [
            f"foreach {NODE} in array {array_literal(roots, 'int32')} loop",
            f"while pg_catalog.int4gt({NODE}, 0) loop",
            f"{NODE} := {blocks.step(features)};",
            "end loop;",
            f"{NODE} := pg_catalog.int4um({NODE});",
        ]
        for name, one in zip(names, self.results, strict=True):
            leaves = [
                leaf for tree in _trees(one) for leaf in (tree.value.leaves if tree.op == "tree" else [tree.value])
            ]
            value = _at_node(leaves, one.dtype)
            found.append(
                f"{name} := {f'pg_catalog.{NAMES[one.dtype]}pl({name}, {value})' if one.op == 'total' else value};"
            )
        return [*found, "end loop;"]


def walks(order: Sequence[Expression]) -> list[Walk]:
    """Return what is to be walked of a function's expressions: nothing where they have few splits."""
    sizes = {one.number: _size(one) for one in order if _is_walked(one)}
    inside = {a.number for one in order if one.op == "total" and one.number in sizes for a in one.args}
    if sum(size for number, size in sizes.items() if number not in inside) <= MOST_CHOICES:
        return []
    groups: list[list[Expression]] = []
    for one in order:
        if sizes.get(one.number, 0) >= LEAST_WALKED and one.number not in inside:
            same = next((g for g in groups if _are_alike(g[0], one)), None)
            if same is None:
                groups.append([one])
            else:
                same.append(one)
    return [
        Walk(
            results=tuple(group),
            args=tuple(dict.fromkeys(arg for tree in _trees(group[0]) for arg in tree.args)),
        )
        for group in groups
    ]


def _trees(one: Expression) -> tuple[Expression, ...]:
    return one.args if one.op == "total" else (one,)


def _size(one: Expression) -> int:
    return sum(len(tree.value.columns) for tree in _trees(one) if tree.op == "tree")


def _is_walked(one: Expression) -> bool:
    """Say whether an expression can be walked: a sum of trees, or a tree, that compares numbers by their size."""
    if one.op == "total":
        return one.dtype in FLOATS and any(a.op == "tree" for a in one.args) and all(map(_is_plain, one.args))
    return one.op == "tree" and _is_plain(one)


def _is_plain(one: Expression) -> bool:
    if one.op != "tree":
        return one.is_constant and one.value is not None
    tree: Tree = one.value
    return all(a.dtype in FLOATS for a in one.args) and all(
        (op in ("le", "gt") and not math.isnan(bound)) or (op in ("lt", "ge") and bound > -math.inf)
        for op, bound in zip(tree.comparisons, tree.thresholds, strict=True)
    )


def _are_alike(one: Expression, other: Expression) -> bool:
    """Say whether two sums' trees differ in their leaves only."""
    pairs = list(zip(_trees(one), _trees(other), strict=False))
    return (
        one.op == other.op == "total"
        and len(one.args) == len(other.args)
        and all(
            a.op == b.op and (a.op != "tree" or (a.args == b.args and is_alike(a.value, b.value))) for a, b in pairs
        )
    )


def _at_node(leaves: Sequence[Any], dtype: str) -> str:
    """Return the value of the leaf that a walk has come to."""
    if dtype == ARRAY:
        return f"array[{', '.join(_at_node(line, 'float64') for line in zip(*leaves, strict=True))}]"
    if dtype == "string":
        labels = list(dict.fromkeys(leaves))
        number = {label: i for i, label in enumerate(labels, 1)}
        listed = ", ".join(literal(label, dtype) for label in labels)
        return f"(array[{listed}])[{_at_node([number[leaf] for leaf in leaves], 'int32')}]"
    return f"({array_literal(leaves, dtype)})[{NODE}]"


@dataclass(slots=True)
class _Blocks:
    """Trees as blocks, numbered from 1; leaves are numbered from -1 down, over all trees.

    A block's splits ask whether an argument is at most a threshold. Where a tree ends within a block, the splits below
    ask anything, and all ways lead to the leaf.
    """

    is_nullable: bool
    columns: list[list[int]] = field(default_factory=lambda: [[] for _ in range(SPLITS_IN_BLOCK)])
    thresholds: list[list[float]] = field(default_factory=lambda: [[] for _ in range(SPLITS_IN_BLOCK)])
    missing: list[list[bool]] = field(default_factory=lambda: [[] for _ in range(SPLITS_IN_BLOCK)])
    ways: list[list[int]] = field(default_factory=lambda: [[] for _ in range(SPLITS_IN_BLOCK + 1)])
    leaves: int = 0

    def add(self, one: Expression, places: Sequence[int]) -> int:
        """Add a tree whose columns are the arguments at these places; return where its walk begins."""
        before = self.leaves
        if one.op != "tree":
            self.leaves += 1
            return -before - 1
        tree: Tree = one.value
        self.leaves += len(tree.leaves)
        numbers = {0: len(self.ways[0]) + 1}
        order = [0]
        for top in order:
            slots = [top, *_below(tree, top)]
            ends = [way for slot in slots[1:] for way in ([slot, slot] if slot < 0 else _below(tree, slot))]
            for place, slot in enumerate(slots):
                column, bound, goes = (0, 0.0, False) if slot < 0 else _asked(tree, slot)
                self.columns[place].append(places[column])
                self.thresholds[place].append(bound)
                self.missing[place].append(goes)
            for place, way in enumerate(ends):
                if way >= 0 and way not in numbers:
                    numbers[way] = numbers[0] + len(order)
                    order.append(way)
                self.ways[place].append(numbers[way] if way >= 0 else way - before)
        return numbers[0]

    def step(self, features: str) -> str:
        """Return the expression that goes from one block to the next, or to a leaf."""
        first, second, third = (self._test(features, place) for place in range(SPLITS_IN_BLOCK))
        ways = [f"({array_literal(way, 'int32')})[{NODE}]" for way in self.ways]
        return (
            f"case when {first} then case when {second} then {ways[0]} else {ways[1]} end"
            f" else case when {third} then {ways[2]} else {ways[3]} end end"
        )

    def _test(self, features: str, place: int) -> str:
        column = f"({array_literal(self.columns[place], 'int32')})[{NODE}]"
        bound = f"({array_literal(self.thresholds[place], 'float64')})[{NODE}]"
        test = f"pg_catalog.float8le({features}[{column}], {bound})"
        if self.is_nullable and any(self.missing[place]):
            return f"coalesce({test}, ({array_literal(self.missing[place], 'bool')})[{NODE}])"
        return test


def _is_turned(tree: Tree, node: int) -> bool:
    return tree.comparisons[node] in ("ge", "gt")


def _below(tree: Tree, node: int) -> tuple[int, int]:
    """Return where a split leads to if what it compares is at most the bound, and if it is not."""
    ways = tree.yes[node], tree.no[node]
    return ways[::-1] if _is_turned(tree, node) else ways


def _asked(tree: Tree, node: int) -> tuple[int, float, bool]:
    """Return a split as one that asks `at most`: its column, its bound, whether a missing value counts as less."""
    bound = float(tree.thresholds[node])
    if tree.comparisons[node] in ("lt", "ge"):
        bound = math.nextafter(bound, -math.inf)
    return tree.columns[node], bound, bool(tree.missing[node]) != _is_turned(tree, node)
