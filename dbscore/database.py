"""Connections: engines, transactions as the owner, statements that are not on our own tables, errors with a type."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import psycopg
from psycopg import sql
from sqlalchemy import create_engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.pool import NullPool

from dbscore import errors

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sqlalchemy import Connection, Engine

__all__ = ["connect", "pin_search_path", "run", "scalar", "script", "transaction", "typed_errors"]

# serialization failure, deadlock, lock not available, and "tuple concurrently updated"
_PASSING = ("40001", "40P01", "55P03", "XX000")
_BY_SQLSTATE = {
    cls.sqlstate: cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, errors.DbscoreError)
}


def connect(url: str) -> Engine:
    """Return an engine for a libpq or SQLAlchemy URL; nothing is connected yet.

    Raises:
        ServerError: The URL cannot be read, or is not PostgreSQL's.
    """
    try:
        parsed = make_url(url)
    except ArgumentError:
        parsed = None
    if parsed is None or parsed.get_backend_name() not in ("postgresql", "postgres"):
        # the URL may hold a password: it is not repeated
        raise errors.ServerError(
            "the database URL is not a PostgreSQL URL",
            remedy="Write postgresql://user:password@host:port/database.",
        )
    return create_engine(
        parsed.set(drivername="postgresql+psycopg"),
        poolclass=NullPool,
        # whoever waited for a lock must see what was committed meanwhile, whatever the database's default
        isolation_level="READ COMMITTED",
        connect_args={"client_encoding": "utf8"},
    )


@contextmanager
def transaction(engine: Engine) -> Iterator[Connection]:
    """Open one transaction; whatever leaves the block by an error is rolled back, and has a type."""
    with typed_errors(), engine.begin() as connection:
        yield connection


def pin_search_path(connection: Connection) -> None:
    """Let nothing in another schema be taken for what PostgreSQL's own names mean, for the rest of the transaction."""
    run(connection, "set local search_path = pg_catalog, pg_temp")


def run(
    connection: Connection,
    statement: str | sql.SQL | sql.Composed,
    parameters: Sequence[Any] | Mapping[str, Any] | None = None,
) -> psycopg.Cursor[Any]:
    """Run one statement that SQLAlchemy has no construct for; without parameters a `%` is just a `%`."""
    return _driver(connection).execute(statement.encode() if isinstance(statement, str) else statement, parameters)


def scalar(
    connection: Connection, statement: str | sql.Composed, parameters: Sequence[Any] | Mapping[str, Any] | None = None
) -> Any:  # noqa: ANN401 - any SQL value
    """Run one statement and return the first column of its first row, None where there is no row."""
    row = run(connection, statement, parameters).fetchone()
    return None if row is None else row[0]


def script(connection: Connection, text: str) -> None:
    """Run the statements of a SQL file."""
    _driver(connection).execute(text.encode())


def _driver(connection: Connection) -> psycopg.Connection[Any]:
    return cast("psycopg.Connection[Any]", connection.connection.driver_connection)


@contextmanager
def typed_errors() -> Iterator[None]:
    """Turn what PostgreSQL says into the error that dbscore has for it."""
    try:
        yield
    except DBAPIError as error:
        if not isinstance(error.orig, psycopg.Error):
            raise
        raise _typed(error.orig) from error
    except psycopg.Error as error:
        raise _typed(error) from error


def _typed(error: psycopg.Error) -> errors.DbscoreError:
    # PL/Python puts the exception's class in front of what dbscore says
    message = (error.diag.message_primary or str(error).strip()).removeprefix("plpy.Error: ")
    hint = error.diag.message_hint or ""
    if error.sqlstate in _BY_SQLSTATE:
        return _BY_SQLSTATE[error.sqlstate](message, remedy=hint)
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return errors.PrivilegeError(
            message, remedy=hint or "Ask the owner of the schema dbscore, or a superuser, for that privilege."
        )
    if isinstance(error, psycopg.errors.DependentObjectsStillExist):
        detail = error.diag.message_detail or ""
        return errors.InUseError(f"{message}: {detail}", remedy="Drop or change what depends on it first.")
    lost = (psycopg.errors.AdminShutdown, psycopg.errors.CrashShutdown, psycopg.errors.CannotConnectNow)
    if isinstance(error, lost) or (isinstance(error, psycopg.OperationalError) and error.sqlstate in (None, "08006")):
        return errors.ServerError(
            f"the connection to the database failed: {message}",
            remedy="Check DBSCORE_URL or --url, and that the server runs; what was not committed is not there.",
        )
    return errors.ServerError(
        f"PostgreSQL refused ({error.sqlstate}): {message}",
        remedy="Try again: another transaction was in the way." if error.sqlstate in _PASSING else hint,
    )
