"""Rows as databases really have them: odd names, wide rows, bool and bigint columns, labels of any spelling."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import psycopg
import pytest
from psycopg import sql
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from tests.acceptance.rows import answers, classified, load

if TYPE_CHECKING:
    from dbscore import Client

Connection = psycopg.Connection[Any]

RANDOM = np.random.default_rng(42)


def numbers(columns: list[str], rows: int = 300) -> pd.DataFrame:
    values = np.random.default_rng(len(columns)).normal(size=(rows, len(columns)))
    return pd.DataFrame(values, columns=columns).rename_axis("key")


def sign(frame: pd.DataFrame) -> pd.Series:
    return (frame.sum(axis=1) > 0).astype(int)


def doubles(frame: pd.DataFrame) -> dict[str, str]:
    """The frame's columns in another order, with a key among them."""
    return {"key": "integer"} | dict.fromkeys(reversed(list(frame)), "double precision")


def test_names_that_sql_or_dbscore_itself_uses_are_features_of_a_table_with_quotes_in_its_name(
    house: Connection, keeper: Client
) -> None:
    frame = numbers(["select", "user", "features", "args", "Größe %", 'a"b', "t", "pin", "100", "_x_", "x'y", "$1"])
    table = sql.Identifier('Odd "T" %s')
    load(house, table, frame, types=doubles(frame))
    model = LogisticRegression().fit(frame, sign(frame))
    keeper.deploy("odd", model, table='"Odd ""T"" %s"')
    rows = house.execute('select key, models.odd_score(r) from "Odd ""T"" %s" r order by key').fetchall()
    np.testing.assert_allclose([s for _, s in rows], model.predict_proba(frame)[:, 1], rtol=1e-9)
    called = house.execute(
        """select models.odd_score("select" => 1, "user" => 2, features => 3, args => 4, größe => 5, a_b => 6, t => 7,
                                   pin => 8, f_100 => 9, _x_ => 10, x_y => 11, f_1 => 12)"""
    ).fetchone()
    expected = model.predict_proba(pd.DataFrame([range(1, 13)], columns=frame.columns, dtype=float))[0, 1]
    assert called == pytest.approx((expected,), rel=1e-9)


@pytest.mark.parametrize(
    "classes",
    [
        ['it\'s "q"', "\\back", "🙂é", ""],
        ["%s", "{x}", "$1", "'''"],
        [True, False],
        [1.0, 3.0],
        [-5, 7, 2**40],
        [2**62 + 1, 2**62 + 2],
        list(range(20)),
        [7],
    ],
    ids=["quotes", "formats", "booleans", "floats", "integers", "beyond float64", "twenty", "one"],
)
def test_labels_of_any_kind_come_back_as_they_are(house: Connection, keeper: Client, classes: list[Any]) -> None:
    frame = numbers(["x0", "x1"], 500)
    labels = np.array(classes, dtype=object if isinstance(classes[0], str) else None)
    model = DecisionTreeClassifier(max_depth=7).fit(frame, labels[RANDOM.integers(0, len(classes), 500)])
    name = f"labels_{len(keeper.models())}"
    table = sql.Identifier(f"points_{name}")
    load(house, table, frame, types=doubles(frame))
    keeper.deploy(name, model, sample=frame, table=table.as_string())
    found = answers(house, table, [name, f"{name}_proba"])
    classified(found, name, model, frame)
    assert type(found[name].iloc[0].item() if hasattr(found[name].iloc[0], "item") else found[name].iloc[0]) is type(
        classes[0]
    )


@pytest.mark.parametrize("gap", ["x", "flag", "whole"])
def test_a_null_in_any_feature_is_imputed_as_natively(house: Connection, keeper: Client, gap: str) -> None:
    frame = numbers(["x"]).assign(flag=RANDOM.random(300) > 0.5, whole=RANDOM.integers(-(2**40), 2**40, 300))
    model = make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression()).fit(frame, frame["x"] > 0)
    table = sql.Identifier(f"gaps_{gap}")
    types = {"whole": "bigint", "flag": "boolean", "key": "integer", "x": "real"}
    holes = frame.assign(**{gap: frame[gap].astype(object).where(frame.index % 3 > 0, None)})
    load(house, table, holes, types=types)
    keeper.deploy(f"gaps_{gap}", model, sample=frame, table=table.as_string())
    found = answers(house, table, [f"gaps_{gap}", f"gaps_{gap}_proba"])
    given = holes.assign(
        x=holes["x"].astype(float).astype("float32").astype(float),
        flag=holes["flag"].astype(float),
        whole=holes["whole"].astype(float),
    )
    classified(found, f"gaps_{gap}", model, given)


def test_a_float4_column_gives_the_answers_for_its_rounded_values(house: Connection, keeper: Client) -> None:
    frame = numbers(["x0", "x1", "x2"], 2000)
    model = GradientBoostingClassifier(n_estimators=20).fit(frame, sign(frame))
    types = {"x2": "real", "key": "integer", "x1": "numeric", "x0": "real"}
    load(house, sql.Identifier("rounded"), frame, types=types)
    keeper.deploy("rounded", model, sample=frame, table="rounded")
    found = answers(house, sql.Identifier("rounded"), ["rounded", "rounded_proba", "rounded_score"])
    stored = frame.assign(**{c: frame[c].astype("float32").astype(float) for c in ("x0", "x2")})
    classified(found, "rounded", model, stored)


def test_a_child_table_is_scored_and_a_dropped_and_an_added_column_do_no_harm(
    house: Connection, keeper: Client
) -> None:
    frame = numbers(["x0", "x1"])
    model = LogisticRegression().fit(frame, sign(frame))
    house.execute(
        "create table parent (gone int, x1 float8, x0 float8); create table child (more int) inherits (parent)"
    )
    house.execute("insert into child values (0, 2, 1, 9)")
    house.execute("alter table parent drop column gone")
    keeper.deploy("family", model, sample=frame, table="parent")
    expected = model.predict_proba(pd.DataFrame({"x0": [1.0], "x1": [2.0]}))[0, 1]
    for change in ("select 1", "alter table parent add y text", "alter table parent drop y"):
        house.execute(change)
        for table in ("parent", "child"):
            found = house.execute(f"select models.family_score(r) from {table} r").fetchone()
            assert found == pytest.approx((expected,), rel=1e-9), change


def test_two_thousand_numbers_are_scored_as_one_array_with_twenty_classes(house: Connection, keeper: Client) -> None:
    rows = np.random.default_rng(0).normal(size=(200, 2000))
    model = LogisticRegression(max_iter=20, tol=0.1).fit(rows, np.arange(200) % 20)
    keeper.deploy("vectors", model, sample=rows, embedding="vector")
    house.execute("create table vectors (key int, vector float8[])")
    with house.cursor().copy("copy vectors from stdin") as copy:
        for key, row in enumerate(rows.tolist()):
            copy.write_row((key, row))
    found = house.execute("select key, models.vectors(vector), models.vectors_proba(vector) from vectors").fetchall()
    frame = pd.DataFrame(found, columns=["key", "vectors", "vectors_proba"]).set_index("key").sort_index()
    classified(frame, "vectors", model, pd.DataFrame(rows).rename_axis("key"))
