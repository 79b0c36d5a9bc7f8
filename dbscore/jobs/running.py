"""Running a job: its workers, its progress, its end, and what happens when somebody stops it."""

from __future__ import annotations

import queue
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import psycopg

from dbscore.database import transaction, typed_errors
from dbscore.errors import DbscoreError, JobError, ServerError
from dbscore.jobs import bookkeeping
from dbscore.jobs.connection import is_lost, is_passing, session
from dbscore.jobs.meter import Meter
from dbscore.jobs.worker import LostConnectionError, News, State, Worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Engine

    from dbscore.jobs.records import Job, Progress

__all__ = ["RETRY_SECONDS", "run"]

RETRY_SECONDS = 60.0
# progress is told five times a second; an idle worker looks for chunks that came back twice a second
TICK = 0.2
LOOK_AGAIN = 0.5
# how long a cancellation waits for the workers' statements to end
GRACE_SECONDS = 3.0
CONNECT_SECONDS = 2


def run(
    engine: Engine,
    job: Job,
    *,
    workers: int | None = None,
    retry_seconds: float = RETRY_SECONDS,
    on_progress: Callable[[Progress], None] | None = None,
) -> Job:
    """Score the chunks of a job that are not done yet, and finish it.

    A lost connection is opened again; the chunk it was at is scored by whoever comes next. An interruption
    (`KeyboardInterrupt`) cancels the job and leaves it as it stands.

    Args:
        engine: Whose URL the workers connect to; each has a connection of its own.
        job: What is scored.
        workers: How many connections; by default what the job was planned for.
        retry_seconds: How long a worker tries to get a lost connection back.
        on_progress: Called in this thread, at most five times a second.

    Returns:
        The job, which is done.

    Raises:
        JobError: A chunk failed, or somebody cancelled the job; the remedy says how to go on.
        ServerError: The server could not be reached for `retry_seconds`.
    """
    if job.status == "done":
        raise JobError(
            f"job {job.job_id} is done", remedy="To score rows that came since, make one that is incremental."
        )
    wanted = job.workers if workers is None else workers
    if wanted < 1:
        raise JobError(f"a job cannot run with {wanted} workers", remedy="One is the least.")
    left = job.chunks - job.chunks_done - job.chunks_failed
    crew = _Crew(engine, job, max(1, min(wanted, left)), retry_seconds=retry_seconds, on_progress=on_progress)
    try:
        status = crew.work()
    except KeyboardInterrupt:
        crew.cancel()
        raise _cancelled(job, "interrupted") from None
    except psycopg.errors.QueryCanceled as error:
        crew.cancel()
        raise _cancelled(job, error.diag.message_primary or "its statement was cancelled") from error
    except DbscoreError:
        with suppress(DbscoreError):
            found = _read(engine, job)
            if found.status == "done":
                # by another client, in this moment
                return found
        raise
    finally:
        crew.release()
    return _ended(_read(engine, job), status, crew.failure)


class _Crew:
    """The workers of one run, and what is known of them."""

    def __init__(
        self,
        engine: Engine,
        job: Job,
        size: int,
        *,
        retry_seconds: float,
        on_progress: Callable[[Progress], None] | None,
    ) -> None:
        self._engine = engine
        self._job = job
        self._retry_seconds = retry_seconds
        self._on_progress = on_progress
        self._news: queue.SimpleQueue[News] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._meter = Meter(job)
        self._states = dict.fromkeys(range(size), State.CONNECTING)
        self._lost: LostConnectionError | None = None
        self._fatal: Exception | None = None
        self._woken = self._told = 0.0
        # somebody found no chunk since the database was last asked to finish
        self._ripe = False
        self.failure: str | None = None
        self._workers = [
            Worker(number, engine=engine, job=job, tell=self._news.put, stop=self._stop, retry_seconds=retry_seconds)
            for number in self._states
        ]

    def work(self) -> str:
        """Score until nothing is left, and return the job's status.

        Raises:
            psycopg.Error: A statement was cancelled.
            DbscoreError: The run cannot go on.
        """
        for worker in self._workers:
            worker.start()
        status = "running"
        while status == "running":
            self._listen()
            self._tell()
            doing = set(self._states.values())
            if isinstance(self._fatal, psycopg.errors.QueryCanceled):
                raise self._fatal
            if self._fatal is not None or doing == {State.ENDED}:
                break
            if self._ripe and State.WORKING not in doing:
                status = self._finish()
            if status == "running":
                self._look_again()
        self._disband()
        if self._fatal is not None:
            raise _stopped(self._job, self._fatal)
        if status == "running" and self._lost is not None:
            raise self._lost
        # all ended by themselves, since the server is gone or the job was stopped; or a worker that was just connecting
        # has taken a job up again that had failed
        return self._finish() if status in ("running", "failed") else status

    def release(self) -> None:
        """Let every worker end after the chunk it is at, without waiting."""
        self._stop.set()
        for worker in self._workers:
            worker.wake()

    def cancel(self) -> None:
        """Stop everything now: statements first, then the job's status; no longer than a few seconds."""
        self.release()
        self._cancel_statements()
        # without the server the job stays as it stands, and can be resumed all the same
        with suppress(DbscoreError):
            bookkeeping.cancel(self._engine, self._job.job_id, connect_seconds=CONNECT_SECONDS)
        deadline = time.monotonic() + GRACE_SECONDS
        while not all(w.join(TICK / 4) for w in self._workers) and time.monotonic() < deadline:
            # again and again: a message that comes between two statements is lost
            self._cancel_statements()

    def _cancel_statements(self) -> None:
        for worker in self._workers:
            with suppress(psycopg.Error):
                worker.cancel_statement()

    def _listen(self) -> None:
        """Take the news there is, waiting for the first a moment."""
        with suppress(queue.Empty):
            self._take(self._news.get(timeout=TICK))
            while True:
                self._take(self._news.get_nowait())

    def _take(self, news: News) -> None:
        self._states[news.worker] = news.state
        self._ripe = self._ripe or news.state is State.IDLE
        if news.result is not None:
            self._meter.count(news.result)
            if news.result.failure is not None:
                self.failure = news.result.failure
        if isinstance(news.error, LostConnectionError):
            # the others go on
            self._lost = news.error
        elif news.error is not None and self._fatal is None:
            self._fatal = news.error

    def _tell(self) -> None:
        now = time.monotonic()
        if self._on_progress is not None and now - self._told >= TICK:
            self._told = now
            self._on_progress(self._meter.read(workers=list(self._states.values()).count(State.WORKING)))

    def _look_again(self) -> None:
        """Let the idle look for chunks that came back: from a lost connection, from another client."""
        now = time.monotonic()
        if now - self._woken < LOOK_AGAIN:
            return
        self._woken = now
        for number, state in self._states.items():
            if state is State.IDLE:
                self._states[number] = State.WORKING
                self._workers[number].wake()

    def _disband(self) -> None:
        """Let every worker end after the chunk it is at, and wait for those that are at one."""
        self.release()
        for number, worker in enumerate(self._workers):
            while not worker.join(TICK) and self._states[number] is not State.CONNECTING:
                self._listen()
                self._tell()
        self._listen()

    def _finish(self) -> str:
        """Let the database finish the job where its chunks are done, and return its status then."""
        self._ripe = False
        deadline = time.monotonic() + self._retry_seconds
        while True:
            connection = None
            try:
                connection = session(self._engine, self._job.job_id)
                row = connection.execute("select dbscore.finish_job(%s::integer)", [self._job.job_id]).fetchone()
            except psycopg.errors.QueryCanceled:
                raise
            except psycopg.Error as error:
                if not (is_lost(error, connection) or is_passing(error)) or time.monotonic() > deadline:
                    raise _stopped(self._job, error) from error
                time.sleep(LOOK_AGAIN)
            else:
                break
            finally:
                if connection is not None:
                    connection.close()
        status = "running" if row is None else str(row[0])
        if status == "running":
            self._meter.correct(_read(self._engine, self._job))
        return status


def _read(engine: Engine, job: Job) -> Job:
    with transaction(engine) as connection:
        return bookkeeping.show(connection, job.job_id)


def _stopped(job: Job, error: Exception) -> Exception:
    """Return what stopped a run, as an error that says how to go on."""
    try:
        with typed_errors():
            raise error  # noqa: TRY301 - it gets its type on the way
    except ServerError as typed:
        return JobError(f"job {job.job_id} stopped: {typed.message}", remedy=f"{typed.remedy} {_go_on(job)}".strip())
    except Exception as other:  # noqa: BLE001 - it is returned
        return other


def _go_on(job: Job) -> str:
    return f"What is scored is kept. To go on, run: dbscore jobs resume {job.job_id}"


def _cancelled(job: Job, why: str) -> JobError:
    return JobError(f"job {job.job_id} is cancelled: {why}", remedy=_go_on(job))


def _ended(job: Job, status: str, failure: str | None) -> Job:
    if status == "done":
        return job
    if status == "cancelled":
        raise _cancelled(job, "somebody cancelled it")
    if status == "failed":
        # what the database stores is the message and, on lines of its own, the hint
        problem, _, hint = (job.error or failure or "nobody knows why").partition("\n")
        again = f"dbscore jobs retry {job.job_id}"
        advice = hint if again in hint else f"{hint} To score what failed again, run: {again}".strip()
        raise JobError(f"job {job.job_id} failed: {problem}", remedy=f"What is scored is kept. {advice}")
    raise JobError(f"job {job.job_id} is {status}, not done", remedy=_go_on(job))
