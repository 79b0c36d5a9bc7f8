"""Installing, upgrading and uninstalling the schema, and acting as its owner."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from alembic import command
from alembic.script import ScriptDirectory
from psycopg import sql
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert

from dbscore import runtime, tables
from dbscore.database import run, scalar, script
from dbscore.errors import InUseError, PrivilegeError, SchemaError
from dbscore.schema.source import (
    ENGINE_SCHEMA,
    SUPERUSER_FILES,
    alembic_config,
    package_version,
    rendered,
    sql_files,
    sql_sha256,
)

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["become_owner", "install", "installation_row", "models_schema", "uninstall"]

# any number will do, as long as every installer takes the same
LOCK_KEY = 0x6462_7363_6F72_65
OLDEST_POSTGRESQL = 14
PLPYTHON = "select exists (select from pg_available_extensions where name = 'plpython3u')"


def install(connection: Connection, *, schema_for_models: str | None = None) -> bool:
    """Create the schema, or bring it to this package's version; do nothing where it is there already.

    Runs in the caller's transaction, and waits for another installation to end.

    Args:
        connection: As a superuser, or as a role for which a superuser has run `dbscore sql --part superuser`.
        schema_for_models: Where the generated functions go: `models`, or another name where that is taken.

    Returns:
        Whether the runtime changed, so that the versions' functions have to be made anew.

    Raises:
        SchemaError: The server is too old, the schema is newer than this package, or a schema's name is taken.
        PrivilegeError: A superuser must run something first; the remedy says what.
    """
    major = int(scalar(connection, "show server_version_num")) // 10000
    if major < OLDEST_POSTGRESQL:
        raise SchemaError(f"the server is PostgreSQL {major}", remedy=f"dbscore needs {OLDEST_POSTGRESQL} or later.")
    run(connection, "select pg_advisory_xact_lock(%s)", [LOCK_KEY])
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
    there = _installed_runtime(connection)
    if plpython and superuser:
        for name in SUPERUSER_FILES:
            script(connection, rendered(name, owner=owner, models=models))
    elif plpython and there != runtime.sha256():
        raise _superuser_first(owner, models)
    run(connection, sql.SQL("set local role {}").format(sql.Identifier(owner)))
    command.upgrade(alembic_config(connection), "head")
    for name in sql_files():
        if name not in SUPERUSER_FILES:
            script(connection, rendered(name, owner=owner, models=models))
    row = {"models_schema": models, "package_version": package_version(), "sql_sha256": sql_sha256()}
    if before is None or any(getattr(before, key) != value for key, value in row.items()):
        statement = insert(tables.installation).values(**row)
        connection.execute(statement.on_conflict_do_update(index_elements=["installation_id"], set_=row))
    return plpython and there != runtime.sha256()


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
    for schema in (tables.SCHEMA, models):
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
    missing = [schema for schema in (tables.SCHEMA, models) if schema not in owners]
    may_create = scalar(connection, "select has_database_privilege(current_database(), 'create')")
    if (missing and not may_create) or (plpython and not superuser and ENGINE_SCHEMA not in owners):
        raise _superuser_first(me, models)
    for schema in missing:
        # a schema is its owner's, whoever makes it
        statement = sql.SQL("create schema {} authorization {}")
        run(connection, statement.format(sql.Identifier(schema), sql.Identifier(owner)))
    if plpython and superuser:
        run(connection, sql.SQL("create schema if not exists {}").format(sql.Identifier(ENGINE_SCHEMA)))
    return str(owner)


def become_owner(connection: Connection) -> None:
    """Act as the owner of the schema for the rest of the transaction, so that all functions have one owner.

    Raises:
        SchemaError: dbscore is not installed here.
        PrivilegeError: The current role is not a member of the owner.
    """
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


def installation_row(connection: Connection) -> Any:  # noqa: ANN401 - SQLAlchemy types no row's columns
    """Return the row of `dbscore.installation`, or None where dbscore is not installed."""
    if scalar(connection, "select to_regclass('dbscore.installation')") is None:
        return None
    return connection.execute(select(tables.installation)).one_or_none()


def _refuse_newer(connection: Connection, installation: Any) -> None:  # noqa: ANN401 - a row
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

    Raises:
        InUseError: Something outside uses a function, such as a view or a generated column, and `cascade` is False.
        SchemaError: dbscore is not installed here.
        PrivilegeError: The PL/Python part belongs to a superuser, and the current role is none.
    """
    models = models_schema(connection)
    users = _users(connection, models)
    if users and not cascade:
        raise InUseError(f"still in use by {', '.join(users)}", remedy="Drop these first, or drop them with --cascade.")
    for schema in (models, tables.SCHEMA, ENGINE_SCHEMA):
        run(connection, sql.SQL("drop schema if exists {} cascade").format(sql.Identifier(schema)))


def _users(connection: Connection, models: str) -> list[str]:
    """Return what lies outside dbscore's schemas and depends on something in them."""
    ours = [models, tables.SCHEMA, ENGINE_SCHEMA]
    rows = run(
        connection,
        """with schemas as (
               select oid from pg_namespace where nspname = any (%(ours)s)
           ), ours as (
               select 'pg_proc'::regclass as kind, oid from pg_proc where pronamespace in (table schemas)
               union all
               select 'pg_class'::regclass, oid from pg_class where relnamespace in (table schemas)
           ), users as (
               -- a view depends by its rule, a generated column by its expression
               select coalesce(rule.ev_class::regclass, expression.adrelid::regclass)::text as relation,
                      pg_describe_object(d.classid, d.objid, d.objsubid) as described,
                      case when rule.oid is not null or expression.oid is not null then 'pg_class'::regclass
                           else d.classid::regclass end as kind,
                      coalesce(rule.ev_class, expression.adrelid, d.objid) as oid
               from pg_depend d
               join ours on ours.kind = d.refclassid and ours.oid = d.refobjid
               left join pg_rewrite rule on d.classid = 'pg_rewrite'::regclass and rule.oid = d.objid
               left join pg_attrdef expression on d.classid = 'pg_attrdef'::regclass and expression.oid = d.objid
               where d.deptype in ('n', 'a')
           )
           select distinct coalesce(relation, described) from users
           where (kind, oid) not in (select kind, oid from ours)
             and kind in ('pg_proc'::regclass, 'pg_class'::regclass, 'pg_trigger'::regclass, 'pg_policy'::regclass)
           order by 1""",
        {"ours": ours},
    ).fetchall()
    return [str(name) for (name,) in rows]
