"""How far a job is, how fast it goes, when it will end: from what the workers tell, without asking the database."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from dbscore.jobs.records import ChunkResult, Job, Progress

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Meter"]


class Meter:
    """Counts on from where a job stands.

    Args:
        job: As it stands when the run begins.
        clock: Seconds that only grow.
    """

    def __init__(self, job: Job, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = clock()
        self._rows = self._chunks = 0
        self.correct(job)

    def correct(self, job: Job) -> None:
        """Take over what the database says: others may work on the same job."""
        self._job = job
        self._rows_since = self._chunks_since = self._failed_since = self._errors_since = 0

    def count(self, result: ChunkResult) -> None:
        """Add what came of one chunk."""
        if result.failure is not None:
            self._failed_since += 1
            return
        self._rows += result.rows
        self._chunks += 1
        self._rows_since += result.rows
        self._chunks_since += 1
        self._errors_since += result.errors

    def read(self, *, workers: int) -> Progress:
        """Return the progress now.

        Args:
            workers: Connections that are working.
        """
        job, elapsed = self._job, self._clock() - self._began
        done, failed = job.chunks_done + self._chunks_since, job.chunks_failed + self._failed_since
        left = max(job.chunks - done - failed, 0)
        return Progress(
            job_id=job.job_id,
            rows_done=job.rows_done + self._rows_since,
            rows_planned=job.rows_planned,
            rows_per_second=self._rows / elapsed if self._rows and elapsed > 0 else 0.0,
            # by chunks, which are about equal: the number of rows is only estimated
            seconds_left=left * elapsed / self._chunks if self._chunks else None,
            chunks=job.chunks,
            chunks_done=done,
            chunks_failed=failed,
            errors=job.errors + self._errors_since,
            workers=workers,
        )
