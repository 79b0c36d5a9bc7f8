"""How large and how small numbers can get: PostgreSQL refuses what ONNX Runtime rounds to infinity or to 0.

A product or a quotient that is not 0 and rounds to 0 is an error in PostgreSQL, and so is what becomes infinite. Where
neither can be, arithmetic is an operator; elsewhere it is a function that knows the rules of IEEE 754.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dbscore.compiler.expression import FLOATS, INTEGERS, Expression

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = ["ANY", "FAR", "LARGEST", "LEAST", "ORDINARY", "Range", "guarded", "ranges"]

# the least number above 0, and the largest
LEAST = {"float64": 5e-324, "float32": 1.401298464324817e-45}
LARGEST = {"float64": 1.7976931348623157e308, "float32": 3.4028234663852886e38}
# of numbers up to these, what models compute does not overflow: products of four, and squares of sums
ORDINARY = {"float64": 1e70, "float32": 1e10}
# sums with constant factors do not overflow up to here either; what is larger, PostgreSQL may refuse
FAR = 1e290
# what a sum of two numbers is at least, as a share of either, where it is not 0
_CANCELLED = 2.0**-54
# the expressions whose numbers are those of their arguments, or made of them
_PASSED_ON = ("cast", "neg", "abs", "filled", "case", "min", "max")
_COMPUTED = (
    "affine",
    "add",
    "sub",
    "mul",
    "div",
    "total",
    "exp",
    "logistic",
    "power",
    "power_below_one",
    "sqrt",
    "ln",
    "tanh",
)


@dataclass(frozen=True, slots=True)
class Range:
    """What a number is between, whatever its sign, where it is not 0.

    Attributes:
        least: It is not less, before it is rounded to its own dtype.
        most: It is not more.
    """

    least: float
    most: float

    def fits(self, dtype: str) -> bool:
        """Say whether none of it is rounded to 0 or to infinity."""
        return self.least >= LEAST[dtype] and self.most <= LARGEST[dtype]

    def rounded(self, dtype: str) -> Range:
        """Return the range of what it is rounded to."""
        if dtype not in FLOATS:
            return self
        infinite = self.most > LARGEST[dtype]
        return Range(max(self.least, LEAST[dtype]), math.inf if infinite else self.most)

    def times(self, other: Range) -> Range:
        """Return the range of products."""
        return Range(self.least * other.least, _product(self.most, other.most))

    def by(self, other: Range) -> Range:
        """Return the range of quotients."""
        least = 0.0 if math.isinf(other.most) else self.least / other.most
        return Range(least, _product(self.most, 1 / other.least if other.least > 1e-300 else math.inf))  # noqa: PLR2004

    def plus(self, other: Range) -> Range:
        """Return the range of sums and differences."""
        return Range(max(min(self.least, other.least) * _CANCELLED, LEAST["float64"]), self.most + other.most)


ANY = Range(LEAST["float64"], math.inf)


def ranges(order: Iterable[Expression], largest: Mapping[int, float]) -> dict[int, Range]:
    """Return the ranges of numbers, by the expressions' numbers: before they are rounded to their dtype.

    Args:
        order: The expressions, arguments first.
        largest: Up to which features and elements are, where that is known, by the expressions' numbers.
    """
    found: dict[int, Range] = {}
    rounded: dict[int, Range] = {}
    for one in order:
        args = [rounded[a.number] for a in one.args]
        made = _range(one, args, largest.get(one.number, math.inf))
        bound = max(abs(one.low), abs(one.high))
        found[one.number] = Range(made.least, min(made.most, bound))
        rounded[one.number] = found[one.number].rounded(one.dtype)
    return found


def _range(one: Expression, args: Sequence[Range], largest: float) -> Range:  # noqa: C901, PLR0911 - one for each kind
    if one.op == "const":
        return _of_constants([one.value])
    if one.op in ("lookup", "element", "tree"):
        return _of_constants(_held(one))
    if one.op in ("feature", "item"):
        return _of_source(one, largest)
    if one.op == "cast" and one.args[0].dtype in INTEGERS:
        return Range(1.0, args[0].most)
    if one.op in ("filled", "case", "min", "max"):
        args = args[1:] if one.op == "case" else args
        return Range(min(a.least for a in args), max(a.most for a in args))
    if one.op in ("cast", "neg", "abs"):
        return args[0] if one.args[0].dtype != "bool" else Range(1.0, 1.0)
    if one.op in ("add", "sub"):
        return _sum(args, [a.value for a in one.args if a.is_constant])
    if one.op == "total":
        return _sum(args, [])
    if one.op in ("mul", "div"):
        return args[0].times(args[1]) if one.op == "mul" else args[0].by(args[1])
    if one.op == "affine":
        weights, constant = one.value
        terms = [_of_constants([w]).times(a) for w, a in zip(weights, args, strict=True)]
        return _sum(terms, [constant] if constant else [])
    return _of_function(one, args)


def _of_function(one: Expression, args: Sequence[Range]) -> Range:
    a = args[0] if args else ANY
    if one.op == "sqrt":
        return Range(math.sqrt(a.least), math.sqrt(a.most))
    if one.op == "ln":
        # next to 1, where the logarithm is 0
        return Range(1e-17, 750.0)
    if one.op == "exp":
        return Range(LEAST["float64"], math.exp(min(a.most, 709.0)) if a.most < 709 else math.inf)  # noqa: PLR2004
    if one.op == "power_below_one":
        # the steps next to the least that is not 0
        return Range(1e-320, 1.0)
    if one.op in ("sign", "floor", "ceil"):
        return Range(1.0, a.most)
    return ANY


def _of_source(one: Expression, largest: float) -> Range:
    if one.dtype in FLOATS:
        # an infinite one is no error
        return Range(LEAST[one.dtype], largest if one.dtype == "float64" else min(largest, LARGEST["float32"]))
    return Range(1.0, {"int32": 2.0**31, "int64": 2.0**63}.get(one.dtype, 1.0))


def _of_constants(values: Iterable[object]) -> Range:
    sizes = [abs(v) for v in values if isinstance(v, int | float) and v and not math.isnan(v)]
    return Range(min(sizes, default=1.0), max(sizes, default=0.0))


def _held(one: Expression) -> list[object]:
    if one.op == "tree":
        return list(one.value.leaves)
    if one.op == "element":
        return list(one.value)
    table, default = one.value
    return [*(value for _, value in table), default]


def _sum(terms: Sequence[Range], constants: Sequence[float | None]) -> Range:
    """Return the range of a sum; a constant, added last, bounds how near to 0 it comes."""
    total = terms[0]
    for term in terms[1:]:
        total = total.plus(term)
    most = total.most
    for constant in constants:
        if constant:
            total = Range(max(abs(constant) * _CANCELLED, LEAST["float64"]), most + abs(constant))
    return total


def _product(a: float, b: float) -> float:
    return 0.0 if a == 0 or b == 0 else a * b


def _sources(order: Sequence[Expression]) -> list[Expression]:
    """Return the features and elements of floats that something is computed with, not only compared or looked up."""
    wanted: set[int] = set()
    for one in reversed(order):
        passes = one.number in wanted and one.op in _PASSED_ON
        narrows = one.op == "cast" and one.dtype == "float32" and one.args[0].dtype == "float64"
        if one.op in _COMPUTED or passes or narrows:
            wanted.update(a.number for a in one.args)
    return [e for e in order if e.number in wanted and e.op in ("feature", "item") and e.dtype in FLOATS]


def guarded(order: Sequence[Expression]) -> dict[int, float]:
    """Return the sources that can be too large for what is computed with them, and up to where they are not.

    Reals cannot, in double precision; where reals are computed with, everything can.
    """
    in_real = any(e.dtype == "float32" and e.op in (*_COMPUTED, "cast") and e.args[0].dtype in FLOATS for e in order)
    limit = ORDINARY["float32" if in_real else "float64"]
    return {e.number: limit for e in _sources(order) if in_real or e.dtype == "float64"}
