"""An experiment over a whole table beside what it is made of: a scoring job, and ready-made rows inserted."""

from __future__ import annotations

import time
from statistics import median
from typing import TYPE_CHECKING

from benchmarks.bench import say
from benchmarks.report import Figure
from dbscore import JobOptions

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import psycopg

    from benchmarks.bench import Bench
    from benchmarks.workloads import Workload

__all__ = ["measure"]

AT_MOST_TIMES = 1.4
AT_MOST_MICROSECONDS = 2.0
AT_MOST_SECONDS = 1.0
RESULT = "experiment_scores"
# what an experiment records
RECORDED = {
    "assignment": "unit, variant, allocation_id, assigned_at, xact",
    "prediction": "unit, variant, version_id, engine, is_served, prediction, label, probabilities, request_id,"
    " features, predicted_at",
}


def measure(bench: Bench, workloads: Sequence[Workload], *, rows: int, rounds: int) -> Iterator[Figure]:
    """Yield what recording costs, how fast units are assigned, and how fast the views answer."""
    with bench.connect() as connection:
        connection.execute("set client_min_messages = warning")
        connection.execute("set max_parallel_workers_per_gather = 0")
        yield _assignment(connection, rows=rows, rounds=rounds)
        connection.execute("reset max_parallel_workers_per_gather")
        for one in workloads:
            say(f"experiments: {one.title}")
            yield _recording(bench, connection, one, rows=rows, rounds=rounds)
        yield from _views(connection, f"{workloads[-1].kind}_{rounds}", rows=rows)


def _assignment(connection: psycopg.Connection[tuple[object, ...]], *, rows: int, rounds: int) -> Figure:
    """Measure the hash of a unit in a query, without what the query takes by itself."""
    seconds: dict[str, list[float]] = {"plain": [], "bucket": []}
    for _ in range(rounds):
        for name, text in (("plain", "length(id::text)"), ("bucket", "dbscore.bucket('sha256', 'salt', id::text)")):
            begin = time.perf_counter()
            connection.execute(f"select sum({text}) from numbers").fetchall()
            seconds[name].append(time.perf_counter() - begin)
    each = (median(seconds["bucket"]) - median(seconds["plain"])) / rows * 1e6
    return Figure(
        arm="experiments",
        name="a unit assigned in a query, one process: microseconds",
        value=each,
        at_most=AT_MOST_MICROSECONDS,
        detail=f"{rows:,} units {median(seconds['bucket']):.2f} s, the query alone {median(seconds['plain']):.2f} s",
        samples=seconds,
    )


def _recording(
    bench: Bench, connection: psycopg.Connection[tuple[object, ...]], one: Workload, *, rows: int, rounds: int
) -> Figure:
    """Measure an experiment of a version with itself, each round a new one: all its units are new."""
    # an experiment is one session, a job has two workers by default: one with a single worker is measured beside it
    seconds: dict[str, list[float]] = {"job": [], "job of one worker": [], "inserted": [], "experiment": []}
    # the round before the first is not counted: memory that nobody has touched yet is slow
    for number in range(-1, rounds):
        name = f"{one.kind}_{number + 1}"
        variants = [f"control={one.version.reference}:50", f"treatment={one.version.reference}:50"]
        connection.execute("select dbscore.create_experiment(%s, 'unit_id', %s)", [name, variants])
        connection.execute("select dbscore.start_experiment(%s)", [name])
        took = {}
        for workers, measured in ((1, "job of one worker"), (2, "job")):
            connection.execute(f"drop table if exists {RESULT}")
            connection.execute("checkpoint")
            begin = time.perf_counter()
            options = JobOptions(key="id", into=RESULT, source=one.table, workers=workers)
            bench.client.score(one.version.reference, options)
            took[measured] = time.perf_counter() - begin
        _empty(connection)
        begin = time.perf_counter()
        connection.execute("call dbscore.run_experiment(%s, %s, 'id')", [name, f"select * from {one.table}"])
        took["experiment"] = time.perf_counter() - begin
        took["inserted"] = _inserted(connection)
        if number >= 0:
            for kind, value in took.items():
                seconds[kind].append(value)
    floor = median(seconds["job"]) + median(seconds["inserted"])
    return Figure(
        arm="experiments",
        name=f"{one.title}: {rows:,} units assigned, scored and recorded, to a job and rows inserted",
        value=median(seconds["experiment"]) / floor,
        at_most=AT_MOST_TIMES,
        detail=", ".join(f"{name} {median(values):.2f} s" for name, values in seconds.items()),
        samples=seconds,
    )


def _inserted(connection: psycopg.Connection[tuple[object, ...]]) -> float:
    """Return how long it takes to insert what an experiment has recorded, into the same memory and files as it did."""
    for table, columns in RECORDED.items():
        connection.execute(f"create table ready_{table} as select experiment_id, {columns} from dbscore.{table}")
    _empty(connection)
    total = 0.0
    for table, columns in RECORDED.items():
        begin = time.perf_counter()
        connection.execute(
            f"insert into dbscore.{table} (experiment_id, {columns}) select experiment_id, {columns} from ready_{table}"
        )
        total += time.perf_counter() - begin
        connection.execute(f"drop table ready_{table}")
    return total


def _empty(connection: psycopg.Connection[tuple[object, ...]]) -> None:
    """Delete what the last experiment has recorded."""
    for table in RECORDED:
        connection.execute(f"delete from dbscore.{table}")
        connection.execute(f"vacuum dbscore.{table}")
    connection.execute("checkpoint")


def _views(connection: psycopg.Connection[tuple[object, ...]], name: str, *, rows: int) -> Iterator[Figure]:
    """Measure the analysts' views on an experiment whose units have outcomes: as refreshed, and with some since."""
    connection.execute("select dbscore.create_metric(%s, 'paid', 'conversion')", [name])
    connection.execute("select dbscore.create_metric(%s, 'revenue', 'mean')", [name])
    connection.execute(
        """insert into dbscore.outcome (metric_id, unit, value, occurred_at)
           select m.metric_id, a.unit, random(), clock_timestamp() from dbscore.experiment e
           join dbscore.metric m using (experiment_id) join dbscore.assignment a using (experiment_id)
           where e.name = %s and random() < 0.5""",
        [name],
    )
    for table in (*RECORDED, "outcome"):
        connection.execute(f"vacuum analyze dbscore.{table}")
    begin = time.perf_counter()
    connection.execute("select dbscore.refresh_experiment(%s)", [name])
    refreshed = time.perf_counter() - begin
    connection.execute(
        """select count(dbscore.record_outcome(%s, unit, 'revenue', 1.0))
           from (select unit from dbscore.assignment where experiment_id = (
               select experiment_id from dbscore.experiment where name = %s) limit 1000) u""",
        [name, name],
    )
    for view in ("experiment_summary", "experiment_results", "experiment_daily"):
        begin = time.perf_counter()
        connection.execute(f"select * from dbscore.{view} where experiment = %s", [name]).fetchall()
        seconds = time.perf_counter() - begin
        yield Figure(
            arm="experiments",
            name=f"dbscore.{view} of {rows:,} units and as many outcomes, 1,000 since the refresh: seconds",
            value=seconds,
            at_most=AT_MOST_SECONDS,
            detail=f"the refresh {refreshed:.2f} s",
            samples={"seconds": [seconds]},
        )
