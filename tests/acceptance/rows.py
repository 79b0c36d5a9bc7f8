"""Rows into PostgreSQL, answers out of it, and how far they are from the native estimator's, joined on a key."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import psycopg
import pyarrow as pa
from psycopg import sql
from pyarrow import csv

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Distance", "answers", "classified", "load", "regressed"]

RELATIVE = 1e-9
ABSOLUTE = 1e-12

Connection = psycopg.Connection[Any]


@dataclass(frozen=True, slots=True)
class Distance:
    """How far numbers from SQL are from the native ones, over all rows."""

    rows: int
    absolute: float
    relative: float


def load(db: Connection, table: sql.Identifier, frame: pd.DataFrame, *, types: Mapping[str, str]) -> None:
    """Make a table with the columns `types` names, in that order, and COPY the frame's rows into it, shuffled."""
    columns = sql.SQL(", ").join(sql.SQL("{} {}").format(sql.Identifier(c), sql.SQL(t)) for c, t in types.items())
    db.execute(sql.SQL("create table {} ({})").format(table, columns))
    # the order of rows in the table is not that of the file, so that nothing can be joined on it
    shuffled = frame.reset_index().sample(frac=1, random_state=7)[list(types)]
    buffer = io.BytesIO()
    csv.write_csv(pa.Table.from_pandas(shuffled, preserve_index=False), buffer, csv.WriteOptions(include_header=False))
    with db.cursor().copy(sql.SQL("copy {} from stdin (format csv)").format(table)) as copy:
        copy.write(buffer.getbuffer())
    db.execute(sql.SQL("analyze {}").format(table))


def answers(
    db: Connection, table: sql.Identifier, functions: Sequence[str], *, where: str = "true", key: str = "key"
) -> pd.DataFrame:
    """Call functions of `models` on a table's rows; one column each, named as the function, indexed by the key."""
    calls = sql.SQL(", ").join(sql.SQL("{}(t)").format(sql.Identifier("models", f)) for f in functions)
    statement = sql.SQL("select {}, {} from {} t where {}").format(sql.Identifier(key), calls, table, sql.SQL(where))
    rows = db.execute(statement).fetchall()
    return pd.DataFrame(rows, columns=["key", *functions]).set_index("key").sort_index()


def _distance(found: np.ndarray[Any, Any], native: np.ndarray[Any, Any]) -> Distance:
    gap = np.abs(found - native)
    return Distance(len(native), float(gap.max()), float((gap / np.where(native == 0, 1, np.abs(native))).max()))


def classified(found: pd.DataFrame, model: str, estimator: Any, features: pd.DataFrame) -> Distance:
    """Assert that labels are equal and probabilities within 1e-9 for every row; return the distance."""
    features = features.sort_index()
    assert found.index.equals(features.index)
    native = estimator.predict_proba(features)
    probabilities = np.array(found[f"{model}_proba"].tolist())
    distance = _distance(probabilities, native)
    print(f"{model}: {distance}")  # noqa: T201 - what is achieved, for the report
    assert found[model].to_numpy().tolist() == estimator.predict(features).tolist()
    np.testing.assert_allclose(probabilities, native, rtol=RELATIVE, atol=ABSOLUTE)
    if f"{model}_score" in found:
        assert (found[f"{model}_score"] == probabilities[:, 1]).all()
    return distance


def regressed(
    found: pd.DataFrame, model: str, estimator: Any, features: pd.DataFrame, *, relative: float = RELATIVE
) -> Distance:
    """Assert that predictions are within the tolerance for every row; return the distance."""
    features = features.sort_index()
    assert found.index.equals(features.index)
    native = np.asarray(estimator.predict(features), dtype=float)
    predictions = found[model].to_numpy(dtype=float)
    distance = _distance(predictions, native)
    print(f"{model}: {distance}")  # noqa: T201 - what is achieved, for the report
    np.testing.assert_allclose(predictions, native, rtol=relative, atol=ABSOLUTE)
    return distance
