"""Whether a backend's memory grows with the rows it has scored."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.bench import say
from benchmarks.report import Figure

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import psycopg

    from benchmarks.bench import Bench
    from benchmarks.workloads import Workload

__all__ = ["measure"]

EARLY, LATE = 200_000, 2_000_000
# what an allocator may still be filling up; a leak of one byte a row would be 977 kB
KILOBYTES_PER_MILLION = 256


def measure(bench: Bench, workloads: Sequence[Workload], *, rows: int) -> Iterator[Figure]:
    """Yield the growth between 0.2 and 2 million rows of one statement."""
    for one in workloads:
        for suffix in ("", "_proba"):
            say(f"memory: {one.title}{suffix}")
            early, late = _memory(bench, f"models.{one.name}{suffix}(t)", one.table, repeat=-(-LATE // rows))
            yield Figure(
                arm="memory",
                name=f"{one.title}, {one.name}{suffix}: growth per million rows",
                value=(late - early) / ((LATE - EARLY) / 1e6),
                unit="kB",
                at_most=KILOBYTES_PER_MILLION,
                detail=f"{early / 1024:.1f} MB at 0.2 million rows, {late / 1024:.1f} MB at 2 million",
                samples={"early": [early], "late": [late]},
            )


def _memory(bench: Bench, call: str, table: str, *, repeat: int) -> tuple[int, int]:
    """Return the backend's own memory in kB after few and after many rows of one statement."""
    with bench.connect() as connection, connection.transaction():
        connection.execute(
            f"declare scored no scroll cursor for select {call} from generate_series(1, {repeat}), {table} t"
        )
        return _after(connection, EARLY), _after(connection, LATE - EARLY)


def _after(connection: psycopg.Connection[Any], rows: int) -> int:
    """Score more rows; return the backend's memory in kB, without the shared buffers that a scan touches."""
    moved = connection.execute(f"move forward {rows} in scored").rowcount
    if moved != rows:
        raise RuntimeError(f"the cursor moved over {moved} rows, not {rows}")
    status = Path(f"/proc/{connection.info.backend_pid}/status").read_text(encoding="utf-8")
    return int(status.partition("RssAnon:")[2].split()[0])
