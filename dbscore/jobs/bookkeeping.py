"""The books of the jobs: made, found, retried and cancelled, through the views and functions that any role may use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from psycopg.rows import dict_row

from dbscore.database import run, scalar, typed_errors
from dbscore.errors import NotFoundError, SchemaError
from dbscore.jobs.connection import session
from dbscore.jobs.records import Job, JobOptions
from dbscore.jobs.scoring import outsider

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection, Engine

__all__ = ["cancel", "create", "jobs", "retry", "show"]

_JOBS = """
select j.job_id, j.model, j.version, p.status, j.source_kind, j.source, j.where_clause, j.key_columns, j.into_table,
       j.errors_table, j.mode, j.incremental, j.runs_on, j.chunk_rows, j.workers, p.workers as workers_attached,
       j.max_errors, p.chunks, p.chunks_done, p.chunks_failed, j.rows_planned, p.rows_done, j.errors, j.error,
       j.run_by, j.created_at, j.started_at, j.finished_at
from dbscore.jobs j
join dbscore.job_progress p using (job_id)
where %(job_id)s::integer is null or j.job_id = %(job_id)s::integer
order by j.job_id
"""
_CREATE = """
select dbscore.create_job(
    %(reference)s, %(key)s::text[], %(into)s,
    source => %(source)s,
    query => %(query)s,
    where_clause => %(where)s,
    mode => %(mode)s,
    incremental => %(incremental)s,
    chunk_rows => %(chunk_rows)s::integer,
    workers => %(workers)s::integer,
    max_errors => %(max_errors)s::bigint,
    primary_key => %(primary_key)s::boolean,
    runs_on => %(runs_on)s)
"""


def create(connection: Connection, reference: str, options: JobOptions) -> Job:
    """Check everything, make the tables and plan the chunks; whoever commits has a job that can be run.

    Raises:
        NotFoundError: There is no such version.
        FeatureError: The source lacks a feature, or has it with a type that does not fit.
        JobError: The source, the key or the result table is refused; the message says which and why.
        PrivilegeError: The role may not score the version, read the source, or make or write the result table.
    """
    _require_jobs(connection)
    job_id = scalar(
        connection,
        _CREATE,
        {
            "reference": reference,
            "key": [options.key] if isinstance(options.key, str) else list(options.key),
            "into": options.into,
            "source": options.source,
            "query": options.query,
            "where": options.where,
            "mode": options.mode,
            "incremental": options.incremental,
            "chunk_rows": options.chunk_rows,
            "workers": options.workers,
            "max_errors": options.max_errors,
            "primary_key": options.primary_key,
            "runs_on": options.runs_on,
        },
    )
    job = show(connection, int(job_id))
    if job.runs_on == "client" and not scalar(
        connection, "select pg_catalog.has_table_privilege('dbscore.artifact', 'select')"
    ):
        raise outsider()
    return job


def jobs(connection: Connection) -> list[Job]:
    """Return the jobs that the role may see, oldest first: its own, or all for the schema's owner."""
    return _read(connection, None)


def show(connection: Connection, job_id: int) -> Job:
    """Return one job.

    Raises:
        NotFoundError: There is none of that number, or it is another role's.
    """
    found = _read(connection, job_id)
    if not found:
        raise NotFoundError(f"there is no job {job_id} of yours", remedy="`dbscore jobs list` names those there are.")
    return found[0]


def retry(connection: Connection, job_id: int) -> int:
    """Plan the failed chunks of a job again, and return how many they are.

    Raises:
        NotFoundError: There is no such job.
        JobError: It is not one whose chunks can be planned again.
    """
    show(connection, job_id)
    return int(scalar(connection, "select dbscore.retry_job(%s::integer)", [job_id]))


def cancel(engine: Engine, job_id: int, *, connect_seconds: int = 10) -> None:
    """Cancel a job: its status first, then what its workers are doing. It can be resumed.

    Raises:
        JobError: The job has ended.
        ServerError: The server does not answer within `connect_seconds`.
    """
    # a procedure that commits: it cannot be called within a transaction
    with typed_errors(), session(engine, job_id, connect_seconds=connect_seconds) as connection:
        connection.execute("call dbscore.cancel_job(%s::integer)", [job_id])


def _read(connection: Connection, job_id: int | None) -> list[Job]:
    _require_jobs(connection)
    cursor = run(connection, _JOBS, {"job_id": job_id})
    make = dict_row(cursor)
    return [_job(make(row)) for row in cursor]


def _job(row: Mapping[str, Any]) -> Job:
    renamed = {"where_clause": "where", "key_columns": "key", "into_table": "into"}
    values = {renamed.get(name, name): value for name, value in row.items()}
    counts = ("workers_attached", "chunks", "chunks_done", "chunks_failed", "rows_done", "errors")
    # sum() of a bigint is numeric in SQL, and NULL where there is nothing to sum
    values |= {name: int(values[name] or 0) for name in counts}
    return Job(**(values | {"key": tuple(values["key"])}))


def _require_jobs(connection: Connection) -> None:
    if scalar(connection, "select pg_catalog.to_regclass('dbscore.job_progress')") is None:
        raise SchemaError("dbscore has no jobs in this database", remedy="Run `dbscore install`.")
