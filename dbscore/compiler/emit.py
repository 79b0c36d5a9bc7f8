"""Expressions as PostgreSQL writes them: one expression where it is small, else the body of a PL/pgSQL function.

An expression becomes part of the query that uses it, so the planner and parallel workers see it; but it is planned anew
for each query, and what it uses twice it computes twice. The body of a function is planned once in a session, and
has variables.

Both compute twice over: as operators do where every number is of an ordinary size, and as IEEE 754 says, by functions,
where one is so large or so small that PostgreSQL's operators would refuse it.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from dbscore.compiler.choices import splits
from dbscore.compiler.expression import FLOATS, INTEGERS, Expression, reachable
from dbscore.compiler.literals import TYPES, literal, placeholder, with_features
from dbscore.compiler.ranges import FAR, LARGEST, guarded, ranges
from dbscore.compiler.walk import NODE, walks
from dbscore.compiler.writer import ARITHMETIC, Writer

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

__all__ = ["TYPES", "Writer", "block", "expanded_size", "inline", "placeholder", "splits", "with_features"]

# whether all numbers are of an ordinary size
PLAIN = "is_plain"


def expanded_size(root: Expression) -> int:
    """Return how many operations an expression is when everything it uses is written out where it is used."""
    sizes: dict[int, int] = {}
    for one in reachable([root]):
        sizes[one.number] = _own_size(one) + sum(sizes[a.number] for a in one.args)
    return sizes[root.number]


def _own_size(one: Expression) -> int:
    if one.op in ("const", "feature", "item"):
        return 0
    if one.op == "tree":
        return 2 * len(one.value.columns)
    if one.op in ("affine", "total"):
        return 2 * len(one.args)
    if one.op == "lookup":
        return 1 + len(one.value[0])
    if one.op == "greatest_at":
        return len(one.args) ** 2
    return 3 if one.op in ("exp", "logistic", "power_below_one") else 1


def inline(
    roots: Sequence[Expression],
    feature: Callable[[Expression], str],
    returned: Callable[[Writer], str],
    *,
    looked_at: Callable[[frozenset[int]], tuple[frozenset[int], Collection[int]]],
) -> tuple[str, Collection[int]]:
    """Return an expression, and the features of which what the model does not take makes it NULL.

    Args:
        roots: What is computed.
        feature: The text of a feature.
        returned: Writes the result, from the roots.
        looked_at: Returns, from the features whose size is looked at in the expression, the sums that are to be NULL
            where they are not finite, and the features that show so in the result.
    """
    order = reachable(roots)
    limits = guarded(order)
    both = [ranges(order, limits), ranges(order, {})]
    plain, careful = (returned(Writer(feature, ranges=found, is_careful=found is both[1])) for found in both)
    far = ranges(order, dict.fromkeys(limits, FAR))
    in_sums = all(e.op not in ARITHMETIC or all(a.number not in limits for a in e.args) for e in order)
    in_double = all(e.dtype == "float64" for e in order if e.number in limits)
    if plain == careful or (in_sums and in_double and returned(Writer(feature, ranges=far)) == plain):
        # to look at ten numbers takes longer than to add them up: of sums alone, PostgreSQL refuses what overflows
        nulled, shown = looked_at(frozenset())
        return returned(Writer(feature, ranges=both[0], nulled=nulled)), shown
    nulled, shown = looked_at(frozenset(e.value for e in order if e.number in limits and e.op == "feature"))
    plain, careful = (
        returned(Writer(feature, ranges=found, nulled=nulled, is_careful=found is both[1])) for found in both
    )
    writer = Writer(feature)
    bounded = [e for e in order if e.number in limits]
    unchecked = [e for e in bounded if e.op == "feature" and e.value in shown]
    finite = {e.number: LARGEST[e.dtype] for e in unchecked}
    # whatever comes of infinities, a NULL that makes the prediction NULL does so
    known = [
        f"{writer.text(e)} is not null" for e in order if e.op == "feature" and e.value in shown and not e.is_nullable
    ]
    tests = " and ".join([*([_within(writer, unchecked, finite)] if unchecked else []), *known])
    otherwise = f"when {tests} then {careful}" if tests else f"else {careful}"
    return f"case when {_within(writer, bounded, limits)} then {plain} {otherwise} end", shown


def _within(writer: Writer, bounded: Sequence[Expression], limits: Mapping[int, float]) -> str:
    """Return whether numbers are not larger than their limits; one that is missing is not."""
    tests = []
    for dtype in FLOATS:
        for limit in sorted({limits[e.number] for e in bounded if e.dtype == dtype}):
            texts = ", ".join(writer.text(e) for e in bounded if e.dtype == dtype and limits[e.number] == limit)
            for op, name, bound in (("le", "greatest", limit), ("ge", "least", -limit)):
                tests.append(writer.related(op, dtype, f"{name}({texts})", literal(bound, dtype)))
    return f"({' and '.join(tests)}) is not false"


def block(
    roots: Sequence[Expression],
    feature: Callable[[Expression], str],
    returned: Callable[[Writer], str],
) -> tuple[list[tuple[str, str]], list[str], str]:
    """Return what a PL/pgSQL function computes: its variables with their types, its statements, what it returns.

    Args:
        roots: What is computed.
        feature: The text of a feature, or of an element of one.
        returned: Writes the result, from the roots.
    """
    order = reachable(roots)
    limits = guarded(order)
    variables: dict[int, str] = {}
    writers = [
        Writer(feature, variables=variables, is_body=True, ranges=ranges(order, known), is_careful=known is not limits)
        for known in (limits, {})
    ]
    declared: list[tuple[str, str]] = []
    statements: list[tuple[list[str], list[str]]] = []
    found = {walk.results[0].number: walk for walk in walks(order)}
    for one in _variables(order, [r for walk in found.values() for r in walk.results], has_limits=bool(limits)):
        walk = found.get(one.number)
        if walk is not None:
            features = f"v{len(declared) + 1}"
            declared.append((features, f"{TYPES['float64']}[]"))
            plain, careful = ([f"{features} := {writer.doubles(walk.args)};"] for writer in writers)
            statements.append((plain, careful))
            names = [f"v{len(declared) + 1 + i}" for i in range(len(walk.results))]
            declared += [(name, TYPES[r.dtype]) for name, r in zip(names, walk.results, strict=True)]
            variables.update({r.number: name for name, r in zip(names, walk.results, strict=True)})
            walked = walk.statements(features, names)
            statements.append((walked, walked))
        if one.number in variables:
            # found on the way
            continue
        name = f"v{len(declared) + 1}"
        if one.op == "total":
            plain, careful = (writer.sum_statements(name, one) for writer in writers)
        else:
            plain, careful = ([f"{name} := {writer.computed(one)};"] for writer in writers)
        statements.append((plain, careful))
        declared.append((name, TYPES[one.dtype]))
        variables[one.number] = name
    if found:
        declared.append((NODE, TYPES["int32"]))
    plain_text, careful_text = map(returned, writers)
    if not limits or (plain_text == careful_text and all(plain == careful for plain, careful in statements)):
        return declared, [s for plain, _ in statements for s in plain], plain_text
    condition = _within(writers[0], [e for e in order if e.number in limits], limits)
    text = plain_text if plain_text == careful_text else f"case when {PLAIN} then {plain_text} else {careful_text} end"
    return [(PLAIN, "boolean"), *declared], [f"{PLAIN} := {condition};", *_either(statements)], text


def _either(statements: Sequence[tuple[list[str], list[str]]]) -> list[str]:
    """Return the statements, those that differ as branches."""
    made: list[str] = []
    waiting: tuple[list[str], list[str]] = ([], [])
    for plain, careful in [*statements, ([], [])]:
        if plain != careful:
            waiting[0].extend(plain)
            waiting[1].extend(careful)
            continue
        if waiting[0]:
            made += [f"if {PLAIN} then", *waiting[0], "else", *waiting[1], "end if;"]
            waiting = ([], [])
        made += plain
    return made


def _variables(order: Sequence[Expression], walked: Sequence[Expression], *, has_limits: bool) -> list[Expression]:
    """Return the expressions that have variables: what is used several times, sums of trees, and what is walked."""
    uses: Counter[int] = Counter()
    asked: set[int] = set()
    walked_numbers = {one.number for one in walked}
    # they are no expressions of their own
    within = {a.number for one in walked if one.op == "total" for a in one.args}
    within -= {a.number for one in order if one.number not in walked_numbers for a in one.args}
    for one in order:
        uses.update({a.number for a in one.args})
        if one.op in ("greatest_at", "lookup"):
            # they write their arguments more than once
            uses.update(a.number for a in one.args)
        if one.op == "tree" and has_limits:
            # so that a tree is not written in both branches
            asked.update(a.number for a in one.args)
    found = []
    for one in order:
        long = one.op == "total" and len(one.args) > 1 and any(a.op == "tree" for a in one.args)
        is_several = uses[one.number] > 1 or long or one.number in asked or one.number in walked_numbers
        if one.op in ("const", "feature") or one.number in within or not is_several:
            continue
        if one.op == "item" or (one.op == "cast" and one.args[0].op == "feature" and _is_compared(one, order)):
            continue
        found.append(one)
    return found


def _is_compared(one: Expression, order: Sequence[Expression]) -> bool:
    """Say whether a cast feature is only compared with constants, for which no cast is needed."""
    if one.args[0].dtype not in ("float32", *INTEGERS) or one.dtype != "float64":
        return False
    return all(user.op == "tree" for user in order if one in user.args)
