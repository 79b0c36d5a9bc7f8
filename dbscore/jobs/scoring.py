"""Scoring one chunk after another, each in one transaction that also marks it done."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from dbscore.errors import PrivilegeError
from dbscore.jobs.records import ChunkResult, Job

if TYPE_CHECKING:
    import psycopg

__all__ = ["ChunkScorer", "ServerScorer", "outsider", "scorer"]


class ChunkScorer(Protocol):
    """What a worker asks for one chunk after another. It lives as long as its connection."""

    def next(self) -> ChunkResult | None:
        """Claim, score and write a planned chunk, in one transaction.

        Returns:
            What came of it; None where there is nothing to claim now: the others are done, failed or being worked on,
            or the job is not running any more.

        Raises:
            psycopg.Error: The connection was lost, the statement cancelled, or another transaction was in the way; the
                chunk is still planned.
        """


class ServerScorer:
    """The model runs in the connection's backend: rows and predictions never leave the server.

    Args:
        connection: In autocommit, and attached to the job by `dbscore.start_job`.
        job: What is scored.
    """

    def __init__(self, connection: psycopg.Connection[Any], job: Job) -> None:
        self._connection = connection
        self._job_id = job.job_id

    def next(self) -> ChunkResult | None:
        """Claim, score and write a planned chunk in one statement."""
        row = self._connection.execute(
            'select chunk, "rows", errors, failure from dbscore.score_chunk(%s::integer)', [self._job_id]
        ).fetchone()
        if row is None or row[0] is None:
            return None
        chunk, rows, errors, failure = row
        return ChunkResult(chunk=chunk, rows=int(rows or 0), errors=int(errors or 0), failure=failure)


def scorer(connection: psycopg.Connection[Any], job: Job) -> ChunkScorer:
    """Return what scores the chunks of a job on a connection.

    Raises:
        PrivilegeError: The job runs on the client, and the role may not read the model's bytes.
    """
    if job.runs_on == "server" and (not _is_near(connection) or _is_compiled(connection, job)):
        return ServerScorer(connection, job)
    from dbscore.jobs.copying import CopyScorer

    copying = CopyScorer(connection, job)
    return copying if job.runs_on == "client" or copying.is_direct else ServerScorer(connection, job)


def _is_compiled(connection: psycopg.Connection[Any], job: Job) -> bool:
    """Say whether predictions are part of the statement that writes them."""
    row = connection.execute("select dbscore.is_compiled(%s, %s::integer)", [job.model, job.version]).fetchone()
    return row is not None and bool(row[0])


def _is_near(connection: psycopg.Connection[Any]) -> bool:
    """Say whether the server is on this machine, so that predictions come and go at the speed of memory."""
    host = connection.info.hostaddr
    return not host or host == "::1" or host.startswith("127.")


def outsider() -> PrivilegeError:
    """Return the refusal of a role that may not read models' bytes."""
    return PrivilegeError(
        "scoring on the client reads the model's bytes, which only members of the schema's owner may",
        remedy="Leave --where-to-run out, so that the server scores; or let the schema's owner run the job.",
    )
