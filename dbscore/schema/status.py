"""What is installed in a database, what its server can compute, and what stands in the way."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from dbscore.database import pin_search_path, run, scalar
from dbscore.remedy import SERVER_PACKAGES, server_packages_remedy
from dbscore.schema.installation import functions_are_current, installation_row
from dbscore.schema.source import package_version, sql_sha256

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["Status", "python_problem", "server_python", "status"]


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
        engines: What can compute a version in this server: `sql` anywhere, `onnx` with PL/Python and its packages;
            where that is missing, what cannot be compiled is scored by the workers of `dbscore score` only.
        python: The server's Python and its packages' versions; None without PL/Python.
        models: How many models there are.
        problems: What stands in the way, each with its remedy.
        notes: What is good to know, and no failure: that the server has no PL/Python, and what that means.
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
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the status as JSON values."""
        return asdict(self)


def status(connection: Connection) -> Status:
    """Say what is installed, what this server can compute, and what stands in the way."""
    pin_search_path(connection)
    found = installation_row(connection)
    problems = []
    python = server_python(connection)
    if found is None:
        problems.append("dbscore is not installed in this database: run `dbscore install`")
    elif found.sql_sha256 != sql_sha256():
        problems.append(
            f"the schema is of dbscore {found.package_version}, this package is {package_version()}, and their SQL "
            "differs: run `dbscore upgrade`"
        )
    elif not functions_are_current(connection):
        problems.append("the versions' functions were made by another dbscore: run `dbscore upgrade`")
    problem = python_problem(connection, python)
    note = _without_python(connection) if python is None and problem is None else None
    if problem:
        problems.append(problem)
    return Status(
        installed=found is not None,
        package_version=found.package_version if found else None,
        revision=scalar(connection, "select version_num from dbscore.alembic_version") if found else None,
        models_schema=found.models_schema if found else None,
        owner=scalar(connection, "select nspowner::regrole::text from pg_namespace where nspname = 'dbscore'"),
        server_version=scalar(connection, "show server_version"),
        engines=("sql",) if problem or note else ("onnx", "sql"),
        python=python,
        models=scalar(connection, "select count(*) from dbscore.model") if found else 0,
        problems=tuple(problems),
        notes=(note,) if note else (),
    )


def server_python(connection: Connection) -> dict[str, str] | None:
    """Return the versions of the server's Python, numpy and onnxruntime (or why one cannot be imported).

    None where PL/Python is not there, or dbscore's part of it is not.
    """
    if scalar(connection, "select to_regprocedure('dbscore_engine.python()')") is None:
        return None
    return dict(scalar(connection, "select dbscore_engine.python()"))


def python_problem(connection: Connection, python: dict[str, str] | None) -> str | None:
    """Return what keeps engine `onnx` from working here, with the command that mends it.

    None where it works, and where the server has no PL/Python: such a server computes what is compiled to SQL.
    """
    if python is None:
        there = run(connection, "select 1 from pg_available_extensions where name = 'plpython3u'").fetchone()
        return (
            "PL/Python is there, but dbscore's part of it is not: run `dbscore install` as a superuser"
            if there
            else None
        )
    lacking = {name: python[f"{name}_error"] for name in SERVER_PACKAGES if name not in python}
    if not lacking:
        return None
    return (
        f"the server's Python {python['python']} cannot import {' and '.join(lacking)} "
        f"({'; '.join(lacking.values())})\n" + server_packages_remedy(python["python"], server_major=_major(connection))
    )


def _without_python(connection: Connection) -> str:
    return (
        "this server has no PL/Python, so no engine onnx: versions that are compiled to SQL have all their functions; "
        "any other has none, and `dbscore score` scores it in its own process. Where the server's machine is yours, "
        f"`apt-get install postgresql-plpython3-{_major(connection)}` (Debian, Ubuntu) and `dbscore install` add it"
    )


def _major(connection: Connection) -> int:
    return int(scalar(connection, "show server_version_num")) // 10000
