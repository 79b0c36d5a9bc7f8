"""A table with the columns of a job's results, and the fastest COPY into it: binary, made by numpy."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import psycopg

    from benchmarks.inference import Answers

__all__ = ["ResultTable"]

HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER = b"\xff\xff"
FLOAT8 = 701
# rows that are turned into bytes at once: they stay in the processor's cache
ROWS = 10_000
# a job's number; an alternative has none
JOB = 0
VERSION = 1
KEYS = {"integer": ">i4", "bigint": ">i8"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultTable:
    """The table: key, prediction, probabilities, version, job_id; no index.

    Attributes:
        name: Its name, which needs no quotes.
        key_type: The key's SQL type: `integer` or `bigint`.
        classes: How many probabilities a row has.
    """

    name: str
    key_type: str
    classes: int

    def create(self, connection: psycopg.Connection[Any]) -> None:
        """Make the table, empty."""
        self.drop(connection)
        connection.execute(
            f"""create table {self.name} (id {self.key_type}, prediction bigint, probabilities double precision[],
                                         version integer, job_id integer)"""
        )

    def drop(self, connection: psycopg.Connection[Any]) -> None:
        """Drop the table, where there is one."""
        connection.execute(f"drop table if exists {self.name}")

    @contextmanager
    def copying(self, connection: psycopg.Connection[Any]) -> Iterator[Callable[[np.ndarray, Answers], None]]:
        """Open a COPY; what is yielded takes keys and answers, as often as wanted."""
        block = self._block()
        with connection.cursor().copy(f"copy {self.name} from stdin (format binary)") as copy:
            copy.write(HEADER)
            yield partial(_write, copy, block)
            copy.write(TRAILER)

    def _block(self) -> np.ndarray:
        """Return rows as COPY takes them, all filled in that is the same in every row; numbers are big-endian."""
        item = [("length", ">i4"), ("value", ">f8")]
        block = np.zeros(
            ROWS,
            [
                ("columns", ">i2"),
                ("id_length", ">i4"),
                ("id", KEYS[self.key_type]),
                ("prediction_length", ">i4"),
                ("prediction", ">i8"),
                ("probabilities_length", ">i4"),
                ("dimensions", ">i4"),
                ("has_nulls", ">i4"),
                ("element", ">i4"),
                ("count", ">i4"),
                ("lower_bound", ">i4"),
                ("probabilities", item, (self.classes,)),
                ("version_length", ">i4"),
                ("version", ">i4"),
                ("job_length", ">i4"),
                ("job", ">i4"),
            ],
        )
        same = {
            "columns": 5,
            "id_length": block["id"].itemsize,
            "prediction_length": 8,
            "probabilities_length": 20 + 12 * self.classes,
            "dimensions": 1,
            "element": FLOAT8,
            "count": self.classes,
            "lower_bound": 1,
            "version_length": 4,
            "version": VERSION,
            "job_length": 4,
            "job": JOB,
        }
        for name, value in same.items():
            block[name] = value
        block["probabilities"]["length"] = 8
        return block


def _write(copy: psycopg.Copy, block: np.ndarray, keys: np.ndarray, answers: Answers) -> None:
    for begin in range(0, len(keys), len(block)):
        part = slice(begin, begin + len(block))
        rows = block[: len(keys[part])]
        rows["id"] = keys[part]
        rows["prediction"] = answers.labels[part]
        rows["probabilities"]["value"] = answers.probabilities[part]
        copy.write(rows.tobytes())
