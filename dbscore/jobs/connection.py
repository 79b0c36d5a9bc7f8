"""The connections of a job's workers: how they are made, and how their errors are told apart."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

if TYPE_CHECKING:
    from sqlalchemy import Engine

__all__ = ["is_lost", "is_passing", "session"]

# serialization failure, deadlock, lock not available
PASSING = ("40001", "40P01", "55P03")
# the server shuts down, crashed, does not take connections (yet), or its patience with the session has ended
LOST = ("57P01", "57P02", "57P03", "57P05", "25P04")


def session(engine: Engine, job_id: int, *, connect_seconds: int = 10) -> psycopg.Connection[Any]:
    """Open a connection of its own for a job, in autocommit: each statement is one transaction.

    Args:
        engine: Whose URL is connected to.
        job_id: The job, named in `pg_stat_activity`.
        connect_seconds: How long the server may take to answer, where the URL does not say.

    Raises:
        psycopg.Error: It could not be opened.
    """
    arguments, parameters = engine.dialect.create_connect_args(engine.url)
    # SQLAlchemy's own type adapters, which are for its results
    parameters.pop("context", None)
    wanted: dict[str, Any] = {"connect_timeout": connect_seconds, "keepalives_idle": 30, "keepalives_interval": 10}
    wanted |= parameters
    wanted |= {"client_encoding": "utf8", "application_name": f"dbscore job {job_id}"}
    connection = psycopg.connect(*arguments, **wanted, autocommit=True)
    try:
        # whoever waits for a lock must see what was committed meanwhile, whatever the database's default
        _set(connection, "default_transaction_isolation", "read committed")
        # a backend whose client was killed notices, and gives its chunk back; not every operating system can
        with suppress(psycopg.errors.InvalidParameterValue, psycopg.errors.UndefinedObject):
            _set(connection, "client_connection_check_interval", "1s")
    except BaseException:
        connection.close()
        raise
    return connection


def _set(connection: psycopg.Connection[Any], name: str, value: str) -> None:
    connection.execute(sql.SQL("set {} = {}").format(sql.Identifier(name), sql.Literal(value)))


def is_lost(error: psycopg.Error, connection: psycopg.Connection[Any] | None) -> bool:
    """Say whether an error means that the connection is gone, and what it was doing rolled back."""
    state = error.sqlstate or ""
    return connection is None or connection.closed or state in LOST or state.startswith("08")


def is_passing(error: psycopg.Error) -> bool:
    """Say whether the same statement may well succeed a moment later."""
    return error.sqlstate in PASSING
