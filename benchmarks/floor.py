"""What no arm can do without: reading the table, computing the model, writing the results; each by itself."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from benchmarks.case import Arm, Measured

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.case import Case

__all__ = ["CORES", "FLOOR", "REFERENCE", "arms", "floor"]

CORES = os.cpu_count() or 1
SCAN = "plain scan: sum of the features"
COPY = "COPY of the results, binary"
FLOOR = f"**floor**: scan + ONNX Runtime, {CORES} threads + COPY"
# the table that the other arms' labels are compared with
REFERENCE = "copied"


def in_memory(threads: int) -> str:
    """Return the name of ONNX Runtime's arm with so many threads."""
    return f"ONNX Runtime in memory, {threads} thread{'s' if threads > 1 else ''}"


def arms(case: Case) -> Iterator[Arm]:
    """Yield the parts of the floor; the reading is by one process, parallel query off."""
    reader, writer = case.connect(), case.connect()
    reader.execute("set max_parallel_workers_per_gather = 0")
    statement = f"select sum({' + '.join(case.columns)}) from {case.table}"
    yield Arm(name=SCAN, run=lambda: reader.execute(statement).fetchall())
    for threads in sorted({1, 2, CORES}):
        scorer = case.scorer(threads=threads)
        feeds = scorer.feeds(case.values)
        yield Arm(name=in_memory(threads), run=lambda scorer=scorer, feeds=feeds: scorer.run(feeds), note=scorer.told)
    answers = scorer.run(feeds)
    target = case.result(REFERENCE)

    def copy() -> None:
        with target.copying(writer) as write:
            write(case.keys, answers)

    yield Arm(name=COPY, run=copy, before=lambda: target.create(writer), result=target.name)


def floor(parts: Sequence[Measured]) -> Measured:
    """Return the floor of a model: the sum of the medians of its parts."""
    by_name = {one.arm: one for one in parts}
    found = [by_name[name] for name in (SCAN, in_memory(CORES), COPY)]
    first = found[0]
    return Measured(
        table=first.table,
        model=first.model,
        title=first.title,
        arm=FLOOR,
        rows=first.rows,
        seconds=[sum(one.median or 0.0 for one in found)],
        writes=True,
    )
