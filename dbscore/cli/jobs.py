"""`dbscore score` and `dbscore jobs`: whole tables, in chunks, with progress, resumable."""

from __future__ import annotations

import signal
import sys
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

import typer

from dbscore.cli.common import AsJson, Url, client, notify, query_text, show_json, show_table
from dbscore.cli.progress import Display, rows_of
from dbscore.client import Client
from dbscore.errors import DbscoreError
from dbscore.jobs import Job, JobOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["QUARANTINED", "app", "commands"]

QUARANTINED = 3

commands = typer.Typer()
app = typer.Typer(
    name="jobs",
    help="The jobs that `score` makes: what they are at, and how to go on with them.",
    no_args_is_help=True,
)

JobId = Annotated[int, typer.Argument(min=1, help="The job's number.", metavar="JOB", show_default=False)]
Workers = Annotated[
    int | None,
    typer.Option(min=1, max=64, help="How many connections; by default as when it was made.", show_default=False),
]


@commands.command()
def score(  # noqa: PLR0913 - one option each
    name: Annotated[
        str, typer.Argument(help="The model: churn (its champion), churn@challenger or churn:3.", show_default=False)
    ],
    *,
    source: Annotated[
        str | None, typer.Option("--from", help="The table or view to score, as SQL writes its name.", metavar="TABLE")
    ] = None,
    query: Annotated[
        Path | None,
        typer.Option(help="A file with the SELECT whose rows are scored; - reads it from the standard input."),
    ] = None,
    key: Annotated[
        list[str] | None,
        typer.Option(help="The column, or columns with commas, that tell rows apart; may be repeated.", metavar="COL"),
    ] = None,
    into: Annotated[str, typer.Option(help="The table for the predictions.", metavar="TABLE", show_default=False)],
    where: Annotated[str | None, typer.Option(help="Only rows for which this SQL condition is true.")] = None,
    workers: Annotated[int, typer.Option(min=1, max=64, help="How many connections score at the same time.")] = 2,
    chunk_rows: Annotated[
        int | None, typer.Option(min=1, help="About how many rows one transaction scores.", show_default=False)
    ] = None,
    mode: Annotated[
        Literal["append", "replace", "upsert"] | None,
        typer.Option(help="What to do with a table that exists; without it, that is refused."),
    ] = None,
    incremental: Annotated[
        bool, typer.Option("--incremental", help="Only rows that have no prediction of this version yet.")
    ] = False,
    primary_key: Annotated[
        bool,
        typer.Option(help="Whether a table that the job makes gets a primary key, of the key and the version."),
    ] = True,
    max_errors: Annotated[
        int,
        typer.Option(min=0, help="How many rows the model cannot score may go to <into>_errors; more, and it fails."),
    ] = 0,
    where_to_run: Annotated[
        Literal["auto", "server", "client"],
        typer.Option(help="Where the model runs; auto: on the server where it can."),
    ] = "auto",
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Score a whole table and write the predictions, in chunks of one transaction each.

    The job's number is printed first: whatever dies on the way, `dbscore jobs resume` goes on, and every row has one
    prediction in the end. Ctrl-C cancels the job within a second.

    Exit codes: 0 done; 1 failed, cancelled or refused; 2 wrong usage; 3 done, with rows set aside in <into>_errors.
    """
    if (source is None) == (query is None):
        raise typer.BadParameter("write either --from or --query")
    options = JobOptions(
        key=_columns(key or []),
        into=into,
        source=source,
        query=None if query is None else query_text(query),
        where=where,
        mode=mode,
        incremental=incremental,
        chunk_rows=chunk_rows,
        workers=workers,
        max_errors=max_errors,
        primary_key=primary_key,
        runs_on=where_to_run,
    )
    _run(
        url,
        lambda c, display: c.score(name, options, on_created=display.begin, on_progress=display.update),
        as_json=as_json,
    )


@app.command(name="list")
def list_jobs(*, url: Url = None, as_json: AsJson = False) -> None:
    """List the jobs, oldest first: your own, or all where you own the schema."""
    with client(url) as c:
        jobs = c.jobs()
    if as_json:
        show_json([job.to_json() for job in jobs])
        return
    show_table(
        ["job", "status", "version", "source", "into", "chunks", "rows", "set aside", "by", "made"],
        [
            (
                job.job_id,
                job.status,
                job.reference,
                job.source if job.source_kind != "query" else "a query",
                job.into,
                f"{job.chunks_done}/{job.chunks}",
                job.rows_done,
                job.errors,
                job.run_by,
                f"{job.created_at:%Y-%m-%d %H:%M:%S}",
            )
            for job in jobs
        ],
    )


@app.command()
def show(job_id: JobId, *, url: Url = None, as_json: AsJson = False) -> None:
    """Show one job: what it scores, how far it is, why it failed."""
    with client(url) as c:
        _show(c.job(job_id), as_json=as_json)


@app.command()
def resume(job_id: JobId, *, workers: Workers = None, url: Url = None, as_json: AsJson = False) -> None:
    """Score what a job has not scored yet, wherever it stopped. Exit codes as for `score`."""

    def go_on(c: Client, display: Display) -> Job:
        display.begin(c.job(job_id))
        return c.resume(job_id, workers=workers, on_progress=display.update)

    _run(url, go_on, as_json=as_json)


@app.command()
def retry(job_id: JobId, *, workers: Workers = None, url: Url = None, as_json: AsJson = False) -> None:
    """Score the chunks that failed once more, and what is left. Exit codes as for `score`."""

    def go_on(c: Client, display: Display) -> Job:
        display.begin(c.job(job_id))
        return c.retry(job_id, workers=workers, on_progress=display.update)

    _run(url, go_on, as_json=as_json)


@app.command()
def cancel(job_id: JobId, *, url: Url = None, as_json: AsJson = False) -> None:
    """Stop a job, whoever works on it; `resume` goes on with it."""
    with client(url) as c:
        job = c.cancel(job_id)
    said = f"; to go on, run: dbscore jobs resume {job_id}" if job.status == "cancelled" else ""
    notify(f"job {job_id} is {job.status}{said}")
    if as_json:
        show_json(job.to_json())


def _run(url: str | None, work: Callable[[Client, Display], Job], *, as_json: bool) -> None:
    """Run a job with its progress shown, and end with the exit code that its end has."""
    with client(url) as c, Display(sys.stderr) as display:
        try:
            with _terminable():
                job = work(c, display)
        except (DbscoreError, KeyboardInterrupt) as error:
            display.stop()
            if as_json and display.job is not None:
                show_json(_left(c, display.job, error).to_json())
            if isinstance(error, DbscoreError):
                raise
            _interrupted(display.job)
        display.end(job)
    if as_json:
        show_json(job.to_json())
    if job.errors:
        raise typer.Exit(QUARANTINED)


def _interrupted(job: Job | None) -> NoReturn:
    """End before the job began, or after it ended."""
    notify("interrupted" if job is None else f"interrupted; to go on, run: dbscore jobs resume {job.job_id}")
    raise typer.Exit(1)


def _left(c: Client, job: Job, error: BaseException) -> Job:
    """Return the job as an error left it, as far as the server can still be asked."""
    left = replace(job, status="interrupted")
    with suppress(DbscoreError):
        left = c.job(job.job_id)
    return left if left.error else replace(left, error=getattr(error, "message", "interrupted"))


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM interrupt as Ctrl-C does."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _show(job: Job, *, as_json: bool) -> None:
    if as_json:
        show_json(job.to_json())
        return
    rows: list[tuple[str, object]] = [
        ("job", job.job_id),
        ("status", job.status),
        ("version", job.reference),
        ("source", job.source),
        ("where", job.where),
        ("key", ", ".join(job.key)),
        ("into", f"{job.into}, {job.mode}{', incremental' if job.incremental else ''}"),
        ("runs on", job.runs_on),
        ("workers", f"{job.workers_attached} attached, planned for {job.workers}"),
        ("chunks", f"{job.chunks_done} of {job.chunks} done, {job.chunks_failed} failed"),
        ("rows", rows_of(job.rows_done, job.rows_planned)),
        (
            "set aside",
            f"{job.errors:,} in {job.errors_table}, at most {job.max_errors:,}" if job.max_errors else None,
        ),
        ("error", job.error),
        ("made", f"{job.created_at:%Y-%m-%d %H:%M:%S %Z} by {job.run_by}"),
        ("started", job.started_at and f"{job.started_at:%Y-%m-%d %H:%M:%S %Z}"),
        ("finished", job.finished_at and f"{job.finished_at:%Y-%m-%d %H:%M:%S %Z}"),
    ]
    show_table(["what", "value"], [row for row in rows if row[1]])


def _columns(texts: list[str]) -> list[str]:
    columns = [column.strip() for text in texts for column in text.split(",")]
    if not columns or not all(columns):
        raise typer.BadParameter("write --key with the column, or columns with commas, that tell the rows apart")
    return columns
