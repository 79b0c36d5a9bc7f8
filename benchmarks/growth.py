"""A job on tables of one, ten and fifty parts: its time, and the peak memory of the backends that work on it.

What scoring holds is flat. The primary key, which a job adds when all rows are there, sorts them in as much memory as
maintenance_work_mem of the server allows: more rows take more of it, up to there. So the two are measured apart.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Self

from benchmarks.bench import say
from benchmarks.report import Figure
from dbscore import JobOptions

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType

    from benchmarks.bench import Bench
    from benchmarks.workloads import Workload

__all__ = ["measure"]

# of the rows of `numbers`
TIMES = (0.1, 1, 5)
AT_MOST_TIMES = 5.3
AT_MOST_MEMORY = 1.1
EVERY_SECONDS = 0.02
RESULT = "growth_scores"


def measure(bench: Bench, workloads: Sequence[Workload], *, rows: int, rounds: int) -> Iterator[Figure]:
    """Yield how time and memory grow; in every round each size has its turn, memory is watched in a run of its own."""
    tables = {int(rows * times): _create(bench, int(rows * times)) for times in TIMES}
    _, middle, most = tables
    for one in workloads:
        say(f"growth: {one.title}")
        seconds: dict[int, list[float]] = {size: [] for size in tables}
        for _ in range(rounds):
            for size, table in tables.items():
                seconds[size].append(_job(bench, one, table))
        peaks = {size: _peak(bench, one, table, primary_key=False) for size, table in tables.items()}
        with_key = _peak(bench, one, tables[most], primary_key=True)
        allowed = _maintenance_memory(bench)
        medians = {size: median(values) for size, values in seconds.items()}
        yield Figure(
            arm="growth",
            name=f"{one.title}: time of {most:,} rows, to {middle:,}",
            value=medians[most] / medians[middle],
            at_most=AT_MOST_TIMES,
            detail=", ".join(f"{size:,} rows {value:.2f} s" for size, value in medians.items()),
            samples={f"{size} rows": values for size, values in seconds.items()},
        )
        yield Figure(
            arm="growth",
            name=f"{one.title}: peak memory of a scoring backend at {most:,} rows, to {middle:,}",
            value=peaks[most] / peaks[middle],
            at_most=AT_MOST_MEMORY,
            detail=", ".join(f"{size:,} rows {value / 1024:.0f} MB" for size, value in peaks.items()),
            samples={f"{size} rows": [value] for size, value in peaks.items()},
        )
        yield Figure(
            arm="growth",
            name=f"{one.title}: the same with the primary key at {most:,} rows, to scoring and maintenance_work_mem",
            value=with_key / (peaks[most] + allowed),
            at_most=AT_MOST_MEMORY,
            detail=f"{with_key / 1024:.0f} MB, {peaks[most] / 1024:.0f} MB and {allowed / 1024:.0f} MB",
            samples={"with primary key": [with_key], "scoring": [peaks[most]], "maintenance_work_mem": [allowed]},
        )
    with bench.connect() as connection:
        for table in (*tables.values(), RESULT):
            connection.execute(f"drop table if exists {table}")


def _create(bench: Bench, rows: int) -> str:
    """Make a table of so many rows from the rows of `numbers`, over and over; return its name."""
    table = f"growth_{rows}"
    with bench.connect() as connection:
        (there,) = connection.execute("select count(*) from numbers").fetchone() or (0,)
        values = ", ".join(f"x{i}" for i in range(10))
        repeats = -(-rows // there)
        connection.execute(
            f"""create table {table} as
                select (n.id + k * {there})::integer as id, {values}
                from generate_series(0, {repeats - 1}) k, numbers n where n.id + k * {there} <= {rows}"""
        )
        connection.execute(f"alter table {table} add primary key (id)")
        connection.execute(f"vacuum (analyze, freeze) {table}")
        # read once: into memory
        connection.execute(f"select sum(x0) from {table}")
    return table


def _peak(bench: Bench, one: Workload, table: str, *, primary_key: bool) -> int:
    """Return the most memory that a backend of a job has, in kB."""
    with Watch(bench) as watch:
        _job(bench, one, table, primary_key=primary_key)
    return watch.peak


def _maintenance_memory(bench: Bench) -> int:
    """Return the server's maintenance_work_mem in kB."""
    with bench.connect() as connection:
        query = "select setting from pg_settings where name = 'maintenance_work_mem'"
        (allowed,) = connection.execute(query).fetchone() or ("0",)
    return int(allowed)


def _job(bench: Bench, one: Workload, table: str, *, primary_key: bool = True) -> float:
    """Return the seconds of a job with two workers."""
    with bench.connect() as connection:
        connection.execute(f"drop table if exists {RESULT}")
        connection.execute("checkpoint")
    begin = time.perf_counter()
    bench.client.score(
        one.version.reference, JobOptions(key="id", into=RESULT, source=table, workers=2, primary_key=primary_key)
    )
    return time.perf_counter() - begin


class Watch(threading.Thread):
    """Watches the memory of a job's backends while it runs, from outside.

    Counted is a backend's own memory (RssAnon, kB), without the shared buffers that it touches.
    """

    def __init__(self, bench: Bench) -> None:
        super().__init__(daemon=True)
        self._connection = bench.connect()
        self._stop_asked = threading.Event()
        self._peaks: dict[int, int] = {}

    @property
    def peak(self) -> int:
        """The most that any one backend had, in kB.

        Raises:
            RuntimeError: No backend of a job was seen.
        """
        if not self._peaks:
            raise RuntimeError("no backend of a job was seen")
        return max(self._peaks.values())

    def run(self) -> None:
        """Look every twenty milliseconds."""
        query = "select pid from pg_stat_activity where application_name ~ '^dbscore job [0-9]+'"
        while not self._stop_asked.wait(EVERY_SECONDS):
            for (pid,) in self._connection.execute(query):
                try:
                    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
                except (FileNotFoundError, ProcessLookupError):
                    continue
                own = status.partition("RssAnon:")[2].split()
                if own:
                    self._peaks[pid] = max(self._peaks.get(pid, 0), int(own[0]))

    def __enter__(self) -> Self:
        """Begin to watch."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop watching."""
        self._stop_asked.set()
        self.join()
        self._connection.close()
