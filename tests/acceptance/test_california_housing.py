"""House values: a text column, NULLs in total_bedrooms; regression over 20,640 rows in SQL and natively."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import psycopg
import pytest
from psycopg import sql
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import Ridge
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler
from sklearn.svm import SVR

from tests.acceptance.rows import answers, load, regressed

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbscore import Client

Connection = psycopg.Connection[Any]

NUMBERS = [
    "longitude",
    "latitude",
    "housing_median_age",
    "total_rooms",
    "total_bedrooms",
    "population",
    "households",
    "median_income",
]
FEATURES = [*NUMBERS, "ocean_proximity"]
DISTRICTS = sql.Identifier("districts")
TYPES = {
    "ocean_proximity": "varchar(20)",
    "median_house_value": "numeric",
    "median_income": "numeric",
    "key": "integer",
    "households": "double precision",
    "population": "real",
    "total_bedrooms": "double precision",
    "total_rooms": "integer",
    "housing_median_age": "smallint",
    "latitude": "double precision",
    "longitude": "numeric(9, 4)",
}


class Housing(NamedTuple):
    features: pd.DataFrame
    prices: pd.Series


@pytest.fixture(scope="module")
def housing(house: Connection, real: Callable[[str], pd.DataFrame]) -> Housing:
    """The table `districts`, partitioned by a hash of its key, and the frame it was made of."""
    frame = real("california_housing")
    columns = sql.SQL(", ").join(sql.SQL("{} {}").format(sql.Identifier(c), sql.SQL(t)) for c, t in TYPES.items())
    house.execute(sql.SQL("create table districts ({}) partition by hash (key)").format(columns))
    for i in range(3):
        house.execute(f"create table districts_{i} partition of districts for values with (modulus 3, remainder {i})")
    load(house, sql.Identifier("loaded"), frame, types=TYPES)
    house.execute("insert into districts select * from loaded")
    house.execute("create view coast as select * from districts where ocean_proximity <> 'INLAND'")
    return Housing(frame[FEATURES], frame["median_house_value"])


def encoded() -> Any:
    numbers = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    texts = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    return make_column_transformer((numbers, NUMBERS), (texts, ["ocean_proximity"]))


def ordinal() -> Any:
    return make_column_transformer((OrdinalEncoder(), ["ocean_proximity"]), remainder="passthrough")


PIPELINES: dict[str, Callable[[], Any]] = {
    "ridge": lambda: make_pipeline(encoded(), Ridge()),
    "forest": lambda: make_pipeline(encoded(), RandomForestRegressor(15, max_depth=12, random_state=0)),
    "boosting": lambda: make_pipeline(ordinal(), HistGradientBoostingRegressor(max_iter=60, random_state=0)),
}


@pytest.mark.parametrize("name", list(PIPELINES))
def test_every_district_has_the_native_value(housing: Housing, house: Connection, keeper: Client, name: str) -> None:
    pipeline = PIPELINES[name]().fit(housing.features, housing.prices)
    keeper.deploy(name, pipeline, sample=housing.features, table=["districts", "coast"])
    found = answers(house, DISTRICTS, [name])
    assert len(found) == 20640
    assert found[name][housing.features["total_bedrooms"].isna()].notna().sum() == 207
    regressed(found, name, pipeline, housing.features)


def test_rows_of_a_view_and_of_a_partition_get_the_values_of_their_table(
    housing: Housing, house: Connection, keeper: Client
) -> None:
    pipeline = PIPELINES["ridge"]().fit(housing.features, housing.prices)
    keeper.deploy("sources", pipeline, sample=housing.features, table=["districts", "coast"])
    by_table = answers(house, DISTRICTS, ["sources"], where="ocean_proximity = 'NEAR BAY'")
    by_view = answers(house, sql.Identifier("coast"), ["sources"], where="ocean_proximity = 'NEAR BAY'")
    parts = [
        answers(house, sql.Identifier(f"districts_{i}"), ["sources"], where="ocean_proximity = 'NEAR BAY'")
        for i in range(3)
    ]
    assert len(by_view) == 2290
    pd.testing.assert_frame_equal(by_view, by_table)
    pd.testing.assert_frame_equal(pd.concat(parts).sort_index(), by_table)


@pytest.mark.parametrize(
    ("name", "regressor"),
    [
        ("network", MLPRegressor(hidden_layer_sizes=(20, 10), solver="lbfgs", tol=0.01, max_iter=500, random_state=0)),
        ("support_vectors", SVR(C=10.0)),
    ],
)
def test_a_network_and_support_vectors_equal_the_native_ones_on_every_district(
    housing: Housing, house: Connection, keeper: Client, name: str, regressor: Any
) -> None:
    some = housing.features.sample(2000, random_state=1)
    # fitted on hundreds of thousands of dollars, so that the answers are of the size of 1
    pipeline = make_pipeline(encoded(), regressor).fit(some, np.log(housing.prices[some.index]))
    version = keeper.deploy(name, pipeline, sample=some, table="districts")
    found = answers(house, DISTRICTS, [name])
    assert len(found) == 20640
    assert version.provenance["precision"] == "float64"
    regressed(found, name, pipeline, housing.features)
