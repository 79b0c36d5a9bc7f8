"""What is installed: the SQL files, the migrations, the runtime's text, and all of it printed."""

from __future__ import annotations

import hashlib
import io
import re
from importlib.metadata import version as distribution_version
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from alembic import command
from alembic.config import Config
from psycopg import sql

from dbscore import runtime, tables
from dbscore.errors import SchemaError

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = [
    "COMPILED_SCHEMA",
    "ENGINE_SCHEMA",
    "ENGINE_SCHEMA_SQL",
    "EXPERIMENTS_SCHEMA",
    "SUPERUSER_FILES",
    "alembic_config",
    "functions_sha256",
    "package_version",
    "printed_sql",
    "rendered",
    "sql_files",
    "sql_sha256",
]

ENGINE_SCHEMA = "dbscore_engine"
# what functions of compiled versions call, and nobody else
COMPILED_SCHEMA = "dbscore_compiled"
# the functions and the view of each experiment
EXPERIMENTS_SCHEMA = "experiments"
# what somebody else has put into it first would run with the superuser's rights
ENGINE_SCHEMA_SQL = """do $do$
begin
    if exists (
        select from pg_catalog.pg_namespace n join pg_catalog.pg_roles r on r.oid = n.nspowner where n.nspname = 'dbscore_engine' and not r.rolsuper
    ) then
        raise exception 'the schema dbscore_engine belongs to a role that is no superuser' using errcode = 'ML008', hint = 'Drop or rename it.';
    end if;
    create schema if not exists dbscore_engine;
end
$do$;"""  # noqa: E501
# functions in untrusted languages, which only a superuser creates: C's by other names, and PL/Python's
SUPERUSER_FILES = ("010_frame.sql", "015_engine.sql")


def printed_sql(part: str = "all", *, owner: str | None = None, models: str = "models", plpython: bool = True) -> str:
    """Return the SQL of a fresh installation, for a DBA to read and to run by hand.

    Args:
        part: `superuser`: schemas and PL/Python functions; `owner`: everything else; `all`: both.
        owner: The role that will own the schemas and deploy; by default whoever runs the SQL.
        models: The schema for the generated functions.
        plpython: False leaves the PL/Python functions out, for servers that have none.
    """
    quoted = sql.Identifier(owner).as_string() if owner else "current_user"
    pieces = ["set search_path = pg_catalog, pg_temp;"]
    if part in ("all", "superuser"):
        pieces += [
            f"create schema if not exists {sql.Identifier(schema).as_string()} authorization {quoted};"
            for schema in (tables.SCHEMA, models, COMPILED_SCHEMA, EXPERIMENTS_SCHEMA)
        ]
        if plpython:
            pieces.append(ENGINE_SCHEMA_SQL)
            pieces += [rendered(n, owner=owner, models=models) for n in SUPERUSER_FILES]
    if part in ("all", "owner"):
        if owner:
            pieces.append(f"set role {quoted};")
        buffer = io.StringIO()
        config = alembic_config(None)
        config.output_buffer = buffer
        command.upgrade(config, "head", sql=True)
        pieces.append(buffer.getvalue())
        pieces += [rendered(n, owner=owner, models=models) for n in sql_files() if n not in SUPERUSER_FILES]
        pieces.append(
            sql.SQL(
                "insert into dbscore.installation (models_schema, package_version, sql_sha256, functions_sha256)"
                " values ({}, {}, {}, {});"
            )
            .format(models, package_version(), sql_sha256(), functions_sha256(plpython=plpython))
            .as_string()
        )
        if owner:
            pieces.append("reset role;")
    pieces.append("reset search_path;")
    return "\n\n".join(pieces) + "\n"


def rendered(name: str, *, owner: str | None, models: str) -> str:
    """Return a SQL file with its placeholders filled in; without an owner, whoever runs it."""
    values = {
        "owner": sql.Identifier(owner).as_string() if owner else "current_user",
        "models": sql.Identifier(models).as_string(),
        "version": package_version(),
        "runtime_sha256": runtime.sha256(),
        "runtime": runtime.text(),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda m: values[m[1]], sql_files()[name])


def sql_files() -> dict[str, str]:
    """Return the SQL files by name, in the order in which they are run."""
    return {p.name: p.read_text(encoding="utf-8") for p in sorted(_directory("sql").glob("*.sql"))}


def sql_sha256() -> str:
    """Return the hash of all that is replayed: SQL files and runtime."""
    text = runtime.text() + "".join(f"{name}\n{content}" for name, content in sql_files().items())
    return hashlib.sha256(text.encode()).hexdigest()


def functions_sha256(*, plpython: bool) -> str:
    """Return the hash of what versions' functions are made by: without PL/Python, of less."""
    made_by = [package_version(), sql_sha256(), "with PL/Python" if plpython else "without PL/Python"]
    return hashlib.sha256("\n".join(made_by).encode()).hexdigest()


def _directory(name: str) -> Path:
    """Return sql/ or migrations/: inside the wheel, or beside the package in a checkout."""
    package = Path(str(files("dbscore")))
    for candidate in (package / f"_{name}", package.parent / name):
        if candidate.is_dir():
            return candidate
    raise SchemaError(f"the directory {name}/ is not in the package", remedy="Reinstall dbscore.")


def alembic_config(connection: Connection | None) -> Config:
    """Return the configuration of a migration, on a connection or printed."""
    config = Config()
    config.set_main_option("script_location", str(_directory("migrations")).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def package_version() -> str:
    """Return the version of this package."""
    return distribution_version("dbscore")
