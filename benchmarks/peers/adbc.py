"""A client with ADBC: the table as Arrow, ONNX Runtime, COPY back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from adbc_driver_postgresql import dbapi

from benchmarks.case import Arm

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa

    from benchmarks.case import Case

__all__ = ["STREAMED", "WHOLE", "arms"]

WHOLE = "client, ADBC: pull, score, COPY"
STREAMED = "client, ADBC: COPY while pulling"


def arms(case: Case) -> Iterator[Arm]:
    """Yield it step by step, the table in memory between them; and batch by batch, the COPY open meanwhile."""
    scorer = case.scorer(threads=2)
    writer = case.connect()
    whole_result, streamed_result = case.result("adbc_whole"), case.result("adbc_streamed")

    def arrays(part: pa.Table | pa.RecordBatch) -> tuple[np.ndarray, np.ndarray]:
        values = np.empty((part.num_rows, len(case.columns)))
        for i, name in enumerate(case.columns):
            values[:, i] = part[name].to_numpy()
        return part["id"].to_numpy(), values

    def whole() -> None:
        with dbapi.connect(case.bench.url) as connection, connection.cursor() as cursor:
            cursor.execute(case.select)
            keys, values = arrays(cursor.fetch_arrow_table())
        answers = scorer.score(values)
        with whole_result.copying(writer) as write:
            write(keys, answers)

    def streamed() -> None:
        with (
            dbapi.connect(case.bench.url) as connection,
            connection.cursor() as cursor,
            streamed_result.copying(writer) as write,
        ):
            cursor.execute(case.select)
            for batch in cursor.fetch_record_batch():
                keys, values = arrays(batch)
                write(keys, scorer.score(values))

    yield Arm(name=WHOLE, run=whole, before=lambda: whole_result.create(writer), result=whole_result.name)
    yield Arm(name=STREAMED, run=streamed, before=lambda: streamed_result.create(writer), result=streamed_result.name)
