"""The schema in the database: install, upgrade, status, uninstall, print the SQL."""

from __future__ import annotations

import hashlib
import io
import re
from dataclasses import asdict, dataclass
from importlib.metadata import version as distribution_version
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from psycopg import sql
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert

from dbscore import tables
from dbscore.database import run, script
from dbscore.errors import InUseError, PrivilegeError, SchemaError

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["Status", "become_owner", "install", "models_schema", "printed_sql", "status", "uninstall"]

ENGINE_SCHEMA = "dbscore_engine"
# any number will do, as long as every installer takes the same
LOCK_KEY = 0x6462_7363_6F72_65
OLDEST_POSTGRESQL = 140000
SUPERUSER_FILES = ("015_engine.sql",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What is installed in a database, and what its server can do.

    Attributes:
        installed: Whether the schema is there.
        package_version: The dbscore that installed it; None where it is not.
        revision: Its migration.
        models_schema: Where the generated functions are.
        owner: The role that owns the schema, and may deploy.
        server_version: PostgreSQL's.
        engines: What can compute a version here: `onnx` needs PL/Python and its packages; empty where nothing can.
        python: The server's Python and its packages' versions; None without PL/Python.
        models: How many models there are.
        problems: What stands in the way, each with its remedy.
    """

    installed: bool
    package_version: str | None
    revision: str | None
    models_schema: str | None
    owner: str | None
    server_version: str
    engines: tuple[str, ...]
    python: dict[str, str] | None
    models: int
    problems: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the status as JSON values."""
        return asdict(self)


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
    number = int(run(connection, "show server_version_num").fetchone()[0])  # type: ignore[index]
    if number < OLDEST_POSTGRESQL:
        raise SchemaError(f"the server is PostgreSQL {number // 10000}", remedy="dbscore needs PostgreSQL 14 or later.")
    run(connection, "select pg_advisory_xact_lock(%s)", [LOCK_KEY])
    before = _installation(connection)
    _refuse_newer(connection, before)
    wanted = schema_for_models or (before.models_schema if before else "models")
    if before is not None and before.models_schema != wanted:
        raise SchemaError(
            f"the functions are in the schema {before.models_schema!r}, not in {wanted!r}",
            remedy="Leave --models-schema out, or uninstall first.",
        )
    superuser = bool(run(connection, "select rolsuper from pg_roles where rolname = current_user").fetchone()[0])  # type: ignore[index]
    plpython = run(connection, "select 1 from pg_available_extensions where name = 'plpython3u'").fetchone() is not None
    owner = _create_schemas(connection, wanted, superuser=superuser, plpython=plpython, fresh=before is None)
    old_runtime = _installed_runtime(connection)
    if plpython and superuser:
        for name in SUPERUSER_FILES:
            script(connection, _rendered(name, owner=owner, models=wanted))
    elif plpython and old_runtime != runtime_sha256():
        raise _superuser_first(owner)
    run(connection, sql.SQL("set local role {}").format(sql.Identifier(owner)))
    command.upgrade(_alembic(connection), "head")
    for name in _sql_files():
        if name not in SUPERUSER_FILES:
            script(connection, _rendered(name, owner=owner, models=wanted))
    row = {"models_schema": wanted, "package_version": _package_version(), "sql_sha256": _sql_sha256()}
    if before is None or any(getattr(before, key) != value for key, value in row.items()):
        statement = insert(tables.installation).values(**row)
        connection.execute(statement.on_conflict_do_update(index_elements=["installation_id"], set_=row))
    return plpython and old_runtime != runtime_sha256()


def _superuser_first(owner: str) -> PrivilegeError:
    return PrivilegeError(
        f"role {owner!r} is no superuser, and the PL/Python part of dbscore {_package_version()} is not there yet",
        remedy=(
            "A superuser of this database must first run, once for each version of dbscore:\n"
            f"    dbscore sql --part superuser --owner {owner} | psql --single-transaction -v ON_ERROR_STOP=1 DATABASE\n"
            "It prints SQL only; read it first. Then run `dbscore install` again."
        ),
    )


def _create_schemas(
    connection: Connection, models: str, *, superuser: bool, plpython: bool, fresh: bool
) -> str:
    """Create the schemas that are not there, and return the owner of `dbscore`."""
    owners = dict(
        run(connection, "select nspname, nspowner::regrole::text from pg_namespace").fetchall()
    )
    me = run(connection, "select current_user").fetchone()[0]  # type: ignore[index]
    if fresh:
        for schema in (tables.SCHEMA, models):
            if schema in owners and not _is_empty(connection, schema):
                raise SchemaError(
                    f"there is a schema {schema!r} already, and it is not dbscore's",
                    remedy="Choose another with --models-schema NAME." if schema == models else "Rename or drop it.",
                )
    may_create = run(connection, "select has_database_privilege(current_database(), 'create')").fetchone()[0]  # type: ignore[index]
    missing = [s for s in (tables.SCHEMA, models) if s not in owners]
    if (missing and not may_create) or (plpython and not superuser and ENGINE_SCHEMA not in owners):
        raise _superuser_first(me)
    owner = owners.get(tables.SCHEMA, me)
    # a schema is made for its owner, whoever makes it
    for schema in missing:
        run(
            connection,
            sql.SQL("create schema {} authorization {}").format(sql.Identifier(schema), sql.Identifier(_unquoted(connection, owner))),
        )
    if plpython and superuser:
        run(connection, sql.SQL("create schema if not exists {}").format(sql.Identifier(ENGINE_SCHEMA)))
    return _unquoted(connection, owner)


def _unquoted(connection: Connection, role: str) -> str:
    found = run(connection, "select rolname from pg_roles where oid = to_regrole(%s)", [role]).fetchone()
    return found[0] if found else role


def _is_empty(connection: Connection, schema: str) -> bool:
    query = """select not exists (select from pg_depend d join pg_namespace n on n.oid = d.refobjid
               where d.refclassid = 'pg_namespace'::regclass and n.nspname = %s)"""
    return bool(run(connection, query, [schema]).fetchone()[0])  # type: ignore[index]


def become_owner(connection: Connection) -> None:
    """Act as the owner of the schema for the rest of the transaction, so that all functions have one owner.

    Raises:
        SchemaError: dbscore is not installed here.
        PrivilegeError: The current role is not a member of the owner.
    """
    row = run(
        connection,
        """select r.rolname, pg_has_role(current_user, r.oid, 'member'), current_user
           from pg_namespace n join pg_roles r on r.oid = n.nspowner where n.nspname = 'dbscore'""",
    ).fetchone()
    if row is None or _installation(connection) is None:
        raise SchemaError("dbscore is not installed in this database", remedy="Run `dbscore install`.")
    owner, member, me = row
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
    found = _installation(connection)
    if found is None:
        raise SchemaError("dbscore is not installed in this database", remedy="Run `dbscore install`.")
    return str(found.models_schema)


def _installation(connection: Connection) -> Any:  # noqa: ANN401 - a row
    there = run(connection, "select to_regclass('dbscore.installation')").fetchone()[0]  # type: ignore[index]
    return connection.execute(select(tables.installation)).one_or_none() if there else None


def _refuse_newer(connection: Connection, installation: Any) -> None:  # noqa: ANN401 - a row
    if run(connection, "select to_regclass('dbscore.alembic_version')").fetchone()[0] is None:  # type: ignore[index]
        return
    revision = run(connection, "select version_num from dbscore.alembic_version").fetchone()
    known = {s.revision for s in ScriptDirectory.from_config(_alembic(connection)).walk_revisions()}
    newer = installation is not None and _ordered(installation.package_version) > _ordered(_package_version())
    if newer or (revision is not None and revision[0] not in known):
        there = installation.package_version if installation is not None else "unknown"
        raise SchemaError(
            f"the schema is of dbscore {there} (migration {revision[0] if revision else 'none'}), this package is {_package_version()}",
            remedy=f"Upgrade the package: pip install 'dbscore>={there}'.",
        )


def _ordered(package_version: str) -> tuple[int, ...]:
    return tuple(int(n) for n in re.findall(r"\d+", package_version)[:3])


def status(connection: Connection) -> Status:
    """Say what is installed, what this server can compute, and what stands in the way."""
    found = _installation(connection)
    problems = []
    revision = None
    models = 0
    if found is None:
        problems.append("dbscore is not installed in this database: run `dbscore install`")
    else:
        revision = run(connection, "select version_num from dbscore.alembic_version").fetchone()[0]  # type: ignore[index]
        models = run(connection, "select count(*) from dbscore.model").fetchone()[0]  # type: ignore[index]
        if found.sql_sha256 != _sql_sha256():
            problems.append(
                f"the schema is of dbscore {found.package_version}, this package is {_package_version()}: run `dbscore upgrade`"
            )
    python = server_python(connection)
    problem = python_problem(connection, python)
    if problem:
        problems.append(problem)
    owner = run(connection, "select r.rolname from pg_namespace n join pg_roles r on r.oid = n.nspowner where n.nspname = 'dbscore'").fetchone()
    return Status(
        installed=found is not None,
        package_version=found.package_version if found else None,
        revision=revision,
        models_schema=found.models_schema if found else None,
        owner=owner[0] if owner else None,
        server_version=str(run(connection, "show server_version").fetchone()[0]),  # type: ignore[index]
        engines=() if problem else ("onnx",),
        python=python,
        models=models,
        problems=tuple(problems),
    )


def server_python(connection: Connection) -> dict[str, str] | None:
    """Return the versions of the server's Python, numpy and onnxruntime (or why one cannot be imported).

    None where PL/Python is not there, or dbscore's part of it is not.
    """
    if run(connection, "select to_regprocedure('dbscore_engine.python()')").fetchone()[0] is None:  # type: ignore[index]
        return None
    return dict(run(connection, "select dbscore_engine.python()").fetchone()[0])  # type: ignore[index]


def python_problem(connection: Connection, python: dict[str, str] | None) -> str | None:
    """Return what keeps engine `onnx` from working here, with the command that mends it; None where it works."""
    major = int(run(connection, "show server_version_num").fetchone()[0]) // 10000  # type: ignore[index]
    if python is None:
        there = run(connection, "select 1 from pg_available_extensions where name = 'plpython3u'").fetchone()
        if there:
            return "PL/Python is there but dbscore has not used it yet: run `dbscore install` as a superuser"
        return (
            "this server has no PL/Python, which engine onnx needs: "
            f"on Debian and Ubuntu run `apt-get install postgresql-plpython3-{major}`, then `dbscore install`"
        )
    lacking = {n: python[f"{n}_error"] for n in ("numpy", "onnxruntime") if n not in python}
    if not lacking:
        return None
    return (
        f"the server's Python {python['python']} cannot import {' and '.join(lacking)} "
        f"({'; '.join(lacking.values())}): run\n    {packages_command(python['python'])}\n"
        "on the server, let its user read that directory, put PYTHONPATH=/usr/local/lib/dbscore-python into the server's "
        f"environment (Debian: /etc/postgresql/{major}/main/environment) and restart it"
    )


def packages_command(python: str, target: str = "/usr/local/lib/dbscore-python") -> str:
    """Return the command that fetches what the server's Python needs, for that Python's version."""
    return (
        f"python3 -m pip install --target {target} --only-binary=:all: --python-version {python} "
        "--implementation cp numpy onnxruntime"
    )


def uninstall(connection: Connection, *, cascade: bool = False) -> None:
    """Drop the schemas, with every model in them.

    Raises:
        InUseError: Something outside uses a function, such as a view or a generated column, and `cascade` is False.
        SchemaError: dbscore is not installed here.
    """
    models = models_schema(connection)
    become_owner_or_superuser = run(connection, "select rolsuper from pg_roles where rolname = current_user").fetchone()[0]  # type: ignore[index]
    users = _users(connection, models)
    if users and not cascade:
        raise InUseError(
            f"still in use by {', '.join(users)}", remedy="Drop these first, or use --cascade to drop them along."
        )
    if not become_owner_or_superuser:
        become_owner(connection)
    for schema in (models, tables.SCHEMA, ENGINE_SCHEMA):
        run(connection, sql.SQL("drop schema if exists {} cascade").format(sql.Identifier(schema)))


def _users(connection: Connection, models: str) -> list[str]:
    """Return what lies outside dbscore's schemas and depends on something in them."""
    rows = run(
        connection,
        """with ours as (select oid from pg_namespace where nspname = any (%s))
           select distinct coalesce(
               (select 'view or table ' || r.ev_class::regclass::text from pg_rewrite r where d.classid = 'pg_rewrite'::regclass and r.oid = d.objid),
               (select 'column of ' || a.adrelid::regclass::text from pg_attrdef a where d.classid = 'pg_attrdef'::regclass and a.oid = d.objid),
               pg_describe_object(d.classid, d.objid, d.objsubid))
           from pg_depend d
           where d.deptype in ('n', 'a')
             and ((d.refclassid = 'pg_proc'::regclass and d.refobjid in (select oid from pg_proc where pronamespace in (table ours)))
               or (d.refclassid = 'pg_class'::regclass and d.refobjid in (select oid from pg_class where relnamespace in (table ours))))
             and not exists (select from pg_proc p where d.classid = 'pg_proc'::regclass and p.oid = d.objid and p.pronamespace in (table ours))
             and not exists (select from pg_class c where d.classid = 'pg_class'::regclass and c.oid = d.objid and c.relnamespace in (table ours))
             and not exists (select from pg_rewrite r join pg_class c on c.oid = r.ev_class
                             where d.classid = 'pg_rewrite'::regclass and r.oid = d.objid and c.relnamespace in (table ours))
             and not exists (select from pg_attrdef a join pg_class c on c.oid = a.adrelid
                             where d.classid = 'pg_attrdef'::regclass and a.oid = d.objid and c.relnamespace in (table ours))
             and d.classid not in ('pg_constraint'::regclass, 'pg_type'::regclass)
           order by 1""",
        [[models, tables.SCHEMA, ENGINE_SCHEMA]],
    ).fetchall()
    return [str(name) for (name,) in rows]


def printed_sql(part: str = "all", *, owner: str | None = None, models: str = "models", plpython: bool = True) -> str:
    """Return the SQL of a fresh installation, for a DBA to read and to run by hand.

    Args:
        part: `superuser`: schemas and PL/Python functions; `owner`: everything else; `all`: both.
        owner: The role that will own the schemas and deploy; by default whoever runs the SQL.
        models: The schema for the generated functions.
        plpython: False leaves the PL/Python functions out, for servers that have none.
    """
    quoted = sql.Identifier(owner).as_string() if owner else "current_user"
    pieces = []
    if part in ("all", "superuser"):
        for schema in (tables.SCHEMA, models):
            pieces.append(f"create schema if not exists {sql.Identifier(schema).as_string()} authorization {quoted};")
        if plpython:
            pieces.append(f"create schema if not exists {ENGINE_SCHEMA};")
            pieces += [_rendered(n, owner=owner, models=models) for n in SUPERUSER_FILES]
    if part in ("all", "owner"):
        if owner:
            pieces.append(f"set role {quoted};")
        buffer = io.StringIO()
        config = _alembic(None)
        config.output_buffer = buffer
        command.upgrade(config, "head", sql=True)
        pieces.append(buffer.getvalue())
        pieces += [_rendered(n, owner=owner, models=models) for n in _sql_files() if n not in SUPERUSER_FILES]
        pieces.append(
            sql.SQL("insert into dbscore.installation (models_schema, package_version, sql_sha256) values ({}, {}, {});")
            .format(models, _package_version(), _sql_sha256())
            .as_string()
        )
        if owner:
            pieces.append("reset role;")
    return "\n\n".join(pieces) + "\n"


def _rendered(name: str, *, owner: str | None, models: str) -> str:
    values = {
        "owner": sql.Identifier(owner).as_string() if owner else "current_user",
        "models": sql.Identifier(models).as_string(),
        "version": _package_version(),
        "runtime_sha256": runtime_sha256(),
        "runtime": runtime_text(),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda m: values[m[1]], _sql_files()[name])


def runtime_text() -> str:
    """Return the text of dbscore/runtime.py, which the PL/Python functions carry."""
    text = (files("dbscore") / "runtime.py").read_text(encoding="utf-8")
    for forbidden in ("'''", "$runtime$", "$body$", "\t"):
        if forbidden in text:
            raise SchemaError(f"dbscore/runtime.py contains {forbidden!r}, which cannot be embedded")
    return text


def runtime_sha256() -> str:
    """Return the hash under which backends keep the runtime."""
    return hashlib.sha256(runtime_text().encode()).hexdigest()


def _installed_runtime(connection: Connection) -> str | None:
    if run(connection, "select to_regprocedure('dbscore_engine.body(text)')").fetchone()[0] is None:  # type: ignore[index]
        return None
    source = run(connection, "select prosrc from pg_proc where oid = 'dbscore_engine.body(text)'::regprocedure").fetchone()[0]  # type: ignore[index]
    found = re.search(r"'dbscore ([0-9a-f]{64})'", source)
    return found[1] if found else None


def _sql_files() -> dict[str, str]:
    return {p.name: p.read_text(encoding="utf-8") for p in sorted(_directory("sql").glob("*.sql"))}


def _sql_sha256() -> str:
    text = runtime_text() + "".join(f"{name}\n{content}" for name, content in _sql_files().items())
    return hashlib.sha256(text.encode()).hexdigest()


def _directory(name: str) -> Path:
    """Return sql/ or migrations/: inside the wheel, or beside the package in a checkout."""
    package = Path(str(files("dbscore")))
    for candidate in (package / f"_{name}", package.parent / name):
        if candidate.is_dir():
            return candidate
    raise SchemaError(f"the directory {name}/ is not in the package", remedy="Reinstall dbscore.")


def _alembic(connection: Connection | None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(_directory("migrations")).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def _package_version() -> str:
    return distribution_version("dbscore")
