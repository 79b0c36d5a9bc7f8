"""SQL beside ONNX Runtime, row by row."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
import psycopg
import pyarrow as pa
from psycopg import sql
from pyarrow import csv

from dbscore import Client
from dbscore.convert.session import open_session, run
from dbscore.convert.trees import split_thresholds
from dbscore.signature import NullPolicy, SqlType
from tests.exactness.cases import RELATIVE
from tests.exactness.rows import compared_rows, sample, target

if TYPE_CHECKING:
    import pandas as pd

    from dbscore.signature import Signature
    from tests.exactness.cases import Case

Connection = psycopg.Connection[Any]

# what a number may differ from 0 by
ABSOLUTE = 1e-300


def native(db: Connection, sha256: str, signature: Signature, frame: pd.DataFrame) -> tuple[list[Any], np.ndarray]:
    """Return ONNX Runtime's answers, and which rows have none for a NULL."""
    content = db.execute("select bytes from dbscore.artifact where sha256 = %s", [sha256]).fetchall()[0][0]
    arrays = {}
    without = np.zeros(len(frame), bool)
    for tensor in signature.tensors:
        dtype = object if tensor.dtype == "string" else tensor.dtype
        arrays[tensor.name] = array = np.zeros((len(frame), tensor.width), dtype)
        for feature in (f for f in signature.features if f.tensor == tensor.name):
            column = frame[feature.name]
            absent = column.isna().to_numpy()
            if feature.null_policy is NullPolicy.NULL:
                without |= absent
            if dtype is object:
                array[:, feature.position] = column.where(~absent, feature.missing or "")
            elif array.dtype.kind == "f":
                with np.errstate(over="ignore"):
                    numbers = column.to_numpy(np.float64, na_value=np.nan)
                    # a real is rounded when it is stored
                    numbers = numbers.astype(np.float32).astype(np.float64) if feature.type is SqlType.REAL else numbers
                    array[:, feature.position] = numbers.astype(dtype)
            else:
                array[:, feature.position] = column.where(~absent, 0).astype(dtype)
    feeds = {t.name: arrays[t.name][:, 0] if t.rank == 1 else arrays[t.name] for t in signature.tensors}
    answers = run(open_session(bytes(content)), feeds)
    return [np.asarray(answers[o.tensor]).reshape(len(frame), -1) for o in signature.outputs], without


def stored(db: Connection, table: str, signature: Signature, frame: pd.DataFrame) -> None:
    columns = ", ".join(f"{f.name} {f.type}" for f in signature.features)
    db.execute(f"create table {table} (key integer, {columns})")
    frame = frame[[f.name for f in signature.features]].reset_index(names="key")
    for feature in signature.features:
        if feature.type in (SqlType.BIGINT, SqlType.INTEGER, SqlType.SMALLINT):
            frame[feature.name] = frame[feature.name].astype("Int64")
        elif feature.type is SqlType.BOOLEAN:
            frame[feature.name] = frame[feature.name].astype("boolean")
    buffer = io.BytesIO()
    csv.write_csv(pa.Table.from_pandas(frame, preserve_index=False), buffer, csv.WriteOptions(include_header=False))
    with db.cursor().copy(f"copy {table} from stdin (format csv)") as copy:
        copy.write(buffer.getbuffer())


def assert_exact(db: Connection, url: str, name: str, case: Case) -> None:
    fitting = sample(case.data, 600, 1)
    fitted = case.estimator.fit(fitting, target(fitting, case.target))
    with Client(url) as client:
        version = client.deploy("m", fitted, sample=fitting, engine="sql")
    signature = version.signature
    frame = compared_rows(case, split_thresholds(fitted), signature)
    compare(db, name, signature, version.sha256, frame, relative=case.relative)


def compare(
    db: Connection, name: str, signature: Signature, sha256: str, frame: pd.DataFrame, *, relative: float = RELATIVE
) -> None:
    """Assert that SQL answers for every row what ONNX Runtime answers."""
    expected, without = native(db, sha256, signature, frame)
    stored(db, "rows", signature, frame)
    arguments = sql.SQL(", ").join(sql.Identifier(f.name) for f in signature.features)
    suffixes = ["" if o.kind == "prediction" else "_proba" for o in signature.outputs]
    calls = sql.SQL(", ").join(
        sql.SQL("{}({})").format(sql.Identifier("models", "m" + suffix), arguments) for suffix in suffixes
    )
    statement = sql.SQL("select {} from rows order by key").format(calls)
    found = list(zip(*db.execute(statement, binary=True).fetchall(), strict=True))
    worst = 0.0
    for suffix, answers, numbers in zip(suffixes, found, expected, strict=True):
        nulls = np.array([a is None for a in answers])
        wrong = np.flatnonzero(nulls != without)
        assert not len(wrong), (
            f"{name}{suffix}: {len(wrong)} rows NULL or not: {frame.loc[wrong[:3]].to_dict('records')}"
        )
        kept = np.flatnonzero(~nulls)
        if numbers.dtype.kind == "f":
            got = np.array([answers[i] for i in kept], np.float64).reshape(len(kept), -1)
            far = distances(got, numbers[kept].astype(np.float64))
            wrong, worst = (far > relative).any(axis=1), max(worst, float(far.max(initial=0.0)))
        else:
            got = np.array([answers[i] for i in kept]).reshape(len(kept), -1)
            wrong = (got != numbers[kept]).any(axis=1)
        at = kept[wrong]
        examples = [(frame.loc[i].to_dict(), g, numbers[i]) for i, g in zip(at[:3], got[wrong][:3], strict=True)]
        assert not len(at), f"{name}{suffix}: {len(at)} of {len(kept)} rows differ, relative {worst:.3g}: {examples}"
    print(f"{name}: {len(frame)} rows, largest relative difference {worst:.3g}")  # noqa: T201 - what is achieved


def distances(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Return the differences as shares of what is expected."""
    same = (found == expected) | (np.isnan(found) & np.isnan(expected))
    with np.errstate(all="ignore"):
        gap = np.where(same, 0.0, np.abs(found - expected))
        relative = np.where(same | (gap <= ABSOLUTE), 0.0, gap / np.abs(expected))
    return np.where(np.isnan(relative), np.inf, relative)
