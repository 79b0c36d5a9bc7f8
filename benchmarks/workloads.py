"""The tables and the models that are measured; all are made here, from a seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from sklearn.base import BaseEstimator

    from benchmarks.bench import Bench
    from dbscore.registry import Version

__all__ = ["CLASSIFIERS", "MODELS", "Workload", "create_tables", "deploy", "unfitted"]

TRAINING_ROWS = 5_000
CITIES = ("Athens", "Berlin", "Cairo", "Delhi", "Lima", "Oslo", "Paris", "Quito")
PLANS = ("basic", "family", "business")
# on ten numbers; the other models take NULLs, and text
CLASSIFIERS = ("lr", "gbm", "forest", "mlp")
MODELS = (*CLASSIFIERS, "gaps", "mixed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A model and the table whose rows it scores.

    Attributes:
        name: Its name in the database.
        kind: What it is, in short: one of `MODELS`.
        title: What it is, in words.
        table: The table.
        version: What was deployed.
        estimator: What it was made from, fitted.
    """

    name: str
    kind: str
    title: str
    table: str
    version: Version
    estimator: BaseEstimator


def create_tables(bench: Bench, rows: int) -> None:
    """Make `numbers` (ten float8), `gaps` (the same, a tenth of it NULL) and `customers` (numbers and text)."""
    numbers = ", ".join(f"random() * 4 - 2 as x{i}" for i in range(10))
    gaps = ", ".join(f"case when random() < 0.1 then null else x{i} end as x{i}" for i in range(10))
    cities = ", ".join(f"'{city}'" for city in CITIES)
    plans = ", ".join(f"'{plan}'" for plan in PLANS)
    with bench.connect() as connection:
        connection.execute("select setseed(0.5)")
        connection.execute(f"create table numbers as select i as id, {numbers} from generate_series(1, {rows}) i")
        connection.execute("alter table numbers add primary key (id)")
        connection.execute(f"create table gaps as select id, {gaps} from numbers")
        connection.execute(
            f"""create table customers as
                select id, 40 + 10 * x0 as age, 50000 + 9000 * x1 as income, (12 + 5 * x2)::integer as months,
                       (array[{cities}])[1 + floor(random() * {len(CITIES)})::integer] as city,
                       (array[{plans}])[1 + floor(random() * {len(PLANS)})::integer] as plan
                from numbers"""
        )
        connection.execute("vacuum (analyze, freeze) numbers, gaps, customers")


def deploy(bench: Bench, names: Collection[str] = MODELS, *, engine: str = "auto") -> list[Workload]:
    """Fit the models of these names and deploy them; with an engine of their own, under a name that says so."""
    suffix = "" if engine == "auto" else f"_{engine}"
    return [
        Workload(
            name=name + suffix,
            kind=name,
            title=title,
            table=sample.attrs["table"],
            version=bench.client.deploy(
                name + suffix, model, sample=sample, table=sample.attrs["table"], engine=engine
            ),
            estimator=model,
        )
        for name, title, model, sample in _fitted(names)
    ]


def unfitted(name: str) -> tuple[str, BaseEstimator]:
    """Return the title and the estimator of one of `CLASSIFIERS`."""
    return {
        "lr": ("logistic regression", LogisticRegression()),
        "gbm": ("GBM 100 trees, depth 4", GradientBoostingClassifier(n_estimators=100, max_depth=4, random_state=0)),
        "forest": (
            "forest 100 trees, depth 8",
            RandomForestClassifier(n_estimators=100, max_depth=8, random_state=0),
        ),
        "mlp": ("MLP 64-32", MLPClassifier((64, 32), max_iter=50, early_stopping=True, random_state=0)),
    }[name]


def _fitted(names: Collection[str]) -> Iterator[tuple[str, str, BaseEstimator, pd.DataFrame]]:
    rng = np.random.default_rng(0)
    numbers = pd.DataFrame(rng.uniform(-2, 2, size=(TRAINING_ROWS, 10)), columns=[f"x{i}" for i in range(10)])
    numbers.attrs["table"] = "numbers"
    noise = rng.normal(size=TRAINING_ROWS)
    label = (numbers.to_numpy() @ rng.normal(size=10) + noise > 0).astype(int)
    for name in CLASSIFIERS:
        if name in names:
            title, model = unfitted(name)
            yield name, title, model.fit(numbers, label), numbers
    gaps = numbers.mask(rng.random(numbers.shape) < 0.1)  # noqa: PLR2004 - a tenth, as in the table
    gaps.attrs["table"] = "gaps"
    imputed = make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression())
    if "gaps" in names:
        yield "gaps", "imputer + scaler + LR, NULLs", imputed.fit(gaps, label), gaps
    customers = pd.DataFrame(
        {
            "age": 40 + 10 * numbers["x0"],
            "income": 50_000 + 9_000 * numbers["x1"],
            "months": (12 + 5 * numbers["x2"]).round().astype("int32"),
            "city": rng.choice(CITIES, TRAINING_ROWS),
            "plan": rng.choice(PLANS, TRAINING_ROWS),
        }
    )
    customers.attrs["table"] = "customers"
    columns = make_column_transformer(
        (StandardScaler(), ["age", "income", "months"]),
        (OneHotEncoder(handle_unknown="ignore"), ["city", "plan"]),
    )
    mixed = make_pipeline(columns, LogisticRegression())
    if "mixed" in names:
        yield "mixed", "numbers and text, one-hot + LR", mixed.fit(customers, label), customers
