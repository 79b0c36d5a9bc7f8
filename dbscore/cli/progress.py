"""A job's progress on stderr: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from dbscore.cli.common import printable
from dbscore.jobs import Job, Progress

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Display", "rows_of"]

LINE_SECONDS = 5.0


class Display:
    """Shows one job from its beginning to its end.

    Args:
        stream: Where to; a terminal gets a bar that moves.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lines_from = 0.0
        self._bar: Bar | None = None
        self.job: Job | None = None

    def __enter__(self) -> Self:
        """Return the display."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the terminal as it was."""
        self.stop()

    def begin(self, job: Job) -> None:
        """Say the job's number, at once: whoever is killed can go on with it."""
        self.job = job
        said = f"job {job.job_id}: {job.reference}, {_source(job)} into {job.into}"
        if job.mode != "create":
            said += f" ({job.mode})"
        done = f"{job.chunks_done} of {job.chunks} chunks done" if job.chunks_done else f"{job.chunks} chunks"
        self._line(f"{said}; {done}, {rows_of(None, job.rows_planned)}, on the {job.runs_on}")
        self._lines_from = time.monotonic()
        if self._stream.isatty():
            self._bar = Bar(
                TextColumn("{task.description}"),
                BarColumn(),
                TaskProgressColumn(),
                TextColumn("{task.fields[said]}"),
                TimeElapsedColumn(),
                console=Console(file=self._stream),
            )
            self._bar.add_task(f"job {job.job_id}", total=max(job.chunks, 1), completed=job.chunks_done, said="")
            self._bar.start()

    def update(self, progress: Progress) -> None:
        """Show how far it is."""
        if self._bar is not None:
            task = self._bar.task_ids[0]
            self._bar.update(task, completed=progress.chunks_done, said=_said(progress))
            return
        now = time.monotonic()
        if now - self._lines_from >= LINE_SECONDS:
            self._lines_from = now
            self._line(f"job {progress.job_id}: {progress.share:.0%}, {_said(progress)}")

    def end(self, job: Job) -> None:
        """Say what came of it."""
        if self._bar is not None:
            # the last chunks came between two looks
            said = rows_of(job.rows_done, job.rows_planned)
            self._bar.update(self._bar.task_ids[0], completed=job.chunks_done, said=said)
        self.stop()
        said = f"job {job.job_id} is {job.status}: {job.rows_done:,} rows into {job.into}"
        if job.seconds:
            said += f" in {job.seconds:.1f} s"
        if job.errors:
            said += f"; {job.errors:,} set aside in {job.errors_table}"
        self._line(said)

    def stop(self) -> None:
        """Let the bar stand still."""
        bar, self._bar = self._bar, None
        if bar is not None:
            bar.stop()

    def _line(self, text: str) -> None:
        # at once, and whole: somebody may be reading a file
        self._stream.write(f"{printable(text)}\n")
        self._stream.flush()


def rows_of(done: int | None, planned: int | None) -> str:
    """Say how many rows are done of about how many."""
    about = "" if planned is None else f"about {planned:,}"
    if done is None:
        return f"{about} rows".strip()
    return f"{done:,} rows of {about}" if about else f"{done:,} rows"


def _said(progress: Progress) -> str:
    parts = [rows_of(progress.rows_done, progress.rows_planned)]
    if progress.rows_per_second:
        parts.append(f"{progress.rows_per_second:,.0f} rows/s")
    if progress.seconds_left is not None:
        minutes, seconds = divmod(round(progress.seconds_left), 60)
        parts.append(f"{minutes}:{seconds:02} left")
    if progress.chunks_failed:
        parts.append(f"{progress.chunks_failed:,} chunks failed")
    if progress.errors:
        parts.append(f"{progress.errors:,} rows set aside")
    return ", ".join(parts)


def _source(job: Job) -> str:
    return "a query" if job.source_kind == "query" else job.source
