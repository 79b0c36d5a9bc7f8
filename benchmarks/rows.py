"""A scan of the whole table, one prediction a row: beside bare `session.run`, and with two parallel workers."""

from __future__ import annotations

import json
from statistics import median
from typing import TYPE_CHECKING

from benchmarks.bench import say
from benchmarks.report import Figure, ratio

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.bench import Bench
    from benchmarks.workloads import Workload

__all__ = ["measure"]

# each pass is over bench.FEED_ROWS rows; the median pass counts
PASSES = "7"
WORKERS = 2


def measure(bench: Bench, workloads: Sequence[Workload], *, rows: int, rounds: int) -> Iterator[Figure]:
    """Yield the figures of one row, and of parallel workers; bare Python and both scans in every round."""
    for one in workloads:
        say(f"rows: {one.title}")
        yield from _measure(bench, one, rows=rows, rounds=rounds)


def _measure(bench: Bench, one: Workload, *, rows: int, rounds: int) -> Iterator[Figure]:
    # count() reads every prediction and adds nothing of its own
    scoring = f"select count(models.{one.name}(t)) from {one.table} t"
    arguments, feeds = bench.prepare(one.version, one.table)
    samples: dict[str, list[float]] = {"bare": [], "bound": [], "serial": [], "parallel": [], "scan": []}
    with bench.connect() as connection:
        connection.execute(f"set max_parallel_workers_per_gather = {WORKERS}")
        (plan,) = connection.execute(f"explain (analyze, format json) {scoring}").fetchone() or ("",)
        _require_workers(json.dumps(plan))
        # warm: the session is loaded
        connection.execute(f"select models.{one.name}(t) from {one.table} t where t.id <= 1000")
        for _ in range(rounds):
            bare = bench.bare("rows", arguments, feeds, PASSES)
            samples["bare"].append(bare["run"] * 1e6)
            if "bound" in bare:
                samples["bound"].append(bare["bound"] * 1e6)
            for name, workers, statement in (
                ("serial", 0, scoring),
                ("parallel", WORKERS, scoring),
                ("scan", 0, f"select count(t) from {one.table} t"),
            ):
                connection.execute(f"set max_parallel_workers_per_gather = {workers}")
                samples[name].append(bench.timed(connection, statement) * 1e6 / rows)
    middle = {name: median(values) for name, values in samples.items() if values}
    bound = f", bare IOBinding {middle['bound']:.1f}" if "bound" in middle else ""
    yield Figure(
        arm="row",
        name=f"{one.title}: one row, to bare session.run",
        value=ratio(samples["serial"], samples["bare"]),
        at_most=2,
        detail=f"{middle['serial']:.1f} µs, bare {middle['bare']:.1f}{bound}, scan alone {middle['scan']:.1f}",
        samples={name: samples[name] for name in ("bare", "bound", "serial", "scan")},
    )
    yield Figure(
        arm="parallel",
        name=f"{one.title}: serial, to two workers",
        value=ratio(samples["serial"], samples["parallel"]),
        at_least=1.7,
        detail=f"{middle['serial']:.1f} µs, {middle['parallel']:.1f} µs",
        samples={name: samples[name] for name in ("serial", "parallel")},
    )


def _require_workers(plan: str) -> None:
    if f'"Workers Launched": {WORKERS}' not in plan:
        raise RuntimeError(f"the query did not run with {WORKERS} workers: {plan}")
