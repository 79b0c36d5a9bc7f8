"""The first prediction in a new connection, beside a new Python process that imports and loads the same."""

from __future__ import annotations

import time
from statistics import median
from typing import TYPE_CHECKING

from benchmarks.bench import say
from benchmarks.report import Figure, ratio

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.bench import Bench
    from benchmarks.workloads import Workload

__all__ = ["measure"]

STEPS = ("standard_library", "numpy", "onnxruntime", "load")


def measure(bench: Bench, workloads: Sequence[Workload], *, rounds: int) -> Iterator[Figure]:
    """Yield the figures of the first prediction, with the model's file there and not there yet."""
    for one in workloads:
        say(f"connection: {one.title}")
        yield from _measure(bench, one, rounds=rounds)


def _measure(bench: Bench, one: Workload, *, rounds: int) -> Iterator[Figure]:
    arguments, feeds = bench.prepare(one.version, one.table, rows=1)
    python: list[dict[str, float]] = []
    pinned: list[dict[str, float]] = []
    unpinned: list[dict[str, float]] = []
    for _ in range(rounds):
        python.append(bench.bare("load", arguments, feeds))
        pinned.append(_first(bench, one))
        with bench.connect() as other:
            other.execute("select dbscore_engine.forget(%s)", [one.version.sha256])
        unpinned.append(_first(bench, one))
    imports = [p["total"] for p in python]
    steps = ", ".join(f"{name.replace('_', ' ')} {_milliseconds(python, name)}" for name in STEPS)
    for title, first in (("pinned", pinned), ("not pinned", unpinned)):
        seconds = [f["first"] for f in first]
        yield Figure(
            arm="connection",
            name=f"{one.title}: first prediction, {title}, to Python's own import and load",
            value=ratio(seconds, imports),
            at_most=1.3,
            detail=f"{_milliseconds(first, 'first')} ms (second {_milliseconds(first, 'second')}, "
            f"loading {_milliseconds(first, 'load')}); Python {_milliseconds(python, 'total')} ms ({steps})",
            samples={"first": seconds, "python": imports},
        )
    yield Figure(
        arm="connection",
        name=f"{one.title}: connecting and first prediction, pinned, to a whole Python process",
        value=ratio([p["connect"] + p["first"] for p in pinned], [p["process"] for p in python]),
        detail=f"connecting {_milliseconds(pinned, 'connect')} ms; process {_milliseconds(python, 'process')} ms",
        samples={"process": [p["process"] for p in python]},
    )


def _first(bench: Bench, one: Workload) -> dict[str, float]:
    """Return the seconds of connecting, and of the same prediction for the first and the second time."""
    statement = f"select models.{one.name}(t) from {one.table} t limit 1"
    begin = time.perf_counter()
    with bench.connect() as connection:
        connected = time.perf_counter() - begin
        first = bench.timed(connection, statement)
        second = bench.timed(connection, statement)
        row = connection.execute("select load_seconds from dbscore.sessions()").fetchone()
    return {"connect": connected, "first": first, "second": second, "load": row[0] if row else 0.0}


def _milliseconds(measured: Sequence[dict[str, float]], name: str) -> str:
    return f"{median(m[name] for m in measured) * 1e3:.1f}"
