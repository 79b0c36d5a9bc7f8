"""One worker: a thread with a connection, which scores chunks until there are none and comes back when it is lost."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

import psycopg

from dbscore.errors import ServerError
from dbscore.jobs.connection import is_lost, is_passing, session
from dbscore.jobs.scoring import ChunkScorer, scorer

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Engine

    from dbscore.jobs.records import ChunkResult, Job

__all__ = ["LostConnectionError", "News", "State", "Worker"]

# how often one chunk is tried again when another transaction was in the way
MOST_REPEATS = 3
# how often in a row a connection may be lost before a chunk is done: a chunk may be what kills the backend
MOST_LOSSES = 5
LONGEST_PAUSE = 2.0
# after a cancellation, nobody waits long for a server that does not answer
CANCEL_SECONDS = 1.0


class LostConnectionError(ServerError):
    """A worker lost its connection and got no other; the others may go on."""


class State(Enum):
    """What a worker is doing."""

    CONNECTING = "connecting"
    WORKING = "working"
    IDLE = "idle"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class News:
    """What a worker tells: who it is, what it is doing now, what came of a chunk, why it ended."""

    worker: int
    state: State
    result: ChunkResult | None = None
    error: Exception | None = None


class Worker:
    """A thread that scores chunks of one job. It tells its news, and touches nothing that others touch.

    Args:
        number: Its number among the workers of this run, from 0.
        engine: Whose URL it connects to.
        job: What is scored.
        tell: Takes its news, from its thread.
        stop: Set when all workers are to end after the chunk they are at.
        retry_seconds: How long it tries to get a connection back.
    """

    def __init__(
        self,
        number: int,
        *,
        engine: Engine,
        job: Job,
        tell: Callable[[News], None],
        stop: threading.Event,
        retry_seconds: float,
    ) -> None:
        self._number = number
        self._engine = engine
        self._job = job
        self._tell = tell
        self._stop = stop
        self._retry_seconds = retry_seconds
        self._wake = threading.Event()
        self._connection: psycopg.Connection[Any] | None = None
        # a daemon: a process that is told twice to end does not wait for the server
        self._thread = threading.Thread(target=self._run, name=f"dbscore-worker-{number}", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def wake(self) -> None:
        """Let an idle worker look again, for chunks or for the order to stop."""
        self._wake.set()

    def join(self, seconds: float) -> bool:
        """Wait for the thread's end, and say whether it came."""
        if self._thread.ident is not None:
            self._thread.join(seconds)
        return not self._thread.is_alive()

    def cancel_statement(self) -> None:
        """Cancel what its connection is doing; a no-op where it does nothing.

        Raises:
            psycopg.Error: The server did not take the message.
        """
        connection = self._connection
        if connection is not None and not connection.closed:
            connection.cancel_safe(timeout=CANCEL_SECONDS)

    def _run(self) -> None:
        error: Exception | None = None
        try:
            self._work()
        except Exception as caught:  # noqa: BLE001 - it is told, and raised in the main thread
            error = caught
        finally:
            self._disconnect()
            self._tell(News(self._number, State.ENDED, error=error))

    def _work(self) -> None:
        chunks = self._attach()
        repeats = losses = 0
        while chunks is not None and not self._stop.is_set():
            try:
                result = chunks.next()
            except psycopg.Error as error:
                if self._stop.is_set():
                    return
                if is_lost(error, self._connection):
                    losses += 1
                    if losses > MOST_LOSSES:
                        raise self._given_up(f"lost {losses} connections without a chunk done", error) from error
                    chunks = self._attach(again=True)
                elif is_passing(error) and repeats < MOST_REPEATS:
                    repeats += 1
                    # not all at the same moment again
                    self._stop.wait(0.1 * repeats * (1 + self._number))
                else:
                    raise
                continue
            if result is not None:
                repeats = losses = 0
                self._tell(News(self._number, State.WORKING, result=result))
            else:
                self._tell(News(self._number, State.IDLE))
                self._wake.wait()
                self._wake.clear()

    def _attach(self, *, again: bool = False) -> ChunkScorer | None:
        """Connect and take the job up; None where it is to stop, or was stopped while the connection was lost."""
        self._disconnect()
        self._tell(News(self._number, State.CONNECTING))
        began = time.monotonic()
        pause = 0.1
        while not self._stop.is_set():
            try:
                self._connection = connection = session(self._engine, self._job.job_id)
                if self._stop.is_set() or (again and not self._still_runs(connection)):
                    return None
                connection.execute("select dbscore.start_job(%s::integer)", [self._job.job_id])
            except psycopg.Error as error:
                if not is_lost(error, self._connection):
                    raise
                self._disconnect()
                if time.monotonic() - began + pause > self._retry_seconds:
                    raise self._given_up(f"got no connection for {self._retry_seconds:g} seconds", error) from error
                self._stop.wait(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                self._tell(News(self._number, State.WORKING))
                return scorer(connection, self._job)
        return None

    def _still_runs(self, connection: psycopg.Connection[Any]) -> bool:
        """Say whether nobody stopped the job: to start it again would undo that."""
        row = connection.execute(
            "select status from dbscore.jobs where job_id = %s::integer", [self._job.job_id]
        ).fetchone()
        return row is not None and row[0] in ("planned", "running")

    def _given_up(self, what: str, error: psycopg.Error) -> LostConnectionError:
        return LostConnectionError(
            f"a worker of job {self._job.job_id} {what}: {error.diag.message_primary or str(error).strip()}",
            remedy="What is scored is kept. See the server's log; when the cause is mended, run: "
            f"dbscore jobs resume {self._job.job_id}",
        )

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
