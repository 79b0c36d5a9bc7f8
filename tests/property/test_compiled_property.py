"""Whatever small tree or sum is written as SQL, PostgreSQL computes what numpy does: with NULL, infinities and the rest."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dbscore.compiler import walk
from dbscore.compiler.affine import weighted_sum
from dbscore.compiler.emit import block, inline, placeholder, with_features
from dbscore.compiler.expression import COMPARISONS, Expression, Pool, Tree, reachable
from dbscore.compiler.ranges import FAR
from tests.conftest import database

if TYPE_CHECKING:
    from collections.abc import Iterator

Connection = psycopg.Connection[Any]

# trees that are data compare by size alone
SIZES = {"eq": "le", "ne": "gt"}
QUICKLY = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)
TYPES = {"float64": "double precision", "float32": "real"}
EDGES = [0.0, -0.0, 5e-324, -1e-310, 1e-45, 1e-20, 1.5, -3.0, 1e10, 3e38, 1e70, 1.5e308, -1.7e308]
DOUBLES = st.one_of(
    st.sampled_from(EDGES), st.floats(allow_nan=False, allow_infinity=False), st.integers(-5, 5).map(float)
)
SINGLES = st.one_of(
    st.sampled_from([0.0, -0.0, 0.1, 1.5, -2.0, 3e38, 1e-45]).map(lambda v: float(np.float32(v))),
    st.floats(width=32, allow_nan=False, allow_infinity=False),
)


@pytest.fixture(scope="module")
def db(server_url: str, template: str) -> Iterator[Connection]:
    with database(server_url, template) as url, psycopg.connect(url, autocommit=True) as connection:
        yield connection


def literal(value: float | None, dtype: str) -> str:
    return f"null::{TYPES[dtype]}" if value is None else f"'{value!r}'::{TYPES[dtype]}"


def in_a_query(db: Connection, root: Expression, row: list[float | None], dtype: str) -> Any:
    text, _ = inline(
        [root],
        lambda one: placeholder(one.value),
        lambda writer: writer.text(root),
        looked_at=lambda _: (frozenset(), ()),
    )
    return db.execute(f"select {with_features(text, [literal(v, dtype) for v in row])}", binary=True).fetchall()[0][0]


def in_a_function(db: Connection, root: Expression, row: list[float | None], dtype: str) -> Any:
    declared, statements, text = block([root], lambda one: f"f{one.value + 1}", lambda writer: writer.text(root))
    body = ["declare", *(f"{name} {kind};" for name, kind in declared), "begin", *statements, f"return {text};", "end"]
    arguments = ", ".join(f"f{i + 1} {TYPES[dtype]}" for i in range(len(row)))
    db.execute(
        f"drop function if exists public.f; create function public.f({arguments}) returns {TYPES[root.dtype]} language plpgsql as $f$ {' '.join(body)} $f$"
    )
    return db.execute(f"select public.f({', '.join(literal(v, dtype) for v in row)})", binary=True).fetchall()[0][0]


@pytest.mark.parametrize("compute", [in_a_query, in_a_function])
def test_a_sum_with_weights_is_what_numpy_adds_up_and_never_an_error(db: Connection, compute: Any) -> None:
    # of sums in a query, PostgreSQL itself refuses what overflows: to look first would take longer than to add up
    numbers = DOUBLES if compute is in_a_function else DOUBLES.filter(lambda v: not FAR < abs(v) < math.inf)

    @QUICKLY
    @given(st.data())
    def check(data: st.DataObject) -> None:
        weights = data.draw(st.lists(st.floats(1e-9, 1e9) | st.floats(-1e9, -1e-9), min_size=1, max_size=4))
        row = data.draw(st.lists(st.none() | numbers, min_size=len(weights), max_size=len(weights)))
        constant = data.draw(st.sampled_from([0.0, 1.0, -2.5e-8]))
        pool = Pool()
        features = [pool.feature(i, "float64", is_nullable=True) for i in range(len(weights))]
        found = compute(db, weighted_sum(pool, features, weights, constant, "float64"), row, "float64")
        with np.errstate(all="ignore"):
            terms = [w * np.float64(math.nan if v is None else v) for w, v in zip(weights, row, strict=True)]
            expected = sum(terms, np.float64(0)) + constant
            size = float(np.abs(terms).sum())
        if math.isnan(expected):
            assert found is None
        elif math.isinf(size):
            # whether a sum ends at infinity may depend on the order
            assert found is not None
        else:
            assert found == pytest.approx(expected, rel=1e-12, abs=1e-13 * size + 1e-320)

    check()


@pytest.mark.parametrize("compute", [in_a_query, in_a_function])
@pytest.mark.parametrize("op", ["add", "sub", "mul", "div"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_arithmetic_ends_where_numpys_does_at_infinity_or_zero(
    db: Connection, compute: Any, op: str, dtype: str
) -> None:
    @settings(QUICKLY, max_examples=50)
    @given(st.lists(DOUBLES if dtype == "float64" else SINGLES, min_size=2, max_size=2))
    def check(row: list[float]) -> None:
        pool = Pool()
        a, b = (pool.feature(i, dtype, is_nullable=False) for i in range(2))
        found = compute(db, getattr(pool, op)(a, b), row, dtype)
        x, y = (np.dtype(dtype).type(v) for v in row)
        with np.errstate(all="ignore"):
            expected = {"add": x + y, "sub": x - y, "mul": x * y, "div": x / y}[op]
        least = 1e-320 if dtype == "float64" else 0.0
        assert (found is None) == math.isnan(expected)
        if found is not None and not (math.isinf(expected) and abs(found) > 1.79e308):
            assert found == pytest.approx(float(expected), rel=1e-15, abs=least) or abs(expected) > 1.79e308

    check()


@st.composite
def trees(draw: st.DrawFn) -> Tree:
    """Return a tree of up to seven splits over two features."""
    count = draw(st.integers(1, 7))
    yes, no, leaves = [0] * count, [0] * count, []
    free = [(0, "yes"), (0, "no")]
    for node in range(1, count):
        parent, way = free.pop(draw(st.integers(0, len(free) - 1)))
        (yes if way == "yes" else no)[parent] = node
        free += [(node, "yes"), (node, "no")]
    for parent, way in free:
        (yes if way == "yes" else no)[parent] = ~len(leaves)
        leaves.append(float(len(leaves)))
    listed = {"min_size": count, "max_size": count}
    return Tree(
        draw(st.lists(st.integers(0, 1), **listed)),
        draw(st.lists(SINGLES, **listed)),
        draw(st.lists(st.sampled_from(["le", "lt", "ge", "gt", "eq", "ne"]), **listed)),
        draw(st.lists(st.booleans(), **listed)),
        yes,
        no,
        leaves,
    )


def leaf(tree: Tree, row: list[float]) -> float:
    """Walk down the tree as ONNX Runtime does."""
    node = 0
    while node >= 0:
        value, bound, op = row[tree.columns[node]], tree.thresholds[node], tree.comparisons[node]
        holds = value != bound if op == "ne" else COMPARISONS[op](value, bound)
        node = tree.yes[node] if holds or (math.isnan(value) and tree.missing[node]) else tree.no[node]
    return tree.leaves[~node]


def values_at(data: st.DataObject, trees: list[Tree], dtype: str) -> list[float | None]:
    """Draw a row: thresholds, the numbers next to them, infinities, and what is missing."""
    single = np.dtype(dtype).type
    bounds = [t for tree in trees for t in tree.thresholds]
    with np.errstate(over="ignore"):
        steps = [float(np.nextafter(single(t), single(side))) for t in bounds for side in (-np.inf, np.inf)]
    values = st.none() | st.sampled_from([*bounds, *(s for s in steps if math.isfinite(s)), math.inf, -math.inf])
    return data.draw(st.lists(values, min_size=2, max_size=2))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_sums_of_trees_that_are_data_are_those_of_a_walk_down_each(
    db: Connection, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walk, "MOST_CHOICES", 0)
    monkeypatch.setattr(walk, "LEAST_WALKED", 1)

    @QUICKLY
    @given(st.lists(trees(), min_size=2, max_size=4), st.data())
    def check(drawn: list[Tree], data: st.DataObject) -> None:
        listed = [replace(tree, comparisons=[SIZES.get(op, op) for op in tree.comparisons]) for tree in drawn]
        row = values_at(data, listed, dtype)
        pool = Pool()
        features = [pool.feature(i, dtype, is_nullable=True) for i in range(2)]
        one = pool.total([pool.tree(tree, features, "float64") for tree in listed], "float64")
        # the same splits with other leaves: found on the same way
        others = [replace(tree, leaves=[10 * leaf + 1 for leaf in tree.leaves]) for tree in listed]
        other = pool.total([pool.tree(tree, features, "float64") for tree in others], "float64")
        assert len(walk.walks(reachable([one, other]))) == 1
        found = in_a_function(db, pool.add(one, pool.mul(other, pool.const(0.001, "float64"))), row, dtype)
        numbers = [math.nan if v is None else v for v in row]
        expected = [sum(leaf(tree, numbers) for tree in chosen) for chosen in (listed, others)]
        assert found == pytest.approx(expected[0] + expected[1] * 0.001, rel=1e-15)

    check()


@pytest.mark.parametrize("compute", [in_a_query, in_a_function])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_tree_leads_where_a_walk_down_it_does(db: Connection, compute: Any, dtype: str) -> None:
    @QUICKLY
    @given(trees(), st.data())
    def check(tree: Tree, data: st.DataObject) -> None:
        row = values_at(data, [tree], dtype)
        pool = Pool()
        features = [pool.feature(i, dtype, is_nullable=True) for i in range(2)]
        found = compute(db, pool.tree(tree, features, "float64"), row, dtype)
        assert found == leaf(tree, [math.nan if v is None else v for v in row])

    check()
