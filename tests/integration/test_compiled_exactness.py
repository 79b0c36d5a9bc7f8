"""Models as SQL beside ONNX Runtime: the same labels and numbers on 100,000 rows each, for every kind of model.

Among the rows are values one step either side of each threshold of the trees, NULLs where the model takes them, zeros
of both signs, the largest and the smallest numbers there are, and logits far beyond what exp() takes.
"""

from __future__ import annotations

import importlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import psycopg
import pytest

from dbscore import Client
from dbscore.compiler import compilation, walk
from dbscore.local.installation import find_embedded
from tests.conftest import database, local_server
from tests.exactness.cases import CASES, ROWS, TREES, Case
from tests.exactness.comparison import assert_exact, compare
from tests.exactness.rows import NUMBERS, compared_rows, sample, target

if TYPE_CHECKING:
    from collections.abc import Iterator

Connection = psycopg.Connection[Any]

# what is compared on PostgreSQL 16 and 18 too: one of each kind of text
ELSEWHERE = [
    "LogisticRegression, two classes",
    "LogisticRegression, three classes",
    "PoissonRegressor",
    "Normalizer, l2",
    "PowerTransformer",
    "GaussianNB",
    "mixed, LogisticRegression",
    "DecisionTreeClassifier, missing",
    "RandomForestClassifier",
    "HistGradientBoostingClassifier",
    "MLPClassifier",
]


# how well they are fitted is nothing to compare
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("name", CASES)
def test_every_kind_of_model_answers_in_sql_as_onnx_runtime_does(db: Connection, url: str, name: str) -> None:
    assert_exact(db, url, name, CASES[name])


@pytest.mark.parametrize("data", ["numbers", "gaps"])
@pytest.mark.parametrize("kind", ["two", "three", "number"])
@pytest.mark.parametrize("library", ["lightgbm", "xgboost"])
@pytest.mark.filterwarnings("ignore")
def test_boosted_trees_of_other_libraries_answer_in_sql_as_onnx_runtime_does(
    db: Connection, url: str, library: str, kind: str, data: str
) -> None:
    module, tools = importlib.import_module(library), importlib.import_module("onnxmltools")
    fitting = sample(data, 600, 1).astype(np.float32)
    answers = target(fitting, kind)
    if kind == "three":
        answers = np.unique(answers, return_inverse=True)[1]
    types = [("x", tools.convert.common.data_types.FloatTensorType([None, len(NUMBERS)]))]
    if library == "lightgbm":
        options = {"n_estimators": 20, "verbose": -1, "n_jobs": 1}
        fitted = (module.LGBMRegressor if kind == "number" else module.LGBMClassifier)(**options).fit(fitting, answers)
        converted = tools.convert_lightgbm(fitted, initial_types=types, zipmap=False, target_opset=15)
        splits = fitted.booster_.trees_to_dataframe().dropna(subset=["threshold"])
        thresholds = zip(splits["split_feature"].map(NUMBERS.index), splits["threshold"].astype(float), strict=True)
    else:
        options = {"n_estimators": 20, "max_depth": 4, "n_jobs": 1}
        fitted = (module.XGBRegressor if kind == "number" else module.XGBClassifier)(**options)
        fitted.fit(fitting.to_numpy(), answers)
        converted = tools.convert_xgboost(fitted, initial_types=types, target_opset=15)
        splits = fitted.get_booster().trees_to_dataframe().dropna(subset=["Split"])
        thresholds = zip(splits["Feature"].str[1:].astype(int), splits["Split"], strict=True)
    with Client(url) as client:
        version = client.deploy("m", converted.SerializeToString(), sample=fitting, engine="sql")
    frame = compared_rows(Case(None, data, kind), thresholds, version.signature)
    compare(db, f"{library}, {kind}, {data}", version.signature, version.sha256, frame)


@pytest.mark.parametrize("name", TREES)
def test_trees_as_data_answer_as_onnx_runtime_does(
    db: Connection, url: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compilation, "LARGEST_EXPRESSION", 0)
    monkeypatch.setattr(walk, "MOST_CHOICES", 0)
    monkeypatch.setattr(walk, "LEAST_WALKED", 1)
    assert_exact(db, url, name, replace(CASES[name], rows=ROWS // 5))
    walked = db.execute("select count(*) from pg_proc where prosrc like '%foreach node%'").fetchall()
    assert walked != [(0,)]


@pytest.fixture(scope="module", params=[one.major for one in find_embedded()])
def other_server(request: pytest.FixtureRequest) -> Iterator[str]:
    installation = next(one for one in find_embedded() if one.major == request.param)
    with local_server(installation=installation) as server:
        yield server.start()


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("name", ELSEWHERE)
def test_other_versions_of_postgresql_without_python_answer_the_same(other_server: str, name: str) -> None:
    with database(other_server) as url, Client(url) as client, psycopg.connect(url, autocommit=True) as db:
        client.install()
        assert_exact(db, url, name, replace(CASES[name], rows=ROWS // 5))
