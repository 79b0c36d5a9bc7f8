"""The demonstration's rows: scikit-learn's own, or a file's; and their table."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from pandas.api import types
from psycopg import sql
from sklearn.datasets import load_breast_cancer

from dbscore.errors import FeatureError
from dbscore.signature import feature_identifiers

if TYPE_CHECKING:
    from pathlib import Path

    import psycopg

__all__ = ["SCHEMA", "Data", "bundled", "from_file", "load"]

SCHEMA = "dbscore_demo"
HELD_OUT = 0.4
# a target with more values than this, or with fractions, is a number to predict, not a class
MOST_CLASSES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """The rows, split.

    Attributes:
        name: The table's and the model's name.
        features: What to learn from.
        target: What to predict.
        held_out: Which rows are left out of training.
        is_classification: Whether the target is a class, not a number.
    """

    name: str
    features: pd.DataFrame
    target: pd.Series
    held_out: pd.Series
    is_classification: bool

    @property
    def target_column(self) -> str:
        """The target's column in the table."""
        return feature_identifiers([str(self.target.name)])[0]


def bundled() -> Data:
    """Return scikit-learn's breast-cancer measurements: 569 biopsies, 30 numbers each."""
    bunch = load_breast_cancer(as_frame=True)
    return _split("tumour", bunch.data, bunch.target.map(dict(enumerate(bunch.target_names))).rename("diagnosis"))


def from_file(path: Path, target: str | None) -> Data:
    """Return the rows of a parquet or csv file; columns that are neither numbers nor texts are left out.

    Raises:
        FeatureError: It is no such file, has no such column, or nothing to learn from.
    """
    readers = {".parquet": pd.read_parquet, ".csv": pd.read_csv}
    if path.suffix not in readers:
        raise FeatureError(f"{path} is neither .parquet nor .csv", remedy="Save the data as one of these.")
    frame = readers[path.suffix](path)
    if target is None or target not in frame.columns:
        said = f"{path.name} has no column {target!r} to predict" if target else f"no column of {path.name} was named"
        raise FeatureError(said, remedy=f"Pass --target with one of {', '.join(map(str, frame.columns))}.")
    frame = frame[frame[target].notna()].reset_index(drop=True)
    features = frame.drop(columns=target).select_dtypes(include=["number", "bool", "object", "string", "category"])
    if features.empty or frame[target].nunique() < 2:  # noqa: PLR2004
        raise FeatureError(f"{path.name} has nothing to learn {target!r} from", remedy="Name another file or target.")
    # whatever pandas made of the texts, the encoders get str and NaN
    for column in features.select_dtypes(include=["object", "string", "category"]):
        features[column] = features[column].astype(object).where(features[column].notna(), float("nan"))
    name = re.sub(r"[^a-z0-9]+", "_", path.stem.lower()).strip("_")[:30]
    return _split(name if name[:1].isalpha() else f"data_{name}", features, frame[target])


def _split(name: str, features: pd.DataFrame, target: pd.Series) -> Data:
    fractions = types.is_float_dtype(target) and bool((target % 1 != 0).any())
    chance = np.random.default_rng(0).random(len(features))
    return Data(
        name=name,
        features=features,
        target=target,
        held_out=pd.Series(chance < HELD_OUT, index=features.index),
        is_classification=not fractions and target.nunique() <= MOST_CLASSES,
    )


def load(connection: psycopg.Connection[Any], data: Data) -> str:
    """Copy the rows into a new table, columns named as the features' identifiers; return its name."""
    names = [*feature_identifiers([str(c) for c in data.features.columns]), data.target_column]
    columns = [data.features[c] for c in data.features.columns] + [data.target]
    declared = sql.SQL(", ").join(
        sql.SQL("{} {}").format(sql.Identifier(n), _sql_type(c)) for n, c in zip(names, columns, strict=True)
    )
    table = sql.Identifier(SCHEMA, data.name)
    connection.execute(sql.SQL("create schema {}").format(sql.Identifier(SCHEMA)))
    connection.execute(sql.SQL("create table {} (row_id bigint primary key, {})").format(table, declared))
    values = [c.astype(object).where(c.notna(), None) for c in columns]
    with connection.cursor() as cursor, cursor.copy(sql.SQL("copy {} from stdin").format(table)) as copy:
        for index, row in enumerate(zip(*values, strict=True)):
            copy.write_row((index, *row))
    connection.execute(sql.SQL("analyze {}").format(table))
    return f"{SCHEMA}.{data.name}"


def _sql_type(column: pd.Series) -> sql.SQL:
    if types.is_bool_dtype(column):
        return sql.SQL("boolean")
    if types.is_integer_dtype(column):
        return sql.SQL("bigint")
    return sql.SQL("double precision") if types.is_numeric_dtype(column) else sql.SQL("text")
