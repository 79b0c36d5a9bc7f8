"""What jobs tell of: what is to be scored, the job, how far it is, what came of a chunk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

__all__ = ["ChunkResult", "Job", "JobOptions", "Progress"]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOptions:
    """What a job scores, and where the predictions go.

    Attributes:
        key: The column or columns that tell the rows apart: unique together, never NULL. Names as the table has them.
        into: The table for the predictions, as SQL writes its name; it is made unless `mode` says otherwise.
        source: The table or view whose rows are scored, as SQL writes its name; either this or `query`.
        query: A SELECT whose rows are scored.
        where: A condition, as SQL writes it; rows for which it is not true are left out.
        mode: What happens to an `into` that exists: `append`, `replace` (when the job is done, not before) or
            `upsert`; None refuses it.
        incremental: Score only what has no prediction of this version in `into` yet.
        chunk_rows: About how many rows one transaction scores; None lets the database choose.
        workers: How many connections score at the same time.
        max_errors: How many rows that the model cannot score may go to `<into>_errors`, before the job fails.
        primary_key: Whether a table that the job makes gets one, the key and the version, when all rows are there.
        runs_on: Where the model runs: `server`, `client` (in the workers' process), or `auto`: on the server where
            it can.
    """

    key: str | Sequence[str]
    into: str
    source: str | None = None
    query: str | None = None
    where: str | None = None
    mode: str | None = None
    incremental: bool = False
    chunk_rows: int | None = None
    workers: int = 2
    max_errors: int = 0
    primary_key: bool = True
    runs_on: str = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One whole-table scoring run, as the database has it.

    Attributes:
        job_id: Its number.
        model: The model's name.
        version: The version's number, fixed when the job was made.
        status: `planned`, `running`, `interrupted` (running, but nobody works on it), `done`, `failed`, `cancelled` or
            `abandoned` (another job replaced its table).
        source_kind: `table`, `view` or `query`.
        source: The table or view, or the query's text.
        where: The condition; None where all rows are scored.
        key: The columns that tell the rows apart.
        into: The table of the predictions.
        errors_table: The table of the rows that could not be scored; None where none are allowed.
        mode: `create`, `append`, `replace` or `upsert`.
        incremental: Whether only rows without a prediction of this version are scored.
        runs_on: `server` or `client`.
        chunk_rows: About how many rows one transaction scores.
        workers: How many connections it was planned for.
        workers_attached: How many work on it now, of all clients.
        max_errors: How many rows may be set aside before it fails.
        chunks: How many chunks it has.
        chunks_done: How many are scored and written.
        chunks_failed: How many failed; `retry` takes them up again.
        rows_planned: How many rows there are, estimated.
        rows_done: How many rows have a prediction.
        errors: How many rows could not be scored and were set aside in `errors_table`.
        error: Why it failed; None where it did not.
        run_by: The role that it belongs to.
        created_at: When it was made.
        started_at: When workers last took it up.
        finished_at: When it ended.
    """

    job_id: int
    model: str
    version: int
    status: str
    source_kind: str
    source: str
    where: str | None
    key: tuple[str, ...]
    into: str
    errors_table: str | None
    mode: str
    incremental: bool
    runs_on: str
    chunk_rows: int
    workers: int
    workers_attached: int
    max_errors: int
    chunks: int
    chunks_done: int
    chunks_failed: int
    rows_planned: int | None
    rows_done: int
    errors: int
    error: str | None
    run_by: str
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None

    @property
    def reference(self) -> str:
        """The version that scores: `tip:3`."""
        return f"{self.model}:{self.version}"

    @property
    def seconds(self) -> float | None:
        """Seconds from its last start to its end; None where it has not ended."""
        if self.started_at is None or self.finished_at is None:
            return None
        return (self.finished_at - self.started_at).total_seconds()

    def to_json(self) -> dict[str, Any]:
        """Return the job as JSON values."""
        return {
            "job": self.job_id,
            "status": self.status,
            "reference": self.reference,
            "model": self.model,
            "version": self.version,
            "source_kind": self.source_kind,
            "source": self.source,
            "where": self.where,
            "key": list(self.key),
            "into": self.into,
            "errors_table": self.errors_table,
            "mode": self.mode,
            "incremental": self.incremental,
            "runs_on": self.runs_on,
            "chunk_rows": self.chunk_rows,
            "workers": self.workers,
            "workers_attached": self.workers_attached,
            "max_errors": self.max_errors,
            "chunks": self.chunks,
            "chunks_done": self.chunks_done,
            "chunks_failed": self.chunks_failed,
            "rows_planned": self.rows_planned,
            "rows_done": self.rows_done,
            "errors": self.errors,
            "error": self.error,
            "run_by": self.run_by,
            "created_at": self.created_at.isoformat(),
            "started_at": self.started_at and self.started_at.isoformat(),
            "finished_at": self.finished_at and self.finished_at.isoformat(),
            "seconds": self.seconds,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a job is, as the client that works on it sees it.

    Attributes:
        job_id: The job's number.
        rows_done: Rows that have a prediction, those before a resumption included.
        rows_planned: Rows there are, estimated; None where nobody knows.
        rows_per_second: Rows that this client scored, by the seconds since it began; 0.0 before its first chunk.
        seconds_left: Seconds until the end at the pace so far; None before the first chunk.
        chunks: Chunks of the job.
        chunks_done: Chunks scored and written.
        chunks_failed: Chunks that failed.
        errors: Rows set aside, since the model cannot score them.
        workers: Connections of this client that are working.
    """

    job_id: int
    rows_done: int
    rows_planned: int | None
    rows_per_second: float
    seconds_left: float | None
    chunks: int
    chunks_done: int
    chunks_failed: int
    errors: int
    workers: int

    @property
    def share(self) -> float:
        """The share of the chunks that are done, a fraction in [0, 1]."""
        return self.chunks_done / self.chunks if self.chunks else 1.0

    def to_json(self) -> dict[str, Any]:
        """Return the progress as JSON values."""
        return {
            "job": self.job_id,
            "rows_done": self.rows_done,
            "rows_planned": self.rows_planned,
            "rows_per_second": self.rows_per_second,
            "seconds_left": self.seconds_left,
            "chunks": self.chunks,
            "chunks_done": self.chunks_done,
            "chunks_failed": self.chunks_failed,
            "errors": self.errors,
            "workers": self.workers,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkResult:
    """What came of one chunk.

    Attributes:
        chunk: Its number within the job.
        rows: Rows that have a prediction now.
        errors: Rows set aside, since the model cannot score them.
        failure: Why the chunk failed, and with it the job; None where it is written.
    """

    chunk: int
    rows: int
    errors: int
    failure: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON values."""
        return {"chunk": self.chunk, "rows": self.rows, "errors": self.errors, "failure": self.failure}
