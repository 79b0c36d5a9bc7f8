"""Jobs whose workers run the model: the server's answers, and its guarantees."""

from __future__ import annotations

import math
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import psycopg
import pytest
from onnx import TensorProto, helper
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from dbscore import Client, JobOptions
from dbscore.errors import JobError, PrivilegeError
from dbscore.jobs import binary
from dbscore.runtime.batch import NULL_BITS
from tests.conftest import Once, at, database, onnx_only

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dbscore.jobs import Job, Progress

# it is the workers who score here, with ONNX Runtime
pytestmark = onnx_only

Connection = psycopg.Connection[Any]
ROWS = 3000
# twenty chunks, each of which takes some tenths of a second
SLOW = "id % 50 <> 0 or pg_sleep({}) is not null"
SEED = 11

# every kind of feature, and values that are easily lost on the way
THINGS = f"""
create table things (id bigint primary key, a float8, b float8, r real, n integer, huge bigint, flag boolean, kind text, vec real[]);
insert into things
select i, sin(i), cos(i * 3), sin(i * 7)::real, i % 13, 9007199254740993 + i, i % 3 = 0, (array['red', 'green', E'bl"ue\\t\\\\x'])[1 + i % 3],
       array[sin(i), cos(i), i % 5]::real[]
from generate_series(1, {ROWS}) i;
update things set a = null where id % 97 = 0;
update things set b = null, kind = null where id % 101 = 0;
update things set vec = null where id % 103 = 0;
update things set flag = null, n = null, huge = null, r = null where id % 107 = 0;
analyze things;
"""


@pytest.fixture
def plain(plain_url: str) -> Iterator[str]:
    """A database on that server, with dbscore and the rows."""
    with database(plain_url) as url:
        with Client(url) as client:
            client.install()
        with psycopg.connect(url) as connection:
            connection.execute(THINGS)
        yield url


@pytest.fixture
def home(client: Client, db: Connection) -> Client:
    """A database with PL/Python, and the rows."""
    db.execute(THINGS)
    return client


@pytest.fixture(params=["plain", "plpython"])
def place(request: pytest.FixtureRequest) -> Iterator[Client]:
    """A database of either kind, with the classifier `tip` in two versions."""
    url = request.getfixturevalue("plain" if request.param == "plain" else "url")
    with Client(url) as client:
        if request.param == "plpython":
            with psycopg.connect(url) as connection:
                connection.execute(THINGS)
        with connected(client) as connection:
            connection.execute("update things set a = coalesce(a, 0), b = coalesce(b, 0)")
        client.deploy("tip", logistic("a", "b"), sample=numbers("a", "b"))
        client.deploy("tip", logistic("b", "a"), sample=numbers("a", "b"))
        yield client


def connected(client: Client) -> Connection:
    url = client._engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    return psycopg.connect(url, autocommit=True)


def rng() -> np.random.Generator:
    return np.random.default_rng(SEED)


def numbers(*names: str) -> pd.DataFrame:
    return pd.DataFrame(rng().normal(size=(200, len(names))), columns=list(names))


def logistic(first: str, second: str) -> LogisticRegression:
    frame = numbers("a", "b")
    return LogisticRegression().fit(frame, frame[first] > frame[second] / 3)


def options(**changed: Any) -> JobOptions:
    given = {"key": "id", "into": "scores", "source": "things", "chunk_rows": 150, "runs_on": "client"}
    return JobOptions(**(given | changed))


def rows_of(db: Connection, table: str) -> list[Any]:
    """Return a table's rows, but for the job's number and the time."""
    names = db.execute("select attname from pg_attribute where attrelid = %s::regclass and attnum > 0", [table])
    chosen = ", ".join(n for (n,) in names if n not in ("job_id", "recorded_at"))
    return db.execute(f"select {chosen} from {table} order by id").fetchall()


def same(found: Any, expected: Any) -> bool:
    """Compare values: numbers of the model may differ in their last bits, by the rows that are scored with them."""
    if isinstance(expected, list | tuple):
        return len(found) == len(expected) and all(map(same, found, expected))
    if isinstance(expected, float):
        return math.isclose(found, expected, rel_tol=1e-12) or (math.isnan(found) and math.isnan(expected))
    return type(found) is type(expected) and bool(found == expected)


# --- models: their features, their answers ---


def text_labels() -> tuple[Any, pd.DataFrame, dict[str, Any]]:
    frame = numbers("a", "b")
    return (
        DecisionTreeClassifier(max_depth=4, random_state=0).fit(frame, np.where(frame["a"] > 0, "ja\tja", "n'ée")),
        frame,
        {},
    )


def integer_labels() -> tuple[Any, pd.DataFrame, dict[str, Any]]:
    frame = numbers("a", "r")
    return LogisticRegression().fit(frame, (frame["a"] > 0) * 3 + (frame["r"] > 0)), frame, {}


def many_kinds() -> tuple[Any, pd.DataFrame, dict[str, Any]]:
    generator = rng()
    frame = pd.DataFrame(
        {
            "a": generator.normal(size=300),
            "n": generator.integers(0, 13, 300),
            "flag": generator.random(300) > 0.5,
            "kind": generator.choice(["red", "green", 'bl"ue\t\\x'], 300),
        }
    )
    first = make_column_transformer(
        (OneHotEncoder(), ["kind"]), (StandardScaler(), ["a", "n"]), ("passthrough", ["flag"])
    )
    return make_pipeline(first, LogisticRegression()).fit(frame, frame["a"] > 0), frame, {}


def missing_values() -> tuple[Any, pd.DataFrame, dict[str, Any]]:
    frame = numbers("a", "b", "r")
    holes = frame.mask(rng().random(frame.shape) < 0.2)
    return HistGradientBoostingRegressor(max_iter=10, random_state=0).fit(holes, frame["a"]), holes, {}


def several_numbers() -> tuple[Any, pd.DataFrame, dict[str, Any]]:
    frame = numbers("a", "b")
    return LinearRegression().fit(frame, frame.to_numpy() @ np.ones((2, 3))), frame, {}


def an_array() -> tuple[Any, np.ndarray[Any, Any], dict[str, Any]]:
    values = rng().normal(size=(200, 3)).astype(np.float32)
    return LinearRegression().fit(values, values.sum(axis=1)), values, {"embedding": "vec"}


def wide_integers() -> tuple[Any, pd.DataFrame, dict[str, Any]]:
    frame = pd.DataFrame({"huge": rng().integers(2**53, 2**53 + 5000, 200), "n": rng().integers(0, 13, 200)})
    return DecisionTreeClassifier(max_depth=3, random_state=0).fit(frame, frame["n"] > 6), frame, {}


MODELS = [text_labels, integer_labels, many_kinds, missing_values, several_numbers, an_array, wide_integers]


@pytest.mark.parametrize("make", MODELS)
def test_the_client_answers_as_the_server_does(
    home: Client, db: Connection, plain: str, make: Callable[[], tuple[Any, Any, dict[str, Any]]]
) -> None:
    model, sample, more = make()
    db.execute("update things set a = 'NaN' where id = 5; update things set a = '-Infinity' where id = 6")
    db.execute(
        "update things set b = 'Infinity', vec = '{1,2}' where id = 7; update things set vec = '{1,NULL,3}' where id = 8"
    )
    db.execute(
        "update things set kind = 'unknown', vec = '{{1,2,3}}' where id = 9; update things set vec = '{}' where id = 10"
    )
    db.execute("analyze things")
    home.deploy("one", model, sample=sample, **more)
    there = home.score("one", options(into="there", runs_on="server", max_errors=20))
    here = home.score("one", options(into="here", max_errors=20))
    assert (here.status, here.runs_on) == ("done", "client")
    assert (here.rows_done, here.errors) == (there.rows_done, there.errors)
    assert same(rows_of(db, "here"), rows_of(db, "there"))
    assert rows_of(db, "here_errors") == rows_of(db, "there_errors")
    shapes = (
        "select attname, atttypid::regtype, attnotnull from pg_attribute where attrelid = %s::regclass and attnum > 0"
    )
    assert db.execute(shapes, ["here"]).fetchall() == db.execute(shapes, ["there"]).fetchall()
    # the same on a server that has no PL/Python at all
    with psycopg.connect(plain, autocommit=True) as other, Client(plain) as client:
        other.execute("truncate things")
        with db.cursor().copy("copy things to stdout") as out, other.cursor().copy("copy things from stdin") as into:
            for piece in out:
                into.write(piece)
        client.deploy("one", model, sample=sample, engine="onnx", **more)
        assert client.score("one", options(max_errors=20, runs_on="auto")).runs_on == "client"
        assert same(rows_of(other, "scores"), rows_of(db, "there"))
        assert rows_of(other, "scores_errors") == rows_of(db, "there_errors")


def test_numbers_keep_every_bit_on_their_way_in(place: Client) -> None:
    shape = [helper.make_tensor_value_info(name, TensorProto.DOUBLE, ["rows", 1]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "mirror", shape[:1], shape[1:])
    mirror = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9).SerializeToString()
    with connected(place) as db:
        hostile = [0.1 + 0.2, 1 / 3, -1e-310, 5e-324, 1.7976931348623157e308, -2.5, 2.0**53 + 2, math.pi]
        hostile += rng().normal(size=1000).tolist()
        db.execute("create table hard (id integer primary key, x float8)")
        with db.cursor().copy("copy hard from stdin") as copy:
            for row in enumerate(hostile):
                copy.write_row(row)
        place.deploy("mirror", mirror)
        place.score("mirror", options(source="hard"))
        assert db.execute("select id, prediction from scores order by id").fetchall() == list(enumerate(hostile))


@pytest.mark.parametrize(("kind", "dtype"), [("float8", "float64"), ("float4", "float32")])
def test_arrays_of_numbers_are_read_with_their_nulls_and_every_bit(db: Connection, kind: str, dtype: str) -> None:
    bits, size = NULL_BITS[np.dtype(dtype).itemsize], np.dtype(dtype).itemsize
    # the bits of this NaN are all ones, as are those of a NULL's length
    ones = np.array([-1], f"i{size}").view(dtype)[0]
    rows = np.array([[1.5, 0, 0, ones], [0, -0.0, ones, np.inf], [ones, ones, 2, ones], [3, 4, 5, 6]], dtype)
    nulls = np.array([[0, 1, 1, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]], bool)
    db.execute(f"create temporary table parts (id integer, a {kind}, b {kind}, c {kind}, d {kind})")
    columns = [binary.field(np.arange(4, dtype=np.int32))]
    columns += [binary.field(np.ascontiguousarray(rows[:, i]), nulls[:, i]) for i in range(4)]
    with db.cursor().copy("copy parts from stdin (format binary)") as copy:
        for piece in binary.copied(columns, 4):
            copy.write(piece)
    for first in (0, 3):
        sent = db.execute(
            "select array_send(array_agg(array[a, b, c, d] order by id)) from parts where id >= %s",
            [first],
            binary=True,
        ).fetchone()
        assert sent is not None
        found = binary.array_rows(sent[0], dtype, 4, null_bits=bits)
        expected = np.where(nulls, np.array(bits, f"u{size}"), rows.view(f"u{size}"))
        assert (found.view(f"u{size}") == expected[first:]).all()


def test_every_kind_of_answer_arrives_as_it_is(db: Connection) -> None:
    columns = {
        "boolean": np.array([True, False, True]),
        "smallint": np.array([1, -(2**15), 2**15 - 1], np.int16),
        "integer": np.array([1, -(2**31), 2**31 - 1], np.int32),
        "bigint": np.array([1, -(2**63), 2**63 - 1], np.int64),
        "real": np.array([np.nan, -np.inf, 1e-45], np.float32),
        "double precision": np.array([np.nan, np.inf, 5e-324]),
        "text": np.array(["", "tab\t\\N", "\u2603"], object),
        "real[]": np.array([[1.5, np.nan], [2, 3], [4, 5]], np.float32),
        "double precision[]": np.array([[1.5, np.inf], [2, 3], [4, 5]]),
        "bigint[]": np.array([[1], [2], [-(2**63)]], np.int64),
        "boolean[]": np.array([[True, False]] * 3),
        "text[]": np.array([["a", ""], ['{"x', "null"], ["b", "c"]], object),
        "integer[]": np.zeros((3, 0), np.int32),
    }
    for nulls in (None, np.zeros(3, bool), np.array([False, True, False])):
        for kind, values in columns.items():
            db.execute(f"create temporary table answers (id bigint, answer {kind}, number integer)")
            ids, ones = binary.field(np.arange(3)), binary.field(np.ones(3, np.int32))
            with db.cursor().copy("copy answers from stdin (format binary)") as copy:
                for piece in binary.copied([ids, binary.field(values, nulls), ones], 3):
                    copy.write(piece)
            found = db.execute("select id, answer, number from answers", binary=True, prepare=False).fetchall()
            db.execute("drop table answers")
            missing = [False] * 3 if nulls is None else nulls.tolist()
            wanted = [None if out else value for value, out in zip(values.tolist(), missing, strict=True)]
            for (key, answer, number), (place_, value) in zip(found, enumerate(wanted), strict=True):
                assert (key, number) == (place_, 1)
                assert (answer is None and value is None) or same(answer, value), kind


def test_a_row_of_hundreds_of_features_is_read(place: Client) -> None:
    frame = numbers(*(f"f_{i}" for i in range(400)))
    model = LinearRegression().fit(frame, frame.sum(axis=1))
    with connected(place) as db:
        columns = ", ".join(f"sin(id * {i + 1}) as f_{i}" for i in range(400))
        db.execute(f"create view wide as select id, {columns} from things where id <= 200")
        place.deploy("wide", model, sample=frame)
        place.score("wide", options(source="wide"))
        found = [value for (value,) in db.execute("select prediction from scores order by id")]
    values = np.sin(np.arange(1, 201)[:, None] * np.arange(1, 401))
    assert np.allclose(found, model.predict(pd.DataFrame(values, columns=frame.columns)), rtol=1e-5, atol=1e-4)


KEYS = {
    "bigint": "-9223372036854775808 + i",
    "smallint": "i - 20",
    "text": r"""(array['', 'tab' || chr(9), E'quote"''', 'back\slash\n\N', E'new\nline\r', 'ünï ☃', ' ', 'NULL', '{}'])[1 + i % 9] || repeat(chr(9), i / 9)""",
    "varchar(30)": "repeat('x', i % 30) || i",
    "char(6)": "'k ' || i",
    "uuid": "md5(i::text)::uuid",
    "numeric": "(i || '.' || repeat('0', i % 5) || '7')::numeric * case i % 2 when 0 then 1 else -1 end",
    "numeric(20,4)": "i / 7.0",
    "timestamptz": "timestamptz '2024-03-31 01:59:59.999999+01' + i * interval '1 hour'",
    "timestamp": "'infinity'::timestamp - case i when 1 then interval '0' end",
    "date": "date '0044-03-15 BC' + i",
    "interval": "make_interval(months => i, days => -i, secs => i / 3.0)",
    "float8": "case i when 1 then 'NaN' when 2 then '-Infinity' when 3 then 4.9e-324 else i / 3.0::float8 end",
    "boolean": "i % 2 = 0",
    "bytea": "decode(md5(i::text), 'hex')",
    "inet": "'10.0.0.0'::inet + i",
    "int4range": "int4range(i, 2 * i)",
    "jsonb": "jsonb_build_object('k', i)",
    "integer[]": "array_fill(i, array[1 + i % 3])",
    "place": "row(i, 'x,\"' || i)::place",
    "mood": "case i % 2 when 0 then 'sad' else 'it''s' end::mood",
    "positive": "i::positive",
}


@pytest.mark.parametrize("kind", KEYS)
def test_keys_of_any_type_come_back_as_they_are(place: Client, kind: str) -> None:
    rows = {"boolean": 2, "mood": 2, "timestamp": 1}.get(kind, 40)
    with connected(place) as db:
        db.execute("create type place as (x integer, name text); create type mood as enum ('sad', 'it''s')")
        db.execute("create domain positive as bigint check (value > 0)")
        db.execute(f'create table keyed ("The Key" {kind} primary key, a float8, b float8)')
        db.execute(f"insert into keyed select ({KEYS[kind]})::{kind}, sin(i), cos(i) from generate_series(1, {rows}) i")
        db.execute("set timezone = 'America/New_York'; set datestyle = 'German'")
        job = place.score("tip", options(source="keyed", key="The Key"))
        assert job.rows_done == rows
        counted = db.execute(
            """select count(*), count(*) filter (where t."The Key"::text = s."The Key"::text)
               from keyed t full join scores s using ("The Key")"""
        )
        assert counted.fetchone() == (rows, rows)
        types = "select format_type(atttypid, atttypmod) from pg_attribute where attrelid = %s::regclass and attname = 'The Key'"
        assert db.execute(types, ["scores"]).fetchone() == db.execute(types, ["keyed"]).fetchone()


# --- what is scored, and where it goes ---


def right(db: Connection, *, version: int = 1, into: str = "scores", source: str = "things") -> bool:
    """Say whether each row has exactly one prediction, and the one that the model gives."""
    first, second = ("a", "b") if version == 1 else ("b", "a")
    found = pd.DataFrame(
        db.execute(
            f"select t.id, a, b, prediction, probabilities, version from {source} t full join {into} s using (id) order by id"
        ).fetchall(),
        columns=["id", "a", "b", "prediction", "probabilities", "version"],
    )
    expected = logistic(first, second).predict_proba(found[["a", "b"]])
    return bool(
        found["id"].is_unique
        and (found["version"] == version).all()
        and (found["prediction"] == (expected[:, 1] > 0.5)).all()
        and np.allclose(np.array(found["probabilities"].tolist()), expected, rtol=1e-9, atol=0)
    )


def test_views_queries_and_tables_with_a_condition_are_scored(place: Client) -> None:
    with connected(place) as db:
        db.execute("create view near as select * from things where id <= 1000")
        assert place.score("tip", options(source="near", into="of_view")).rows_done == 1000
        assert right(db, into="of_view", source="near")
        asked = f"select * from things where id % 2 = 0 or {SLOW.format(0)} -- all"
        assert place.score("tip", options(source=None, query=asked, into="of_query")).rows_done == ROWS
        assert right(db, into="of_query")
        assert place.score("tip", options(where="id <= 100 or id > 2990", into="of_some")).rows_done == 110


def test_a_query_of_many_rows_a_chunk_is_read_some_thousand_at_a_time(place: Client) -> None:
    with connected(place) as db:
        db.execute(
            "insert into things (id, a, b) select i, sin(i), cos(i) from generate_series(10001, 40000) i; analyze things"
        )
        assert place.score("tip", options(chunk_rows=100_000)).rows_done == ROWS + 30_000
        assert right(db)


def test_append_replace_upsert_and_incremental(place: Client) -> None:
    with connected(place) as db:
        place.score("tip:1", options())
        place.score("tip:2", options(mode="append"))
        counted = "select version, count(*) from scores group by 1 order by 1"
        assert db.execute(counted).fetchall() == [(1, ROWS), (2, ROWS)]
        place.score("tip:2", options(mode="replace"))
        assert right(db, version=2)
        db.execute("insert into things (id, a, b) select i, 0.1, 0.2 from generate_series(5001, 5010) i")
        assert place.score("tip:2", options(mode="append", incremental=True)).rows_done == 10
        assert right(db, version=2)
        db.execute(
            "create table kept (id integer primary key, prediction text, probabilities numeric[], version bigint, job_id bigint, note text default 'x')"
        )
        for version in (1, 2):
            place.score(f"tip:{version}", options(into="kept", mode="upsert"))
        # a table of other types is written with casts, as an insert does it
        cast = """select count(*), bool_and(k.prediction = s.prediction::text), bool_and(k.version = 2), bool_and(note = 'x'),
                         bool_and(k.probabilities[1]::float8 - s.probabilities[1] < 1e-12)
                  from kept k join scores s using (id)"""
        assert db.execute(cast).fetchone() == (ROWS + 10, True, True, True, True)


def test_rows_that_cannot_be_scored_are_named_and_fail_the_job_or_are_set_aside(place: Client) -> None:
    with connected(place) as db:
        db.execute("update things set a = 'NaN' where id in (7, 1234)")
        with pytest.raises(JobError, match=r"id = (7|1234): tip_v1: feature a is NaN") as caught:
            place.score("tip", options())
        job = place.jobs()[-1]
        assert (job.status, job.chunks_failed) == ("failed", 1)
        assert f"dbscore jobs retry {job.job_id}" in caught.value.remedy
        db.execute("drop table scores")
        job = place.score("tip", options(max_errors=2))
        assert (job.status, job.errors, job.rows_done) == ("done", 2, ROWS - 2)
        aside = db.execute("select id, version, job_id, reason from scores_errors order by 1").fetchall()
        assert [row[:3] for row in aside] == [(7, 1, job.job_id), (1234, 1, job.job_id)]
        assert all("NaN" in row[3] for row in aside)
        db.execute("update things set a = 0 where id in (7, 1234)")
        assert place.score("tip", options(mode="append", incremental=True)).rows_done == 2
        assert right(db)


@pytest.mark.parametrize("kind", ["table", "view"])
def test_rows_that_cannot_even_be_read_are_set_aside(place: Client, kind: str) -> None:
    with connected(place) as db:
        db.execute(
            "create table raw as select id, a::text as a, b from things; create view raw_view as select * from raw"
        )
        db.execute("update raw set a = 'many' where id in (3, 2000)")
        asked = f"select id, a::float8 as a, b from raw{'' if kind == 'table' else '_view'}"
        db.execute(f"create view cast_rows as {asked}")
        job = place.score("tip", options(source="cast_rows", max_errors=2))
        assert (job.errors, job.rows_done) == (2, ROWS - 2)
        aside = db.execute("select id, reason from scores_errors order by 1").fetchall()
        assert aside == [(n, 'invalid input syntax for type double precision: "many"') for n in (3, 2000)]
        with pytest.raises(JobError, match=r"id = (3|2000): invalid input"):
            place.score("tip", options(source="cast_rows", into="strict", max_errors=1))


def test_a_failing_result_table_fails_the_job_and_retry_goes_on(place: Client) -> None:
    with connected(place) as db:
        place.score("tip:2", options(where="id = 1"))
        db.execute("alter table scores add constraint no_room check (id <> 1500)")
        with pytest.raises(JobError, match="no_room"):
            place.score("tip:1", options(mode="append"))
        job = place.jobs()[-1]
        assert job.status == "failed"
        db.execute("alter table scores drop constraint no_room; delete from scores where version = 2")
        assert place.retry(job.job_id).status == "done"
        assert right(db)


def test_a_table_that_is_rewritten_fails_the_job_and_retry_plans_anew(place: Client) -> None:
    def rewrite(_: Progress) -> None:
        with connected(place) as db:
            db.execute("vacuum full things")

    with pytest.raises(JobError, match="was rewritten"):
        place.score("tip", options(where=SLOW.format(0.05), workers=1), on_progress=Once(rewrite))
    assert place.retry(place.jobs()[-1].job_id).status == "done"
    with connected(place) as db:
        assert right(db)


def test_rows_that_come_and_change_meanwhile_have_one_prediction_each(place: Client) -> None:
    def change(_: Progress) -> None:
        with connected(place) as db:
            db.execute("insert into things (id, a, b) select i, 0.3, 0.1 from generate_series(9001, 9100) i")
            db.execute("update things set b = b where id % 3 = 0")

    changed = Once(change)
    place.score("tip", options(where=SLOW.format(0.05)), on_progress=changed)
    assert changed.called
    with connected(place) as db:
        assert right(db)


# --- whatever happens on the way ---


def started(client: Client, *arguments: str) -> subprocess.Popen[bytes]:
    """Start the command line in a process of its own."""
    url = client._engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    command = [sys.executable, "-c", "from dbscore.cli import main; main()", *arguments, "--url", url]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL)


def begun(client: Client, *, seconds: float = 0.05) -> tuple[subprocess.Popen[bytes], Job]:
    """Start a slow job in a process of its own, and wait until some chunks are done."""
    options_ = ["--from", "things", "--key", "id", "--into", "scores", "--where", SLOW.format(seconds)]
    process = started(client, "score", "tip", *options_, "--chunk-rows", "150", "--where-to-run", "client")
    return process, awaited(process, client, chunks=3)


def awaited(process: subprocess.Popen[bytes], client: Client, *, chunks: int) -> Job:
    """Wait until a process has attached itself to the job, and some chunks are done."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        jobs = client.jobs()
        ended = process.poll() is not None
        if jobs and jobs[-1].chunks_done >= chunks and (ended or jobs[-1].workers_attached):
            return jobs[-1]
        assert not ended
        time.sleep(0.02)
    raise AssertionError("the job does not begin")


def test_killing_the_worker_process_again_and_again_loses_and_repeats_nothing(place: Client) -> None:
    moments = rng()
    process, job = begun(place)
    kills = 0
    while place.job(job.job_id).status != "done":
        time.sleep(moments.random() * 0.8)
        kills += process.poll() is None
        process.kill()
        process.wait()
        if place.job(job.job_id).status != "done":
            process = started(place, "jobs", "resume", str(job.job_id))
            awaited(process, place, chunks=0)
    assert kills >= 2
    assert (place.job(job.job_id).rows_done, place.job(job.job_id).runs_on) == (ROWS, "client")
    with connected(place) as db:
        assert right(db)


def test_ctrl_c_ends_within_a_second_or_so_and_resume_goes_on(place: Client) -> None:
    process, job = begun(place)
    process.send_signal(signal.SIGINT)
    begin = time.monotonic()
    assert process.wait(10) == 1
    assert time.monotonic() - begin < 2
    assert place.job(job.job_id).status == "cancelled"
    assert place.resume(job.job_id).status == "done"
    with connected(place) as db:
        assert right(db)


def test_cancel_stops_a_worker_that_is_scoring(place: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model takes a tenth of a second a row: no statement runs that could be cancelled."""
    from dbscore.runtime.batch import Batch

    slice_ = Batch._slice

    def slow(self: Batch, *args: Any) -> Any:
        time.sleep(0.2)
        return slice_(self, *args)

    monkeypatch.setattr("dbscore.runtime.batch.LARGEST_SLICE", 10)
    monkeypatch.setattr(Batch, "_slice", slow)
    ended: list[JobError] = []

    def run() -> None:
        with pytest.raises(JobError) as caught:
            place.score("tip", options(workers=2))
        ended.append(caught.value)

    thread = threading.Thread(target=run)
    thread.start()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and not (place.jobs() and place.jobs()[-1].workers_attached == 2):
        time.sleep(0.05)
    time.sleep(0.5)
    begin = time.monotonic()
    place.cancel(place.jobs()[-1].job_id)
    thread.join(10)
    assert time.monotonic() - begin < 2
    assert "is cancelled" in ended[0].message
    monkeypatch.undo()
    assert place.resume(place.jobs()[-1].job_id).status == "done"
    with connected(place) as db:
        assert right(db)


def test_lost_connections_are_made_again(place: Client) -> None:
    def kill(progress: Progress) -> None:
        with connected(place) as db:
            db.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where application_name = %s",
                [f"dbscore job {progress.job_id}"],
            )

    terminate = Once(kill)
    assert place.score("tip", options(where=SLOW.format(0.05)), on_progress=terminate).status == "done"
    assert terminate.called
    with connected(place) as db:
        assert right(db)


def test_bytes_that_were_altered_are_not_loaded(place: Client) -> None:
    with connected(place) as db:
        db.execute("update dbscore.artifact set bytes = set_byte(bytes, 20, 255 - get_byte(bytes, 20))")
    with pytest.raises(Exception, match=r"the bytes stored for model .* have the hash") as caught:
        place.score("tip", options())
    assert getattr(caught.value, "sqlstate", None) == "ML005"


# --- other roles ---


def test_who_may_score_but_is_no_member_of_the_owner_is_told_to_use_the_server(
    home: Client, db: Connection, role: Callable[[], str], url: str
) -> None:
    analyst = role()
    db.execute("update things set a = coalesce(a, 0), b = coalesce(b, 0)")
    home.deploy("tip", logistic("a", "b"), sample=numbers("a", "b"))
    home.grant("tip", analyst)
    db.execute(f"create schema work authorization {analyst}; grant select on things to {analyst}")
    with Client(at(url, user=analyst, password=analyst)) as other:
        with pytest.raises(PrivilegeError, match="which only members of the schema's owner may") as caught:
            other.score("tip", options(into="work.scores"))
        assert caught.value.sqlstate == "ML010"
        assert "so that the server scores" in caught.value.remedy
        assert other.jobs() == []
        assert other.score("tip", options(into="work.scores", runs_on="auto")).runs_on == "server"
    assert right(db, into="work.scores")
