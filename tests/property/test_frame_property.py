"""Whatever rows are given, many at once get what each gets by itself, or are refused for the same reason.

Answers are compared bit by bit for trees and for labels. ONNX Runtime adds the products of a linear model or of a layer
in another order for many rows than for one, so there numbers differ by a few units in the last place: `rtol` says
by how much, for each model.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from psycopg import sql
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from dbscore import Client
from tests.conftest import database

if TYPE_CHECKING:
    from collections.abc import Iterator

Connection = psycopg.Connection[Any]

FLOAT32_MAX = float(np.finfo(np.float32).max)
QUICKLY = settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)
SLOWLY = settings(QUICKLY, max_examples=8)
ROWS = 400
PLANS = ("basic", "größer", "it's", "🙂", "")
CITIES = ("Ulm", "Łódź", "東京", 'a"b', "\\")
# the encoder's tensor is one of doubles, which do not tell neighbours beyond 2**53 apart
CODES = (0, -1, 2**40 + 1, -(2**50) - 1)


@dataclass(frozen=True, slots=True)
class Deployed:
    """A model in the database.

    Attributes:
        name: The model's.
        types: SQL types by feature.
        probabilities: Whether it is a classifier.
        rtol: By what fraction a number of a batch may differ from that of one row; 0.0 where no bit does.
    """

    name: str
    types: dict[str, str]
    probabilities: bool
    rtol: float


@pytest.fixture(scope="module")
def models(server_url: str, template: str) -> Iterator[tuple[Connection, dict[str, Deployed]]]:
    """A database with the models, and for each a table `<model>_rows`."""
    makers = (_linear, _regression, _tree, _reals, _boosted, _layers, _encoded, _codes, _exact, _embedding, _gaps)
    with database(server_url, template) as url, psycopg.connect(url, autocommit=True) as db, Client(url) as client:
        # the table of the scores is another one each time
        db.prepare_threshold = None
        made = {model.name: model for model in (make(client) for make in makers)}
        for model in made.values():
            columns = ", ".join(f"{n} {t}" for n, t in model.types.items())
            db.execute(f"create table {model.name}_rows (id bigint primary key, {columns})")
        yield db, made


def _numbers(dtype: str = "float64") -> tuple[pd.DataFrame, pd.Series]:
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(ROWS, 3)), columns=["a", "b", "c"])
    return frame.astype(dtype), (frame.sum(axis=1) > 0).astype(int)


def _deploy(client: Client, name: str, estimator: Any, frame: pd.DataFrame, rtol: float, **more: Any) -> Deployed:
    version = client.deploy(name, estimator, sample=frame, engine="onnx", **more)
    types = {f.name: str(f.type) for f in version.signature.features}
    return Deployed(name, types, version.signature.probabilities is not None, rtol)


def _linear(client: Client) -> Deployed:
    frame, labels = _numbers()
    estimator = LogisticRegression(C=1e-3).fit(frame, labels.map({0: "no", 1: "yes, it's"}))
    return _deploy(client, "linear", estimator, frame, 1e-12)


def _regression(client: Client) -> Deployed:
    frame, _ = _numbers()
    targets = np.column_stack([frame["a"] * 2, frame["b"] + frame["c"]])
    return _deploy(client, "regression", LinearRegression().fit(frame, targets), frame, 1e-12)


def _tree(client: Client) -> Deployed:
    frame, labels = _numbers()
    estimator = DecisionTreeRegressor(max_depth=6, random_state=0).fit(frame, labels * 0.1)
    return _deploy(client, "tree", estimator, frame, 0.0)


def _reals(client: Client) -> Deployed:
    frame, labels = _numbers("float32")
    # the scaler makes the largest number that the tree takes a small one
    estimator = make_pipeline(StandardScaler(), DecisionTreeClassifier(max_depth=6, random_state=0))
    return _deploy(client, "reals", estimator.fit(frame * 1e-3, labels > 0), frame, 0.0)


def _boosted(client: Client) -> Deployed:
    frame, labels = _numbers()
    frame.loc[::5, "b"] = np.nan
    estimator = HistGradientBoostingClassifier(max_iter=15, random_state=0).fit(frame, labels)
    return _deploy(client, "boosted", estimator, frame, 1e-12)


def _layers(client: Client) -> Deployed:
    frame, _ = _numbers()
    labels = pd.cut(frame["a"], [-9, -0.5, 0.5, 9], labels=False)
    estimator = MLPClassifier((16, 8), max_iter=2000, random_state=0, tol=1e-3).fit(frame, labels)
    return _deploy(client, "layers", estimator, frame, 1e-12)


def _encoded(client: Client) -> Deployed:
    random = np.random.default_rng(1)
    frame = pd.DataFrame(
        {
            "plan": pd.Series(random.choice(PLANS, ROWS), dtype=object),
            "city": pd.Series(random.choice(CITIES, ROWS), dtype=object),
            "tier": pd.Series(random.choice(["low", "high"], ROWS), dtype=object),
            "visits": random.integers(-100, 100, ROWS).astype(np.int32),
            "account": random.integers(-(2**62), 2**62, ROWS),
            "active": random.random(ROWS) > 0.5,
            "score": random.normal(size=ROWS),
        }
    )
    frame.loc[::6, "city"] = np.nan
    frame.loc[::7, "score"] = np.nan
    encoder = make_column_transformer(
        (OneHotEncoder(sparse_output=False), ["plan"]),
        (OneHotEncoder(handle_unknown="ignore", sparse_output=False), ["city"]),
        (OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1), ["tier"]),
        (SimpleImputer(), ["score"]),
        remainder="passthrough",
    )
    estimator = make_pipeline(encoder, DecisionTreeClassifier(max_depth=6, random_state=0))
    estimator.fit(frame, np.where(frame["visits"] > 0, "it's", "größer"))
    return _deploy(client, "encoded", estimator, frame, 0.0)


def _codes(client: Client) -> Deployed:
    random = np.random.default_rng(2)
    frame = pd.DataFrame({"code": random.choice(np.array(CODES), ROWS), "b": random.normal(size=ROWS)})
    encoder = make_column_transformer((OneHotEncoder(sparse_output=False), ["code"]), remainder="passthrough")
    estimator = make_pipeline(encoder, DecisionTreeClassifier(max_depth=8, random_state=0))
    return _deploy(client, "codes", estimator.fit(frame, frame["code"] % 2 == 0), frame, 0.0)


def _exact(client: Client) -> Deployed:
    """Make a model of an int64 tensor, which gives what it gets: a double would not tell numbers beyond 2**53 apart."""
    ends = [helper.make_tensor_value_info(name, TensorProto.INT64, [None, 1]) for name in ("account", "same")]
    graph = helper.make_graph([helper.make_node("Identity", ["account"], ["same"])], "g", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    version = client.deploy("exact", bytes(model.SerializeToString()), engine="onnx")
    (feature,) = version.signature.features
    return Deployed("exact", {feature.name: str(feature.type)}, probabilities=False, rtol=0.0)


def _embedding(client: Client) -> Deployed:
    frame, labels = _numbers("float32")
    estimator = LogisticRegression().fit(frame, labels)
    return _deploy(client, "embedding", estimator, frame, 1e-12, embedding="e")


def _gaps(client: Client) -> Deployed:
    frame, labels = _numbers()
    frame.loc[::5, "b"] = np.nan
    estimator = HistGradientBoostingClassifier(max_iter=15, random_state=0).fit(frame, labels)
    return _deploy(client, "gaps", estimator, frame, 1e-12, embedding="e")


# --- asking both ways ---


def fill(db: Connection, model: Deployed, rows: list[tuple[Any, ...]]) -> None:
    """Put rows into the model's table, numbered from 1."""
    values = sql.SQL(", ").join(
        sql.SQL("{}::{}").format(sql.Placeholder(), sql.SQL(type_)) for type_ in model.types.values()
    )
    table = sql.Identifier(f"{model.name}_rows")
    with db.transaction():
        db.execute(sql.SQL("truncate {}").format(table))
        statement = sql.SQL("insert into {} values (%s, {})").format(table, values)
        db.cursor().executemany(statement, [(i, *row) for i, row in enumerate(rows, 1)])


def one_by_one(db: Connection, model: Deployed, rows: int) -> tuple[dict[int, tuple[Any, ...]], dict[int, str]]:
    """Return each row's answer of the functions for one row, and why the others are refused."""
    arguments = sql.SQL(", ").join(sql.SQL("{n} => t.{n}").format(n=sql.Identifier(n)) for n in model.types)
    names = [model.name, f"{model.name}_proba"] if model.probabilities else [model.name]
    calls = sql.SQL(", ").join(sql.SQL("{}({})").format(sql.Identifier("models", n), arguments) for n in names)
    statement = sql.SQL("select {} from {} t where id = %s").format(calls, sql.Identifier(f"{model.name}_rows"))
    answers, reasons = {}, {}
    for row in range(1, rows + 1):
        try:
            answers[row] = db.execute(statement, [row]).fetchall()[0]
        except psycopg.Error as error:
            if error.sqlstate != "ML002":
                raise
            reasons[row] = str(error.diag.message_primary).removeprefix("plpy.Error: ")
    return answers, reasons


def all_at_once(db: Connection, model: Deployed, leave_out: list[int]) -> dict[int, tuple[Any, ...]]:
    """Return the answers of a batch."""
    query = f"select * from {model.name}_rows where not id = any ('{{{','.join(map(str, leave_out))}}}')"
    found = db.execute(f"select * from models.{model.name}_batch(%s, 'id')", [query]).fetchall()
    assert len(found) == len({row[0] for row in found})
    return {row[0]: row[1:] for row in found}


def assert_equal(found: dict[int, tuple[Any, ...]], expected: dict[int, tuple[Any, ...]], rtol: float) -> None:
    """Labels and NULLs are equal; numbers to within `rtol`, or bit by bit where that is 0."""
    assert found.keys() == expected.keys()
    for row, answer in expected.items():
        if rtol == 0.0:
            assert repr(found[row]) == repr(answer)
            continue
        for one, other in zip(found[row], answer, strict=True):
            if isinstance(other, (float, list)):
                # probabilities near 0 are made of larger numbers
                np.testing.assert_allclose(one, other, rtol=rtol, atol=1e-15)
            else:
                assert one == other


def assert_many_rows_get_what_each_gets(db: Connection, model: Deployed, rows: list[tuple[Any, ...]]) -> None:
    """A batch answers as single calls do; and names the rows that it cannot score, with single calls' reasons."""
    fill(db, model, rows)
    expected, reasons = one_by_one(db, model, len(rows))
    if reasons:
        with pytest.raises(psycopg.Error) as caught:
            all_at_once(db, model, [])
        assert caught.value.sqlstate == "ML002"
        said = "; ".join(f"row '{row}': {reason}" for row, reason in list(reasons.items())[:5])
        assert caught.value.diag.message_primary == f"{len(reasons)} of {len(rows)} rows cannot be scored: {said}"
    assert_equal(all_at_once(db, model, list(reasons)), expected, model.rtol)


def assert_a_job_sets_the_same_rows_aside(db: Connection, model: Deployed, rows: list[tuple[Any, ...]]) -> None:
    """A job writes what single calls give, and sets those rows aside that they refuse, with their reasons."""
    fill(db, model, rows)
    expected, reasons = one_by_one(db, model, len(rows))
    for table in ("scores", "scores_errors"):
        db.execute(f"drop table if exists {table}")
    db.execute("update dbscore.job set status = 'abandoned'")
    db.execute(
        "call dbscore.score_table(%s, %s, 'id', 'scores', max_errors => 1000000)", [model.name, f"{model.name}_rows"]
    )
    probabilities = ", probabilities" if model.probabilities else ""
    found = db.execute(f"select id, prediction{probabilities} from scores").fetchall()
    assert_equal({row[0]: row[1:] for row in found}, expected, model.rtol)
    assert dict(db.execute("select id, reason from scores_errors").fetchall()) == reasons


# --- rows ---

SPECIAL = [
    0.0,
    -0.0,
    5e-324,
    sys.float_info.min,
    1e-45,
    1e300,
    sys.float_info.max,
    -sys.float_info.max,
    FLOAT32_MAX,
    -FLOAT32_MAX,
    # the largest double that rounds to a float32, and the next one
    3.4028235677973362e38,
    3.4028235677973366e38,
    math.nan,
    math.inf,
    -math.inf,
]
USUAL = st.floats(-4, 4)
DOUBLES = USUAL | st.none() | st.floats() | st.sampled_from(SPECIAL)
REALS = st.floats(-4, 4, width=32) | st.none() | st.floats(width=32)
TEXTS = st.none() | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)


def integers(bits: int) -> st.SearchStrategy[int | None]:
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    return st.integers(-100, 100) | st.none() | st.integers(low, high) | st.sampled_from([low, high, 0, -1])


def several(*columns: st.SearchStrategy[Any]) -> st.SearchStrategy[list[tuple[Any, ...]]]:
    """Give up to a dozen rows: all of them usual ones, or of any values."""
    return st.lists(st.tuples(*columns), max_size=12)


THREE_DOUBLES = several(USUAL, USUAL, USUAL) | several(DOUBLES, DOUBLES, DOUBLES)
THREE_REALS = several(REALS, REALS, REALS)
ENCODED = several(
    st.sampled_from(PLANS) | TEXTS,
    st.sampled_from(CITIES) | TEXTS,
    st.sampled_from(["low", "high"]) | TEXTS,
    integers(32),
    integers(64),
    st.none() | st.booleans(),
    DOUBLES,
)
CATEGORIES = several(st.sampled_from(CODES) | st.none() | st.integers(-(2**53), 2**53), USUAL | st.none())
ARRAYS = several(st.lists(st.floats(-4, 4, width=32), min_size=3, max_size=3) | st.none() | st.lists(REALS, max_size=5))

Models = tuple[Connection, dict[str, Deployed]]


@pytest.mark.parametrize("name", ["linear", "regression", "tree", "boosted", "layers"])
@QUICKLY
@given(rows=THREE_DOUBLES)
@example(rows=[(None, None, None), (1.0, None, math.nan), (math.nan, math.inf, -math.inf), (0.5, 0.5, 0.5)])
@example(rows=[(0.5, i / 100, -0.25) for i in range(1000)])
def test_doubles_in_a_batch_are_scored_as_one_by_one(models: Models, name: str, rows: list[tuple[Any, ...]]) -> None:
    db, made = models
    assert_many_rows_get_what_each_gets(db, made[name], rows)


@QUICKLY
@given(rows=THREE_REALS)
@example(rows=[(FLOAT32_MAX, -FLOAT32_MAX, 0.0), (1e-45, None, math.nan)])
def test_reals_in_a_batch_are_scored_as_one_by_one(models: Models, rows: list[tuple[Any, ...]]) -> None:
    db, made = models
    assert set(made["reals"].types.values()) == {"real"}
    assert_many_rows_get_what_each_gets(db, made["reals"], rows)


@QUICKLY
@given(rows=ENCODED)
@example(rows=[("", None, "LOW", 2**31 - 1, 2**63 - 1, True, None), ("Basic", "", "", -(2**31), -(2**63), False, 0.0)])
@example(rows=[("basic", "Ulm", "low", 1, 2**53 + 1, None, 1e38), ("it's", None, "$1", 0, 0, True, math.nan)])
def test_texts_integers_and_booleans_in_a_batch_are_scored_as_one_by_one(
    models: Models, rows: list[tuple[Any, ...]]
) -> None:
    db, made = models
    assert_many_rows_get_what_each_gets(db, made["encoded"], rows)


@QUICKLY
@given(rows=CATEGORIES)
@example(rows=[(2**40, 0.0), (2**40 + 1, 0.0), (-(2**50), None), (None, 0.0)])
def test_categories_that_are_numbers_are_known_or_refused_in_a_batch_as_one_by_one(
    models: Models, rows: list[tuple[Any, ...]]
) -> None:
    db, made = models
    assert made["codes"].types["code"] == "bigint"
    assert_many_rows_get_what_each_gets(db, made["codes"], rows)


@QUICKLY
@given(rows=several(integers(64)))
@example(rows=[(2**53,), (2**53 + 1,), (2**63 - 1,), (-(2**63),), (None,)])
def test_bigints_that_no_double_holds_are_scored_exactly(models: Models, rows: list[tuple[Any, ...]]) -> None:
    db, made = models
    assert set(made["exact"].types.values()) == {"bigint"}
    assert_many_rows_get_what_each_gets(db, made["exact"], rows)
    assert all_at_once(db, made["exact"], []) == dict(enumerate(rows, 1))


@pytest.mark.parametrize(("name", "type_"), [("embedding", "real[]"), ("gaps", "double precision[]")])
@QUICKLY
@given(rows=ARRAYS)
@example(rows=[([],), (None,), ([None] * 3,), ([1.0],), ([1.0] * 4,), ([math.nan, 1.0, None],), ([1.0] * 3,)])
def test_arrays_in_a_batch_are_scored_as_one_by_one(
    models: Models, name: str, type_: str, rows: list[tuple[Any, ...]]
) -> None:
    db, made = models
    assert made[name].types == {"e": type_}
    assert_many_rows_get_what_each_gets(db, made[name], rows)


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("linear", THREE_DOUBLES),
        ("boosted", THREE_DOUBLES),
        ("reals", THREE_REALS),
        ("encoded", ENCODED),
        ("codes", CATEGORIES),
        ("embedding", ARRAYS),
    ],
)
@SLOWLY
@given(data=st.data())
def test_a_job_sets_aside_the_rows_that_single_calls_refuse(
    models: Models, name: str, rows: st.SearchStrategy[list[tuple[Any, ...]]], data: st.DataObject
) -> None:
    db, made = models
    assert_a_job_sets_the_same_rows_aside(db, made[name], data.draw(rows))
