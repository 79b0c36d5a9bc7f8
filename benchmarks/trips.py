"""Real rows: the taxi trips, where their file is."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.workloads import Workload, unfitted

if TYPE_CHECKING:
    from collections.abc import Collection

    from benchmarks.bench import Bench

__all__ = ["TRIPS", "create_table", "deploy"]

TRIPS = Path(__file__).resolve().parents[2] / "shared" / "data" / "nyc_taxi_2013_12.parquet"
FEATURES = ["passenger_count", "trip_distance", "trip_time_in_secs"]
TARGET = "tipped"
TRAINING_ROWS = 20_000
TYPES = {pa.int32(): "integer", pa.int64(): "bigint", pa.float64(): "double precision", pa.string(): "text"}


def create_table(bench: Bench, path: Path) -> int:
    """Load the file into the table `trips`, with a bigint primary key from 1; return how many rows there are."""
    table = pq.read_table(path)
    table = table.rename_columns([name.lower() for name in table.column_names])
    table = table.add_column(0, "id", pa.array(np.arange(1, len(table) + 1)))
    declared = ", ".join(f"{field.name} {TYPES[field.type]}" for field in table.schema)
    text = io.BytesIO()
    csv.write_csv(table, text)
    with bench.connect() as connection:
        connection.execute(f"create table trips ({declared})")
        with connection.cursor().copy("copy trips from stdin (format csv, header)") as copy:
            copy.write(text.getbuffer())
        connection.execute("alter table trips add primary key (id)")
        connection.execute("vacuum (analyze, freeze) trips")
    return len(table)


def deploy(bench: Bench, path: Path, names: Collection[str]) -> list[Workload]:
    """Fit models of these names on some of the trips, and deploy them as `trips_<name>`."""
    frame = pq.read_table(path, columns=[*FEATURES, TARGET]).to_pandas()
    chosen = frame.sample(TRAINING_ROWS, random_state=0)
    features, label = chosen[FEATURES].astype("float64"), chosen[TARGET]
    found = []
    for name in names:
        title, model = unfitted(name)
        # a network needs its features on one scale
        fitted = (make_pipeline(StandardScaler(), model) if name == "mlp" else model).fit(features, label)
        found.append(
            Workload(
                name=f"trips_{name}",
                kind=name,
                title=title,
                table="trips",
                version=bench.client.deploy(f"trips_{name}", fitted, sample=features, table="trips"),
                estimator=fitted,
            )
        )
    return found
