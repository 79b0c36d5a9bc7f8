"""One expression after the other as PostgreSQL writes it: operators in a query, functions in a function's body."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from dbscore.compiler.choices import nested
from dbscore.compiler.expression import FLOATS, INTEGERS, Expression
from dbscore.compiler.literals import NAMES, SYMBOLS, TYPES, array_literal, literal
from dbscore.compiler.ranges import ANY, LARGEST, LEAST, Range

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


__all__ = ["ARITHMETIC", "Writer"]

ARITHMETIC = {"add": ("+", "pl"), "sub": ("-", "mi"), "mul": ("*", "mul"), "div": ("/", "div")}
# where exp() ends in double precision; beyond, PostgreSQL raises an error
HIGHEST_POWER = 709.78
LOWEST_POWER = -745.13
# powers that are less are 0: their shares of a sum would be too small, for which PostgreSQL raises an error too
LEAST_POWER = -700.0
# how many terms of a sum stand in one statement: each is one level deeper for the parser
TERMS_PER_STATEMENT = 40
MOST_SHIFT = 1000
# what may be written twice
SHORT = 160


class Writer:
    """Writes expressions.

    Args:
        feature: Returns the text of a feature, by its number.
        variables: The texts of expressions that are computed already, by their numbers.
        is_body: Whether names are looked up when the text runs, in the search_path that is set then: so it has
            functions of pg_catalog, and no operators.
        nulled: Sums that become NULL where they are not finite, by their numbers.
        ranges: How large and how small numbers can get, by their numbers.
        is_careful: Whether any number may turn out to be missing, since infinities cancel.
    """

    def __init__(
        self,
        feature: Callable[[Expression], str],
        *,
        variables: Mapping[int, str] | None = None,
        is_body: bool = False,
        nulled: frozenset[int] = frozenset(),
        ranges: Mapping[int, Range] | None = None,
        is_careful: bool = False,
    ) -> None:
        self._feature = feature
        self._variables = {} if variables is None else variables
        self._is_body = is_body
        self._nulled = nulled
        self._ranges = ranges or {}
        self._is_careful = is_careful

    def text(self, one: Expression) -> str:
        """Return the text of an expression."""
        known = self._variables.get(one.number)
        return self.computed(one) if known is None else known

    def computed(self, one: Expression) -> str:
        """Return the text of what computes an expression, whether there is a variable for it or not."""
        write = getattr(self, f"_{one.op}", None)
        if write is not None:
            found: str = write(one)
        elif one.op in ARITHMETIC:
            found = self._calculation(one)
        elif one.op in SYMBOLS:
            found = self.comparison(one.op, *one.args)
        else:
            found = self._function(one)
        if one.number in self._nulled:
            for value in ("'NaN'", "'Infinity'", "'-Infinity'"):
                found = f"nullif({found}, {value})"
        return found

    # --- what there is to begin with ---

    def _const(self, one: Expression) -> str:
        return literal(one.value, one.dtype)

    def _item(self, one: Expression) -> str:
        array = self.text(one.args[0])
        first = f"pg_catalog.array_lower({array}, 1)"
        place = f"pg_catalog.int4pl({first}, {one.value})" if self._is_body else f"{first} + {one.value}"
        return f"({array})[{place}]"

    def _cast(self, one: Expression) -> str:
        inner, to = one.args[0], one.dtype
        text = self.text(inner)
        if inner.dtype == "bool" and to != "string":
            return f"({text})::integer" + ("" if to == "int32" else f"::{TYPES[to]}")
        if to == "bool":
            return f"({self.comparison('ne', inner, None)})"
        if inner.dtype in FLOATS and to in INTEGERS:
            # towards zero, as C does it; PostgreSQL would round
            whole = f"pg_catalog.trunc({self._as_double(inner)})"
            if self._range(one).most < (2.0**31 if to == "int32" else 2.0**63):
                return f"{whole}::{TYPES[to]}"
            return f"dbscore.ieee_{'integer' if to == 'int32' else 'bigint'}({whole})"
        return self._in_real(one, text) if (inner.dtype, to) == ("float64", "float32") else f"({text})::{TYPES[to]}"

    # --- arithmetic ---

    def _calculation(self, one: Expression) -> str:
        a, b = one.args
        if one.dtype not in FLOATS:
            return self._operation(one.op, one.dtype, self.text(a), self.text(b))
        found, is_sum = self._range(one), one.op in ("add", "sub")
        zero_divides = one.op == "div" and (b.low <= 0 <= b.high) and not b.is_constant
        if not zero_divides and (found.fits(one.dtype) or (is_sum and found.most <= LARGEST[one.dtype])):
            return self._operation(one.op, one.dtype, self.text(a), self.text(b))
        left, right = self._as_double(a), self._as_double(b)
        # two reals' product, quotient or sum, rounded to double precision and then to real, is what it is in real
        if not zero_divides and (found.fits("float64") or (is_sum and found.most <= LARGEST["float64"])):
            return self._in_real(one, self._operation(one.op, "float64", left, right))
        if one.op == "sub":
            right = self._operation("sub", "float64", literal(0.0, "float64"), right)
        if one.op == "mul" and found.most <= LARGEST["float64"] and len(left + right) <= SHORT:
            # seldom is either so small
            tests = [
                self.related("gt", "float64", f"pg_catalog.abs({t})", literal(1e-150, "float64")) for t in (left, right)
            ]
            product = self._operation("mul", "float64", left, right)
            return self._in_real(
                one, f"case when {' and '.join(tests)} then {product} else dbscore.ieee_multiply({left}, {right}) end"
            )
        name = {"sub": "add", "mul": "multiply", "div": "divide"}.get(one.op, one.op)
        return self._in_real(one, f"dbscore.ieee_{name}({left}, {right})")

    def _range(self, one: Expression) -> Range:
        return self._ranges.get(one.number, ANY)

    def _operation(self, op: str, dtype: str, left: str, right: str) -> str:
        symbol, name = ARITHMETIC[op]
        if self._is_body:
            return f"pg_catalog.{NAMES[dtype]}{name}({left}, {right})"
        return f"({left} {symbol} {right})"

    def _neg(self, one: Expression) -> str:
        text = self.text(one.args[0])
        return f"pg_catalog.{NAMES[one.dtype]}um({text})" if self._is_body else f"(- {text})"

    def _affine(self, one: Expression) -> str:
        weights, constant = one.value
        terms = [
            Range(abs(w), abs(w)).times(self._range(a).rounded(a.dtype)) for w, a in zip(weights, one.args, strict=True)
        ]
        # what is too small is not where everything is larger by a power of two, which changes no digit
        small = [abs(w) for w, t in zip(weights, terms, strict=True) if t.least < LEAST["float64"]]
        shift = max(0, -math.frexp(min(small, default=1.0))[1] + 1) if min(small, default=1.0) < 1 else 0
        most = (sum(t.most for t in terms) + abs(constant)) * 2.0**shift if shift < MOST_SHIFT else math.inf
        if not most <= LARGEST["float64"]:
            return self._in_real(one, self._checked_affine(one))
        scale = math.ldexp(1.0, shift)
        parts = [self._weighted(arg, weight * scale) for arg, weight in zip(one.args, weights, strict=True)]
        if constant != 0:
            parts.append(literal(constant * scale, "float64"))
        found = self._chained(parts, "float64")
        if shift:
            if constant == 0:
                found = self._on_steps(found, math.ldexp(1.5, shift - 1022))
            found = self._operation("mul", "float64", found, literal(1 / scale, "float64"))
        return self._in_real(one, found)

    def _on_steps(self, text: str, large: float) -> str:
        """Round what is very small to the steps that double precision has next to a larger number.

        What is left is 0 or one of the steps, which are those of the smallest numbers of what it becomes then.
        """
        number = literal(large, "float64")
        return self._operation("sub", "float64", self._operation("add", "float64", text, number), number)

    def _checked_affine(self, one: Expression) -> str:
        weights, constant = one.value
        listed = ", ".join(repr(w) for w in weights)
        return f"dbscore.ieee_affine('{{{listed}}}', {self.doubles(one.args)}, {literal(constant, 'float64')})"

    def _weighted(self, arg: Expression, weight: float) -> str:
        text = self._as_double(arg)
        if weight == 1:
            return text
        return self._operation("mul", "float64", literal(weight, "float64"), text)

    def _total(self, one: Expression) -> str:
        return self._chained([self.text(a) for a in one.args], one.dtype)

    def _chained(self, terms: Sequence[str], dtype: str) -> str:
        if not self._is_body:
            return f"({' + '.join(terms)})" if len(terms) > 1 else terms[0]
        found = terms[0]
        for term in terms[1:]:
            found = self._operation("add", dtype, found, term)
        return found

    def sum_statements(self, name: str, one: Expression) -> list[str]:
        """Return statements that add up a sum in a variable."""
        terms = [self.text(a) for a in one.args]
        found = []
        for start in range(0, len(terms), TERMS_PER_STATEMENT):
            part = terms[start : start + TERMS_PER_STATEMENT]
            found.append(f"{name} := {self._chained([name, *part] if start else part, one.dtype)};")
        return found

    def doubles(self, listed: Sequence[Expression]) -> str:
        """Return numbers as one array."""
        return f"array[{', '.join(map(self._as_double, listed))}]"

    def _as_double(self, one: Expression) -> str:
        text = self.text(one)
        return text if one.dtype == "float64" else f"({text})::double precision"

    def _in_real(self, one: Expression, text: str) -> str:
        """Return a number in the expression's dtype: what real has no place for is infinite or 0."""
        if one.dtype == "float64":
            return text
        found = self._range(one)
        if found.most > LARGEST["float32"]:
            return f"dbscore.ieee_real({text})"
        if found.least < LEAST["float32"]:
            text = self._on_steps(text, 1.5 * 2.0**-97)
        return f"({text})::{TYPES[one.dtype]}"

    def _min(self, one: Expression) -> str:
        return self._extreme(one, "smaller")

    def _max(self, one: Expression) -> str:
        return self._extreme(one, "larger")

    def _extreme(self, one: Expression, name: str) -> str:
        # strict functions, where LEAST and GREATEST would leave what is missing out
        found = self.text(one.args[0])
        for arg in one.args[1:]:
            found = f"pg_catalog.{NAMES[one.dtype]}{name}({found}, {self.text(arg)})"
        return found

    def _function(self, one: Expression) -> str:
        names = {"ln": "dbscore.ieee_ln", "sqrt": "dbscore.ieee_sqrt", "power": "dbscore.ieee_power"}
        a = one.args[0]
        safe = (one.op == "sqrt" and a.low >= 0) or (one.op == "ln" and a.low > 0)
        name = names.get(one.op, f"pg_catalog.{one.op}") if not safe else f"pg_catalog.{one.op}"
        if one.op == "abs" or (one.dtype == "float64" and not safe):
            return f"{name}({', '.join(map(self.text, one.args))})"
        return self._in_real(one, f"{name}({', '.join(map(self._as_double, one.args))})")

    def _exp(self, one: Expression) -> str:
        a = one.args[0]
        size = self._range(a).most
        if max(a.low, -size) >= LOWEST_POWER and min(a.high, size) <= HIGHEST_POWER:
            return self._in_real(one, f"pg_catalog.exp({self._as_double(a)})")
        return self._in_real(one, f"dbscore.ieee_exp({self._as_double(a)})")

    def _logistic(self, one: Expression) -> str:
        """Write 1 / (1 + exp(-a)); what would be less than double precision has is 0."""
        a = one.args[0]
        power = self._operation("sub", "float64", literal(0.0, "float64"), self._as_double(a))
        power, is_cut = self._within(power, -a.high, -a.low)
        share = self._share(f"pg_catalog.exp({power})")
        if is_cut:
            least = self._share(f"pg_catalog.exp({literal(HIGHEST_POWER, 'float64')})")
            share = self._operation("sub", "float64", share, least)
        return self._in_real(one, share)

    def _share(self, power: str) -> str:
        whole = self._operation("add", "float64", literal(1.0, "float64"), power)
        return self._operation("div", "float64", literal(1.0, "float64"), whole)

    def _within(self, power: str, low: float, high: float) -> tuple[str, bool]:
        """Return a power that exp() takes, and whether a greater one may have been cut."""
        if low < LOWEST_POWER:
            power = f"pg_catalog.float8larger({power}, {literal(LOWEST_POWER, 'float64')})"
        if high <= HIGHEST_POWER:
            return power, False
        return f"pg_catalog.float8smaller({power}, {literal(HIGHEST_POWER, 'float64')})", True

    def _power_below_one(self, one: Expression) -> str:
        least = literal(LEAST_POWER, "float64")
        text = self._as_double(one.args[0])
        if one.args[0].low >= LEAST_POWER:
            return self._in_real(one, f"pg_catalog.exp({text})")
        power = f"pg_catalog.exp(pg_catalog.float8larger({text}, {least}))"
        return self._in_real(one, self._operation("sub", "float64", power, f"pg_catalog.exp({least})"))

    # --- truth and choices ---

    def comparison(self, op: str, a: Expression, b: Expression | None, *, as_condition: bool = False) -> str:
        """Return whether a `op` b (0 where it is None): false where one is missing, or NULL as a condition."""
        nullable = not as_condition and (self._is_careful or a.is_nullable or (b is not None and b.is_nullable))
        found = self._plain_comparison(op, a, b)
        return f"coalesce({found}, false)" if nullable else found

    def _plain_comparison(self, op: str, a: Expression, b: Expression | None) -> str:
        if b is None:
            return self.related(op, a.dtype, self.text(a), literal(0, a.dtype))
        inner = a.args[0] if a.op == "cast" else a
        if b.is_constant and b.value is not None and a is not inner and a.dtype == "float64":
            if inner.dtype in INTEGERS and (found := self._whole_comparison(op, inner, b.value)):
                return found
            if inner.dtype == "float32":
                # there are comparisons of both types
                if self._is_body:
                    return f"pg_catalog.float48{op}({self.text(inner)}, {literal(b.value, None)})"
                return f"({self.text(inner)} {SYMBOLS[op]} {literal(b.value, 'float64')})"
            if inner.dtype == "bool" and op != "eq" and 0 <= b.value < 1 and op in ("le", "gt"):
                return self.text(inner) if op == "gt" else f"(not {self.text(inner)})"
        right = (
            literal(b.value, None if self._is_body else b.dtype)
            if b.op == "const" and b.value is not None
            else self.text(b)
        )
        return self.related(op, a.dtype, self.text(a), right)

    def _whole_comparison(self, op: str, inner: Expression, bound: float) -> str | None:
        """Compare an integer with a number: with the integer next to it."""
        if math.isinf(bound) or abs(bound) >= 2**31:
            return None
        if op == "eq" and not bound.is_integer():
            return None
        whole = math.floor(bound) if op in ("le", "gt", "eq") else math.ceil(bound)
        if abs(whole) >= 2**31:
            return None
        return self.related(op, inner.dtype, self.text(inner), literal(whole, None if self._is_body else inner.dtype))

    def related(self, op: str, dtype: str, left: str, right: str) -> str:
        """Return whether two texts of a dtype are in a relation."""
        if dtype == "string":
            left = f'({left} collate pg_catalog."C")'
        if self._is_body:
            name = {"string": f"text_{op}", "bool": f"bool{op}"}.get(dtype, f"{NAMES[dtype]}{op}")
            return f"pg_catalog.{'texteq' if name == 'text_eq' else name}({left}, {right})"
        return f"({left} {SYMBOLS[op]} {right})"

    def condition(self, one: Expression) -> str:
        """Return the text of a condition, which counts as false where it is NULL."""
        if one.op in SYMBOLS and one.number not in self._variables:
            return self.comparison(one.op, *one.args, as_condition=True)
        return self.text(one)

    def _not(self, one: Expression) -> str:
        return f"(not {self.text(one.args[0])})"

    def _and(self, one: Expression) -> str:
        return f"({self.text(one.args[0])} and {self.text(one.args[1])})"

    def _or(self, one: Expression) -> str:
        return f"({self.text(one.args[0])} or {self.text(one.args[1])})"

    def _missing(self, one: Expression) -> str:
        return f"({self.text(one.args[0])} is null)"

    def _filled(self, one: Expression) -> str:
        return f"coalesce({self.text(one.args[0])}, {self.text(one.args[1])})"

    def _case(self, one: Expression) -> str:
        condition, yes, no = one.args
        return f"case when {self.condition(condition)} then {self.text(yes)} else {self.text(no)} end"

    def _tree(self, one: Expression) -> str:
        return nested(one, self._plain_comparison)

    # --- what is looked up ---

    def _lookup(self, one: Expression) -> str:
        table, default = one.value
        arg = one.args[0]
        text, value_dtype = self.text(arg), one.dtype
        if arg.dtype == "string":
            text = f'({text} collate pg_catalog."C")'
        if self._is_body:
            tests = [(self.related("eq", arg.dtype, self.text(arg), literal(k, None)), v) for k, v in table]
            whens = " ".join(f"when {test} then {literal(v, value_dtype)}" for test, v in tests)
            return f"case {whens} else {literal(default, value_dtype)} end"
        whens = " ".join(f"when {literal(k, arg.dtype)} then {literal(v, value_dtype)}" for k, v in table)
        return (
            f"case {text} {whens} else {literal(default, value_dtype)} end" if table else literal(default, value_dtype)
        )

    def _element(self, one: Expression) -> str:
        if one.dtype == "string":
            array = f"array[{', '.join(literal(v, one.dtype) for v in one.value)}]"
        else:
            array = array_literal(one.value, one.dtype)
        place = self._operation("add", one.args[0].dtype, self.text(one.args[0]), literal(1, one.args[0].dtype))
        return f"({array})[{place}]"

    def _greatest_at(self, one: Expression) -> str:
        texts = [self.text(a) for a in one.args]
        dtype = one.args[0].dtype
        careful = self._is_careful or any(a.is_nullable for a in one.args)
        if len(texts) == 2:  # noqa: PLR2004 - a pair
            second = self.related("gt", dtype, texts[1], texts[0])
            return f"({f'coalesce({second}, false)' if careful else second})::integer::{TYPES[one.dtype]}"
        whens = []
        for place, text in enumerate(texts[:-1]):
            if careful:
                # one that is missing is greater than none, and none is greater than a missing first one
                tests = [f"({self.related('gt', dtype, other, text)}) is not true" for other in texts[place + 1 :]]
                tests += [f"({text}) is not null"] if place else []
            else:
                tests = [self.related("ge", dtype, text, other) for other in texts[place + 1 :]]
            whens.append(f"when {' and '.join(tests)} then {literal(place, one.dtype)}")
        return f"case {' '.join(whens)} else {literal(len(texts) - 1, one.dtype)} end"
