"""dbscore's own arms: a call a row, a batch, jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.case import Arm, CannotError, sampled
from dbscore import JobOptions
from dbscore.errors import JobError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.case import Case

__all__ = ["CLIENT_JOB", "JOB", "LIKE", "arms", "client_arms"]

ROW = "dbscore, a call a row"
BATCH = "dbscore, batch"
CLIENT_JOB = "dbscore, job, 2 workers, scored in the client, no primary key"
# a call a row costs some microseconds whatever the model: over all rows of a million, for the cheap models
ROW_SECONDS = 12.0


def job(workers: int) -> str:
    """Return the name of the job's arm with so many workers."""
    return f"dbscore, job, {workers} worker{'s' if workers > 1 else ''}"


JOB = job(2)
# the alternatives' tables have none either
LIKE = f"{JOB}, no primary key"


def arms(case: Case) -> Iterator[Arm]:
    """Yield a call a row, a batch, and jobs; the first two by one process, reading the results and not writing them."""
    connection = case.connect()
    connection.execute("set max_parallel_workers_per_gather = 0")

    def row(rows: int) -> None:
        statement = f"select count(models.{case.name}(t)) from {case.table} t where id <= {rows}"
        connection.execute(statement).fetchall()

    rows = sampled(row, case.rows, seconds=ROW_SECONDS)
    yield Arm(name=ROW, run=lambda: row(rows), rows=rows)

    scored = f"models.{case.name}_batch(%s, key => 'id', key_type => null::{case.key_type})"

    def batch(query: str) -> None:
        connection.execute(f"select count(prediction) from {scored}", [query]).fetchall()

    whole = f"select * from {case.table}"
    batch(f"{whole} where id <= 1000")
    yield Arm(name=BATCH, run=lambda: batch(whole))

    yield _job(case, name=job(1), workers=1, runs_on="server")
    yield _job(case, name=JOB, workers=2, runs_on="server")
    yield _job(case, name=LIKE, workers=2, runs_on="server", primary_key=False)


def client_arms(case: Case) -> Iterator[Arm]:
    """Yield a job whose workers score in this process, as for a server without PL/Python.

    Raises:
        CannotError: The job is refused.
    """
    try:
        yield _job(case, name=CLIENT_JOB, workers=2, runs_on="client", primary_key=False)
    except JobError as error:
        raise CannotError(str(error).partition("\n")[0]) from error


def _job(case: Case, *, name: str, workers: int, runs_on: str, primary_key: bool = True) -> Arm:
    """Return a job's arm; a small job has been done."""
    connection = case.connect()
    table = f"scores_{runs_on}_{workers}{'_key' if primary_key else ''}_{case.name}"
    reference = case.workload.version.reference

    def drop() -> None:
        connection.execute(f"drop table if exists {table}")

    def run(where: str | None = None) -> None:
        options = JobOptions(
            key="id",
            into=table,
            source=case.table,
            where=where,
            workers=workers,
            runs_on=runs_on,
            primary_key=primary_key,
        )
        case.bench.client.score(reference, options)

    drop()
    run("id <= 1000")
    return Arm(name=name, run=run, before=drop, result=table)
