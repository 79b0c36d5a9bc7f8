"""Expressions with more known of their features give, for the rows they are for, what the native model gives."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import GradientBoostingRegressor, HistGradientBoostingRegressor, RandomForestRegressor
from sklearn.linear_model import LinearRegression
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

from dbscore.compiler.compilation import results_of
from dbscore.compiler.expression import Expression, Pool
from dbscore.compiler.substitution import Known, rebuilt, shortened
from dbscore.compiler.tree import Tree
from dbscore.convert import convert

ROWS = 300
RANDOM = np.random.default_rng(3)
X = pd.DataFrame({"a": RANDOM.normal(size=ROWS), "b": RANDOM.integers(0, 8, ROWS), "c": RANDOM.normal(size=ROWS) * 100})
Y = X.a * X.b + np.sin(X.c) + RANDOM.normal(size=ROWS) * 0.1
MODELS = {
    "linear": LinearRegression(),
    "polynomial": make_pipeline(PolynomialFeatures(2), LinearRegression()),
    "forest": RandomForestRegressor(8, random_state=0),
    "scaled forest": make_pipeline(StandardScaler(), RandomForestRegressor(8, random_state=0)),
    "boosted": GradientBoostingRegressor(n_estimators=20, random_state=0),
    "histograms": HistGradientBoostingRegressor(max_iter=20),
    "network": make_pipeline(StandardScaler(), MLPRegressor(hidden_layer_sizes=(4,), max_iter=3000, random_state=0)),
}


def value(root: Expression, row: tuple[Any, ...]) -> float:
    """Return what an expression is for a row: with all of it known, it is a constant."""
    (found,) = rebuilt([root], Pool(), {i: Known(values=frozenset([v])) for i, v in enumerate(row)})
    assert found.is_constant
    return math.nan if found.value is None else float(found.value)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("kind", MODELS)
def test_rows_within_the_bounds_are_predicted_as_by_the_native_model(kind: str, dtype: str) -> None:
    rows = X.astype({"a": dtype, "c": dtype})
    model = MODELS[kind].fit(rows, Y)
    conversion = convert(model, sample=rows)
    root = results_of(conversion.onnx, conversion.signature)[""][0][0]
    for _ in range(6):
        low, high = np.sort(RANDOM.choice(rows.a, 2, replace=False))
        least, most = np.sort(RANDOM.choice(rows.b, 2))
        known = {
            0: Known(low=float(low), high=float(high), is_present=True),
            1: Known(
                values=frozenset(range(int(least), int(most) + 1)), low=int(least), high=int(most), is_present=True
            ),
        }
        (special,) = rebuilt([root], Pool(), known)
        within = rows[(rows.a >= low) & (rows.a <= high) & (rows.b >= least) & (rows.b <= most)][:20]
        # the rows at the bounds are among them
        edges = pd.DataFrame({"a": [low, high], "b": [least, most], "c": [1.0, -1.0]}).astype(rows.dtypes)
        chosen = pd.concat([within, edges])
        found = [value(special, row) for row in chosen.astype(object).itertuples(index=False, name=None)]
        np.testing.assert_allclose(found, model.predict(chosen), rtol=1e-9 if dtype == "float64" else 1e-5, atol=1e-9)


def tree_of_three() -> Tree:
    """A tree that asks x <= 2, then x <= 1 and x <= 3."""
    return Tree([0, 0, 0], [2.0, 1.0, 3.0], ["le"] * 3, [False] * 3, [1, ~0, ~2], [2, ~1, ~3], [10.0, 20.0, 30.0, 40.0])


@pytest.mark.parametrize(
    ("known", "splits"),
    [
        (Known(high=2.0, is_present=True), 1),
        (Known(high=math.nextafter(2.0, 3.0), is_present=True), 2),
        (Known(low=2.0, is_present=True), 2),
        (Known(low=math.nextafter(2.0, 3.0), is_present=True), 1),
        (Known(low=math.nextafter(3.0, 4.0), is_present=True), 0),
        (Known(high=1.0), 0),
        (Known(values=frozenset([2.5, 3.5]), low=2.5, high=3.5, is_present=True), 1),
        (Known(is_missing=True), 0),
    ],
)
def test_a_bound_one_step_beyond_a_threshold_decides_its_split(known: Known, splits: int) -> None:
    pool = Pool()
    root = pool.tree(tree_of_three(), [pool.feature(0, "float64", is_nullable=False)], "float64")
    (found,) = rebuilt([root], Pool(), {0: known})
    assert (len(found.value.columns) if found.op == "tree" else 0) == splits


def test_what_may_be_missing_keeps_the_way_of_missing_values() -> None:
    pool = Pool()
    root = pool.tree(tree_of_three(), [pool.feature(0, "float64", is_nullable=True)], "float64")
    # what is missing goes where no comparison is true, which is where great numbers go
    assert rebuilt([root], Pool(), {0: Known(low=3.5)})[0].value == 40.0
    assert rebuilt([root], Pool(), {0: Known(high=0.5)})[0].op == "tree"
    assert rebuilt([root], Pool(), {0: Known(high=0.5, is_present=True)})[0].value == 10.0


def test_a_tree_as_deep_as_a_list_is_shortened_without_recursion() -> None:
    depth = 20_000
    tree = Tree(
        [0] * depth,
        [float(i) for i in range(depth)],
        ["le"] * depth,
        [False] * depth,
        [~i for i in range(depth)],
        [*range(1, depth), ~depth],
        [float(i) for i in range(depth + 1)],
    )
    assert shortened(tree, lambda _: False).leaves == [float(depth)]
    assert len(shortened(tree, lambda node: None if node > depth - 3 else False).columns) == 2


def test_nothing_that_is_known_leaves_everything() -> None:
    model = RandomForestRegressor(3, random_state=0).fit(X, Y)
    conversion = convert(model, sample=X)
    root = results_of(conversion.onnx, conversion.signature)[""][0][0]
    assert repr(rebuilt([root], Pool(), {})[0])[:50] == repr(root)[:50]
