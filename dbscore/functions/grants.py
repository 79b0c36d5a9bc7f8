"""EXECUTE on the functions: who has it, giving it, taking it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg import sql

from dbscore.database import run
from dbscore.errors import NotFoundError
from dbscore.functions.compiled import COMPILED_SCHEMA
from dbscore.functions.forms import ENGINE_SCHEMA

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

# what is the same for all models: the fixed routines, of those that act as the owner only what a job asks; and those of
# the frame lane that no version has for itself
SHARED_ROUTINES = """
    select p.oid::regprocedure::text from pg_proc p join pg_namespace n on n.oid = p.pronamespace
    where n.nspname = 'dbscore' and (not p.prosecdef or p.proname = 'jobs_into')
       or (n.nspname = 'dbscore_engine' and p.proname = any (%s))"""
_ENGINE_ROUTINES = (
    "bigints",
    "booleans",
    "doubles",
    "frame",
    "integers",
    "null_double",
    "null_real",
    "reals",
    "sessions",
    "smallints",
)

# what a job is told when it is made, and what is learned later; its number and whose it is are neither
_TOLD = (
    "model",
    "version",
    "source_kind",
    "source",
    "where_clause",
    "key_columns",
    "key_types",
    "into_table",
    "errors_table",
    "mode",
    "incremental",
    "primary_key",
    "runs_on",
    "chunk_rows",
    "workers",
    "max_errors",
    "search_path",
    "rows_planned",
)
_LEARNED = (
    "staging_table",
    "into_oid",
    "start_xid",
    "source_filenode",
    "replanned",
    "rows_planned",
    "status",
    "errors",
    "error",
    "started_at",
    "finished_at",
)

__all__ = ["grant", "grant_usage", "grantees", "refuse_unknown_role", "revoke"]


def refuse_unknown_role(connection: Connection, role: str) -> None:
    """Raise NotFoundError where there is no such role."""
    if run(connection, "select 1 from pg_roles where rolname = %s", [role]).fetchone() is None:
        raise NotFoundError(f"there is no role {role!r}", remedy=f'Create it first: create role "{role}".')


def grant_usage(connection: Connection, schema: str, role: str) -> None:
    """Let a role name the functions, and use what is the same for all models."""
    to = sql.Identifier(role)
    named = [schema, "dbscore", COMPILED_SCHEMA]
    named += [n for (n,) in run(connection, "select nspname from pg_namespace where nspname = %s", [ENGINE_SCHEMA])]
    schemas = sql.SQL(", ").join(map(sql.Identifier, named))
    run(connection, sql.SQL("grant usage on schema {} to {}").format(schemas, to))
    for (routine,) in run(connection, SHARED_ROUTINES, [list(_ENGINE_ROUTINES)]).fetchall():
        # PostgreSQL itself quotes and qualifies the name
        run(connection, sql.SQL("grant execute on routine {} to {}").format(sql.SQL(routine), to))
    run(
        connection,
        sql.SQL(
            "grant select on dbscore.models, dbscore.versions, dbscore.aliases, dbscore.jobs, dbscore.job_progress"
            " to {}"
        ).format(to),
    )
    # row level security leaves each role its own jobs
    run(connection, sql.SQL("grant select on dbscore.job to {}").format(to))
    for right, columns in (("insert", _TOLD), ("update", _LEARNED)):
        listed = sql.SQL(", ").join(map(sql.Identifier, columns))
        run(connection, sql.SQL("grant {} ({}) on dbscore.job to {}").format(sql.SQL(right), listed, to))
    run(connection, sql.SQL("grant select, insert, update, delete on dbscore.chunk to {}").format(to))


def grantees(connection: Connection, schema: str, names: Sequence[str]) -> list[str]:
    """Return the roles, the owner left out, that may execute any function of these names."""
    rows = run(
        connection,
        """select distinct r.rolname
           from pg_proc p cross join aclexplode(p.proacl) a join pg_roles r on r.oid = a.grantee
           where p.pronamespace = to_regnamespace(quote_ident(%s)) and p.proname = any (%s)
             and a.privilege_type = 'EXECUTE' and a.grantee <> p.proowner order by 1""",
        [schema, list(names)],
    ).fetchall()
    return [role for (role,) in rows]


def grant(connection: Connection, schema: str, names: Sequence[str], roles: Sequence[str]) -> None:
    """Let the roles execute every function of these names."""
    _change_grants(connection, "grant execute on routine {} to {}", schema, names, roles)


def revoke(connection: Connection, schema: str, names: Sequence[str], roles: Sequence[str]) -> None:
    """Take from the roles what `grant` gave."""
    _change_grants(connection, "revoke execute on routine {} from {}", schema, names, roles)


def _change_grants(
    connection: Connection, statement: str, schema: str, names: Sequence[str], roles: Sequence[str]
) -> None:
    if not roles:
        return
    found = run(
        connection,
        """select oid::regprocedure::text from pg_proc
           where pronamespace = to_regnamespace(quote_ident(%s)) and proname = any (%s)""",
        [schema, list(names)],
    ).fetchall()
    for (signature,) in found:
        run(
            connection,
            sql.SQL(statement).format(sql.SQL(signature), sql.SQL(", ").join(sql.Identifier(role) for role in roles)),
        )
