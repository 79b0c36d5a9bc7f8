"""The small language that graphs become: typed scalar expressions of one row's features, shared where they repeat.

A number that is missing is SQL's NULL here, which stands for the NaN that ONNX Runtime computes with: arithmetic passes
both on, and a comparison with either is false. Expressions are interned: equal ones are one object, so that what is
used twice is seen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from dbscore.compiler.tree import Tree, at_leaves, pruned

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence


__all__ = ["ARRAY", "FLOATS", "INTEGERS", "Expression", "Pool", "Tree", "reachable"]

FLOATS = ("float64", "float32")
INTEGERS = ("int64", "int32")
# several numbers as one constant
ARRAY = "float64[]"
# a model of more would take longer to compile, and to plan, than anybody waits
MOST_EXPRESSIONS = 200_000
# NaN is true of none of them
COMPARISONS: Mapping[str, Callable[[Any, Any], bool]] = {
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
    "eq": lambda a, b: a == b,
}


@dataclass(frozen=True, slots=True, eq=False)
class Expression:
    """One scalar.

    Attributes:
        op: What it is: `const`, `feature`, or what is done with the arguments.
        dtype: `float64`, `float32`, `int64`, `int32`, `bool` or `string`.
        args: What it is done with.
        value: A constant; a feature's number; an operation's own parameters.
        is_nullable: Whether it may be missing, all features that must not be NULL being there.
        low: It is never less; for numbers.
        high: It is never more, unless it is NaN.
        number: Its place in the order in which expressions were made: arguments come before what uses them.
    """

    op: str
    dtype: str
    args: tuple[Expression, ...] = ()
    value: Any = None
    is_nullable: bool = False
    low: float = -math.inf
    high: float = math.inf
    number: int = 0

    @property
    def is_constant(self) -> bool:
        """Whether it has the same value for all rows."""
        return self.op == "const"

    def __repr__(self) -> str:
        """Return it as a call."""
        inner = [repr(a) for a in self.args] + ([] if self.value is None else [f"{self.value!r:.60}"])
        return f"{self.op}({', '.join(inner)})"


@dataclass(slots=True)
class Pool:
    """Where expressions are made: equal ones are one, and what is constant is computed."""

    _known: dict[Any, Expression] = field(default_factory=dict)
    _terms: int = 0

    def make(
        self,
        op: str,
        dtype: str,
        args: Iterable[Expression] = (),
        value: Any = None,  # noqa: ANN401 - whatever the operation needs
        *,
        is_nullable: bool | None = None,
        low: float = -math.inf,
        high: float = math.inf,
    ) -> Expression:
        """Return the expression, the one there is or a new one; missing where an argument may be, unless said."""
        args = tuple(args)
        key = (op, dtype, tuple(a.number for a in args), _hashable(value))
        found = self._known.get(key)
        if found is None:
            if len(self._known) >= MOST_EXPRESSIONS:
                raise NotImplementedError(f"more than {MOST_EXPRESSIONS:,} operations")
            nullable = any(a.is_nullable for a in args) if is_nullable is None else is_nullable
            found = self._known[key] = Expression(
                op, dtype, args, value, is_nullable=nullable, low=low, high=high, number=len(self._known)
            )
        return found

    def count_terms(self, terms: int) -> None:
        """Count what sums are made of.

        Raises:
            NotImplementedError: It is more than a function should have, as in a large network.
        """
        self._terms += terms
        if self._terms > MOST_EXPRESSIONS:
            raise NotImplementedError(f"more than {MOST_EXPRESSIONS:,} weights")

    def __len__(self) -> int:
        """Return how many expressions there are."""
        return len(self._known)

    # --- what there is to begin with ---

    def const(self, value: Any, dtype: str) -> Expression:  # noqa: ANN401 - a number, a bool or a text
        """Return a constant; NaN is a missing number."""
        if dtype in FLOATS:
            value = _rounded(float(value), dtype)
            if math.isnan(value):
                return self.make("const", dtype, value=None, is_nullable=True)
            return self.make("const", dtype, value=value, low=value, high=value)
        if dtype in INTEGERS:
            value = int(value)
            return self.make("const", dtype, value=value, low=value, high=value)
        return self.make("const", dtype, value=bool(value) if dtype == "bool" else str(value))

    def feature(self, index: int, dtype: str, *, is_nullable: bool) -> Expression:
        """Return a feature's value, in the dtype that its SQL type has."""
        return self.make("feature", dtype, value=index, is_nullable=is_nullable)

    # --- arithmetic ---

    def add(self, a: Expression, b: Expression) -> Expression:
        """Return a + b; a constant becomes that of a sum with weights, where rounding stays the same."""
        for one, other in ((a, b), (b, a)):
            if (
                one.op == "affine"
                and one.dtype == "float64"
                and one.value[1] == 0
                and other.is_constant
                and other.value
            ):
                return self.affine(dict(zip(one.args, one.value[0], strict=True)), other.value, "float64")
        return self._arithmetic("add", a, b, lambda x, y: x + y, a.low + b.low, a.high + b.high)

    def sub(self, a: Expression, b: Expression) -> Expression:
        """Return a - b."""
        return self._arithmetic("sub", a, b, lambda x, y: x - y, a.low - b.high, a.high - b.low)

    def mul(self, a: Expression, b: Expression) -> Expression:
        """Return a * b."""
        corners = [_product(x, y) for x in (a.low, a.high) for y in (b.low, b.high)]
        low = max(0.0, min(corners)) if a is b else min(corners)
        return self._arithmetic("mul", a, b, lambda x, y: x * y, low, max(corners))

    def div(self, a: Expression, b: Expression) -> Expression:
        """Return a / b, as IEEE 754 has it; of integers, cut towards zero."""
        low, high = -math.inf, math.inf
        if b.low > 0 or b.high < 0:
            corners = [_quotient(x, y) for x in (a.low, a.high) for y in (b.low, b.high)]
            low, high = min(corners), max(corners)
        logistic = self._logistic(a, b)
        if logistic is not None:
            return logistic
        return self._arithmetic("div", a, b, _divided, low, high)

    def _logistic(self, a: Expression, b: Expression) -> Expression | None:
        """Recognize 1 / (1 + exp(-z)), which is computed without overflow."""
        if a.is_constant and a.value == 1 and b.op == "add" and len(b.args) == 2:  # noqa: PLR2004 - a pair
            one, power = sorted(b.args, key=lambda e: not e.is_constant)
            if one.is_constant and one.value == 1 and power.op == "exp" and power.args[0].op == "neg":
                return self.logistic(power.args[0].args[0])
        return None

    def _arithmetic(
        self,
        op: str,
        a: Expression,
        b: Expression,
        compute: Callable[[Any, Any], Any],
        low: float,
        high: float,
    ) -> Expression:
        if a.is_constant and b.is_constant:
            if a.value is None or b.value is None:
                return self.const(math.nan, a.dtype)
            return self.const(compute(a.value, b.value), a.dtype)
        identity = {"add": 0, "sub": 0, "mul": 1, "div": 1}[op]
        if b.is_constant and b.value == identity:
            return a
        known = self._at_leaves((a, b), lambda x, y: self.const(compute(x, y), a.dtype).value, a.dtype)
        if known is not None:
            return known
        if a.is_constant and a.value == identity and op in ("add", "mul"):
            return b
        low, high = (-math.inf if math.isnan(low) else low), (math.inf if math.isnan(high) else high)
        may_be_nan = op == "div" and b.low <= 0 <= b.high and a.dtype in FLOATS
        return self.make(
            op, a.dtype, (a, b), is_nullable=a.is_nullable or b.is_nullable or may_be_nan, low=low, high=high
        )

    def neg(self, a: Expression) -> Expression:
        """Return -a."""
        if a.is_constant:
            return a if a.value is None else self.const(-a.value, a.dtype)
        return a.args[0] if a.op == "neg" else self.make("neg", a.dtype, (a,), low=-a.high, high=-a.low)

    def call(
        self,
        op: str,
        a: Expression,
        compute: Callable[[float], float],
        *,
        low: float = -math.inf,
        high: float = math.inf,
    ) -> Expression:
        """Return a function of one number; its value is missing where the function has none."""
        if a.is_constant:
            if a.value is None:
                return a
            try:
                return self.const(compute(a.value), a.dtype)
            except OverflowError:
                return self.const(math.inf, a.dtype)
            except ValueError:
                return self.const(math.nan, a.dtype)
        return self.make(op, a.dtype, (a,), is_nullable=a.is_nullable or op in ("ln", "sqrt"), low=low, high=high)

    def exp(self, a: Expression) -> Expression:
        """Return e to the power of a: infinity and 0 where double precision ends."""
        return self.call("exp", a, math.exp, low=_exp(a.low), high=_exp(a.high))

    def logistic(self, a: Expression) -> Expression:
        """Return 1 / (1 + exp(-a))."""
        return self.call("logistic", a, lambda x: 1 / (1 + _exp(-x)), low=0.0, high=1.0)

    def affine(self, terms: Mapping[Expression, float], constant: float, dtype: str) -> Expression:
        """Return the sum of terms, each with its factor, and a constant: what linear models compute.

        It is computed in double precision, whatever the dtype, and in the order of the terms.
        """
        kept = [(e, w) for e, w in terms.items() if w != 0]
        if not kept:
            return self.const(constant, dtype)
        bounds = [sorted((_product(w, e.low), _product(w, e.high))) for e, w in kept]
        low, high = constant + sum(b[0] for b in bounds), constant + sum(b[1] for b in bounds)
        value = (tuple(w for _, w in kept), constant)
        low, high = (-math.inf if math.isnan(low) else low), (math.inf if math.isnan(high) else high)
        return self.make("affine", dtype, [e for e, _ in kept], value, low=low, high=high)

    def total(self, terms: Sequence[Expression], dtype: str) -> Expression:
        """Return the sum of terms, added one after the other."""
        if len(terms) == 1:
            return terms[0]
        if all(t.is_constant and t.value is not None for t in terms):
            return self.const(_summed([t.value for t in terms], dtype), dtype)
        return self.make("total", dtype, terms, low=sum(t.low for t in terms), high=sum(t.high for t in terms))

    def extreme(self, op: str, args: Sequence[Expression]) -> Expression:
        """Return the least (`min`) or the greatest (`max`); missing where one is."""
        if len(args) == 1:
            return args[0]
        if all(a.is_constant and a.value is not None for a in args):
            return self.const((min if op == "min" else max)(a.value for a in args), args[0].dtype)
        choose = min if op == "min" else max
        return self.make(op, args[0].dtype, args, low=choose(a.low for a in args), high=choose(a.high for a in args))

    # --- truth ---

    def compare(self, op: str, a: Expression, b: Expression) -> Expression:
        """Return whether a < b, and so on; false where one is missing."""
        if a.is_constant and b.is_constant:
            missing = a.value is None or b.value is None
            return self.const(not missing and COMPARISONS[op](a.value, b.value), "bool")
        known = self._at_leaves((a, b), COMPARISONS[op], "bool")
        if known is not None:
            return known
        return self.make(op, "bool", (a, b), is_nullable=False)

    def negate(self, a: Expression) -> Expression:
        """Return whether it is false."""
        if a.is_constant:
            return self.const(not a.value, "bool")
        return a.args[0] if a.op == "not" else self.make("not", "bool", (a,))

    def both(self, op: str, a: Expression, b: Expression) -> Expression:
        """Return a `and` b, or a `or` b."""
        for one, other in ((a, b), (b, a)):
            if one.is_constant:
                return other if bool(one.value) == (op == "and") else one
        return self.make(op, "bool", (a, b))

    def missing(self, a: Expression) -> Expression:
        """Return whether a number is missing."""
        if not a.is_nullable:
            return self.const(value=False, dtype="bool")
        return (
            self.const(value=True, dtype="bool")
            if a.is_constant
            else self.make("missing", "bool", (a,), is_nullable=False)
        )

    def choose(self, condition: Expression, yes: Expression, no: Expression) -> Expression:
        """Return one of two values."""
        if condition.is_constant:
            return yes if condition.value else no
        if yes is no:
            return yes
        low, high = min(yes.low, no.low), max(yes.high, no.high)
        if condition.op == "missing" and condition.args[0] is no:
            return self.make("filled", no.dtype, (no, yes), is_nullable=yes.is_nullable, low=low, high=high)
        nullable = yes.is_nullable or no.is_nullable
        return self.make("case", yes.dtype, (condition, yes, no), is_nullable=nullable, low=low, high=high)

    # --- what is looked up ---

    def lookup(self, a: Expression, table: Mapping[Any, Any], default: Any, dtype: str) -> Expression:  # noqa: ANN401
        """Return what a table of constants has for a value; the default where it is missing or not there."""
        if a.is_constant:
            return self.const(table.get(a.value, default), dtype)
        values = [*table.values(), default]
        numbers = [v for v in values if isinstance(v, int | float)]
        known = bool(numbers) and len(numbers) == len(values) and not any(math.isnan(v) for v in numbers)
        nullable = any(isinstance(v, float) and math.isnan(v) for v in values)
        return self.make(
            "lookup",
            dtype,
            (a,),
            (tuple(table.items()), default),
            is_nullable=nullable,
            low=min(numbers) if known else -math.inf,
            high=max(numbers) if known else math.inf,
        )

    def element(self, values: Sequence[Any], place: Expression, dtype: str) -> Expression:
        """Return the constant at a place, counted from 0."""
        if place.is_constant:
            return self.const(values[place.value], dtype)
        if place.op == "lookup":
            table, default = place.value
            return self.lookup(place.args[0], {k: values[v] for k, v in table}, values[default], dtype)
        known = self._at_leaves((place,), lambda i: values[i], dtype)
        if known is not None:
            return known
        numbers = [float(v) for v in values] if dtype in (*FLOATS, *INTEGERS) else []
        return self.make(
            "element",
            dtype,
            (place,),
            tuple(values),
            is_nullable=any(math.isnan(n) for n in numbers),
            low=min(numbers, default=-math.inf),
            high=max(numbers, default=math.inf),
        )

    def greatest_at(self, args: Sequence[Expression], dtype: str = "int64") -> Expression:
        """Return the place of the first of the greatest, counted from 0."""
        if len(args) == 1:
            return self.const(0, dtype)
        if all(a.is_constant for a in args):
            values = [a.value for a in args]
            return self.const(values.index(max(values)), dtype)
        table = _table_of_hits(args)
        if table is not None:
            return self.lookup(table[0], table[1], 0, dtype)
        known = self._at_leaves(args, lambda *v: v.index(max(v)), dtype)
        if known is not None:
            return known
        return self.make("greatest_at", dtype, args, is_nullable=False, low=0, high=len(args) - 1)

    def tree(self, tree: Tree, args: Sequence[Expression], dtype: str) -> Expression:
        """Return a leaf's value."""
        if len(tree.columns) == 0:
            return self.const(tree.leaves[0], dtype)
        low, high = (-math.inf, math.inf) if dtype == "string" else (min(tree.leaves), max(tree.leaves))
        if low == high:
            return self.const(tree.leaves[0], dtype)
        return self.make("tree", dtype, args, tree, is_nullable=False, low=low, high=high)

    def array_of_trees(self, args: Sequence[Expression]) -> Expression | None:
        """Return numbers from one tree as a tree whose leaves are arrays of them; None where they are others."""
        found = at_leaves(args, lambda *values: values) if all(a.dtype == "float64" for a in args) else None
        if found is None:
            return None
        trees = [a.args for a in args if a.op == "tree"]
        return self.make("tree", ARRAY, trees[0], found, is_nullable=False)

    def _at_leaves(self, args: Sequence[Expression], compute: Callable[..., Any], dtype: str) -> Expression | None:
        """Return what is computed of one tree's value, at its leaves; None where it is of more than that."""
        if all(a.op != "tree" for a in args):
            return None
        tree = at_leaves(args, compute)
        if tree is None:
            return None
        smaller = pruned(tree)
        args = next(a for a in args if a.op == "tree").args
        if len(smaller.columns) < len(tree.columns):
            used = sorted(set(smaller.columns))
            columns = [used.index(column) for column in smaller.columns]
            smaller = replace(smaller, columns=columns)
            args = [args[i] for i in used]
        return self.tree(smaller, args, dtype)

    # --- types ---

    def cast(self, a: Expression, dtype: str) -> Expression:
        """Return the value in another dtype, as ONNX's Cast converts it.

        Raises:
            NotImplementedError: SQL would write it otherwise.
        """
        if a.dtype == dtype:
            return a
        if "string" in (a.dtype, dtype) and not (dtype == "string" and a.dtype in INTEGERS):
            raise NotImplementedError(f"Cast from {a.dtype} to {dtype}")
        if a.is_constant:
            if a.value is None:
                return self.const(math.nan, dtype)
            return self.const(a.value, dtype)
        if a.op == "lookup" and dtype in (*FLOATS, *INTEGERS) and a.dtype != "string":
            table, default = a.value
            return self.lookup(a.args[0], dict(table), default, dtype)
        known = self._at_leaves((a,), lambda v: self.const(v, dtype).value, dtype)
        if known is not None:
            return known
        low, high = (0.0, 1.0) if a.dtype == "bool" else (a.low, a.high)
        return self.make("cast", dtype, (a,), low=low, high=high)


def reachable(roots: Iterable[Expression]) -> list[Expression]:
    """Return what the roots consist of and themselves, arguments first."""
    found: dict[int, Expression] = {}
    stack = list(roots)
    while stack:
        one = stack.pop()
        if one.number not in found:
            found[one.number] = one
            stack.extend(one.args)
    return [found[number] for number in sorted(found)]


def _hashable(value: Any) -> Any:  # noqa: ANN401
    # 0.0 and -0.0 are equal, and not the same; True equals 1
    if isinstance(value, tuple):
        return tuple(map(_hashable, value))
    return (type(value), repr(value)) if isinstance(value, float | bool) else value


def _rounded(value: float, dtype: str) -> float:
    if dtype == "float64":
        return value
    import numpy as np

    with np.errstate(over="ignore"):
        return float(np.float32(value))


def _summed(values: Sequence[float], dtype: str) -> float:
    total = 0.0
    for value in values:
        total = _rounded(total + value, dtype)
    return total


def _exp(value: float) -> float:
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf


def _product(a: float, b: float) -> float:
    """Return a bound's multiple: what is 0 stays so, however large the other may be."""
    return 0.0 if a == 0 or b == 0 else a * b


def _quotient(a: float, b: float) -> float:
    return 0.0 if math.isinf(b) else a / b


def _divided(a: Any, b: Any) -> Any:  # noqa: ANN401 - two numbers of one type
    if isinstance(a, int):
        return int(a / b)
    if b == 0:
        return math.nan if a == 0 else math.copysign(math.inf, a)
    return a / b


def _table_of_hits(args: Sequence[Expression]) -> tuple[Expression, dict[Any, int]] | None:
    """Recognize a place in a list of constants: of 0 and 1 for `x = constant`, the first 1, or the first of all."""
    base: Expression | None = None
    table: dict[Any, int] = {}
    for place, arg in enumerate(args):
        if arg.is_constant and not arg.value:
            continue
        inner = arg.args[0] if arg.op == "cast" else arg
        if inner.op != "eq" or not inner.args[1].is_constant or base not in (None, inner.args[0]):
            return None
        base = inner.args[0]
        table.setdefault(inner.args[1].value, place)
    return None if base is None else (base, table)
