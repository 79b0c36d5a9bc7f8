"""Every role against every object: nothing for PUBLIC, one call for one model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import psycopg
import pytest
from psycopg import sql
from sklearn.linear_model import LogisticRegression

from dbscore import Client
from dbscore.errors import NotFoundError, PrivilegeError
from tests.conftest import at, both_engines

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = both_engines

Connection = psycopg.Connection[Any]
Roles = "Callable[[], str]"
SCHEMAS = ("dbscore", "dbscore_compiled", "dbscore_engine", "experiments", "models")


def classifier(seed: int = 0) -> tuple[LogisticRegression, pd.DataFrame]:
    frame = pd.DataFrame(np.random.default_rng(seed).normal(size=(100, 2)), columns=["a", "b"])
    return LogisticRegression().fit(frame, (frame.sum(axis=1) > 0).astype(int)), frame


@pytest.fixture
def two_models(client: Client, db: Connection) -> Client:
    """`tip` and `churn`, both over the table `t`."""
    db.execute("create table t (a float8, b float8); insert into t values (1, 2); grant select on t to public")
    model, frame = classifier()
    for name in ("tip", "churn"):
        client.deploy(name, model, sample=frame, table="t")
    return client


def test_public_may_do_nothing_with_any_object(two_models: Client, db: Connection) -> None:
    """Every function, table, view, sequence and schema: no privilege of PUBLIC's."""
    held = db.execute(
        """select 'function', p.oid::regprocedure::text from pg_proc p
             where p.pronamespace::regnamespace::text = any (%(schemas)s)
               and exists (select from aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a where a.grantee = 0)
           union all
           select 'relation', c.oid::regclass::text from pg_class c
             where c.relnamespace::regnamespace::text = any (%(schemas)s) and c.relkind in ('r', 'v', 'S', 'm', 'p')
               and exists (select from aclexplode(c.relacl) a where a.grantee = 0)
           union all
           select 'schema', n.nspname from pg_namespace n
             where n.nspname = any (%(schemas)s) and exists (select from aclexplode(n.nspacl) a where a.grantee = 0)""",
        {"schemas": list(SCHEMAS)},
    ).fetchall()
    assert held == []


def test_a_role_without_a_grant_can_neither_score_nor_look(
    two_models: Client, role: Callable[[], str], as_role: Callable[[str], Connection]
) -> None:
    stranger = as_role(role())
    for statement in (
        "select models.tip(1, 2)",
        "select models.tip(t) from t",
        "select dbscore.predict('tip', '{}')",
        "select * from dbscore.versions",
        "select * from dbscore.artifact",
        "select dbscore_engine.pin('x', null)",
        "select dbscore_engine.sessions()",
        "select dbscore_engine.create_functions('x_v1', 'x', '{}')",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            stranger.execute(statement)


def test_one_grant_lets_a_role_score_one_model_in_every_form(
    two_models: Client, role: Callable[[], str], as_role: Callable[[str], Connection]
) -> None:
    analyst = role()
    two_models.grant("tip", analyst)
    connection = as_role(analyst)
    for statement in (
        "select models.tip(1, 2)",
        "select models.tip(t), models.tip_proba(t), models.tip_score(t), models.tip_v1(t) from t",
        "select models.tip(array[1, 2])",
        """select dbscore.predict('tip', '{"a": 1, "b": 2}')""",
        "select * from dbscore.sessions()",
    ):
        assert connection.execute(statement).fetchall()
    assert connection.execute("select model from dbscore.models").fetchall() == [("tip",)]
    assert connection.execute("select reference from dbscore.versions").fetchall() == [("tip:1",)]
    for statement in (
        "select models.churn(1, 2)",
        "select models.churn_v1(t) from t",
        "select dbscore_engine.churn_v1('x', 1, 2)",
        "select dbscore_engine.churn_v1_pin()",
        "select dbscore_engine.pin('x', null)",
        "select dbscore_engine.forget('x')",
        "select dbscore_engine.create_functions('x_v1', 'x', '{}')",
        "select dbscore_engine.body('1')",
        "select bytes from dbscore.artifact",
        "update dbscore.alias set version_id = 1",
        "create function models.x() returns integer language sql return 1",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(statement)
    with pytest.raises(psycopg.Error) as caught:
        connection.execute("select dbscore.predict('churn', '{}')")
    assert caught.value.sqlstate == "ML001"
    assert "churn" not in (caught.value.diag.message_hint or "")


def test_a_grant_reaches_versions_and_aliases_to_come(
    two_models: Client, role: Callable[[], str], as_role: Callable[[str], Connection]
) -> None:
    analyst = role()
    two_models.grant("tip", analyst)
    model, frame = classifier(7)
    two_models.deploy("tip", model, sample=frame, alias="challenger")
    two_models.promote("tip:2")
    connection = as_role(analyst)
    assert connection.execute(
        "select models.tip(1, 2) = models.tip_v2(1, 2), models.tip_challenger(1, 2) is not null"
    ).fetchone() == (True, True)


def test_a_revoke_takes_one_model_and_leaves_the_other(
    two_models: Client, role: Callable[[], str], as_role: Callable[[str], Connection]
) -> None:
    analyst = role()
    two_models.grant("tip", analyst)
    two_models.grant("churn", analyst)
    two_models.revoke("tip", analyst)
    connection = as_role(analyst)
    assert connection.execute("select models.churn(1, 2)").fetchone()
    for statement in ("select models.tip(1, 2)", "select models.tip_v1(1, 2)", "select models.tip(t) from t"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(statement)
    model, frame = classifier(7)
    two_models.deploy("tip", model, sample=frame, alias="champion")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute("select models.tip(1, 2)")


def test_granting_to_a_role_that_is_not_there_says_so(two_models: Client) -> None:
    with pytest.raises(NotFoundError, match="no role 'nobody_here'"):
        two_models.grant("tip", "nobody_here")


def test_a_role_with_a_hostile_name_is_quoted(two_models: Client, db: Connection) -> None:
    name = 'x"; drop table dbscore.model; --'
    db.execute(sql.SQL("create role {}").format(sql.Identifier(name)))
    try:
        two_models.grant("tip", name)
        assert db.execute(
            "select has_function_privilege(%s, 'models.tip_v1(float8, float8)', 'execute')", [name]
        ).fetchone() == (True,)
        two_models.revoke("tip", name)
        assert [m.name for m in two_models.models()] == ["churn", "tip"]
    finally:
        db.execute(sql.SQL("drop owned by {}").format(sql.Identifier(name)))
        db.execute(sql.SQL("drop role {}").format(sql.Identifier(name)))


def test_a_role_that_may_score_may_not_deploy(two_models: Client, role: Callable[[], str], url: str) -> None:
    analyst = role()
    two_models.grant("tip", analyst)
    model, frame = classifier(3)
    with Client(at(url, user=analyst, password=analyst)) as limited, pytest.raises(PrivilegeError):
        limited.deploy("mine", model, sample=frame)


def test_an_untrusted_search_path_does_not_change_what_is_called(
    two_models: Client, db: Connection, role: Callable[[], str], as_role: Callable[[str], Connection]
) -> None:
    analyst = role()
    two_models.grant("tip", analyst)
    db.execute("create schema trap; grant all on schema trap to public")
    connection = as_role(analyst)
    connection.execute(
        "create function trap.substring(bytea, integer, integer) returns bytea language sql return 'x'::bytea"
    )
    connection.execute("create function trap.format(text, variadic text[]) returns text language sql return 'select 1'")
    connection.execute("set search_path = trap, pg_catalog")
    answer = connection.execute("""select dbscore.predict('tip', '{"a": 1, "b": 2}')""").fetchone()[0]
    assert answer["prediction"] == 1


def test_the_signature_of_a_version_cannot_become_code(db: Connection) -> None:
    """What create_functions embeds in a PL/Python body stays a string, whatever is in it."""
    hostile = """'); import os; os.abort() #\\"\n\\N{DIGIT ONE}'''$runtime$$body$"""
    signature = {
        "task": "regression", "classes": None, "tensors": [],
        "features": [{"name": hostile, "source": hostile, "type": "text", "null_policy": "null", "tensor": "x", "position": 0,
                      "width": 1, "accepts_infinity": False, "largest": None, "categories": [hostile], "missing": None}],
        "outputs": [{"kind": "prediction", "tensor": "y", "type": "double precision", "width": 1}],
    }  # fmt: skip
    db.execute(
        "select dbscore_engine.create_functions('evil_v1', repeat('0', 64), %s)", [psycopg.types.json.Jsonb(signature)]
    )
    with pytest.raises(psycopg.Error, match="missing or damaged") as caught:
        db.execute("select dbscore_engine.evil_v1('x', 'y')")
    assert caught.value.sqlstate == "ML005"
    with pytest.raises(psycopg.Error, match="is not <model>_v<number>"):
        db.execute("select dbscore_engine.create_functions(%s, repeat('0', 64), '{}')", ['x_v1"; drop'])
    signature["features"][0]["type"] = "integer) returns void language sql as $$ $$; --"
    with pytest.raises(psycopg.Error, match="type that dbscore does not know"):
        db.execute(
            "select dbscore_engine.create_functions('evil_v2', repeat('0', 64), %s)",
            [psycopg.types.json.Jsonb(signature)],
        )


def test_neither_pin_nor_forget_takes_a_path(db: Connection) -> None:
    for path in ("/etc/passwd", "../../etc/passwd", "", "x"):
        for call in ("dbscore_engine.forget(%s)", "dbscore_engine.pin(%s, null)"):
            with pytest.raises(psycopg.Error, match="is not a model's hash") as caught:
                db.execute(f"select {call}", [path])
            assert caught.value.sqlstate == "ML005"


def test_a_role_that_was_let_score_one_version_by_hand_gets_no_others(
    two_models: Client, db: Connection, role: Callable[[], str], as_role: Callable[[str], Connection], engine: str
) -> None:
    narrow = role()
    model, frame = classifier(7)
    two_models.deploy("tip", model, sample=frame)
    db.execute(f"grant usage on schema models to {narrow}")
    called = {
        "onnx": ("dbscore_engine.tip_v1(text, float8, float8)", "dbscore_engine.tip_v1_pin()"),
        "sql": ("dbscore_compiled.tip_v1_check(float8, float8)",),
    }
    for function in ("models.tip_v1(float8, float8)", *called[engine]):
        db.execute(f"grant execute on function {function} to {narrow}")
    # what is the same for all models
    db.execute(f"grant execute on all functions in schema dbscore to {narrow}")
    two_models.promote("tip:2")
    connection = as_role(narrow)
    assert connection.execute("select models.tip_v1(1, 2)").fetchone()
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute("select models.tip(1, 2)")
