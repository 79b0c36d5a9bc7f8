"""A program: translate a pickled scikit-learn model to PostgreSQL's SQL with orbital.

    python translate.py MODEL < task.json > statement.sql

The task names the feature columns in order, and the table; the key `id` goes through. orbital comes from PYTHONPATH.
"""

from __future__ import annotations

import json
import pickle
import sys
import warnings
from pathlib import Path

import numpy as np
import orbital
import orbital.types
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import Pipeline

# a deployed model is warned about already; what orbital says of it is no matter here
warnings.filterwarnings("ignore")

task = json.load(sys.stdin)
columns = task["columns"]
# our own file, written by the benchmark a moment ago
model = pickle.loads(Path(sys.argv[1]).read_bytes())  # noqa: S301
frame = pd.DataFrame(np.zeros((2, len(columns) + 1)), columns=["id", *columns]).astype({"id": "int64"})
# the key is a column of another type, so the features are chosen by name; orbital lets the rest through
chosen = ColumnTransformer([("features", "passthrough", columns)], remainder="drop").fit(frame)
types = {"id": orbital.types.Int64ColumnType(), **{name: orbital.types.DoubleColumnType() for name in columns}}
parsed = orbital.parse_pipeline(Pipeline([("columns", chosen), ("model", model)]), features=types)
print(orbital.export_sql(task["table"], parsed, dialect="postgres"))
