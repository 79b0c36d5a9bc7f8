"""Specialised views: the predictions of the version's function, for fewer rows and with less to compute."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import psycopg
import pytest
from sklearn.compose import make_column_transformer
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.tree import DecisionTreeRegressor
from typer.testing import CliRunner

from dbscore import Client
from dbscore.cli import app
from dbscore.errors import FeatureError, InUseError, NameRefusedError, PrivilegeError
from tests.conftest import at

if TYPE_CHECKING:
    from collections.abc import Callable

Db = psycopg.Connection[Any]

ROWS = 400
RANDOM = np.random.default_rng(11)
TRIPS = pd.DataFrame(
    {
        "distance": RANDOM.gamma(2.0, 3.0, ROWS),
        "passengers": RANDOM.integers(1, 7, ROWS),
        "payment": RANDOM.choice(["CRD", "CSH", "NOC"], ROWS),
    }
)
TIPS = TRIPS.distance * (TRIPS.payment == "CRD") + 0.1 * TRIPS.passengers + RANDOM.normal(size=ROWS) * 0.1
KINDS = np.where(TIPS > 6, "large", np.where(TIPS > 2, "small", "none"))


def encoded(model: Any, *, scaled: bool = False) -> Any:
    rest = StandardScaler() if scaled else "passthrough"
    encoding = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["payment"]), remainder=rest)
    return make_pipeline(encoding, model)


@pytest.fixture
def trips(db: Db) -> str:
    """A table of 3,000 trips, some of them with a NULL, and some with numbers at the bounds of the conditions."""
    db.execute("create table trips (id int, distance float8, passengers int, payment text)")
    db.execute(
        """insert into trips
           select i, case when i % 50 = 0 then 2.5 when i % 97 = 0 then null else (i * 7919 % 1000) / 40.0 end,
                  1 + i * 31 % 6, (array['CRD', 'CSH', 'NOC', 'DIS'])[1 + i * 17 % 4]
           from generate_series(1, 3000) i"""
    )
    return "trips"


MODELS = {
    "linear": lambda: encoded(LinearRegression()).fit(TRIPS, TIPS),
    "scaled": lambda: encoded(RandomForestRegressor(5, max_depth=5, random_state=0), scaled=True).fit(TRIPS, TIPS),
    "forest": lambda: encoded(RandomForestRegressor(10, max_depth=6, random_state=0)).fit(TRIPS, TIPS),
    "boosted": lambda: encoded(GradientBoostingClassifier(n_estimators=10, random_state=0)).fit(TRIPS, KINDS == "none"),
    "logistic": lambda: encoded(LogisticRegression(max_iter=1000)).fit(TRIPS, KINDS == "none"),
    "classes": lambda: encoded(RandomForestClassifier(5, max_depth=4, random_state=0)).fit(TRIPS, KINDS),
}
CLAUSES = [
    "payment = 'CRD'",
    "payment in ('CSH', 'NOC') and distance < 2.5",
    "passengers between 2 and 3 and distance >= 2.5",
    "passengers = 4 and payment = 'DIS'",
    "distance > 2.5 and distance is not null and id % 2 = 0",
]


@pytest.mark.parametrize("where", CLAUSES)
@pytest.mark.parametrize("kind", MODELS)
def test_every_row_is_predicted_as_by_the_function(client: Client, db: Db, trips: str, kind: str, where: str) -> None:
    client.deploy("m", MODELS[kind](), sample=TRIPS, table=trips)
    made = client.specialise("m", where=where, view="chosen")
    wrong = db.execute(
        """select c.*, models.m(c.distance, c.passengers, c.payment) from chosen c
           where c.prediction::text is distinct from models.m(c.distance, c.passengers, c.payment)::text
             and not coalesce(abs(c.prediction::text::float8
                                  - models.m(c.distance, c.passengers, c.payment)::text::float8) < 1e-9, false)"""
    ).fetchall()
    assert wrong == []
    assert db.execute("select count(*) from chosen").fetchone() == (made.rows,)
    assert db.execute(f"select count(*) from trips where {where}").fetchone() == (made.rows,)


def test_a_known_category_leaves_no_split_that_asks_for_it(client: Client, trips: str) -> None:
    model = encoded(DecisionTreeRegressor(max_depth=4, random_state=0)).fit(TRIPS, TIPS)
    client.deploy("m", model, sample=TRIPS, table=trips)
    made = client.specialise("m", where="payment = 'CRD'")
    tree = model[-1].tree_
    # what is left is what a walk finds that takes the only way where a payment is asked for
    columns = list(model[0].get_feature_names_out())
    is_crd = {i: name.endswith("_CRD") for i, name in enumerate(columns) if "payment" in name}

    def splits(node: int) -> int:
        if tree.children_left[node] < 0:
            return 0
        left, right, column = tree.children_left[node], tree.children_right[node], tree.feature[node]
        if column in is_crd:
            return splits(right if is_crd[column] else left)
        return 1 + splits(left) + splits(right)

    assert made.splits == ((tree.node_count - 1) // 2, splits(0))
    assert made.features == ("payment",)


def test_terms_of_known_features_become_one_constant(client: Client, trips: str) -> None:
    client.deploy("m", MODELS["linear"](), sample=TRIPS, table=trips)
    # three categories, the distance and the passengers; of which the distance is left
    assert client.specialise("m", where="payment = 'CRD' and passengers = 2").terms == (5, 1)


def test_bounds_decide_splits_one_step_either_side_of_a_threshold(client: Client, db: Db) -> None:
    rows, answers = pd.DataFrame({"x": [1.0, 2.0, 3.0, 4.0]}), [1.0, 2.0, 3.0, 4.0]
    db.execute("create table points as select 2.5::float8 as x union all select 2.5000000000000004 union all select 1")
    client.deploy("m", DecisionTreeRegressor().fit(rows, answers), sample=rows, table="points")
    # the tree asks x <= 2.5 first, then x <= 1.5 and x <= 3.5
    assert client.specialise("m", where="x <= 2.5", view="below").splits == (3, 1)
    assert client.specialise("m", where="x < 2.5", view="far_below").splits == (3, 1)
    # scikit-learn rounds to float32, where the next double is 2.5 too, and the next real is not
    assert client.specialise("m", where="x > 2.5 and x < 9", view="just_above").splits == (3, 2)
    assert client.specialise("m", where="x > 2.5000002 and x < 9", view="above").splits == (3, 1)
    assert client.specialise("m", where="x >= 2.5 and x < 9", view="from_it").splits == (3, 2)
    assert client.specialise("m", where="x = 2.5", view="at").splits == (3, 0)
    assert client.specialise("m", where="3.6 < x and 9 > x", view="far").splits == (3, 0)


def test_a_missing_value_passes_a_lower_bound_as_nan_and_keeps_its_way(client: Client, db: Db) -> None:
    gaps = TRIPS[["distance"]].mask(np.arange(ROWS)[:, None] % 5 == 0)
    model = HistGradientBoostingRegressor(max_iter=5).fit(gaps, TIPS)
    db.execute("create table gaps as select 'NaN'::float8 as distance union all select 7 union all select null")
    client.deploy("m", model, sample=gaps, table="gaps")
    client.specialise("m", where="distance > 5", view="far")
    found = dict(db.execute("select distance::text, prediction from far").fetchall())
    expected = model.predict(pd.DataFrame({"distance": [7.0, np.nan]}))
    assert found == pytest.approx({"7": expected[0], "NaN": expected[1]}, abs=1e-9)


def test_a_feature_that_is_null_follows_the_way_of_missing_values(client: Client, db: Db) -> None:
    gaps = TRIPS[["distance"]].mask(np.arange(ROWS)[:, None] % 5 == 0)
    model = HistGradientBoostingRegressor(max_iter=5).fit(gaps, TIPS)
    db.execute("create table gaps as select null::float8 as distance")
    client.deploy("m", model, sample=gaps, table="gaps")
    made = client.specialise("m", where="distance is null", view="gone")
    assert made.splits[1] == 0
    expected = model.predict(pd.DataFrame({"distance": [np.nan]}))[0]
    assert db.execute("select prediction from gone").fetchone()[0] == pytest.approx(expected, abs=1e-9)


def test_conditions_that_are_not_understood_only_filter(client: Client, trips: str) -> None:
    client.deploy("m", MODELS["forest"](), sample=TRIPS, table=trips)
    made = client.specialise("m", where="(payment = 'CRD' or payment = 'CSH') and length(payment) = 3 and id < 100")
    assert made.features == ()
    assert made.kept == ("payment = 'CRD' OR payment = 'CSH'", "LENGTH(payment) = 3", "id < 100")
    assert made.splits[0] == made.splits[1]


def test_the_view_keeps_its_version_when_another_is_promoted(client: Client, db: Db, trips: str) -> None:
    client.deploy("m", MODELS["linear"](), sample=TRIPS, table=trips)
    client.specialise("m", where="payment = 'CRD'", view="crd")
    before = db.execute("select id, prediction from crd order by id").fetchall()
    client.deploy("m", MODELS["forest"](), sample=TRIPS, alias="champion")
    assert db.execute("select id, prediction from crd order by id").fetchall() == before


def test_a_large_model_becomes_a_function_and_the_view_calls_it(client: Client, db: Db, trips: str) -> None:
    client.deploy("m", encoded(RandomForestRegressor(50, random_state=0)).fit(TRIPS, TIPS), sample=TRIPS, table=trips)
    made = client.specialise("m", where="payment = 'CRD'", view="crd")
    assert made.splits[1] < made.splits[0]
    text = db.execute("select pg_get_viewdef('crd'::regclass)").fetchone()[0]
    assert "dbscore_compiled.m_v1_crd_" in text


def test_a_replaced_view_has_the_other_condition(client: Client, db: Db, trips: str) -> None:
    client.deploy("m", MODELS["linear"](), sample=TRIPS, table=trips)
    client.specialise("m", where="payment = 'CRD'", view="chosen")
    client.specialise("m", where="payment = 'CSH'", view="chosen", replace=True)
    assert db.execute("select distinct payment from chosen").fetchall() == [("CSH",)]


def test_the_default_name_is_of_the_model_and_the_condition(client: Client, trips: str) -> None:
    client.deploy("m", MODELS["linear"](), sample=TRIPS, table=trips)
    assert client.specialise("m", where="payment = 'CRD'").view == "public.m_payment_crd"


def test_a_view_without_rows_has_no_measured_speed(client: Client, trips: str) -> None:
    client.deploy("m", MODELS["linear"](), sample=TRIPS, table=trips)
    made = client.specialise("m", where="passengers = 99")
    assert (made.rows, made.speed_up) == (0, None)


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("payment = 'CRD'; drop table trips", "is no condition"),
        ("payment = ", "is no condition"),
        ("passengers > 3 and passengers < 2", "no value of passengers fulfils"),
        ("payment = 'CRD' and payment = 'CSH'", "no value of payment fulfils"),
    ],
)
def test_a_condition_that_is_none_or_that_nothing_fulfils_is_refused(
    client: Client, trips: str, where: str, said: str
) -> None:
    client.deploy("m", MODELS["linear"](), sample=TRIPS, table=trips)
    with pytest.raises(FeatureError, match=said):
        client.specialise("m", where=where)


def test_a_model_without_a_table_asks_for_one(client: Client) -> None:
    client.deploy("m", MODELS["linear"](), sample=TRIPS)
    with pytest.raises(FeatureError, match="takes the rows of no table"):
        client.specialise("m", where="payment = 'CRD'")


def test_a_table_with_a_column_prediction_is_refused(client: Client, db: Db, trips: str) -> None:
    db.execute("alter table trips add column prediction float8")
    client.deploy("m", MODELS["linear"](), sample=TRIPS, table=trips)
    with pytest.raises(FeatureError, match="has a column prediction already"):
        client.specialise("m", where="payment = 'CRD'")


def test_a_name_that_is_none_is_refused(client: Client, trips: str) -> None:
    client.deploy("m", MODELS["linear"](), sample=TRIPS, table=trips)
    with pytest.raises(NameRefusedError, match="is no name for a view"):
        client.specialise("m", where="payment = 'CRD'", view="a b")


def test_nobody_else_may_read_the_view(client: Client, db: Db, trips: str, role: Callable[[], str]) -> None:
    client.deploy("m", MODELS["linear"](), sample=TRIPS, table=trips)
    client.specialise("m", where="payment = 'CRD'", view="crd")
    db.execute(f"set role {role()}")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        db.execute("select * from crd")


def test_who_may_score_the_model_may_use_the_view_once_granted(
    client: Client, db: Db, trips: str, role: Callable[[], str]
) -> None:
    analyst = role()
    client.deploy("m", MODELS["linear"](), sample=TRIPS, table=trips)
    client.grant("m", analyst)
    client.specialise("m", where="payment = 'CRD'", view="crd")
    db.execute(f"grant select on crd to {analyst}")
    db.execute(f"set role {analyst}")
    assert db.execute("select count(prediction) > 0 from crd").fetchone() == (True,)


def test_a_role_that_may_not_change_models_is_refused(
    client: Client, url: str, trips: str, role: Callable[[], str]
) -> None:
    client.deploy("m", MODELS["linear"](), sample=TRIPS, table=trips)
    analyst = role()
    client.grant("m", analyst)
    with Client(at(url, user=analyst, password=analyst)) as other, pytest.raises(PrivilegeError):
        other.specialise("m", where="payment = 'CRD'")


def test_dropping_dbscore_is_refused_while_there_is_a_view(client: Client, trips: str) -> None:
    client.deploy("m", MODELS["linear"](), sample=TRIPS, table=trips)
    client.specialise("m", where="payment = 'CRD'")
    with pytest.raises(InUseError):
        client.uninstall()


def test_the_command_reports_what_was_removed_and_the_speed_measured(client: Client, url: str, trips: str) -> None:
    client.deploy("m", MODELS["forest"](), sample=TRIPS, table=trips)
    command = ["specialise", "m", "--where", "payment = 'CRD' and id > 5", "--view", "crd", "--url", url]
    shown = CliRunner().invoke(app, [*command, "--json"])
    assert shown.exit_code == 0, shown.output
    made = json.loads(shown.stdout)
    assert made["view"] == "public.crd"
    assert made["features"] == ["payment"]
    assert made["kept"] == ["id > 5"]
    assert made["splits"][1] < made["splits"][0]
    assert made["speed_up"] > 0
    shown = CliRunner().invoke(app, [*command, "--replace"])
    assert "splits\t" in shown.stdout
    assert "known\tpayment" in shown.stdout
