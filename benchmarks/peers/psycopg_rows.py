"""A client with psycopg: rows as tuples from a server-side cursor, numpy, ONNX Runtime, COPY back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from benchmarks.case import Arm

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.case import Case

__all__ = ["BINARY", "TEXT", "arms"]

TEXT = "client, psycopg rows"
BINARY = "client, psycopg rows, binary cursor"
FETCHED = 10_000


def arms(case: Case) -> Iterator[Arm]:
    """Yield it as psycopg does it by itself, numbers as text; and with a binary cursor. Both COPY while reading."""
    scorer = case.scorer(threads=2)
    writer = case.connect()
    for name, binary in ((TEXT, False), (BINARY, True)):
        target = case.result("psycopg_binary" if binary else "psycopg")

        def run(target=target, binary=binary) -> None:  # noqa: ANN001 - its own defaults
            with (
                case.bench.connect() as connection,
                connection.transaction(),
                connection.cursor("rows", binary=binary) as cursor,
                target.copying(writer) as write,
            ):
                cursor.execute(case.select)
                while rows := cursor.fetchmany(FETCHED):
                    array = np.array(rows, np.float64)
                    write(array[:, 0], scorer.score(array[:, 1:]))

        yield Arm(name=name, run=run, before=lambda target=target: target.create(writer), result=target.name)
