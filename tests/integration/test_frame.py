"""Many rows at once: `models.<m>_batch` and the frames it is made of, whatever rows, keys, roles and bytes come."""

from __future__ import annotations

import random
import struct
import uuid
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import psycopg
import pytest
from onnx import TensorProto, helper
from psycopg import sql
from sklearn.cluster import KMeans
from sklearn.compose import make_column_transformer
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from sklearn.tree import DecisionTreeClassifier

from tests.conftest import both_engines, onnx_only

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbscore import Client

pytestmark = both_engines

Connection = psycopg.Connection[Any]
REAL, DOUBLE, BIGINT = 700, 701, 20
# how much a backend may grow while it scores a million rows, or sixty thousand wide ones
GROWTH_BYTES = 150 << 20


def numbers(rows: int = 300, columns: int = 3, dtype: str = "float64") -> pd.DataFrame:
    values = np.random.default_rng(0).normal(size=(rows, columns))
    return pd.DataFrame(values.astype(dtype), columns=[f"x{i}" for i in range(columns)])


def sign(frame: pd.DataFrame) -> Any:
    return (frame.sum(axis=1) > 0).astype(int)


def batch(db: Connection, call: str, *parameters: Any) -> list[tuple[Any, ...]]:
    """Return the rows of a batch by their key."""
    return sorted(db.execute(f"select * from models.{call}", parameters).fetchall())


def store(db: Connection, name: str, frame: pd.DataFrame, types: str) -> None:
    """Make a table of a frame's rows, with a key `id` from 0."""
    db.execute(f"create table {name} (id bigint primary key, {types})")
    with db.cursor().copy(f"copy {name} from stdin") as copy:
        for i, row in enumerate(frame.itertuples(index=False)):
            copy.write_row((i, *row))


def resident_bytes(db: Connection) -> int:
    """Return the memory that the connection's backend holds, without what all backends share."""
    status = db.execute("select pg_read_file('/proc/' || pg_backend_pid() || '/status')").fetchall()[0][0]
    fields = dict(line.split(":", 1) for line in status.splitlines())
    return (int(fields["VmRSS"].split()[0]) - int(fields["RssShmem"].split()[0])) * 1024


@pytest.fixture
def tip(client: Client, db: Connection) -> LogisticRegression:
    """A classifier `tip` and its 300 rows, in the table `trips`."""
    frame = numbers()
    store(db, "trips", frame, "x0 float8, x1 numeric, x2 float8")
    model = LogisticRegression().fit(frame, sign(frame))
    client.deploy("tip", model, sample=frame, table="trips")
    return model


# --- what a batch gives ---


def test_a_batch_gives_each_key_its_prediction_and_probabilities(tip: LogisticRegression, db: Connection) -> None:
    found = batch(db, "tip_batch('select * from trips', 'id')")
    assert [row[0] for row in found] == list(range(300))
    assert [row[1] for row in found] == tip.predict(numbers()).tolist()
    np.testing.assert_allclose([row[2] for row in found], tip.predict_proba(numbers()), rtol=1e-9)


@pytest.mark.parametrize("rows", [0, 1])
def test_no_row_gives_none_and_one_row_one(tip: LogisticRegression, db: Connection, rows: int) -> None:
    assert len(batch(db, f"tip_batch('select * from trips where id < {rows}', 'id')")) == rows


def test_columns_are_found_by_name_and_a_query_may_end_in_a_semicolon_or_a_comment(
    tip: LogisticRegression, db: Connection
) -> None:
    expected = batch(db, "tip_batch('select * from trips', 'id')")
    query = "with t as (select 'x' as note, x2, x0, id as \"Key\", x1 from trips) select * from t order by x0;\n ;"
    assert batch(db, "tip_batch(query => %s, key => 'Key')", query) == expected
    assert batch(db, "tip_batch('select * from trips -- all', 'id')") == expected


def test_the_estimators_own_column_names_are_found_too(client: Client, db: Connection) -> None:
    frame = numbers().rename(columns={"x0": "Sepal Length (cm)"})
    model = LogisticRegression().fit(frame, sign(frame))
    client.deploy("iris", model, sample=frame)
    expected = [(7, model.predict(pd.DataFrame([[1.0, 2.0, -4.0]], columns=frame.columns))[0].item())]
    for name in ('"Sepal Length (cm)"', "sepal_length_cm"):
        query = f"select 7 as id, 1 as {name}, 2 as x1, -4 as x2"
        assert [row[:2] for row in batch(db, "iris_batch(%s, 'id')", query)] == expected


def test_a_null_feature_gives_a_null_prediction_beside_rows_that_have_one(
    tip: LogisticRegression, db: Connection
) -> None:
    db.execute("update trips set x1 = null where id % 3 = 0")
    found = batch(db, "tip_batch('select * from trips', 'id')")
    expected = tip.predict(numbers()).tolist()
    assert [row[1] for row in found] == [None if i % 3 == 0 else expected[i] for i in range(300)]
    assert [row[2] is None for row in found] == [i % 3 == 0 for i in range(300)]


def test_rows_that_cannot_be_scored_are_named_with_their_reasons(tip: LogisticRegression, db: Connection) -> None:
    db.execute("update trips set x0 = 'NaN' where id = 7; update trips set x2 = '-inf' where id = 299")
    with pytest.raises(psycopg.Error) as caught:
        batch(db, "tip_batch('select * from trips order by id', 'id')")
    assert caught.value.sqlstate == "ML002"
    message = caught.value.diag.message_primary
    assert message.startswith("2 of 300 rows cannot be scored: row '7': tip_v1: feature x0 is NaN")
    assert "row '299': tip_v1: feature x2 is -Infinity" in message
    assert "--max-errors" in caught.value.diag.message_hint


@onnx_only
def test_rows_that_onnx_runtime_itself_refuses_are_found_among_the_others(client: Client, db: Connection) -> None:
    place = helper.make_tensor_value_info("place", TensorProto.INT64, [None, 1])
    found = helper.make_tensor_value_info("found", TensorProto.DOUBLE, [None, 1])
    values = helper.make_tensor("values", TensorProto.DOUBLE, [3], [0.5, 1.5, 2.5])
    node = helper.make_node("Gather", ["values", "place"], ["found"])
    graph = helper.make_graph([node], "g", [place], [found], initializer=[values])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    client.deploy("lookup", bytes(model.SerializeToString()))
    db.execute("create table places as select i as id, i % 3 as place from generate_series(1, 1000) i")
    expected = [(i, i % 3 + 0.5) for i in range(1, 1001)]
    assert batch(db, "lookup_batch('select * from places', 'id')") == expected
    db.execute("update places set place = 7 where id in (1, 500, 1000)")
    with pytest.raises(psycopg.Error) as single:
        db.execute("select models.lookup(7)")
    with pytest.raises(psycopg.Error) as many:
        batch(db, "lookup_batch('select * from places order by id', 'id')")
    assert many.value.sqlstate == single.value.sqlstate == "ML002"
    reason = single.value.diag.message_primary.removeprefix("plpy.Error: ")
    said = "; ".join(f"row '{i}': {reason}" for i in (1, 500, 1000))
    assert many.value.diag.message_primary == f"3 of 1000 rows cannot be scored: {said}"
    db.execute("call dbscore.score_table('lookup', 'places', 'id', 'scores', max_errors => 3)")
    assert sorted(db.execute("select id, prediction from scores").fetchall()) == [
        (i, value) for i, value in expected if i not in (1, 500, 1000)
    ]


def test_twenty_thousand_rows_are_more_than_one_batch_and_each_is_scored_once(
    tip: LogisticRegression, db: Connection
) -> None:
    query = "select i as id, sin(i) as x0, cos(i) as x1, sin(i * i) as x2 from generate_series(1, 20000) i"
    found = batch(db, "tip_batch(%s, 'id')", query)
    i = np.arange(1, 20_001)
    frame = pd.DataFrame({"x0": np.sin(i), "x1": np.cos(i), "x2": np.sin(i * i)})
    assert [row[0] for row in found] == i.tolist()
    assert [row[1] for row in found] == tip.predict(frame).tolist()


@pytest.mark.parametrize(
    ("labels", "sql_type"),
    [
        (np.array([False, True, False]), "boolean"),
        (np.array([0, 1, 2], dtype=np.int16), "smallint"),
        (np.array([0, 1, 2], dtype=np.int32), "integer"),
        (np.array([0, 7_000_000_000, -1]), "bigint"),
        (np.array(["no", "größer", "it's\n{},\"\\NULL"]), "text"),
    ],
)
def test_predictions_have_the_labels_own_type(
    client: Client, db: Connection, labels: np.ndarray, sql_type: str
) -> None:
    frame = numbers()
    store(db, "trips", frame, "x0 float8, x1 float8, x2 float8")
    model = DecisionTreeClassifier(max_depth=4, random_state=0).fit(frame, labels[pd.cut(frame.x0, 3, labels=False)])
    client.deploy("tip", model, sample=frame)
    found = batch(db, "tip_batch('select * from trips', 'id')")
    assert [row[1] for row in found] == model.predict(frame).tolist()
    assert [row[2] for row in found] == model.predict_proba(frame).tolist()
    kind = db.execute("select distinct pg_typeof(prediction)::text from models.tip_batch('select * from trips', 'id')")
    assert kind.fetchall() == [(sql_type,)]


def test_regression_several_outputs_a_transformer_and_clusters(client: Client, db: Connection) -> None:
    frame = numbers()
    store(db, "trips", frame, "x0 float8, x1 float8, x2 float8")
    targets = np.column_stack([frame.x0 * 2, frame.x1 + frame.x2])
    pca, means = PCA(2).fit(frame), KMeans(3, n_init=1, random_state=0).fit(frame)
    client.deploy("fare", LinearRegression().fit(frame, targets[:, 0]), sample=frame)
    client.deploy("pair", LinearRegression().fit(frame, targets), sample=frame)
    client.deploy("space", pca, sample=frame)
    client.deploy("segment", means, sample=frame)
    expected = {"fare": targets[:, 0], "pair": targets, "space": pca.transform(frame), "segment": means.labels_}
    for name, values in expected.items():
        found = batch(db, f"{name}_batch('select * from trips', 'id')")
        assert {len(row) for row in found} == {2}
        np.testing.assert_allclose([row[1] for row in found], values, rtol=1e-6, atol=1e-9)
    # a row without a prediction stands between rows that have an array
    db.execute("update trips set x1 = null where id = 1")
    found = batch(db, "pair_batch('select * from trips', 'id')")
    assert [row[1] is None for row in found[:3]] == [False, True, False]
    np.testing.assert_allclose(found[2][1], targets[2], rtol=1e-6)


def test_texts_and_booleans_go_beside_the_numbers(client: Client, db: Connection) -> None:
    rng = np.random.default_rng(1)
    frame = pd.DataFrame(
        {
            "plan": rng.choice(["basic", "gold", "o'ne,\"{}"], 300).astype(object),
            "x0": rng.normal(size=300),
            "active": rng.random(300) > 0.5,
            "city": rng.choice(["Ulm", "東京", ""], 300).astype(object),
        }
    )
    store(db, "users", frame, "plan varchar(20), x0 numeric, active boolean, city text")
    encoded = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), ["plan", "city"]), remainder="passthrough"
    )
    labels = (frame.plan == "gold") ^ frame.active
    model = make_pipeline(encoded, DecisionTreeClassifier(max_depth=5, random_state=0)).fit(frame, labels)
    client.deploy("churn", model, sample=frame)
    found = batch(db, "churn_batch('select * from users', 'id')")
    assert [row[1] for row in found] == model.predict(frame).tolist()
    query = "select id, 'never seen' as plan, x0, active, city from users"
    unknown = model.predict(frame.assign(plan="never seen")).tolist()
    assert [row[1] for row in batch(db, "churn_batch(%s, 'id')", query)] == unknown


# --- wide rows, and arrays ---


def test_rows_of_1500_columns_are_scored(client: Client, db: Connection) -> None:
    # reals, so that a row fits a page
    frame = numbers(200, 1500, "float32").astype("float64")
    store(db, "wide", frame, ", ".join(f"{c} real" for c in frame.columns))
    model = LogisticRegression().fit(frame, sign(frame))
    client.deploy("wide", model, sample=frame)
    found = batch(db, "wide_batch('select * from wide', 'id')")
    np.testing.assert_allclose([row[2] for row in found], model.predict_proba(frame), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("storage", ["extended", "external", "main"])
@pytest.mark.parametrize(("dtype", "type_"), [("float32", "real[]"), ("float64", "double precision[]")])
def test_arrays_of_two_thousand_numbers_are_scored_toasted_and_compressed(
    client: Client, db: Connection, storage: str, dtype: str, type_: str
) -> None:
    frame = numbers(60, 2000, dtype).to_numpy(copy=True)
    # half of them compress well
    frame[::2] = np.round(frame[::2])
    model = LogisticRegression().fit(frame, (frame[:, 0] > 0).astype(int))
    version = client.deploy("topic", model, sample=frame, embedding="e")
    assert str(version.signature.features[0].type) == type_
    db.execute(f"create table texts (id bigint, e {type_}); alter table texts alter e set storage {storage}")
    db.cursor().executemany(
        f"insert into texts values (%s, %s::{type_})", [(i, row.tolist()) for i, row in enumerate(frame)]
    )
    found = batch(db, "topic_batch('select * from texts', 'id')")
    single = db.execute("select models.topic_score(e) from texts order by id").fetchall()
    np.testing.assert_allclose([row[2][1] for row in found], [score for (score,) in single], rtol=1e-5, atol=1e-12)
    assert [row[1] for row in found] == model.predict(frame).tolist()


@pytest.fixture
def topic(client: Client, db: Connection) -> LogisticRegression:
    """A classifier of one array feature `e` of three numbers, NULL for no prediction."""
    frame = numbers().to_numpy()
    model = LogisticRegression().fit(frame, (frame[:, 0] > 0).astype(int))
    client.deploy("topic", model, sample=frame, embedding="e")
    db.execute("create table texts (id bigint, e double precision[])")
    return model


def test_arrays_are_scored_whatever_their_bounds_and_whatever_they_held_before(
    topic: LogisticRegression, db: Connection
) -> None:
    db.execute(
        """insert into texts values (0, '{1, 2, 3}'), (1, '[0:2]={1, 2, 3}'), (2, '[-7:-5]={1, 2, 3}'),
                                    (3, '{null, 2, 3}'), (4, ('{null, 1, 2, 3}'::float8[])[2:4]), (5, null)"""
    )
    # a bitmap of NULLs stays in the array, without any NULL
    db.execute("update texts set e[1] = 1 where id = 3")
    found = batch(db, "topic_batch('select * from texts', 'id')")
    expected = topic.predict_proba([[1, 2, 3]])[0]
    assert found.pop() == (5, None, None)
    for row in found:
        np.testing.assert_allclose(row[2], expected, rtol=1e-9)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        ("'{}'", "an array of 0 elements, not of 3 numbers"),
        ("'{1}'", "an array of 1 elements, not of 3 numbers"),
        ("'{1, 2, 3, 4}'", "an array of 4 elements, not of 3 numbers"),
        ("'{{1, 2, 3}}'", "an array"),
        ("'{{1}, {2}, {3}}'", "an array"),
        ("'{1, null, 3}'", "has a NULL as its element 2"),
        ("'{null, null, null}'", "has a NULL as its element 1"),
        ("'{1, NaN, 3}'", "is NaN"),
        ("'{1, 2, -inf}'", "is -Infinity"),
    ],
)
def test_an_array_that_does_not_fit_is_refused_as_in_a_single_row(
    topic: LogisticRegression, db: Connection, array: str, message: str
) -> None:
    db.execute(f"insert into texts values (1, '{{1, 2, 3}}'), (2, {array})")
    for call in ("models.topic_batch('select * from texts', 'id')", "models.topic((select e from texts where id = 2))"):
        with pytest.raises(psycopg.Error, match=f"topic_v1: feature e .*{message}") as caught:
            db.execute(f"select * from {call}")
        assert caught.value.sqlstate == "ML002"


def test_an_empty_array_is_refused_also_where_null_is_a_missing_value(client: Client, db: Connection) -> None:
    frame = numbers().to_numpy(copy=True)
    frame[::5, 1] = np.nan
    client.deploy(
        "topic", HistGradientBoostingClassifier(max_iter=5).fit(frame, frame[:, 0] > 0), sample=frame, embedding="e"
    )
    with pytest.raises(psycopg.Error, match="an array of 0 elements"):
        batch(db, "topic_batch('select 1 as id, ''{}''::float8[] as e', 'id')")
    found = batch(db, "topic_batch('select 1 as id, null::float8[] as e union select 2, ''{null,null,null}''', 'id')")
    assert found[0][1:] == found[1][1:]


@pytest.mark.parametrize(("dtype", "type_"), [("float32", "real"), ("float64", "double precision")])
def test_a_column_of_another_float_type_is_cast_as_in_a_single_call(
    client: Client, db: Connection, dtype: str, type_: str
) -> None:
    frame = numbers(dtype=dtype)
    model = DecisionTreeClassifier(random_state=0).fit(frame, sign(frame))
    client.deploy("tip", model, sample=frame)
    for column in ("real", "double precision"):
        query = f"select i as id, sin(i)::{column} as x0, cos(i)::{column} as x1, sin(i * i)::{column} as x2 from generate_series(1, 500) i"
        single = f"select id, models.tip(x0::{type_}, x1::{type_}, x2::{type_}) from ({query}) q order by id"
        assert [row[:2] for row in batch(db, "tip_batch(%s, 'id')", query)] == db.execute(single).fetchall()


# --- keys ---


def test_the_key_comes_back_in_its_own_type_and_several_types_go_one_after_the_other(
    tip: LogisticRegression, db: Connection
) -> None:
    one = uuid.UUID(int=7)
    keys = [
        ("bigint", None, 2**40),
        ("integer", None, 7),
        ("smallint", None, 7),
        ("text", "text", "it's, {7}"),
        ("uuid", "uuid", one),
        ("numeric", "numeric", Decimal("7.50")),
        ("timestamptz", "timestamptz", datetime(2024, 2, 29, 12, tzinfo=UTC)),
        ("integer", "integer", 7),
        ("smallint", "integer", 7),
        ("character varying", "character varying", "seven"),
        ("bytea", "bytea", b"\0\xff"),
        ("jsonb", "jsonb", {"a": [1, None]}),
    ]
    for type_, said, value in [*keys, *keys]:
        literal = (
            value
            if isinstance(value, (str, int, Decimal, uuid.UUID, datetime, bytes))
            else psycopg.types.json.Jsonb(value)
        )
        # a key that is NULL is one like any other here
        db.execute(
            sql.SQL(
                "create or replace temp view keyed as select {}::{} as k, 1 as x0, 2 as x1, 3 as x2 union all select null, 3, 2, 1"
            ).format(sql.Literal(literal), sql.SQL(type_))
        )
        third = "" if said is None else f", key_type => null::{said}"
        found = db.execute(
            f"select row_key, pg_typeof(row_key)::text from models.tip_batch('select * from keyed', 'k'{third})"
        ).fetchall()
        kind = {None: "bigint", "timestamptz": "timestamp with time zone"}.get(said, said)
        assert found == [(value, kind), (None, kind)]
        db.execute("drop view keyed")


@pytest.mark.parametrize(
    ("key", "third", "said"),
    [
        ("'a'::text", "", "text"),
        ("'7'::text", "", "text"),
        ("gen_random_uuid()", "", "uuid"),
        ("1::numeric", "", "numeric"),
        ("2::bigint", ", null::integer", "bigint"),
        ("now()", ", null::text", "timestamp with time zone"),
        ("'7'::text", ", null::uuid", "text"),
    ],
)
def test_a_key_of_another_type_is_refused_with_what_to_write(
    tip: LogisticRegression, db: Connection, key: str, third: str, said: str
) -> None:
    with pytest.raises(psycopg.Error) as caught:
        batch(db, f"tip_batch(%s, 'k'{third})", f"select {key} as k, x0, x1, x2 from trips")
    assert caught.value.sqlstate == "ML002"
    assert f"the key k is of type {said}" in caught.value.diag.message_primary
    assert f"key_type => null::{said}" in caught.value.diag.message_hint


def test_a_key_that_is_an_array_is_refused(tip: LogisticRegression, db: Connection) -> None:
    with pytest.raises(psycopg.Error, match="the key k is an array") as caught:
        batch(db, "tip_batch('select array[id] as k, x0, x1, x2 from trips', 'k', null::bigint[])")
    assert caught.value.sqlstate == "ML002"


def test_null_arguments_are_refused_by_name(tip: LogisticRegression, db: Connection) -> None:
    for arguments, message in [("null, 'id'", "query is NULL"), ("'select 1', null", "key is NULL")]:
        with pytest.raises(psycopg.Error, match=message) as caught:
            batch(db, f"tip_batch({arguments})")
        assert caught.value.sqlstate == "ML002"


@pytest.mark.parametrize(
    ("query", "key", "sqlstate"),
    [
        ("select 1 / (id - 5) as d, * from trips where 1 / (id - 5) < 9", "id", "22012"),
        ("select * from nowhere", "id", "42P01"),
        ("select * from trips", "nothing", "42703"),
        ("select id, x0 from trips", "id", "42703"),
        ("select from where", "id", "42601"),
        ("", "id", "42601"),
        ("select 1; drop table trips", "id", "42601"),
        ("select 1) as q; drop table trips; --", "id", "42601"),
        ("delete from trips returning *", "id", "42601"),
        ("select id, now() as x0, x1, x2 from trips", "id", "42846"),
    ],
)
def test_a_query_that_fails_fails_with_its_own_error(
    tip: LogisticRegression, db: Connection, query: str, key: str, sqlstate: str
) -> None:
    with pytest.raises(psycopg.Error) as caught:
        batch(db, "tip_batch(%s, %s)", query, key)
    assert caught.value.sqlstate == sqlstate
    assert db.execute("select count(*) from trips").fetchall() == [(300,)]


# --- whose rights, whose names ---


def test_the_query_runs_with_the_callers_rights_and_in_the_callers_search_path(
    tip: LogisticRegression,
    client: Client,
    db: Connection,
    role: Callable[[], str],
    as_role: Callable[[str], Connection],
) -> None:
    name = role()
    analyst = as_role(name)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        analyst.execute("select * from models.tip_batch('select 1', 'id')")
    client.grant("tip", name)
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="trips"):
        analyst.execute("select * from models.tip_batch('select * from public.trips', 'id')")
    # the table of the caller's own schema is meant, and stays so
    db.execute(f"create schema work authorization {name}")
    analyst.execute("create table work.trips as select 1 as id, 1.0 as x0, null::int as x1, 1.0 as x2")
    analyst.execute("set search_path = work, public")
    assert analyst.execute(
        "select row_key, prediction from models.tip_batch('select * from trips', 'id')"
    ).fetchall() == [(1, None)]
    assert analyst.execute("show search_path").fetchall() == [("work, public",)]
    db.execute(f"grant select on trips to {name}")
    analyst.execute("set search_path = public")
    for function in ("tip_batch", "tip_v1_batch"):
        assert analyst.execute(f"select count(*) from models.{function}('select * from trips', 'id')").fetchall() == [
            (300,)
        ]
    client.revoke("tip", name)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        analyst.execute("select * from models.tip_batch('select * from trips', 'id')")


def test_an_alias_follows_a_promotion_to_another_type_of_result(
    tip: LogisticRegression, client: Client, db: Connection
) -> None:
    frame = numbers()
    targets = np.column_stack([frame.x0 * 2, frame.x1 + frame.x2])
    client.deploy("tip", LinearRegression().fit(frame, targets), sample=frame, alias="challenger")
    before = batch(db, "tip_batch('select * from trips', 'id')")
    assert before == batch(db, "tip_v1_batch('select * from trips', 'id')")
    pairs = batch(db, "tip_challenger_batch('select * from trips', 'id')")
    np.testing.assert_allclose([row[1] for row in pairs], targets, rtol=1e-6, atol=1e-9)
    client.promote("tip:2")
    assert batch(db, "tip_batch('select * from trips', 'id')") == pairs
    assert batch(db, "tip_batch('select id::text as t, * from trips', 't', null::text)")[0][1] in [
        row[1] for row in pairs
    ]
    assert batch(db, "tip_v1_batch('select * from trips', 'id')") == before


# --- memory ---


def test_a_million_rows_leave_the_backend_as_large_as_it_was(tip: LogisticRegression, db: Connection) -> None:
    def score(rows: int) -> None:
        query = f"select i as id, i::float8 as x0, 1 as x1, 2 as x2 from generate_series(1, {rows}) i"
        db.execute("select count(*), sum(prediction) from models.tip_batch(%s, 'id')", [query])

    score(20_000)
    before = resident_bytes(db)
    score(1_000_000)
    assert resident_bytes(db) - before < GROWTH_BYTES


def test_wide_batches_are_in_memory_one_at_a_time(client: Client, db: Connection) -> None:
    frame = numbers(50, 1000).to_numpy()
    client.deploy("topic", LogisticRegression().fit(frame, (frame[:, 0] > 0).astype(int)), sample=frame, embedding="e")
    query = "select i as id, array_fill(i::float8, array[1000]) as e from generate_series(1, {}) i"
    db.execute("select count(*) from models.topic_batch(%s, 'id')", [query.format(10)])
    before = resident_bytes(db)
    # 240 MB of numbers, 33 MB at a time, of which there are some copies between the query and ONNX Runtime
    db.execute("select count(*) from models.topic_batch(%s, 'id')", [query.format(30_000)])
    status = db.execute("select pg_read_file('/proc/' || pg_backend_pid() || '/status')").fetchall()[0][0]
    peak_bytes = int(dict(line.split(":", 1) for line in status.splitlines())["VmHWM"].split()[0]) * 1024
    assert peak_bytes - before < 400 << 20


# --- frames that nobody packed ---


def packed(*rows: list[float], element: int = DOUBLE, header: tuple[int, ...] | None = None) -> bytes:
    """Return a frame as the server packs it, or with another header."""
    code = {DOUBLE: "d", REAL: "f", BIGINT: "q"}[element]
    return b"".join(
        struct.pack(f"<5i{len(row)}{code}", *(header or (1, 0, element, len(row), 1)), *row) for row in rows
    )


GOOD = packed([1.0, 2.0, 3.0], [-1.0, -2.0, -3.0])
FORGED = {
    "cut short": GOOD[:-1],
    "cut in its header": GOOD[:3],
    "one byte more": GOOD + b"\0",
    "another width": packed([1.0, 2.0]),
    "twice the width": packed([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]),
    "floats for doubles": packed([1.0, 2.0, 3.0], element=REAL),
    "another element type": packed([1.0, 2.0, 3.0], header=(1, 0, 25, 3, 1)),
    "no dimension": packed([1.0, 2.0, 3.0], header=(0, 0, DOUBLE, 3, 1)),
    "two dimensions": packed([1.0, 2.0, 3.0], header=(2, 0, DOUBLE, 3, 1)),
    "a negative number of dimensions": packed([1.0, 2.0, 3.0], header=(-1, 0, DOUBLE, 3, 1)),
    "huge dimensions": packed([1.0, 2.0, 3.0], header=(1, 0, DOUBLE, 2**31 - 1, 1)),
    "a negative length": packed([1.0, 2.0, 3.0], header=(1, 0, DOUBLE, -3, 1)),
    "a bitmap of NULLs": packed([1.0, 2.0, 3.0], header=(1, 32, DOUBLE, 3, 1)),
    "a bitmap far away": packed([1.0, 2.0, 3.0], header=(1, -(2**31), DOUBLE, 3, 1)),
    "a wrong row behind a right one": packed([1.0, 2.0, 3.0]) + packed([1.0, 2.0, 3.0], header=(1, 0, DOUBLE, 4, 1)),
    "zeros": bytes(len(GOOD)),
    "ones": b"\xff" * len(GOOD),
}


@pytest.fixture
def analyst(
    tip: LogisticRegression, client: Client, role: Callable[[], str], as_role: Callable[[str], Connection]
) -> Connection:
    """A role that may call `tip` and nothing else."""
    name = role()
    client.grant("tip", name)
    return as_role(name)


FRAME = "select * from dbscore_engine.tip_v1_frame(dbscore_engine.tip_v1_pin(), %s::bytea, %s::bytea, %s::text[])"


def test_a_frame_made_by_hand_is_scored(analyst: Connection, tip: LogisticRegression) -> None:
    predictions, probabilities, labels, nulls, errors = analyst.execute(FRAME, [GOOD, None, None]).fetchall()[0]
    assert (labels, nulls, errors) == (None, None, None)
    assert np.frombuffer(predictions, np.int64).tolist() == [1, 0]
    rows = pd.DataFrame([[1.0, 2.0, 3.0], [-1.0, -2.0, -3.0]], columns=["x0", "x1", "x2"])
    expected = tip.predict_proba(rows)
    np.testing.assert_allclose(np.frombuffer(probabilities).reshape(2, 2), expected, rtol=1e-9)
    # the lower bound of an array says nothing; no frame has no row
    shifted = packed([1.0, 2.0, 3.0], header=(1, 0, DOUBLE, 3, -5))
    assert analyst.execute(FRAME, [shifted, None, None]).fetchall()[0][0] == predictions[:8]
    for nothing in (b"", None):
        assert analyst.execute(FRAME, [nothing, None, None]).fetchall()[0][0] == b""


@pytest.mark.parametrize("forged", FORGED.values(), ids=FORGED.keys())
def test_a_forged_frame_is_an_error_and_the_backend_lives(analyst: Connection, forged: bytes) -> None:
    pid = analyst.execute("select pg_backend_pid()").fetchall()
    with pytest.raises(psycopg.Error, match="frame") as caught:
        analyst.execute(FRAME, [forged, None, None])
    assert caught.value.sqlstate == "ML002"
    assert "dbscore_engine.frame" in caught.value.diag.message_hint
    assert analyst.execute("select pg_backend_pid()").fetchall() == pid


def test_random_bytes_never_end_the_backend(analyst: Connection) -> None:
    pid = analyst.execute("select pg_backend_pid()").fetchall()
    chance = random.Random(0)  # noqa: S311 - the same bytes each time
    for _ in range(200):
        forged = bytearray(chance.randbytes(chance.choice([1, 20, 44, 88, 440])) if chance.random() < 0.5 else GOOD * 5)
        for _ in range(chance.randrange(4)):
            forged[chance.randrange(len(forged))] = chance.randrange(256)
        try:
            analyst.execute(
                FRAME, [bytes(forged), chance.choice([None, b"", b"\1" * 36]), chance.choice([None, [], ["a"]])]
            )
        except psycopg.DatabaseError as error:
            if error.sqlstate != "ML002":
                raise
    assert analyst.execute("select pg_backend_pid()").fetchall() == pid


@pytest.fixture
def mixed(client: Client, db: Connection, role: Callable[[], str], as_role: Callable[[str], Connection]) -> Connection:
    """A role that may call `mixed`, which takes two texts, a number and a bigint, and gives the bigint."""
    kinds = {
        "plan": TensorProto.STRING,
        "account": TensorProto.INT64,
        "city": TensorProto.STRING,
        "x0": TensorProto.DOUBLE,
    }
    inputs = [helper.make_tensor_value_info(n, kind, [None, 1]) for n, kind in kinds.items()]
    output = helper.make_tensor_value_info("same", TensorProto.INT64, [None, 1])
    graph = helper.make_graph([helper.make_node("Identity", ["account"], ["same"])], "g", inputs, [output])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    client.deploy("mixed", bytes(model.SerializeToString()))
    name = role()
    client.grant("mixed", name)
    return as_role(name)


NUMBERS, ACCOUNTS, TEXTS = packed([0.5], [0.25]), packed([2**53 + 1, 0], [8, 0], element=BIGINT), ["a", "b", "x", "y"]


def test_frames_of_all_kinds_are_scored_together(mixed: Connection) -> None:
    statement = FRAME.replace("tip", "mixed")
    predictions, _, labels, nulls, errors = mixed.execute(statement, [NUMBERS, ACCOUNTS, TEXTS]).fetchall()[0]
    assert np.frombuffer(predictions, np.int64).tolist() == [2**53 + 1, 8]
    assert (labels, nulls, errors) == (None, None, None)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ((NUMBERS, ACCOUNTS, ["a", "b", "x"]), "3 texts are no whole number of rows of 2"),
        ((NUMBERS, ACCOUNTS, ["a", "x"]), "have 2, 2, 1, 1 rows"),
        ((NUMBERS, ACCOUNTS, None), "have 2, 2, 0, 0 rows"),
        ((NUMBERS, None, TEXTS), "have 2, 0, 2, 2 rows"),
        ((None, ACCOUNTS, TEXTS), "have 0, 2, 2, 2 rows"),
        ((NUMBERS * 2, ACCOUNTS, TEXTS), "have 4, 2, 2, 2 rows"),
        ((NUMBERS, ACCOUNTS[:-8], TEXTS), "no whole number of rows"),
        ((NUMBERS, NUMBERS, TEXTS), "no whole number of rows|no array"),
        (
            (NUMBERS, packed([7, 0], [8, 0], header=(1, 0, DOUBLE, 2, 1), element=BIGINT), TEXTS),
            "no array of 2 x int64",
        ),
        ((NUMBERS, ACCOUNTS, [["a", "b"], ["x", "y"]]), "texts"),
    ],
)
def test_parts_that_do_not_belong_together_are_refused(mixed: Connection, parts: tuple[Any, ...], message: str) -> None:
    pid = mixed.execute("select pg_backend_pid()").fetchall()
    with pytest.raises(psycopg.Error, match=message) as caught:
        mixed.execute(FRAME.replace("tip", "mixed"), parts)
    assert caught.value.sqlstate == "ML002"
    assert mixed.execute("select pg_backend_pid()").fetchall() == pid


def test_nobody_but_a_superuser_may_take_bytes_for_arrays(analyst: Connection) -> None:
    header = b"\1" * 20
    for call in (
        "adopt_reals(%(h)s, %(h)s)",
        "adopt_doubles(%(h)s, %(h)s)",
        "adopt_bigints(%(h)s, %(h)s)",
        "adopt_integers(%(h)s, %(h)s)",
        "adopt_smallints(%(h)s, %(h)s)",
        "adopt_booleans(%(h)s, %(h)s)",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            analyst.execute(f"select dbscore_engine.{call}", {"h": header})
    functions = "select p.oid::regprocedure::text from pg_proc p where pronamespace = 'dbscore_engine'::regnamespace and proname ~ '^(adopt_|pack)' and has_function_privilege(current_user, p.oid, 'execute')"
    assert analyst.execute(functions).fetchall() == []


def test_any_bytes_are_numbers_to_whoever_unpacks_answers(analyst: Connection) -> None:
    pid = analyst.execute("select pg_backend_pid()").fetchall()
    for content in (b"", b"\xff" * 80, GOOD[:40], np.random.default_rng(1).bytes(8000)):
        found = analyst.execute("select dbscore_engine.doubles(%s)", [content]).fetchall()[0][0]
        assert len(found) == len(content) // 8
    with pytest.raises(psycopg.Error, match="7 bytes are no whole number"):
        analyst.execute("select dbscore_engine.doubles(%s)", [b"\0" * 7])
    assert analyst.execute("select pg_backend_pid()").fetchall() == pid
