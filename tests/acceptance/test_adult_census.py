"""Census income: text, numbers in every width, 4,262 NULLs; 32,561 rows scored in SQL and by the native pipeline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg
import pytest
from psycopg import sql
from sklearn.compose import make_column_transformer
from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

from tests.acceptance.rows import answers, classified, load

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd

    from dbscore import Client

Connection = psycopg.Connection[Any]

TEXTS = [
    "workclass",
    "education",
    "marital_status",
    "occupation",
    "relationship",
    "ethnicity",
    "sex",
    "native_country",
]
NUMBERS = ["age", "fnlwgt", "education_num", "capital_gain", "capital_loss", "hours_per_week"]
TABLE = sql.Identifier("Census 1994")
# another order than the file's, every kind of column, one that is no feature, and the target among them
TYPES = {
    "native_country": "varchar(40)",
    "over_50k": "integer",
    "hours_per_week": "real",
    "sex": "char(12)",
    "key": "bigint primary key",
    "capital_gain": "numeric(10, 2)",
    "capital_loss": "double precision",
    "relationship": "text",
    "ethnicity": "text",
    "note": "jsonb",
    "occupation": "text",
    "marital_status": "text",
    "education": "varchar",
    "education_num": "smallint",
    "fnlwgt": "bigint",
    "workclass": "text",
    "age": "integer",
}


class Census(NamedTuple):
    frame: pd.DataFrame
    features: pd.DataFrame
    labels: pd.Series


@pytest.fixture(scope="module")
def census(house: Connection, real: Callable[[str], pd.DataFrame]) -> Census:
    """The table `Census 1994`, shuffled, and the frame it was made of."""
    frame = real("adult_census")
    load(house, TABLE, frame.assign(note=None), types=TYPES)
    return Census(frame, frame[NUMBERS + TEXTS], frame["over_50k"])


def hot(**options: Any) -> OneHotEncoder:
    return OneHotEncoder(handle_unknown="ignore", sparse_output=False, **options)


def imputed() -> Any:
    return make_column_transformer(
        (make_pipeline(SimpleImputer(strategy="most_frequent"), hot()), TEXTS), (StandardScaler(), NUMBERS)
    )


def ordinal() -> Any:
    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    return make_column_transformer((encoder, TEXTS), remainder="passthrough")


PIPELINES: dict[str, Callable[[], Any]] = {
    "imputed_logistic": lambda: make_pipeline(imputed(), LogisticRegression(max_iter=300)),
    "gap_is_a_category": lambda: make_pipeline(
        make_column_transformer((hot(min_frequency=20), TEXTS), remainder="passthrough"),
        GradientBoostingClassifier(n_estimators=30, random_state=0),
    ),
    "gap_is_nan": lambda: make_pipeline(ordinal(), HistGradientBoostingClassifier(max_iter=40, random_state=0)),
    "forest": lambda: make_pipeline(
        imputed(), RandomForestClassifier(20, min_samples_leaf=5, max_features=0.2, random_state=0)
    ),
}


def test_the_data_have_4262_nulls_in_2399_rows_also_in_the_table(census: Census, house: Connection) -> None:
    assert census.frame.isna().sum().sum() == 4262
    counted = house.execute(
        """select sum(num_nulls(workclass, occupation, native_country)),
                  count(*) filter (where num_nulls(workclass, occupation, native_country) > 0), count(*)
           from "Census 1994" """
    ).fetchone()
    assert counted == (4262, 2399, 32561)


@pytest.mark.parametrize("name", list(PIPELINES))
def test_every_row_has_the_native_label_and_probabilities(
    census: Census, house: Connection, keeper: Client, name: str
) -> None:
    pipeline = PIPELINES[name]().fit(census.features, census.labels)
    keeper.deploy(name, pipeline, sample=census.features, table='"Census 1994"')
    found = answers(house, TABLE, [name, f"{name}_proba"])
    assert len(found) == 32561
    gaps = census.features.isna().any(axis=1)
    assert found[name][gaps].notna().sum() == 2399
    classified(found, name, pipeline, census.features)
