"""What computes a version: chosen by measuring, recorded, shown; and a server that has nothing but SQL."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import psycopg
import pytest
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier
from typer.testing import CliRunner

from dbscore import Client, compiler
from dbscore.cli import app
from dbscore.errors import CompilationError, DbscoreError, InUseError, ParityError
from dbscore.jobs import JobOptions
from dbscore.local.installation import find_embedded
from dbscore.registry import comparison
from dbscore.registry.engines import choose
from tests.conftest import at, database, local_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dbscore.compiler.program import Program
    from dbscore.registry import Version

Connection = psycopg.Connection[Any]


def frame(rows: int = 300) -> pd.DataFrame:
    return pd.DataFrame(np.random.default_rng(0).normal(size=(rows, 3)), columns=["a", "b", "c"])


def classifier() -> LogisticRegression:
    return LogisticRegression().fit(frame(), (frame().sum(axis=1) > 0).astype(int))


def line(first: float = 1.0) -> LinearRegression:
    return LinearRegression().fit(frame(), first * frame()["a"] + frame()["b"])


def vectors() -> SVC:
    """What cannot be compiled."""
    return SVC().fit(frame(), (frame()["a"] > 0).astype(int))


def one(db: Connection, statement: str, *parameters: Any) -> Any:
    return db.execute(statement, parameters).fetchone()[0]


def compiled_functions(db: Connection) -> set[str]:
    rows = db.execute("select proname from pg_proc where pronamespace = 'dbscore_compiled'::regnamespace")
    return {name for (name,) in rows.fetchall()}


def computes(db: Connection, name: str, arguments: str) -> str:
    """The engine that a call is planned with."""
    rows = db.execute(f"explain verbose select models.{name}({arguments}) from generate_series(1, 9) x").fetchall()
    return "onnx" if any("dbscore_engine" in row for (row,) in rows) else "sql"


def shown(url: str, reference: str) -> str:
    result = CliRunner().invoke(app, ["show", reference, "--url", url], env={"COLUMNS": "400"})
    assert result.exit_code == 0
    return result.stdout


# --- choosing ---


def test_both_engines_are_measured_and_the_figures_kept_and_shown(client: Client, url: str) -> None:
    version = client.deploy("tip", classifier(), sample=frame())
    assert version.choice is not None
    costs = version.choice["microseconds"]
    assert {engine: set(cost) for engine, cost in costs.items()} == {"onnx": {"row", "batch"}, "sql": {"row", "batch"}}
    assert all(0 <= value < 1e6 for cost in costs.values() for value in cost.values())
    assert version.engine == min(costs, key=lambda engine: costs[engine]["row"])
    assert version.batch_engine == min(costs, key=lambda engine: costs[engine]["batch"])
    assert version.choice["refused"] is None
    # the comparison has what either engine answered
    assert version.parity is not None
    assert version.parity["rows"]["database"] == version.parity["rows"]["compiled"] > 0
    said = shown(url, "tip")
    assert f"{version.engine} for single rows, {version.batch_engine} for batches" in said
    assert f"sql {costs['sql']['row']:.2f} us" in said


def test_each_kind_of_call_gets_the_engine_that_is_faster_for_it() -> None:
    chosen = choose({"onnx": {"row": 9.0, "batch": 0.5}, "sql": {"row": 1.0, "batch": 0.75}})
    assert (chosen.rows, chosen.batches) == ("sql", "onnx")
    assert chosen.reason == (
        "the faster in this database for each: row: onnx 9.00 us against sql 1.00 us, "
        "batch: onnx 0.50 us against sql 0.75 us"
    )


@pytest.mark.parametrize(("rows", "batches"), [("sql", "onnx"), ("onnx", "sql")])
def test_rows_and_batches_may_have_an_engine_each_and_answer_the_same(
    client: Client, db: Connection, monkeypatch: pytest.MonkeyPatch, rows: str, batches: str
) -> None:
    costs = iter({"row": float(rows != engine), "batch": float(batches != engine)} for engine in ("onnx", "sql"))
    monkeypatch.setattr(comparison, "measured", lambda *_: next(costs))
    version = client.deploy("tip", classifier(), sample=frame())
    assert (version.engine, version.batch_engine) == (rows, batches)
    assert computes(db, "tip", "1, 2, x") == rows
    body = one(db, "select prosrc from pg_proc where proname = 'tip_v1_batch' and pronargs = 3")
    assert ("tip_v1_frame" in body) == (batches == "onnx")
    single = db.execute("select i, models.tip(1, i, -2) from generate_series(-5, 5) i").fetchall()
    query = "select i, 1 as a, i as b, -2 as c from generate_series(-5, 5) i"
    many = db.execute("select row_key, prediction from models.tip_batch(%s, 'i')", [query]).fetchall()
    assert sorted(single) == sorted(many)


@pytest.mark.parametrize("engine", ["onnx", "sql"])
def test_an_engine_that_is_asked_for_is_taken_without_measuring(client: Client, db: Connection, engine: str) -> None:
    version = client.deploy("tip", classifier(), sample=frame(), engine=engine)
    assert (version.engine, version.batch_engine) == (engine, engine)
    assert version.choice is not None
    assert version.choice["reason"] == f"engine {engine} was asked for"
    assert version.choice["microseconds"] == {}
    assert computes(db, "tip", "1, 2, x") == engine
    assert one(db, "select models.tip(1, 2, 3)") == 1


def test_an_engine_that_there_is_not_is_refused(client: Client) -> None:
    with pytest.raises(DbscoreError, match="no engine 'fast'"):
        client.deploy("tip", classifier(), sample=frame(), engine="fast")
    assert client.models() == []


def test_without_a_sample_the_number_of_splits_decides(client: Client) -> None:
    content = client.export(client.deploy("tip", classifier(), sample=frame()).reference)
    linear = client.deploy("linear", content)
    assert (linear.engine, linear.batch_engine) == ("sql", "sql")
    assert linear.choice is not None
    assert linear.choice["reason"] == "0 splits of trees are few; without a sample, nothing was measured"
    many = GradientBoostingRegressor(n_estimators=100, random_state=0).fit(frame(), frame()["a"])
    content = client.export(client.deploy("trees", many, sample=frame()).reference)
    trees = client.deploy("many", content)
    assert (trees.engine, trees.batch_engine) == ("onnx", "onnx")
    assert trees.choice is not None
    assert "are many; without a sample" in trees.choice["reason"]


def test_features_that_nothing_depends_on_are_shown(client: Client, url: str) -> None:
    rows = frame()
    model = DecisionTreeClassifier(max_depth=1).fit(rows, rows["b"] > 0)
    version = client.deploy("tip", model, sample=rows)
    assert version.choice is not None
    assert version.choice["unused"] == ["a", "c"]
    assert "unused features" in shown(url, "tip")
    assert "a, c" in shown(url, "tip")
    client.deploy("all", classifier(), sample=rows)
    assert "unused features" not in shown(url, "all")


def test_what_cannot_be_compiled_is_refused_for_engine_sql_and_computed_by_onnx_otherwise(
    client: Client, db: Connection, url: str
) -> None:
    with pytest.raises(CompilationError, match="tip cannot be compiled: the operator") as caught:
        client.deploy("tip", vectors(), sample=frame(), engine="sql")
    assert caught.value.sqlstate == "ML013"
    assert "--engine onnx" in caught.value.remedy
    assert client.models() == []
    version = client.deploy("tip", vectors(), sample=frame())
    assert (version.engine, version.batch_engine) == ("onnx", "onnx")
    assert "not compiled to SQL" in shown(url, "tip")
    assert computes(db, "tip", "1, 2, x") == "onnx"


def altered(monkeypatch: pytest.MonkeyPatch, expression: str) -> None:
    """Let the compiler write this for a prediction."""
    compiled = compiler.compile_model

    def wrong(*arguments: Any) -> Program:
        program = compiled(*arguments)
        result = replace(program.results[""], expression=expression, body=None, unchecked=())
        return replace(program, results={**program.results, "": result})

    monkeypatch.setattr(compiler, "compile_model", wrong)


@pytest.mark.parametrize(
    ("expression", "said"),
    [("42::double precision", "disagrees with the native model on"), ("(1 / (random() * 0)::int)::float8", "fails")],
)
def test_compiled_sql_that_disagrees_or_fails_is_left_out_or_refused(
    client: Client, db: Connection, monkeypatch: pytest.MonkeyPatch, expression: str, said: str
) -> None:
    altered(monkeypatch, expression)
    with pytest.raises(DbscoreError) as caught:
        client.deploy("price", line(), sample=frame(), engine="sql")
    if said != "fails":
        assert isinstance(caught.value, ParityError)
        assert "engine sql, disagree with the native model" in str(caught.value)
        assert "--engine onnx" in caught.value.remedy
    assert client.models() == []
    version = client.deploy("price", line(), sample=frame())
    assert (version.engine, version.batch_engine) == ("onnx", "onnx")
    assert version.choice is not None
    assert f"the compiled SQL {said}" in version.choice["refused"]
    assert version.parity is not None
    assert "compiled" not in version.parity["rows"]
    assert one(db, "select program -> 'results' is null from dbscore.version")
    assert computes(db, "price", "1, 2, x") == "onnx"
    assert one(db, "select models.price(1, 2, 3)") == pytest.approx(3)


def test_the_same_bytes_are_the_same_version_unless_another_engine_is_asked_for(client: Client) -> None:
    first = client.deploy("tip", classifier(), sample=frame(), engine="sql")
    assert client.deploy("tip", classifier(), sample=frame()) == first
    assert client.deploy("tip", classifier(), sample=frame(), engine="sql") == first
    second = client.deploy("tip", classifier(), sample=frame(), engine="onnx")
    assert (second.number, second.engine, second.sha256) == (2, "onnx", first.sha256)
    assert client.deploy("tip", classifier(), sample=frame(), engine="onnx") == second


# --- a compiled version's life ---


def test_an_upgrade_makes_the_functions_from_what_is_stored_without_the_onnx_package(
    client: Client, db: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.deploy("tip", classifier(), sample=frame(), engine="sql")
    db.execute("create view v as select models.tip(1, 2, 3), models.tip_v1_score(1, 2, 3)")
    before = db.execute("table v").fetchall()
    db.execute("alter function dbscore_compiled.tip_v1_check volatile")
    db.execute("update dbscore.installation set functions_sha256 = null")
    for package in ("onnx", "sklearn", "skl2onnx"):
        monkeypatch.setitem(__import__("sys").modules, package, None)
    client.upgrade()
    assert client.status().problems == ()
    assert one(db, "select provolatile from pg_proc where proname = 'tip_v1_check'") == "i"
    assert db.execute("table v").fetchall() == before


@pytest.mark.parametrize("action", ["retire", "drop"])
def test_a_compiled_version_s_functions_go_with_it(client: Client, db: Connection, action: str) -> None:
    client.deploy("tip", classifier(), sample=frame(), engine="sql")
    client.deploy("tip", line(), sample=frame(), engine="sql")
    db.execute("create view v as select models.tip_v2(1, 2, 3)")
    with pytest.raises(InUseError, match=r"view public\.v"):
        getattr(client, action)("tip:2")
    db.execute("drop view v")
    getattr(client, action)("tip:2")
    assert {name[:6] for name in compiled_functions(db)} == {"tip_v1"}
    client.drop("tip", with_aliases=True)
    assert compiled_functions(db) == set()


def test_a_role_executes_what_its_model_calls_and_nothing_of_another(
    client: Client, db: Connection, role: Callable[[], str], as_role: Callable[[str], Connection]
) -> None:
    analyst = role()
    for name in ("tip", "churn"):
        client.deploy(name, classifier(), sample=frame(), engine="sql")
    client.grant("tip", analyst)
    connection = as_role(analyst)
    assert one(connection, "select models.tip(1, 2, 3)") == 1
    with pytest.raises(psycopg.Error, match="feature a is NaN") as caught:
        connection.execute("select models.tip('NaN', 2, 3)")
    assert caught.value.sqlstate == "ML002"
    query = "select 1 as id, 1 as a, 2 as b, 3 as c"
    assert connection.execute("select prediction from models.tip_batch(%s, 'id')", [query]).fetchall() == [(1,)]
    for call in ("models.churn(1, 2, 3)", "models.churn_v1(1, 2, 3)", "dbscore_compiled.churn_v1_check(1, 2, 3)"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(f"select {call}")
    # the next version too
    client.deploy("tip", line(), sample=frame(), engine="sql")
    assert one(connection, "select models.tip_v2(1, 2, 3)") == pytest.approx(3)
    client.revoke("tip", analyst)
    for call in (
        "models.tip(1, 2, 3)",
        "dbscore_compiled.tip_v1_check(1, 2, 3)",
        "dbscore_compiled.tip_v1_why(1, 2, 3)",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(f"select {call}")


def test_public_has_nothing_of_the_compiled_versions(client: Client, db: Connection) -> None:
    client.deploy("tip", classifier(), sample=frame(), engine="sql")
    trees = GradientBoostingRegressor(n_estimators=60, random_state=0).fit(frame(), frame()["a"])
    client.deploy("trees", trees, sample=frame(), engine="sql")
    assert {"tip_v1_check", "trees_v1_check", "trees_v1"} <= compiled_functions(db)
    assert (
        db.execute(
            """select p.proname from pg_proc p cross join aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
           where p.pronamespace = 'dbscore_compiled'::regnamespace and a.grantee = 0
           union all
           select n.nspname from pg_namespace n cross join aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) a
           where n.nspname = 'dbscore_compiled' and a.grantee = 0"""
        ).fetchall()
        == []
    )


def test_a_batch_says_which_rows_a_compiled_version_refuses(client: Client, db: Connection) -> None:
    client.deploy("tip", classifier(), sample=frame(), engine="sql")
    query = "select i as id, case when i % 3 = 0 then float8 'NaN' else i end as a, 1 as b, 1 as c from generate_series(1, 20) i"
    with pytest.raises(psycopg.Error) as caught:
        db.execute("select * from models.tip_batch(%s, 'id')", [query])
    assert caught.value.sqlstate == "ML002"
    message = str(caught.value.diag.message_primary)
    assert message.startswith("6 of 20 rows cannot be scored: row '3': tip_v1: feature a is NaN, and the model")
    assert "row '15'" in message
    assert "row '18'" not in message
    assert "--max-errors" in str(caught.value.diag.message_hint)


# --- what the planner sees ---


def test_a_view_of_an_inlined_model_reads_a_range_by_its_index(client: Client, db: Connection) -> None:
    db.execute(
        "create table trips as select i as id, sin(i) as a, cos(i) as b, sin(i * 2) as c from generate_series(1, 50000) i"
    )
    db.execute("alter table trips add primary key (id); analyze trips")
    client.deploy("tip", classifier(), sample=frame(), table="trips", engine="sql")
    db.execute("create view scored as select id, models.tip_score(t) as score from trips t")
    between = "from scored where id between 1001 and 2000"
    plan = one(db, f"explain (analyze, format json) select sum(score) {between}")[0]["Plan"]
    scan = plan["Plans"][0]
    assert (scan["Node Type"], scan["Index Name"]) == ("Index Scan", "trips_pkey")
    assert scan["Actual Rows"] == 1000
    text = "\n".join(r for (r,) in db.execute(f"explain verbose select score {between}").fetchall())
    assert "models." not in text
    # what is not asked for is not computed
    assert "tip_v1" not in "\n".join(r for (r,) in db.execute(f"explain verbose select id {between}").fetchall())


@pytest.mark.parametrize(
    "model", [classifier, lambda: GradientBoostingRegressor(random_state=0).fit(frame(), frame()["a"])]
)
def test_parallel_workers_compute_what_one_backend_does(
    client: Client, db: Connection, model: Callable[[], Any]
) -> None:
    db.execute(
        "create table trips as select i as id, sin(i) as a, cos(i) as b, sin(i * 2) as c from generate_series(1, 5000) i"
    )
    client.deploy("tip", model(), sample=frame(), table="trips", engine="sql")
    single = db.execute("select id, models.tip(t) from trips t order by id").fetchall()
    forced = "debug_parallel_query" if int(one(db, "show server_version_num")) >= 160000 else "force_parallel_mode"
    db.execute("set parallel_setup_cost = 0; set parallel_tuple_cost = 0; set min_parallel_table_scan_size = 0")
    db.execute(f"set {forced} = on; alter table trips set (parallel_workers = 2)")
    statement = "select id, models.tip(t) from trips t"
    plan = "\n".join(r for (r,) in db.execute(f"explain (analyze, verbose) {statement}").fetchall())
    assert "Workers Launched: 2" in plan
    assert sorted(db.execute(statement).fetchall()) == single


# --- a server without PL/Python ---


@pytest.fixture(scope="module")
def older_url() -> Iterator[str]:
    """PostgreSQL 16 from the wheel."""
    (installation,) = [i for i in find_embedded() if i.version.startswith("16")]
    with local_server(installation=installation) as server:
        yield server.start()


@pytest.fixture(params=["plain_url", "older_url"])
def plain_database(request: pytest.FixtureRequest) -> Iterator[str]:
    with database(request.getfixturevalue(request.param)) as url:
        with Client(url) as client:
            client.install()
        yield url


@pytest.fixture
def plain(plain_database: str) -> Iterator[Client]:
    with Client(plain_database) as client:
        yield client


def test_without_pl_python_a_compiled_version_has_all_its_functions(plain: Client, plain_database: str) -> None:
    with psycopg.connect(plain_database, autocommit=True) as db:
        db.execute(
            "create table t (id int primary key, a float8, b float8, c float8); insert into t values (1, 1, 2, 3)"
        )
        version = plain.deploy("tip", classifier(), sample=frame(), table="t")
        assert (version.engine, version.batch_engine) == ("sql", "sql")
        assert version.choice is not None
        assert version.choice["reason"] == "the server has no PL/Python"
        plain.deploy("tip", line(), sample=frame(), table="t", alias="challenger")
        row = db.execute(
            """select models.tip(t), models.tip(a => 1, b => 2, c => 3), models.tip(array[1, 2, 3]::float8[]), t.id,
                      models.tip_score(t) = (models.tip_proba(t))[2], models.tip_challenger(t), models.tip_v2(t) from t"""
        ).fetchone()
        assert row == (1, 1, 1, 1, True, pytest.approx(3), pytest.approx(3))
        batch = "select * from models.tip_challenger_batch('select * from t', 'id')"
        assert db.execute(batch).fetchall() == [(1, pytest.approx(3))]
        plain.promote("tip@challenger")
        assert one(db, "select models.tip(t) from t") == pytest.approx(3)
        plain.rollback("tip")
        assert one(db, "select models.tip(t) from t") == 1
        db.execute("create table kept (a float8, tip float8 generated always as (models.tip_v2(a, 1, 1)) stored)")
        with pytest.raises(InUseError, match="kept"):
            plain.uninstall()
        db.execute("drop table kept")
        plain.uninstall()
        left = "select nspname from pg_namespace where nspname ~ 'dbscore|models'"
        assert db.execute(left).fetchall() == []


def test_without_pl_python_a_role_gets_what_it_is_granted(plain: Client, plain_database: str) -> None:
    plain.deploy("tip", classifier(), sample=frame())
    plain.deploy("churn", classifier(), sample=frame())
    with psycopg.connect(plain_database, autocommit=True) as db:
        db.execute("create role plain_analyst login password 'secret'")
        try:
            plain.grant("tip", "plain_analyst")
            own = at(plain_database, user="plain_analyst", password="secret")  # noqa: S106 - made for this test
            with psycopg.connect(own, autocommit=True) as mine:
                assert one(mine, "select models.tip(1, 2, 3)") == 1
                assert one(mine, 'select dbscore.predict(\'tip\', \'{"a": 1, "b": 2, "c": 3}\')')["prediction"] == 1
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    mine.execute("select models.churn(1, 2, 3)")
                with pytest.raises(psycopg.Error, match="no model 'churn'"):
                    mine.execute("select dbscore.predict('churn', '{}')")
                plain.revoke("tip", "plain_analyst")
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    mine.execute("select models.tip(1, 2, 3)")
        finally:
            db.execute("drop owned by plain_analyst cascade; drop role plain_analyst")


def test_without_pl_python_a_job_of_a_compiled_version_runs_on_the_server_and_sets_rows_aside(
    plain: Client, plain_database: str
) -> None:
    plain.deploy("tip", classifier(), sample=frame())
    with psycopg.connect(plain_database, autocommit=True) as db:
        db.execute(
            "create table trips as select i as id, sin(i) as a, cos(i) as b, sin(i * 2) as c from generate_series(1, 5000) i"
        )
        db.execute("update trips set a = 'NaN' where id in (7, 4000); update trips set b = null where id = 8")
        job = plain.score("tip", JobOptions(key="id", source="trips", into="scores", max_errors=5, chunk_rows=1000))
        assert (job.status, job.runs_on, job.rows_done, job.errors) == ("done", "server", 4998, 2)
        rows = db.execute(
            "select count(*) from scores join trips t using (id)"
            " where prediction is not distinct from models.tip_v1(a, b, c) and probabilities is not distinct from models.tip_v1_proba(a, b, c)"
        )
        assert rows.fetchone() == (4998,)
        reasons = db.execute("select id, reason from scores_errors order by id").fetchall()
        assert [key for key, _ in reasons] == [7, 4000]
        assert all("tip_v1: feature a is NaN" in reason for _, reason in reasons)


def test_without_pl_python_compiled_sql_that_disagrees_leaves_a_version_without_functions(
    plain: Client, plain_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    altered(monkeypatch, "42::double precision")
    version = plain.deploy("price", line(), sample=frame())
    assert version.engine == "onnx"
    with psycopg.connect(plain_database) as db:
        assert one(db, "select count(*) from pg_proc where pronamespace = 'models'::regnamespace") == 0
    with pytest.raises(DbscoreError, match="not compiled to SQL") as caught:
        plain.predict("price", {"a": 1, "b": 2, "c": 3})
    assert caught.value.sqlstate == "ML009"


def test_a_version_of_a_server_that_lost_pl_python_is_computed_in_sql(client: Client, db: Connection) -> None:
    client.deploy("tip", classifier(), sample=frame(), engine="sql")
    db.execute("update dbscore.version set engine = 'onnx', batch_engine = 'onnx'; drop schema dbscore_engine cascade")
    with client._transaction() as connection:
        from dbscore import registry

        assert registry.refresh(connection) == 1
    assert one(db, "select models.tip(1, 2, 3)") == 1
    query = "select 1 as id, 1 as a, 2 as b, 3 as c"
    assert db.execute("select prediction from models.tip_batch(%s, 'id')", [query]).fetchall() == [(1,)]
    assert client.predict("tip", {"a": 1, "b": 2, "c": 3})["prediction"] == 1


def mixed() -> tuple[Any, pd.DataFrame]:
    """A classifier of every scalar type of number, which takes missing values in none."""
    rng = np.random.default_rng(2)
    rows = pd.DataFrame(
        {
            "d": rng.normal(size=200),
            "r": rng.normal(size=200).astype("float32"),
            "n": rng.integers(-50, 50, 200).astype("int32"),
            "flag": rng.integers(0, 2, 200).astype(bool),
        }
    )
    return LogisticRegression().fit(rows, np.where(rows.d + rows.r > 0, "yes", "no")), rows


GOOD = {"d": 1.5, "r": 0.1, "n": 3, "flag": True}
ROWS = [
    GOOD,
    {**GOOD, "n": 3.0},
    {**GOOD, "d": None},
    {**GOOD, "d": 10**20},
    {**GOOD, "r": 1e-60},
    {**GOOD, "r": 0.30000000000000004},
    {**GOOD, "n": 3.5},
    {**GOOD, "n": 3_000_000_000},
    {**GOOD, "r": 1e39},
    {**GOOD, "flag": 1},
    {**GOOD, "flag": "true"},
    {**GOOD, "d": "1"},
    {**GOOD, "d": True},
    {**GOOD, "d": [1, 2]},
    {**GOOD, "d": {"x": 1}},
    {"d": 1, "r": 1},
    {**GOOD, "extra": 1, "other": 2},
    {},
]


def asked(db: Connection, row: object) -> Any:
    """The answer to a JSON object, or the refusal's SQLSTATE, message and hint."""
    try:
        return one(db, "select dbscore.predict('tip', %s::jsonb)", json.dumps(row))
    except psycopg.Error as error:
        return error.sqlstate, error.diag.message_primary.removeprefix("plpy.Error: "), error.diag.message_hint


def test_json_is_answered_and_refused_as_pl_python_does(
    client: Client, db: Connection, plain: Client, plain_database: str
) -> None:
    model, rows = mixed()
    for one_of in (client, plain):
        one_of.deploy("tip", model, sample=rows)
    with psycopg.connect(plain_database, autocommit=True) as other:
        for row in [*ROWS, [1, 2], 3, "text"]:
            expected, found = asked(db, row), asked(other, row)
            if isinstance(expected, dict) and expected["probabilities"] is not None:
                assert found["prediction"] == expected["prediction"]
                assert found["probabilities"] == pytest.approx(expected["probabilities"], rel=1e-12)
            else:
                assert found == expected


def test_json_of_arrays_and_answers_that_are_no_finite_numbers_are_as_pl_python_has_them(
    client: Client, db: Connection, plain: Client, plain_database: str
) -> None:
    rng = np.random.default_rng(3)
    vectors = rng.normal(size=(100, 3)).astype(np.float32)
    model = LinearRegression().fit(vectors, vectors.sum(axis=1))
    for one_of in (client, plain):
        one_of.deploy("tip", model, sample=vectors, embedding="v")
    given: list[Any] = [
        [1, 2, 3],
        [0.1, 0.2, 1e-50],
        [1, 2],
        [[1, 2, 3]],
        [1, None, 3],
        None,
        ["1", 2, 3],
        [1e40, 2, 3],
        [],
    ]
    with psycopg.connect(plain_database, autocommit=True) as other:
        for value in given:
            expected, found = asked(db, {"v": value}), asked(other, {"v": value})
            if isinstance(expected, dict) and expected["prediction"] is not None:
                assert found["prediction"] == pytest.approx(expected["prediction"], rel=1e-6)
            elif value != [[1, 2, 3]]:
                assert found == expected
            else:
                assert (found[0], expected[0]) == ("ML002", "ML002")
        for value, text in ((math.nan, "nan"), (math.inf, "inf"), (-math.inf, "-inf"), (0.1, 0.1), (2.0, 2.0)):
            for kind in ("float8", "float4"):
                single = np.float32(value).item() if kind == "float4" else value
                found = one(other, f"select dbscore.answered(%s::{kind})", value)
                assert found == (single if math.isfinite(single) else text)
                assert type(found) in (float, str)
                assert one(other, f"select dbscore.answered(array[%s]::{kind}[])", value) == [found]


def test_a_version_is_read_without_its_program(client: Client) -> None:
    version: Version = client.deploy("tip", classifier(), sample=frame(), engine="sql")
    assert "expression" not in json.dumps(version.to_json())
