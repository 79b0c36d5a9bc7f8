"""Expressions made anew with more known of their features: what is constant is computed, what is decided is not asked.

What is known of a feature is a value, a few possible values or bounds. Bounds are passed on by arithmetic, so that a
split behind a scaler is decided too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from dbscore.compiler.expression import COMPARISONS, Expression, Pool, reachable
from dbscore.compiler.tree import Tree, pruned

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["Known", "rebuilt", "shortened"]

# by how much of itself a bound of a sum may be wrong, which is added up in another order than the sum
_ROUNDING = 1e-9
_FUNCTIONS: Mapping[str, Callable[[float], float]] = {
    "abs": abs,
    "ceil": lambda x: x if math.isinf(x) else float(math.ceil(x)),
    "floor": lambda x: x if math.isinf(x) else float(math.floor(x)),
    "ln": lambda x: -math.inf if x == 0 else math.log(x),
    "power_below_one": math.exp,
    "sign": lambda x: float((x > 0) - (x < 0)),
    "sqrt": math.sqrt,
    "tanh": math.tanh,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What is known of a feature's value.

    Attributes:
        values: The only values there are; None where there may be others.
        low: It is never less.
        high: It is never more.
        is_present: Whether it is neither NULL nor NaN.
        is_missing: Whether it is NULL in every row.
    """

    values: frozenset[Any] | None = None
    low: float = -math.inf
    high: float = math.inf
    is_present: bool = False
    is_missing: bool = False

    def __and__(self, other: Known) -> Known:
        """Return what is known where both are."""
        both = [v for v in (self.values, other.values) if v is not None]
        low, high = max(self.low, other.low), min(self.high, other.high)
        values = frozenset.intersection(*both) if both else None
        if values is not None:
            values = frozenset(v for v in values if isinstance(v, str) or low <= v <= high)
        return Known(
            values=values,
            low=low,
            high=high,
            is_present=self.is_present or other.is_present,
            is_missing=self.is_missing or other.is_missing,
        )


def rebuilt(roots: Sequence[Expression], pool: Pool, known: Mapping[int, Known]) -> list[Expression]:
    """Return expressions made anew in another pool.

    Args:
        roots: The expressions.
        pool: Where the new ones are made.
        known: What is known of features, by number.

    Returns:
        One expression for each root, of its dtype and with its value in every row for which `known` is true; sums of
        constants are added up in another order, so the last digit may differ.
    """
    rebuilding = _Rebuilding(pool, known)
    made: dict[int, Expression] = {}
    for one in reachable(roots):
        made[one.number] = rebuilding.make(one, [made[a.number] for a in one.args])
    return [made[root.number] for root in roots]


class _Rebuilding:
    """Makes expressions in a pool, of arguments that are there already."""

    def __init__(self, pool: Pool, known: Mapping[int, Known]) -> None:
        self._pool = pool
        self._known = known

    def make(self, one: Expression, args: list[Expression]) -> Expression:
        """Return one expression made anew of other arguments."""
        write = getattr(self, f"_{one.op}", None)
        if write is not None:
            made: Expression = write(one, args)
        elif one.op in ("add", "sub", "mul", "div"):
            made = self._arithmetic(one, args)
        elif one.op in COMPARISONS:
            made = self._comparison(one.op, *args)
        elif one.op in ("min", "max"):
            made = self._pool.extreme(one.op, args)
        elif one.op in ("and", "or"):
            made = self._pool.both(one.op, *args)
        elif one.op in _FUNCTIONS:
            made = self._pool.call(one.op, args[0], _FUNCTIONS[one.op], low=one.low, high=one.high)
        else:
            made = self._kept(one, args)
        return made

    def _kept(self, one: Expression, args: list[Expression]) -> Expression:
        """Return the same operation, with the bounds that it had."""
        return self._pool.make(
            one.op, one.dtype, args, one.value, is_nullable=one.is_nullable, low=one.low, high=one.high
        )

    def _arithmetic(self, one: Expression, args: list[Expression]) -> Expression:
        if one.dtype == "float32" and not all(a.is_constant for a in args):
            # bounds in float64 are not those of what is rounded
            return self._kept(one, args)
        arithmetic: Callable[..., Expression] = getattr(self._pool, one.op)
        return arithmetic(*args)

    # --- what there is to begin with ---

    def _const(self, one: Expression, _: list[Expression]) -> Expression:
        return self._nothing(one.dtype) if one.value is None else self._pool.const(one.value, one.dtype)

    def _nothing(self, dtype: str) -> Expression:
        return self._pool.make("const", dtype, value=None, is_nullable=True)

    def _feature(self, one: Expression, _: list[Expression]) -> Expression:
        known = self._known.get(one.value, Known())
        if known.is_missing:
            return self._nothing(one.dtype)
        if known.values is not None and len(known.values) == 1:
            return self._pool.const(next(iter(known.values)), one.dtype)
        nullable = one.is_nullable and not known.is_present
        low, high = known.low, known.high
        return self._pool.make("feature", one.dtype, value=one.value, is_nullable=nullable, low=low, high=high)

    def _item(self, one: Expression, args: list[Expression]) -> Expression:
        return self._pool.make("item", one.dtype, args, one.value, is_nullable=one.is_nullable)

    def _cast(self, one: Expression, args: list[Expression]) -> Expression:
        inner = args[0]
        if inner.is_constant and inner.value is None:
            return self._nothing(one.dtype)
        if one.dtype != "float32" or inner.is_constant or inner.dtype == "bool":
            return self._pool.cast(inner, one.dtype)
        made = self._pool.cast(inner, one.dtype)
        if made.op != "cast":
            return made
        low, high = _rounded_outwards(inner.low, inner.high)
        return self._pool.make("cast", one.dtype, (inner, *made.args[1:]), low=low, high=high)

    # --- arithmetic ---

    def _neg(self, _: Expression, args: list[Expression]) -> Expression:
        return self._pool.neg(args[0])

    def _exp(self, _: Expression, args: list[Expression]) -> Expression:
        return self._pool.exp(args[0])

    def _logistic(self, _: Expression, args: list[Expression]) -> Expression:
        return self._pool.logistic(args[0])

    def _power(self, one: Expression, args: list[Expression]) -> Expression:
        base, exponent = args
        if base.value is not None and exponent.value is not None and base.is_constant and exponent.is_constant:
            try:
                power = float(base.value) ** float(exponent.value)
            except (OverflowError, ZeroDivisionError):
                power = math.inf
            return self._pool.const(math.nan if isinstance(power, complex) else power, one.dtype)
        return self._pool.make("power", one.dtype, args, is_nullable=True, low=one.low, high=one.high)

    def _affine(self, one: Expression, args: list[Expression]) -> Expression:
        weights, constant = one.value
        constants, terms = [constant], dict[Expression, float]()
        for arg, weight in zip(args, weights, strict=True):
            if arg.is_constant:
                constants.append(math.nan if arg.value is None else weight * arg.value)
            else:
                terms[arg] = terms.get(arg, 0.0) + weight
        kept = {term: weight for term, weight in terms.items() if weight != 0}
        if not kept or any(map(math.isnan, constants)):
            return self._pool.const(math.fsum(constants), one.dtype)
        constant = constants[0] if len(constants) == 1 else math.fsum(constants)
        bounds = [sorted((_scaled(w, e.low), _scaled(w, e.high))) for e, w in kept.items()]
        low, high = self._sum_bounds(one, [*bounds, [constant, constant]])
        value = (tuple(kept.values()), constant)
        return self._pool.make("affine", one.dtype, list(kept), value, low=low, high=high)

    def _total(self, one: Expression, args: list[Expression]) -> Expression:
        constants = [a for a in args if a.is_constant and a.value is not None]
        if len(constants) > 1:
            # where the first of them was
            whole = self._pool.const(math.fsum(c.value for c in constants), one.dtype)
            place = args.index(constants[0])
            kept = [a for a in args if a not in constants]
            args = [*kept[:place], *([whole] if whole.value or not kept else []), *kept[place:]]
        if len(args) == 1:
            return args[0]
        low, high = self._sum_bounds(one, [[a.low, a.high] for a in args])
        return self._pool.make("total", one.dtype, args, low=low, high=high)

    def _sum_bounds(self, one: Expression, bounds: Sequence[Sequence[float]]) -> tuple[float, float]:
        """Return the bounds of a sum in double precision, whatever the order; of another, those that it had."""
        if one.dtype != "float64":
            return one.low, one.high
        low, high = sum(b[0] for b in bounds), sum(b[1] for b in bounds)
        doubt = _ROUNDING * sum(max(abs(b[0]), abs(b[1])) for b in bounds)
        if math.isnan(low) or math.isnan(high) or math.isinf(doubt):
            doubt = _ROUNDING * max(abs(low), abs(high)) if math.isfinite(low) and math.isfinite(high) else math.inf
        # a bound that is there already is as good
        return max(low - doubt, one.low) if math.isfinite(doubt) else one.low, (
            min(high + doubt, one.high) if math.isfinite(doubt) else one.high
        )

    # --- truth and choices ---

    def _comparison(self, op: str, a: Expression, b: Expression) -> Expression:
        if a is b and op in ("lt", "gt"):
            # what skl2onnx makes a column of ones of: true of no number, nor of what is missing
            return self._pool.const(value=False, dtype="bool")
        if b.is_constant and b.value is not None and not a.is_constant:
            outcome = self.decided(op, a, b.value)
            if outcome is False or (outcome and not a.is_nullable):
                return self._pool.const(outcome, "bool")
        return self._pool.compare(op, a, b)

    def decided(self, op: str, a: Expression, bound: Any) -> bool | None:  # noqa: ANN401 - a number, a bool or a text
        """Return how a comparison of what is not missing ends; None where that depends on the row."""
        values = self._values(a)
        if values is not None:
            outcomes = {_compared(op, value, bound) for value in values}
            return outcomes.pop() if len(outcomes) == 1 else None
        if isinstance(bound, str) or a.dtype in ("string", "bool"):
            return None
        below, above = _compared(op, a.low, bound), _compared(op, a.high, bound)
        if op in ("eq", "ne"):
            apart = a.low > bound or a.high < bound
            return op == "ne" if apart else (op == "eq" if a.low == a.high == bound else None)
        return below if below == above else None

    def _values(self, a: Expression) -> frozenset[Any] | None:
        """Return the only values that an expression has where it is not missing; None where it has others."""
        if a.op == "feature":
            return self._known.get(a.value, Known()).values
        if a.op == "cast" and a.args[0].op == "feature" and a.dtype == "float64" and a.args[0].dtype != "string":
            values = self._values(a.args[0])
            return None if values is None else frozenset(map(float, values))
        return None

    def _not(self, _: Expression, args: list[Expression]) -> Expression:
        return self._pool.negate(args[0])

    def _missing(self, _: Expression, args: list[Expression]) -> Expression:
        if args[0].is_constant:
            return self._pool.const(args[0].value is None, "bool")
        return self._pool.missing(args[0])

    def _filled(self, _: Expression, args: list[Expression]) -> Expression:
        return self._pool.choose(self._missing(args[0], args), args[1], args[0])

    def _case(self, _: Expression, args: list[Expression]) -> Expression:
        return self._pool.choose(*args)

    def _lookup(self, one: Expression, args: list[Expression]) -> Expression:
        table, default = one.value
        values = self._values(args[0])
        kept = dict(table)
        if values is not None:
            kept = {key: value for key, value in table if key in values}
            found = [kept.get(value, default) for value in values]
            if found and not args[0].is_nullable and all(f == found[0] for f in found):
                return self._pool.const(found[0], one.dtype)
        return self._pool.lookup(args[0], kept, default, one.dtype)

    def _element(self, one: Expression, args: list[Expression]) -> Expression:
        return self._pool.element(one.value, args[0], one.dtype)

    def _greatest_at(self, one: Expression, args: list[Expression]) -> Expression:
        if any(a.is_constant and a.value is None for a in args):
            return self._kept(one, args)
        return self._pool.greatest_at(args, one.dtype)

    def _tree(self, one: Expression, args: list[Expression]) -> Expression:
        tree = pruned(shortened(one.value, lambda node: self._way(one.value, node, args)))
        if not tree.columns:
            leaf = tree.leaves[0]
            is_scalar = not isinstance(leaf, tuple)
            return self._pool.const(leaf, one.dtype) if is_scalar else self._pool.make("const", one.dtype, value=leaf)
        used = sorted(set(tree.columns))
        place = {column: i for i, column in enumerate(used)}
        small, taken = replace(tree, columns=[place[c] for c in tree.columns]), [args[c] for c in used]
        if isinstance(tree.leaves[0], tuple):
            return self._pool.make("tree", one.dtype, taken, small, is_nullable=False)
        return self._pool.tree(small, taken, one.dtype)

    def _way(self, tree: Tree, node: int, args: list[Expression]) -> bool | None:
        """Return whether a split is always true, or never; None where that depends on the row."""
        op, bound, arg = tree.comparisons[node], tree.thresholds[node], args[tree.columns[node]]
        if_missing = bool(tree.missing[node]) or op == "ne"
        if arg.is_constant:
            return if_missing if arg.value is None else _compared(op, arg.value, bound)
        outcome = self.decided(op, arg, bound)
        return None if arg.is_nullable and outcome is not if_missing else outcome


def shortened(tree: Tree, way: Callable[[int], bool | None]) -> Tree:
    """Return a tree without the splits that are decided.

    Args:
        tree: The tree.
        way: Whether a node's comparison is always true (True), never (False), or either (None).

    Returns:
        The tree that is left; of its only leaf, without nodes.
    """

    def led_to(node: int) -> int:
        while node >= 0 and (decided := way(node)) is not None:
            node = tree.yes[node] if decided else tree.no[node]
        return node

    root = led_to(0) if tree.columns else ~0
    if root < 0:
        return Tree([], [], [], [], [], [], [tree.leaves[~root]])
    # parents first, without recursion: a tree may be deeper than Python's stack
    kept = [root]
    leaves: list[Any] = []
    ends: tuple[list[int], list[int]] = ([], [])
    for node in kept:
        for next_one, to in zip((tree.yes[node], tree.no[node]), ends, strict=True):
            child = led_to(next_one)
            if child < 0:
                to.append(~len(leaves))
                leaves.append(tree.leaves[~child])
            else:
                to.append(len(kept))
                kept.append(child)
    return Tree(
        [tree.columns[n] for n in kept],
        [tree.thresholds[n] for n in kept],
        [tree.comparisons[n] for n in kept],
        [tree.missing[n] for n in kept],
        *ends,
        leaves,
    )


def _compared(op: str, value: Any, bound: Any) -> bool:  # noqa: ANN401 - two of one type
    return value != bound if op == "ne" else COMPARISONS[op](value, bound)


def _scaled(weight: float, bound: float) -> float:
    return 0.0 if weight == 0 or bound == 0 else weight * bound


def _rounded_outwards(low: float, high: float) -> tuple[float, float]:
    """Return bounds of what is rounded to float32."""
    import numpy as np

    with np.errstate(over="ignore"):
        return (
            float(np.nextafter(np.float32(low), np.float32(-np.inf))),
            float(np.nextafter(np.float32(high), np.float32(np.inf))),
        )
