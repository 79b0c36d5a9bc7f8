"""Explained predictions: contributions that add up, beside references of our own and of numpy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import psycopg
import pytest
from sklearn.compose import make_column_transformer
from sklearn.ensemble import (
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, PoissonRegressor, Ridge
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, PolynomialFeatures, StandardScaler
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from dbscore import registry

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbscore import Client

Db = psycopg.Connection[Any]

ROWS = 300
RANDOM = np.random.default_rng(7)
X = pd.DataFrame({"a": RANDOM.normal(size=ROWS), "b": RANDOM.normal(3.0, 2.0, ROWS), "c": RANDOM.uniform(size=ROWS)})
Y = 2 * X.a + X.b * (X.a > 0) + RANDOM.normal(size=ROWS)
IS_HIGH = (Y - Y.median() > 0).map({True: "high", False: "low"})
NEW = X.iloc[:40] * 1.3 + 0.1


def explained(db: Db, name: str, rows: pd.DataFrame) -> pd.DataFrame:
    """Return the contributions, a column for each row of the explanation."""
    arguments = ", ".join(["%s"] * len(rows.columns))
    found = [
        dict(db.execute(f"select feature, contribution from models.{name}_explain({arguments})", row).fetchall())
        for row in rows.astype(object).itertuples(index=False, name=None)
    ]
    return pd.DataFrame(found)


def saabas(tree: Any, values: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return bias and contributions as treeinterpreter defines them, from scikit-learn's own nodes and their values."""
    contributed = np.zeros(rows.shape)
    for place, row in enumerate(rows):
        node = 0
        while tree.children_left[node] >= 0:
            column = tree.feature[node]
            goes_left = np.float32(row[column]) <= tree.threshold[node]
            child = (tree.children_left if goes_left else tree.children_right)[node]
            contributed[place, column] += values[child] - values[node]
            node = child
    return np.full(len(rows), values[0]), contributed


# --- linear models ---


def test_a_linear_feature_contributes_its_weight_times_its_difference_from_the_sample_s_mean(
    client: Client, db: Db
) -> None:
    model = LinearRegression().fit(X, Y)
    client.deploy("m", model, sample=X)
    found = explained(db, "m", NEW)
    expected = (NEW - X.mean()).to_numpy() * model.coef_
    np.testing.assert_allclose(found[["a", "b", "c"]], expected, rtol=0, atol=1e-9)
    np.testing.assert_allclose(found["(base)"], model.intercept_ + (X.mean().to_numpy() * model.coef_).sum(), atol=1e-9)
    np.testing.assert_allclose(found.sum(axis=1), model.predict(NEW), rtol=0, atol=1e-9)


def test_contributions_of_a_logistic_regression_add_up_to_its_log_odds(client: Client, db: Db) -> None:
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, IS_HIGH)
    version = client.deploy("m", model, sample=X)
    found = explained(db, "m", NEW)
    # the classes are in the order of the alphabet, so the second one is `low`
    np.testing.assert_allclose(found.sum(axis=1), model.decision_function(NEW), rtol=0, atol=1e-9)
    assert version.choice is not None
    assert "the log-odds of 'low'" in version.choice["explained"]


def test_contributions_behind_a_logarithmic_link_add_up_to_the_logarithm_of_the_prediction(
    client: Client, db: Db
) -> None:
    model = PoissonRegressor().fit(X, np.exp(X.a))
    client.deploy("m", model, sample=X)
    np.testing.assert_allclose(explained(db, "m", NEW).sum(axis=1), np.log(model.predict(NEW)), rtol=0, atol=1e-9)


def test_one_hot_encoded_categories_are_one_row_by_the_feature_s_name(client: Client, db: Db) -> None:
    rows = X.assign(kind=np.where(X.a > 0, "new", np.where(X.b > 3, "used", "old")))
    encoding = make_column_transformer((OneHotEncoder(), ["kind"]), remainder="passthrough")
    model = make_pipeline(encoding, Ridge()).fit(rows, Y)
    client.deploy("m", model, sample=rows)
    found = explained(db, "m", rows[:20])
    assert list(found.columns) == ["(base)", "a", "b", "c", "kind"]
    weights = dict(zip(model[0].get_feature_names_out(), model[1].coef_, strict=True))
    of_kind = rows.kind.map(lambda kind: weights[f"onehotencoder__kind_{kind}"])
    np.testing.assert_allclose(found.kind, of_kind[:20] - of_kind.mean(), rtol=0, atol=1e-9)
    np.testing.assert_allclose(found.sum(axis=1), model.predict(rows[:20]), rtol=0, atol=1e-9)


def test_a_product_of_two_features_is_a_row_of_its_own(client: Client, db: Db) -> None:
    model = make_pipeline(PolynomialFeatures(2, interaction_only=True), LinearRegression()).fit(X, Y)
    client.deploy("m", model, sample=X)
    found = explained(db, "m", NEW)
    assert list(found.columns) == ["(base)", "a", "b", "c", "a * b", "a * c", "b * c"]
    weight = dict(zip(model[0].get_feature_names_out(), model[1].coef_, strict=True))["a b"]
    expected = weight * (NEW.a * NEW.b - (X.a * X.b).mean())
    np.testing.assert_allclose(found["a * b"], expected, rtol=0, atol=1e-9)
    np.testing.assert_allclose(found.sum(axis=1), model.predict(NEW), rtol=0, atol=1e-9)
    shown = db.execute("select value from models.m_explain(2, 3, 4) where feature = 'a * b'").fetchone()
    assert shown == ("2 * 3",)


def test_without_a_sample_linear_terms_count_from_zero(client: Client, db: Db) -> None:
    model = LinearRegression().fit(X.to_numpy(), Y)
    version = client.deploy("m", model)
    names = [f.name for f in version.signature.features]
    found = explained(db, "m", NEW)
    np.testing.assert_allclose(found["(base)"], model.intercept_, rtol=0, atol=1e-9)
    np.testing.assert_allclose(found[names], NEW.to_numpy() * model.coef_, rtol=0, atol=1e-9)
    assert version.choice is not None
    assert "difference from 0" in version.choice["explained"]


# --- trees ---


@pytest.mark.parametrize("depth", [1, 3, 8])
def test_a_tree_s_path_contributes_what_its_nodes_values_change(client: Client, db: Db, depth: int) -> None:
    model = DecisionTreeRegressor(max_depth=depth, random_state=0).fit(X, Y)
    client.deploy("m", model, sample=X)
    found = explained(db, "m", NEW)
    tree = model.tree_
    bias, contributed = saabas(tree, tree.value[:, 0, 0], NEW.to_numpy())
    np.testing.assert_allclose(found["(base)"], bias, rtol=0, atol=1e-9)
    np.testing.assert_allclose(found[["a", "b", "c"]], contributed, rtol=0, atol=1e-9)


def test_a_tree_s_contributions_add_up_to_the_probability_of_the_second_class(client: Client, db: Db) -> None:
    model = DecisionTreeClassifier(max_depth=4, random_state=0).fit(X, IS_HIGH)
    client.deploy("m", model, sample=X)
    found = explained(db, "m", NEW)
    values = model.tree_.value[:, 0, 1] / model.tree_.value[:, 0].sum(axis=1)
    bias, contributed = saabas(model.tree_, values, NEW.to_numpy())
    np.testing.assert_allclose(found["(base)"], bias, rtol=0, atol=1e-9)
    np.testing.assert_allclose(found[["a", "b", "c"]], contributed, rtol=0, atol=1e-9)
    np.testing.assert_allclose(found.sum(axis=1), model.predict_proba(NEW)[:, 1], rtol=0, atol=1e-9)


def test_boosted_trees_contribute_the_sum_of_their_paths(client: Client, db: Db) -> None:
    model = GradientBoostingRegressor(n_estimators=30, random_state=0).fit(X, Y)
    client.deploy("m", model, sample=X)
    found = explained(db, "m", NEW)
    expected = np.zeros(NEW.shape)
    for (one,) in model.estimators_:
        # leaves are fitted anew after splitting, so a node's value is that of the rows below it
        leaves = one.apply(X.to_numpy())
        answers = one.tree_.value[leaves, 0, 0]
        reached = one.decision_path(X.to_numpy().astype(np.float32)).toarray().astype(bool)
        values = np.array([answers[reached[:, node]].mean() for node in range(one.tree_.node_count)])
        expected += saabas(one.tree_, values, NEW.to_numpy())[1] * model.learning_rate
    np.testing.assert_allclose(found[["a", "b", "c"]], expected, rtol=0, atol=1e-9)
    np.testing.assert_allclose(found.sum(axis=1), model.predict(NEW), rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("model", "score"),
    [
        (RandomForestRegressor(20, random_state=0), lambda m, rows: m.predict(rows)),
        (RandomForestClassifier(20, max_depth=5, random_state=0), lambda m, rows: m.predict_proba(rows)[:, 1]),
        (GradientBoostingClassifier(n_estimators=20, random_state=0), lambda m, rows: m.decision_function(rows)),
        (HistGradientBoostingRegressor(max_iter=50), lambda m, rows: m.predict(rows)),
    ],
)
def test_contributions_of_ensembles_add_up_to_the_score(
    client: Client, db: Db, model: Any, score: Callable[[Any, pd.DataFrame], Any]
) -> None:
    model.fit(X, IS_HIGH if hasattr(model, "predict_proba") else Y)
    client.deploy("m", model, sample=X)
    np.testing.assert_allclose(explained(db, "m", NEW).sum(axis=1), score(model, NEW), rtol=0, atol=1e-9)


def test_a_tree_behind_a_scaler_is_explained_by_the_feature_itself(client: Client, db: Db) -> None:
    model = make_pipeline(StandardScaler(), RandomForestRegressor(5, max_depth=4, random_state=0)).fit(X, Y)
    client.deploy("m", model, sample=X)
    found = explained(db, "m", NEW)
    assert list(found.columns) == ["(base)", "a", "b", "c"]
    np.testing.assert_allclose(found.sum(axis=1), model.predict(NEW), rtol=0, atol=1e-9)


def test_without_a_sample_both_ways_of_a_split_are_equally_likely(client: Client, db: Db) -> None:
    rows, answers = [[0.0], [1.0], [1.0], [1.0]], [10.0, 20.0, 20.0, 20.0]
    client.deploy("m", DecisionTreeRegressor().fit(rows, answers))
    shown = db.execute("select feature, contribution from models.m_explain(1)").fetchall()
    assert [number for _, number in shown] == [15.0, 5.0]


# --- the functions ---


def test_the_prediction_s_engine_makes_no_difference_to_its_explanation(client: Client, db: Db) -> None:
    model = RandomForestRegressor(3, max_depth=3, random_state=0).fit(X, Y)
    client.deploy("one", model, sample=X, engine="onnx")
    client.deploy("other", model, sample=X, engine="sql")
    pd.testing.assert_frame_equal(explained(db, "one", NEW), explained(db, "other", NEW))


def test_rows_show_the_values_as_text_and_the_base_comes_first(client: Client, db: Db) -> None:
    client.deploy("m", LinearRegression().fit(X, Y), sample=X)
    shown = db.execute("select feature, value from models.m_explain(a => 1.5, b => 2, c => 0)").fetchall()
    assert shown == [("(base)", None), ("a", "1.5"), ("b", "2"), ("c", "0")]


def test_a_null_that_leaves_no_prediction_leaves_no_explanation(client: Client, db: Db) -> None:
    client.deploy("m", LinearRegression().fit(X, Y), sample=X)
    assert db.execute("select * from models.m_explain(null, 2, 3)").fetchall() == []


def test_a_value_that_the_model_refuses_is_refused_by_its_explanation(client: Client, db: Db) -> None:
    client.deploy("m", LinearRegression().fit(X, Y), sample=X)
    with pytest.raises(psycopg.Error) as caught:
        db.execute("select * from models.m_explain('NaN', 2, 3)")
    assert caught.value.sqlstate == "ML002"


def test_a_missing_value_is_explained_where_the_model_takes_one(client: Client, db: Db) -> None:
    model = make_pipeline(SimpleImputer(), LinearRegression()).fit(X, Y)
    gaps = X.mask(np.arange(ROWS)[:, None] % 7 == np.arange(3))
    client.deploy("m", model, sample=gaps)
    shown = dict(db.execute("select feature, contribution from models.m_explain(null, 2, 'NaN')").fetchall())
    expected = model.predict(pd.DataFrame({"a": [np.nan], "b": [2.0], "c": [np.nan]}))[0]
    assert sum(shown.values()) == pytest.approx(expected, abs=1e-9)


def test_a_missing_value_follows_its_way_through_trees(client: Client, db: Db) -> None:
    gaps = X.mask(np.arange(ROWS)[:, None] % 7 == np.arange(3))
    model = HistGradientBoostingRegressor(max_iter=10).fit(gaps, Y)
    client.deploy("m", model, sample=gaps)
    shown = dict(db.execute("select feature, contribution from models.m_explain(null, 2, null)").fetchall())
    expected = model.predict(pd.DataFrame({"a": [np.nan], "b": [2.0], "c": [np.nan]}))[0]
    assert sum(shown.values()) == pytest.approx(expected, abs=1e-9)


def test_rows_of_a_table_are_explained(client: Client, db: Db) -> None:
    db.execute("create table houses (id int, a float8, b float8, c float8)")
    db.execute("insert into houses select i, i / 10.0, i, 1 from generate_series(1, 30) i")
    client.deploy("m", RandomForestRegressor(3, max_depth=3, random_state=0).fit(X, Y), sample=X, table="houses")
    wrong = db.execute(
        """select h.id from houses h, lateral (select sum(e.contribution) from models.m_explain(h) e) s (score)
           where abs(s.score - models.m(h)) > 1e-9"""
    ).fetchall()
    assert wrong == []


def test_features_that_are_called_as_the_result_s_columns_have_an_underscore_more(client: Client, db: Db) -> None:
    rows = X.rename(columns={"a": "value", "b": "feature"})
    client.deploy("m", LinearRegression().fit(rows, Y), sample=rows)
    shown = db.execute("select feature from models.m_explain(value_ => 1, feature_ => 2, c => 3)").fetchall()
    assert shown == [("(base)",), ("value",), ("feature",), ("c",)]


def test_the_explanation_moves_with_the_alias(client: Client, db: Db) -> None:
    client.deploy("m", LinearRegression().fit(X, Y), sample=X)
    client.deploy("m", RandomForestRegressor(3, max_depth=3, random_state=0).fit(X, Y), sample=X, alias="challenger")
    before = explained(db, "m", NEW)
    pd.testing.assert_frame_equal(before, explained(db, "m_v1", NEW))
    client.promote("m:2")
    pd.testing.assert_frame_equal(explained(db, "m", NEW), explained(db, "m_v2", NEW))


def test_an_alias_of_a_version_without_an_explanation_has_none(client: Client, db: Db) -> None:
    client.deploy("m", LinearRegression().fit(X, Y), sample=X)
    kinds = pd.cut(Y, 3, labels=False)
    version = client.deploy("m", DecisionTreeClassifier(max_depth=3).fit(X, kinds), sample=X, alias="champion")
    count = db.execute("select count(*) from pg_proc where proname in ('m_explain', 'm_v2_explain')").fetchone()
    assert count == (0,)
    assert version.choice is not None
    assert version.choice["unexplained"] == "it tells 3 classes apart, and explained are classifiers of two"


def test_a_model_that_is_no_sum_says_why_it_is_not_explained(client: Client) -> None:
    model = MLPRegressor(hidden_layer_sizes=(3,), max_iter=2000, random_state=0).fit(X, Y)
    version = client.deploy("m", model, sample=X)
    assert version.choice is not None
    assert "depends on several features, and is no product: a, b, c" in version.choice["unexplained"]


def test_dropping_a_model_drops_its_explanation(client: Client, db: Db) -> None:
    client.deploy("m", LinearRegression().fit(X, Y), sample=X)
    client.drop("m", with_aliases=True)
    assert db.execute("select count(*) from pg_proc where proname like '%explain'").fetchone() == (0,)


def test_who_may_score_may_explain_and_nobody_else(client: Client, db: Db, role: Callable[[], str], url: str) -> None:
    analyst, other = role(), role()
    client.deploy("m", LinearRegression().fit(X, Y), sample=X)
    client.grant("m", analyst)
    db.execute(f"set role {analyst}")
    assert len(db.execute("select * from models.m_explain(1, 2, 3)").fetchall()) == 4
    db.execute(f"reset role; set role {other}")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        db.execute("select * from models.m_explain(1, 2, 3)")


def test_explanations_are_made_anew_by_an_installation(client: Client, db: Db) -> None:
    client.deploy("m", LinearRegression().fit(X, Y), sample=X)
    before = explained(db, "m", NEW)
    db.execute("drop function models.m_explain, models.m_v1_explain")
    with client._transaction() as connection:
        registry.refresh(connection)
    pd.testing.assert_frame_equal(explained(db, "m", NEW), before)


def test_explaining_runs_in_parallel_workers(client: Client, db: Db) -> None:
    db.execute(
        "create table houses as select i, i / 1e4 as a, i / 1e3 as b, 1.0::float8 as c from generate_series(1, 20000) i"
    )
    client.deploy("m", RandomForestRegressor(3, max_depth=3, random_state=0).fit(X, Y), sample=X)
    for setting in ("parallel_setup_cost", "parallel_tuple_cost", "min_parallel_table_scan_size"):
        db.execute(f"set {setting} = 0")
    query = "select sum(e.contribution) from houses h, models.m_explain(h.a, h.b, h.c) e"
    plan = "\n".join(line for (line,) in db.execute(f"explain {query}"))
    # below the node that collects what the workers computed
    assert plan.index("Gather") < plan.index("Function Scan on unnest e")
    db.execute(query)
