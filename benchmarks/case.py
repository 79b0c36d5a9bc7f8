"""What the whole-table arms share: a table, a model on it, an arm, and what was measured of it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.inference import Scorer, best_scorer
from benchmarks.writing import ResultTable

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import ExitStack

    import psycopg

    from benchmarks.bench import Bench
    from benchmarks.workloads import Workload

__all__ = ["Arm", "CannotError", "Case", "Measured", "sampled"]

# how long an arm that is measured on some of the rows may take for them, and how many it may have
SAMPLE_SECONDS = 5.0
LEAST_ROWS = 100


class CannotError(Exception):
    """An alternative cannot score this model; the message says why."""


def nothing() -> None:
    """Do nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One way to score the table.

    Attributes:
        name: What it is called.
        run: Does it; this is what is timed.
        before: What must be done before each run, untimed.
        rows: How many rows a run scores, the first by key, where these are not all; its time is scaled.
        result: The table that it writes; None where it writes none.
        note: What else there is to say.
    """

    name: str
    run: Callable[[], object]
    before: Callable[[], object] = nothing
    rows: int | None = None
    result: str | None = None
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What came of an arm.

    Attributes:
        table: The table that was scored.
        model: The model, by its short name: `lr`, `gbm`, `forest`, `mlp`.
        title: The model, in words.
        arm: The arm's name.
        rows: How many rows were scored in fact.
        seconds: What each round took, scaled to all rows of the table; empty where the arm cannot.
        writes: Whether the results are in a table of the database afterwards.
        mismatches: Labels that differ from ONNX Runtime's, of those rows; None where none were compared.
        note: What else there is to say: how it was done, or why it cannot.
    """

    table: str
    model: str
    title: str
    arm: str
    rows: int
    seconds: list[float] = field(default_factory=list)
    writes: bool = False
    mismatches: int | None = None
    note: str = ""

    @property
    def median(self) -> float | None:
        """The median of the rounds; None where the arm cannot."""
        return median(self.seconds) if self.seconds else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A model and the table that every arm scores with it. The key is the column `id`.

    Attributes:
        bench: The server.
        workload: The model.
        content: The deployed version's ONNX bytes.
        columns: The table's columns that are the features, in the signature's order.
        key_type: The key's SQL type.
        keys: The keys, in order, shape (n,).
        values: The features, float64, shape (n, features).
        stack: Closes what the arms opened.
        scorers: ONNX Runtime, by how many threads it has.
    """

    bench: Bench
    workload: Workload
    content: bytes
    columns: tuple[str, ...]
    key_type: str
    keys: np.ndarray
    values: np.ndarray
    stack: ExitStack
    scorers: dict[int, Scorer] = field(default_factory=dict)

    @classmethod
    def load(cls, bench: Bench, workload: Workload, stack: ExitStack) -> Case:
        """Read the table and the version."""
        columns = tuple(f.source for f in workload.version.signature.features)
        with bench.connect() as connection, connection.cursor(binary=True) as cursor:
            cursor.execute(f"select {', '.join(columns)} from {workload.table} order by id")
            values = np.array(cursor.fetchall(), np.float64)
            cursor.execute(f"select id from {workload.table} order by id")
            keys = np.array(cursor.fetchall()).reshape(-1)
            cursor.execute(f"select pg_typeof(id)::text from {workload.table} limit 1")
            (key_type,) = cursor.fetchone() or ("",)
        return cls(
            bench=bench,
            workload=workload,
            content=bench.client.export(workload.version.reference),
            columns=columns,
            key_type=key_type,
            keys=keys,
            values=values,
            stack=stack,
        )

    @property
    def rows(self) -> int:
        """How many rows the table has."""
        return len(self.keys)

    @property
    def table(self) -> str:
        """The table's name."""
        return self.workload.table

    @property
    def name(self) -> str:
        """The model's name in the database."""
        return self.workload.name

    @property
    def select(self) -> str:
        """The statement that reads the key and the features."""
        return f"select id, {', '.join(self.columns)} from {self.table}"

    def connect(self) -> psycopg.Connection[Any]:
        """Open a connection that is closed with the case."""
        return self.stack.enter_context(self.bench.connect())

    def scorer(self, *, threads: int) -> Scorer:
        """Return ONNX Runtime with the version's bytes, as fast as it goes with so many threads."""
        if threads not in self.scorers:
            signature = self.workload.version.signature
            self.scorers[threads] = best_scorer(self.content, signature, self.values, threads=threads)
        return self.scorers[threads]

    def result(self, name: str) -> ResultTable:
        """Return the table that an arm writes its results to; it is not made yet."""
        classes = self.workload.version.signature.classes or ()
        return ResultTable(name=f"{name}_{self.name}", key_type=self.key_type, classes=len(classes))


def sampled(run: Callable[[int], object], rows: int, *, seconds: float = SAMPLE_SECONDS) -> int:
    """Return how many of the rows to measure, so that it takes no longer than some seconds.

    Args:
        run: Scores that many rows; tried with few of them, then with ten times as many, and so on.
        rows: How many there are.
        seconds: How long it may take.
    """
    tried = LEAST_ROWS
    # what a first call loads is no row's
    run(1)
    while tried < rows:
        begin = time.perf_counter()
        run(tried)
        took = time.perf_counter() - begin
        if took > seconds / 20:
            fit = int(tried * seconds / took)
            return rows if fit >= rows else max(LEAST_ROWS, fit // LEAST_ROWS * LEAST_ROWS)
        tried *= 10
    return rows
