"""Install, upgrade, uninstall, status, printed SQL: idempotent, safe at once, with and without a superuser."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from psycopg import sql
from sklearn.linear_model import LogisticRegression
from sqlalchemy import create_engine

from dbscore import Client, runtime, schema
from dbscore.errors import InUseError, PrivilegeError, SchemaError, ServerError
from dbscore.schema import source
from dbscore.tables import metadata
from tests.conftest import at

if TYPE_CHECKING:
    from collections.abc import Callable

Connection = psycopg.Connection[Any]


def classifier() -> tuple[LogisticRegression, pd.DataFrame]:
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(100, 2)), columns=["a", "b"])
    return LogisticRegression().fit(frame, (frame.sum(axis=1) > 0).astype(int)), frame


def catalogue(url: str) -> list[tuple[Any, ...]]:
    """Every object of ours with its definition, for comparing two installations."""
    with psycopg.connect(url) as connection:
        return connection.execute(
            """select 'function', p.oid::regprocedure::text, case when p.prokind = 'a' then 'aggregate' else md5(pg_get_functiondef(p.oid)) end, obj_description(p.oid)
                 from pg_proc p where p.pronamespace::regnamespace::text in ('dbscore', 'dbscore_engine', 'dbscore_compiled', 'experiments', 'models')
               union all
               select 'column', c.oid::regclass::text || '.' || a.attname, format_type(a.atttypid, a.atttypmod), a.attstorage::text
                 from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0
                 where c.relnamespace = 'dbscore'::regnamespace
               union all
               select 'constraint', conrelid::regclass::text || '.' || conname, pg_get_constraintdef(oid), null
                 from pg_constraint where connamespace = 'dbscore'::regnamespace
               order by 1, 2"""
        ).fetchall()


def test_the_migrations_make_exactly_the_tables_of_the_code(url: str) -> None:
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection,
            opts={
                "include_schemas": True,
                "version_table_schema": "dbscore",
                "compare_server_default": True,
                # the months of predictions are no tables of their own
                "include_name": lambda name, kind, _: (
                    (kind != "schema" or name == "dbscore")
                    and not (kind == "table" and str(name).startswith("prediction_"))
                ),
            },
        )
        assert compare_metadata(context, metadata) == []
    engine.dispose()


def test_to_uninstall_takes_experiments_along_and_nothing_of_others(url: str, db: Connection) -> None:
    model, frame = classifier()
    with Client(url) as client:
        for alias in (None, "challenger"):
            client.deploy("tip", model, sample=frame, alias=alias)
        db.execute("select dbscore.create_experiment('test', 'id', array['a=tip:1:50', 'b=tip@challenger:50'])")
        db.execute("select dbscore.start_experiment('test')")
        db.execute("create view mine as select * from experiments.test_log")
        with pytest.raises(InUseError, match="mine"):
            client.uninstall()
        db.execute("drop view mine")
        client.uninstall()
    left = db.execute(
        "select nspname from pg_namespace where nspname in ('dbscore', 'experiments', 'models')"
    ).fetchall()
    assert left == []


def test_artifacts_are_stored_outside_the_row_and_uncompressed(db: Connection) -> None:
    row = db.execute(
        "select attstorage from pg_attribute where attrelid = 'dbscore.artifact'::regclass and attname = 'bytes'"
    )
    assert row.fetchone() == ("e",)


def test_installing_twice_changes_nothing(url: str) -> None:
    before = catalogue(url)
    with Client(url) as client:
        client.install()
    assert catalogue(url) == before


def test_two_installations_at_once_both_succeed(empty_url: str) -> None:
    failures: list[Exception] = []

    def install() -> None:
        try:
            with Client(empty_url) as client:
                client.install()
        except Exception as error:  # noqa: BLE001 - shown by the assertion
            failures.append(error)

    threads = [threading.Thread(target=install) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    with Client(empty_url) as client:
        assert client.status().problems == ()


def test_an_installation_that_fails_leaves_nothing(empty_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = source.sql_files()
    broken = {**whole, "990_privileges.sql": "select 1 / 0"}
    for module in (source, schema.installation):
        monkeypatch.setattr(module, "sql_files", lambda: broken)
    with Client(empty_url) as client, pytest.raises(ServerError, match="division by zero"):
        client.install()
    with psycopg.connect(empty_url) as connection:
        found = connection.execute(
            "select nspname from pg_namespace where nspname in ('dbscore', 'models', 'dbscore_engine', 'dbscore_compiled')"
        )
        assert found.fetchall() == []


def test_a_schema_newer_than_the_package_is_refused(client: Client, db: Connection) -> None:
    db.execute("update dbscore.installation set package_version = '99.0.0'")
    with pytest.raises(SchemaError, match=r"99\.0\.0") as caught:
        client.install()
    assert "pip install" in caught.value.remedy
    db.execute("update dbscore.installation set package_version = '0.0.1'")
    db.execute("update dbscore.alembic_version set version_num = '9999'")
    with pytest.raises(SchemaError, match="9999"):
        client.upgrade()


def test_upgrade_needs_an_installation(empty_url: str) -> None:
    with Client(empty_url) as client, pytest.raises(SchemaError, match="not installed") as caught:
        client.upgrade()
    assert "dbscore install" in caught.value.remedy


def test_an_upgrade_makes_the_functions_anew_and_keeps_grants_and_dependants(
    client: Client, db: Connection, role: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, frame = classifier()
    client.deploy("tip", model, sample=frame)
    analyst = role()
    client.grant("tip", analyst)
    db.execute("create view v as select models.tip(1, 2) as alias, models.tip_v1(1, 2) as version")
    newer = runtime.text() + "\n# a later runtime\n"
    monkeypatch.setattr(runtime, "text", lambda: newer)
    client.upgrade()
    body = db.execute(
        "select prosrc from pg_proc where oid = 'dbscore_engine.tip_v1(text, float8, float8)'::regprocedure"
    )
    assert "# a later runtime" in body.fetchone()[0]
    assert db.execute("select * from v").fetchone() == (1, 1)
    privilege = "select has_function_privilege(%s, 'dbscore_engine.tip_v1(text, float8, float8)', 'execute')"
    assert db.execute(privilege, [analyst]).fetchone() == (True,)
    assert client.status().problems == ()


def test_status_says_that_an_upgrade_is_due(client: Client, db: Connection) -> None:
    db.execute("update dbscore.installation set sql_sha256 = 'old', package_version = '0.0.1'")
    assert any("dbscore upgrade" in problem for problem in client.status().problems)
    client.upgrade()
    db.execute("update dbscore.installation set functions_sha256 = null")
    assert any("versions' functions" in problem for problem in client.status().problems)
    client.upgrade()
    assert client.status().problems == ()


def test_an_owner_who_is_no_superuser_upgrades_after_the_superusers_part(
    empty_url: str, role: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = role()
    mine = at(empty_url, user=owner, password=owner)
    model, frame = classifier()
    with psycopg.connect(empty_url, autocommit=True) as superuser, Client(mine) as client:
        superuser.execute(schema.printed_sql("superuser", owner=owner).encode())
        client.install()
        client.deploy("tip", model, sample=frame)
        newer = runtime.text() + "\n# a later runtime\n"
        monkeypatch.setattr(runtime, "text", lambda: newer)
        with pytest.raises(PrivilegeError, match="no superuser"):
            client.upgrade()
        with Client(empty_url) as as_superuser, pytest.raises(PrivilegeError, match="up to date") as caught:
            as_superuser.install()
        assert owner in caught.value.remedy
        assert client.upgrade().problems == ()
        body = superuser.execute("select prosrc from pg_proc where proname = 'tip_v1' and prolang <> 14 limit 1")
        assert "# a later runtime" in body.fetchone()[0]


def test_a_superuser_does_not_run_what_the_owner_has_put_into_the_schema(
    empty_url: str, role: Callable[[], str]
) -> None:
    owner = role()
    mine = at(empty_url, user=owner, password=owner)
    with psycopg.connect(empty_url, autocommit=True) as superuser:
        superuser.execute(schema.printed_sql("superuser", owner=owner).encode())
    with Client(mine) as client:
        client.install()
    with psycopg.connect(mine, autocommit=True) as connection:
        connection.execute(
            """create function dbscore.rise() returns trigger language plpgsql as $$
               begin execute 'reset role'; execute format('alter role %I superuser', tg_argv[0]); return new; end $$"""
        )
        for event in ("insert", "update"):
            connection.execute(
                f"create trigger rise_{event} before {event} on dbscore.installation for each row execute function dbscore.rise('{owner}')"
            )
    with Client(empty_url) as client:
        for command in (client.install, client.upgrade, client.status, client.models, client.uninstall):
            with pytest.raises(PrivilegeError, match="no superuser"):
                command()
    with psycopg.connect(empty_url) as superuser:
        assert superuser.execute("select rolsuper from pg_roles where rolname = %s", [owner]).fetchone() == (False,)


def test_nothing_in_public_is_taken_for_postgresqls_own_at_an_installation(
    empty_url: str, role: Callable[[], str]
) -> None:
    intruder = role()
    with psycopg.connect(empty_url, autocommit=True) as superuser:
        superuser.execute("grant create on schema public to public")
        with psycopg.connect(at(empty_url, user=intruder, password=intruder), autocommit=True) as connection:
            for arguments in ("text, text, text", "text, text", "text, text, text, text"):
                connection.execute(
                    f"""create function public.format({arguments}) returns text language plpgsql as
                        $$ begin execute 'alter role {intruder} superuser'; return pg_catalog.format('select 1'); end $$"""
                )
        for install in (lambda: superuser.execute(schema.printed_sql().encode()), lambda: Client(empty_url).install()):
            install()
            assert superuser.execute("select rolsuper from pg_roles where rolname = %s", [intruder]).fetchone() == (
                False,
            )
            Client(empty_url).uninstall()


@pytest.mark.parametrize("name", ["o'brien", "per%cent", "dol$do$lar", 'we"ird', "x'; select 1/0; --", "back\\slash"])
def test_an_owner_of_any_name_can_be_given_the_schema(empty_url: str, name: str) -> None:
    with psycopg.connect(empty_url, autocommit=True) as superuser:
        superuser.execute(sql.SQL("create role {} login").format(sql.Identifier(name)))
        try:
            superuser.execute(schema.printed_sql("all", owner=name).encode())
            found = superuser.execute(
                "select nspowner::regrole = quote_ident(%s)::regrole from pg_namespace where nspname = 'dbscore'",
                [name],
            )
            assert found.fetchone() == (True,)
        finally:
            superuser.execute(sql.SQL("drop owned by {} cascade").format(sql.Identifier(name)))
            superuser.execute(sql.SQL("drop role {}").format(sql.Identifier(name)))


def test_models_can_live_in_another_schema_where_the_name_is_taken(empty_url: str) -> None:
    with psycopg.connect(empty_url, autocommit=True) as connection:
        connection.execute("create schema models create table cars (id int)")
        with Client(empty_url) as client:
            with pytest.raises(SchemaError, match="'models'") as caught:
                client.install()
            assert "--models-schema" in caught.value.remedy
            assert client.install(models_schema="Scoring Models").models_schema == "Scoring Models"
            model, frame = classifier()
            client.deploy("tip", model, sample=frame)
            assert connection.execute('select "Scoring Models".tip(1, 2)').fetchone() == (1,)
            assert client.predict("tip", {"a": 1, "b": 2})["prediction"] == 1
            with pytest.raises(SchemaError, match="not in 'other'"):
                client.install(models_schema="other")
            client.uninstall()
        assert connection.execute("select to_regclass('models.cars') is not null").fetchone() == (True,)


def test_uninstall_drops_everything_and_a_new_installation_works(client: Client, db: Connection) -> None:
    model, frame = classifier()
    client.deploy("tip", model, sample=frame)
    client.uninstall()
    assert db.execute(
        "select count(*) from pg_namespace where nspname in ('dbscore', 'models', 'dbscore_engine', 'dbscore_compiled')"
    ).fetchone() == (0,)
    client.install()
    assert client.models() == []


def test_uninstall_names_what_still_uses_a_model(client: Client, db: Connection) -> None:
    model, frame = classifier()
    client.deploy("tip", model, sample=frame)
    db.execute("create view public.scored as select models.tip(1, 2)")
    db.execute("create table kept (a float8, b float8, tip bigint generated always as (models.tip_v1(a, b)) stored)")
    with pytest.raises(InUseError) as caught:
        client.uninstall()
    assert "kept" in str(caught.value)
    assert "scored" in str(caught.value)
    assert client.status().models == 1
    client.uninstall(cascade=True)
    assert db.execute("select to_regclass('public.scored'), to_regclass('kept') is not null").fetchone() == (None, True)


def test_a_role_that_is_no_superuser_is_told_what_one_must_run_and_then_does_the_rest(
    empty_url: str, role: Callable[[], str]
) -> None:
    owner = role()
    mine = at(empty_url, user=owner, password=owner)
    with Client(mine) as client:
        with pytest.raises(PrivilegeError, match="no superuser") as caught:
            client.install()
        assert f"dbscore sql --part superuser --owner {owner}" in caught.value.remedy
        with psycopg.connect(empty_url, autocommit=True) as superuser:
            superuser.execute(schema.printed_sql("superuser", owner=owner).encode())
        assert client.install().problems == ()
        assert client.status().owner == owner
        model, frame = classifier()
        client.deploy("tip", model, sample=frame)
        client.deploy("tip", LogisticRegression(C=0.1).fit(frame, model.predict(frame)), sample=frame)
        client.promote("tip:2")
        assert client.predict("tip", {"a": 1, "b": 2})["version"] == 2
        client.drop("tip:1")
        with psycopg.connect(mine) as connection:
            owners = connection.execute(
                """select distinct proowner::regrole::text from pg_proc
                   where pronamespace = 'models'::regnamespace or proname like 'tip%'"""
            ).fetchall()
            assert owners == [(owner,)]
        client.drop("tip", with_aliases=True)
        assert client.models() == []


def test_the_owner_of_the_schema_cannot_reach_a_superusers_rights(empty_url: str, role: Callable[[], str]) -> None:
    owner = role()
    with psycopg.connect(empty_url, autocommit=True) as superuser:
        superuser.execute(schema.printed_sql("superuser", owner=owner).encode())
    with Client(at(empty_url, user=owner, password=owner)) as client:
        client.install()
    with psycopg.connect(at(empty_url, user=owner, password=owner), autocommit=True) as connection:
        for statement in (
            "create or replace function dbscore_engine.body(call text) returns text language sql return 'import os'",
            "drop function dbscore_engine.body(text)",
            "drop schema dbscore_engine cascade",
            "create function dbscore_engine.quote_ident(text) returns text language sql return 'x'",
            "create function models.f() returns integer language plpython3u as 'return 1'",
            "alter function dbscore_engine.create_functions(text, text, jsonb) set search_path = models",
            "create or replace function dbscore_engine.pin(sha256 text, session_cache text) returns text language plpython3u as 'return 1'",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement)


def test_the_printed_sql_installs_what_install_installs(empty_url: str, url: str) -> None:
    with psycopg.connect(empty_url, autocommit=True) as connection:
        connection.execute(schema.printed_sql().encode())
    with Client(empty_url) as client:
        assert client.status().problems == ()
        assert catalogue(empty_url) == catalogue(url)
        client.install()
        model, frame = classifier()
        client.deploy("tip", model, sample=frame)
    assert [row for row in catalogue(empty_url) if ".tip" not in row[1]] == catalogue(url)


def test_a_member_of_the_owner_may_deploy_and_the_owner_owns_it(
    client: Client, db: Connection, url: str, role: Callable[[], str]
) -> None:
    owner, member = role(), role()
    db.execute(sql.SQL("grant {} to {}").format(sql.Identifier(owner), sql.Identifier(member)))
    client.uninstall()
    db.execute(schema.printed_sql("superuser", owner=owner).encode())
    with Client(at(url, user=owner, password=owner)) as first:
        first.install()
    model, frame = classifier()
    with Client(at(url, user=member, password=member)) as second:
        version = second.deploy("tip", model, sample=frame)
        assert version.created_by == member
    row = db.execute(
        "select proowner::regrole::text from pg_proc where oid = 'models.tip(float8, float8)'::regprocedure"
    )
    assert row.fetchone() == (owner,)


def test_a_server_without_its_packages_is_told_the_command_for_its_python(client: Client, db: Connection) -> None:
    python = db.execute("select dbscore_engine.python()").fetchone()[0]["python"]
    # an import that fails, as on a server that has no onnxruntime
    db.execute(
        f"""create or replace function dbscore_engine.python() returns jsonb language sql
            return '{{"python": "{python}", "numpy": "2.0", "onnxruntime_error": "ModuleNotFoundError: No module named onnxruntime"}}'::jsonb"""
    )
    status = client.status()
    assert status.engines == ("sql",)
    assert len(status.problems) == 1
    model, frame = classifier()
    for engine in ("auto", "onnx"):
        with pytest.raises(ServerError, match="onnxruntime") as caught:
            client.deploy("tip", model, sample=frame, engine=engine)
        assert f"--python-version {python}" in str(caught.value)
        assert client.models() == []
    assert client.deploy("tip", model, sample=frame, engine="sql").engine == "sql"
