"""Installing, upgrading and uninstalling the schema, and acting as its owner."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import TYPE_CHECKING

from alembic import command
from alembic.script import ScriptDirectory
from psycopg import sql
from sqlalchemy import update
from sqlalchemy.dialects.postgresql import insert

from dbscore import runtime, tables
from dbscore.database import pin_search_path, run, scalar, script
from dbscore.errors import PrivilegeError, SchemaError
from dbscore.schema.source import (
    COMPILED_SCHEMA,
    ENGINE_SCHEMA,
    ENGINE_SCHEMA_SQL,
    EXPERIMENTS_SCHEMA,
    SUPERUSER_FILES,
    alembic_config,
    functions_sha256,
    package_version,
    rendered,
    sql_files,
    sql_sha256,
)

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = [
    "become_owner",
    "functions_are_current",
    "functions_were_made",
    "has_engine",
    "install",
    "install_for_owner",
    "installation_row",
    "models_schema",
    "refuse_superuser",
    "take_turns",
    "uninstall",
]

# any number will do, as long as every installer takes the same
LOCK_KEY = 0x6462_7363_6F72_65
OLDEST_POSTGRESQL = 14
PLPYTHON = "select exists (select from pg_available_extensions where name = 'plpython3u')"


def install(connection: Connection, *, schema_for_models: str | None = None) -> None:
    """Create the schema, or bring it to this package's version; do nothing where it is there already.

    Runs in the caller's transaction, and waits for whoever else installs, or changes models, to end.

    Args:
        connection: As a superuser, or as a role for which a superuser has run `dbscore sql --part superuser`.
        schema_for_models: Where the generated functions go: `models`, or another name where that is taken.

    Raises:
        SchemaError: The server is too old, the schema is newer than this package, or a schema's name is taken.
        PrivilegeError: A superuser must run something first; the remedy says what.
    """
    pin_search_path(connection)
    _refuse_server(connection)
    run(connection, "select pg_advisory_xact_lock(%s)", [LOCK_KEY])
    refuse_superuser(connection)
    before = installation_row(connection)
    _refuse_newer(connection, before)
    models = schema_for_models or (before.models_schema if before else "models")
    if before is not None and before.models_schema != models:
        raise SchemaError(
            f"the functions are in the schema {before.models_schema!r}, not in {models!r}",
            remedy="Leave --models-schema out, or uninstall first.",
        )
    superuser = _is_superuser(connection)
    plpython = scalar(connection, PLPYTHON)
    if before is None:
        _refuse_taken(connection, models)
    owner = _create_schemas(connection, models, superuser=superuser, plpython=plpython)
    row = {"models_schema": models, "package_version": package_version(), "sql_sha256": sql_sha256()}
    current = before is not None and all(getattr(before, key) == value for key, value in row.items())
    if plpython and _installed_runtime(connection) != runtime.sha256():
        if not superuser:
            raise _superuser_first(owner, models)
        current = False
    if current:
        return
    if plpython and superuser:
        for name in SUPERUSER_FILES:
            script(connection, rendered(name, owner=owner, models=models))
    run(connection, sql.SQL("set local role {}").format(sql.Identifier(owner)))
    command.upgrade(alembic_config(connection), "head")
    for name in sql_files():
        if name not in SUPERUSER_FILES:
            script(connection, rendered(name, owner=owner, models=models))
    statement = insert(tables.installation).values(**row)
    connection.execute(statement.on_conflict_do_update(index_elements=["installation_id"], set_=row))


def functions_are_current(connection: Connection) -> bool:
    """Return whether the versions' functions were made by what is installed now."""
    found = installation_row(connection)
    return found is not None and found.functions_sha256 == functions_sha256(plpython=has_engine(connection))


def functions_were_made(connection: Connection) -> None:
    """Record that the versions' functions were made by what is installed now.

    Without PL/Python some are missing: the first installation after it came makes them.
    """
    made = functions_sha256(plpython=has_engine(connection))
    connection.execute(update(tables.installation).values(functions_sha256=made))


def has_engine(connection: Connection) -> bool:
    """Return whether functions that score can be made: PL/Python is there, and dbscore's part of it."""
    there = "select to_regprocedure('dbscore_engine.create_functions(text, text, jsonb)') is not null"
    return bool(scalar(connection, there))


def install_for_owner(connection: Connection) -> str | None:
    """As a superuser, replay the part that only a superuser can, for a schema that another role owns.

    Nothing that the owner could have altered is read: a superuser's query on it would run the owner's code.

    Returns:
        The owner, who has to run the rest; None where there is no such schema, or the current role is no superuser.
    """
    pin_search_path(connection)
    owner = _weaker_owner(connection)
    if owner is not None and scalar(connection, PLPYTHON):
        run(connection, "select pg_advisory_xact_lock(%s)", [LOCK_KEY])
        create_engine_schema(connection)
        for name in SUPERUSER_FILES:
            script(connection, rendered(name, owner=owner, models="models"))
    return owner


def refuse_superuser(connection: Connection) -> None:
    """Refuse to go on as a superuser in a schema that a role with fewer rights owns.

    Such an owner may put triggers and views there, and they would run with the superuser's rights.

    Raises:
        PrivilegeError: It is so; the remedy names the owner.
    """
    owner = _weaker_owner(connection)
    if owner is not None:
        raise PrivilegeError(
            f"the schema dbscore belongs to {owner!r}, who is no superuser, and the current role is one",
            remedy=f"Connect as {owner}: as a superuser you would run whatever {owner} has put there.",
        )


def _weaker_owner(connection: Connection) -> str | None:
    """Return the owner of the schema, where it is no superuser but the session's or the current role is."""
    found = scalar(
        connection,
        """select o.rolname from pg_catalog.pg_namespace n join pg_catalog.pg_roles o on o.oid = n.nspowner
           where n.nspname = 'dbscore' and not o.rolsuper and exists (
               select from pg_catalog.pg_roles r where r.rolname in (current_user, session_user) and r.rolsuper)""",
    )
    return None if found is None else str(found)


def _refuse_server(connection: Connection) -> None:
    major = int(scalar(connection, "show server_version_num")) // 10000
    if major < OLDEST_POSTGRESQL:
        raise SchemaError(f"the server is PostgreSQL {major}", remedy=f"dbscore needs {OLDEST_POSTGRESQL} or later.")
    encoding = scalar(connection, "show server_encoding")
    if encoding != "UTF8":
        raise SchemaError(
            f"the database is encoded in {encoding}", remedy="Make it with encoding UTF8: models' texts are Unicode."
        )


def take_turns(connection: Connection) -> None:
    """Wait for other transactions that write the same rows of PostgreSQL's catalogue."""
    run(connection, "select pg_advisory_xact_lock(%s)", [LOCK_KEY + 1])


def _superuser_first(owner: str, models: str) -> PrivilegeError:
    option = "" if models == "models" else f" --models-schema {models}"
    return PrivilegeError(
        f"role {owner!r} is no superuser, and the PL/Python part of dbscore {package_version()} is not there yet",
        remedy=(
            "A superuser of this database must first run, once for each version of dbscore:\n"
            f"    dbscore sql --part superuser --owner {owner}{option} | psql --single-transaction"
            " -v ON_ERROR_STOP=1 DATABASE\n"
            "It prints SQL only, to be read first. Then run `dbscore install` again."
        ),
    )


def _is_superuser(connection: Connection) -> bool:
    return bool(scalar(connection, "select rolsuper from pg_roles where rolname = current_user"))


def _refuse_taken(connection: Connection, models: str) -> None:
    """Refuse a schema's name that something else has; an empty schema may have been made for us."""
    for schema in (tables.SCHEMA, models, COMPILED_SCHEMA, EXPERIMENTS_SCHEMA):
        taken = scalar(
            connection,
            """select exists (select from pg_depend d join pg_namespace n on n.oid = d.refobjid
               where d.refclassid = 'pg_namespace'::regclass and n.nspname = %s)""",
            [schema],
        )
        if taken:
            raise SchemaError(
                f"there is a schema {schema!r} already, and it is not dbscore's",
                remedy="Choose another with --models-schema NAME." if schema == models else "Rename or drop it.",
            )


def _create_schemas(connection: Connection, models: str, *, superuser: bool, plpython: bool) -> str:
    """Create the schemas that are not there, and return the owner of `dbscore`."""
    query = "select n.nspname, r.rolname from pg_namespace n join pg_roles r on r.oid = n.nspowner"
    owners = dict(run(connection, query).fetchall())
    me = scalar(connection, "select current_user")
    owner = owners.get(tables.SCHEMA, me)
    wanted = (tables.SCHEMA, models, COMPILED_SCHEMA, EXPERIMENTS_SCHEMA)
    missing = [schema for schema in wanted if schema not in owners]
    for schema in (models, COMPILED_SCHEMA, EXPERIMENTS_SCHEMA):
        if owners.get(schema, owner) != owner:
            choose = ", or choose another with --models-schema NAME" if schema == models else ""
            raise SchemaError(
                f"the schema {schema!r} belongs to {owners[schema]!r}, who could put other functions there",
                remedy=f"Let {owner!r} own it (alter schema){choose}.",
            )
    may_create = scalar(connection, "select has_database_privilege(current_database(), 'create')")
    if (missing and not may_create) or (plpython and not superuser and ENGINE_SCHEMA not in owners):
        raise _superuser_first(me, models)
    for schema in missing:
        # a schema is its owner's, whoever makes it
        statement = sql.SQL("create schema {} authorization {}")
        run(connection, statement.format(sql.Identifier(schema), sql.Identifier(owner)))
    if plpython and superuser:
        create_engine_schema(connection)
    return str(owner)


def create_engine_schema(connection: Connection) -> None:
    """Create the schema of the PL/Python functions; what another role has put there first would run as a superuser.

    Raises:
        SchemaError: There is one that no superuser owns.
    """
    script(connection, ENGINE_SCHEMA_SQL)


def become_owner(connection: Connection) -> None:
    """Act as the owner of the schema for the rest of the transaction, so that all functions have one owner.

    An installation waits for the transaction to end, and it for an installation.

    Raises:
        SchemaError: dbscore is not installed here.
        PrivilegeError: The current role is not a member of the owner.
    """
    pin_search_path(connection)
    refuse_superuser(connection)
    run(connection, "select pg_advisory_xact_lock_shared(%s)", [LOCK_KEY])
    models_schema(connection)
    owner, member, me = run(
        connection,
        """select r.rolname, pg_has_role(current_user, r.oid, 'member'), current_user
           from pg_namespace n join pg_roles r on r.oid = n.nspowner where n.nspname = 'dbscore'""",
    ).fetchall()[0]
    if not member:
        raise PrivilegeError(
            f"role {me!r} may not change models: they belong to {owner!r}",
            remedy=f"Connect as {owner}, or let a superuser run: grant {owner} to {me}",
        )
    run(connection, sql.SQL("set local role {}").format(sql.Identifier(owner)))


def models_schema(connection: Connection) -> str:
    """Return the schema that holds the generated functions.

    Raises:
        SchemaError: dbscore is not installed here.
    """
    found = installation_row(connection)
    if found is None:
        raise SchemaError("dbscore is not installed in this database", remedy="Run `dbscore install`.")
    return str(found.models_schema)


def installation_row(connection: Connection) -> SimpleNamespace | None:
    """Return the row of `dbscore.installation`, or None where dbscore is not installed.

    A column that an older installation does not have yet is None.
    """
    if scalar(connection, "select to_regclass('dbscore.installation')") is None:
        return None
    found = scalar(connection, "select to_jsonb(i) from dbscore.installation i")
    return (
        None if found is None else SimpleNamespace(**{c.name: found.get(c.name) for c in tables.installation.columns})
    )


def _refuse_newer(connection: Connection, installation: SimpleNamespace | None) -> None:
    if scalar(connection, "select to_regclass('dbscore.alembic_version')") is None:
        return
    revision = scalar(connection, "select version_num from dbscore.alembic_version")
    known = {s.revision for s in ScriptDirectory.from_config(alembic_config(connection)).walk_revisions()}
    there = installation.package_version if installation is not None else "unknown"
    if revision not in known or _ordered(there) > _ordered(package_version()):
        raise SchemaError(
            f"the schema is of dbscore {there} (migration {revision}), newer than this package, {package_version()}",
            remedy=f"Upgrade the package: pip install 'dbscore>={there}'.",
        )


def _ordered(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])


def _installed_runtime(connection: Connection) -> str | None:
    """Return the hash of the runtime that the database has."""
    body = scalar(connection, "select prosrc from pg_proc where oid = to_regprocedure('dbscore_engine.body(text)')")
    found = re.search(r"'dbscore ([0-9a-f]{64})'", body or "")
    return found[1] if found else None


def uninstall(connection: Connection, *, cascade: bool = False) -> None:
    """Drop the schemas, with every model in them.

    Without `cascade`, what is ours is dropped piece by piece, so that PostgreSQL refuses where something else uses it.

    Raises:
        InUseError: Something outside uses a function or a view, or something of others is in one of the schemas, and
            `cascade` is False.
        SchemaError: dbscore is not installed here.
        PrivilegeError: The PL/Python part belongs to a superuser, and the current role is none.
    """
    pin_search_path(connection)
    refuse_superuser(connection)
    run(connection, "select pg_advisory_xact_lock(%s)", [LOCK_KEY])
    models = models_schema(connection)
    for (sha256,) in run(connection, "select sha256 from dbscore.artifact").fetchall():
        if scalar(connection, "select to_regprocedure('dbscore_engine.forget(text)')") is not None:
            run(connection, "select dbscore_engine.forget(%s)", [sha256])
    if not cascade:
        _drop_pieces(connection, models)
    statement = sql.SQL("drop schema {} cascade" if cascade else "drop schema {} restrict")
    for name in (models, COMPILED_SCHEMA, EXPERIMENTS_SCHEMA, tables.SCHEMA, ENGINE_SCHEMA):
        # the engine's is a superuser's, who may drop it when the owner is gone
        query = "select pg_has_role(nspowner, 'usage') from pg_namespace where nspname = %s"
        if scalar(connection, query, [name]):
            run(connection, statement.format(sql.Identifier(name)))


def _drop_pieces(connection: Connection, models: str) -> None:
    """Drop the functions, views and tables that are dbscore's, and nothing that depends on them."""
    views = run(
        connection,
        """select schemaname, viewname from pg_views where schemaname = 'dbscore'
           or (schemaname = 'experiments' and viewname in (select e.name || '_log' from dbscore.experiment e))""",
    ).fetchall()
    relations = [sql.Identifier(*names) for names in views]
    if relations:
        # views call functions, functions take tables' rows
        run(connection, sql.SQL("drop view {}").format(sql.SQL(", ").join(relations)))
    # what dbscore generated in the models' schema calls the engine, or another function there
    ours = run(
        connection,
        """select p.oid::regprocedure::text from pg_proc p join pg_namespace n on n.oid = p.pronamespace
           where pg_has_role(p.proowner, 'usage') and (n.nspname in ('dbscore', 'dbscore_engine', 'dbscore_compiled')
              or (n.nspname = 'experiments' and exists (
                  select from dbscore.experiment e where p.proname = any (dbscore.experiment_functions(e.name))))
              or (n.nspname = %s and exists (
                  select from dbscore.model m
                  where p.proname = m.name or p.proname like replace(m.name, '_', '\\_') || '\\_%%')))""",
        [models],
    ).fetchall()
    if ours:
        run(connection, f"drop routine {', '.join(name for (name,) in ours)}")
    names = [t.name for t in tables.metadata.sorted_tables] + ["alembic_version"]
    relations = [sql.Identifier(tables.SCHEMA, name) for name in names]
    run(connection, sql.SQL("drop table {}").format(sql.SQL(", ").join(relations)))
