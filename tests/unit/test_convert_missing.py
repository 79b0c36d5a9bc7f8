"""NULLs, unknown categories, infinities: what the native model takes, the converted one takes alike."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_iris
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, OrdinalEncoder, StandardScaler

from dbscore.convert import Conversion, convert
from dbscore.convert.feeds import feeds, scorable
from dbscore.convert.session import open_session, run
from dbscore.errors import FeatureError
from dbscore.signature import NullPolicy, SqlType

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
X, LABELS = load_iris(return_X_y=True)
FLOAT32_MAX = float(np.finfo(np.float32).max)


def table(name: str, target: str) -> tuple[pd.DataFrame, pd.Series]:
    path = DATA / name
    if not path.is_file():
        pytest.skip(f"{name} is not there")
    frame = pd.read_parquet(path)
    return frame.drop(columns=target), frame[target]


def agrees(model: Any, sample: Any, **options: Any) -> Conversion:
    """Convert, and check that every row agrees in float64."""
    conversion = convert(model, sample=sample, **options)
    assert conversion.parity is not None
    assert conversion.parity.total_mismatches == 0, conversion.parity.examples[:2]
    assert conversion.provenance.precision == "float64", conversion.provenance.notes
    return conversion


def policies(conversion: Conversion) -> dict[str, str]:
    return {f.name: f.null_policy.value for f in conversion.signature.features}


ENCODERS = [
    OneHotEncoder(handle_unknown="ignore"),
    OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=200),
    OneHotEncoder(handle_unknown="ignore", drop="first"),
    OneHotEncoder(handle_unknown="infrequent_if_exist", max_categories=4, drop="if_binary"),
    OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-1),
    OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-2, encoded_missing_value=-7, min_frequency=200),
]
IMPUTERS = [
    None,
    SimpleImputer(strategy="most_frequent"),
    SimpleImputer(strategy="constant", fill_value="absent"),
]


@pytest.mark.parametrize("imputer", IMPUTERS, ids=["no imputer", "most frequent", "constant"])
@pytest.mark.parametrize("encoder", ENCODERS, ids=lambda e: repr(e).replace("\n", "").replace(" ", "")[:60])
def test_text_with_nulls_is_exact_row_by_row_on_the_census(encoder: Any, imputer: Any) -> None:
    people, rich = table("adult_census.parquet", "over_50k")
    numbers = list(people.select_dtypes("number"))
    texts = [c for c in people if c not in numbers]
    step = encoder if imputer is None else make_pipeline(imputer, encoder)
    columns = ColumnTransformer([("n", MinMaxScaler(), numbers), ("t", step, texts)])
    # 1,500 rows leave some categories for the sample to show as unknown
    model = make_pipeline(columns, LogisticRegression(C=0.1, max_iter=1000)).fit(people[:1500], rich[:1500])
    conversion = agrees(model, people)
    assert conversion.parity is not None
    assert conversion.parity.rows["sample"] == 2000
    assert conversion.parity.rows["null"] > 0
    found = policies(conversion)
    assert found["workclass"] == found["occupation"] == found["native_country"] == "nan"
    assert found["age"] == "null"
    # behind an imputer every text may be missing; without one, only what was missing in training
    assert found["education"] == ("null" if imputer is None else "nan")


@pytest.mark.parametrize("imputer", IMPUTERS[:2], ids=["no imputer", "most frequent"])
def test_boosted_trees_behind_encoders_are_exact_on_the_census(imputer: Any) -> None:
    people, rich = table("adult_census.parquet", "over_50k")
    numbers = list(people.select_dtypes("number"))
    texts = [c for c in people if c not in numbers]
    encoder = OneHotEncoder(handle_unknown="ignore")
    step = encoder if imputer is None else make_pipeline(imputer, encoder)
    columns = ColumnTransformer([("n", StandardScaler(), numbers), ("t", step, texts)])
    model = make_pipeline(columns, GradientBoostingClassifier(n_estimators=20, random_state=0))
    conversion = agrees(model.fit(people[:5000], rich[:5000]), people)
    assert conversion.parity is not None
    assert conversion.parity.rows["threshold"] > 50


def test_imputed_numbers_and_a_text_are_exact_on_the_houses() -> None:
    houses, value = table("california_housing.parquet", "median_house_value")
    numbers = [c for c in houses if c != "ocean_proximity"]
    steps = make_pipeline(SimpleImputer(strategy="median", add_indicator=True), StandardScaler())
    columns = ColumnTransformer([("n", steps, numbers), ("t", OneHotEncoder(), ["ocean_proximity"])])
    model = make_pipeline(columns, RandomForestRegressor(n_estimators=5, max_depth=8, random_state=0))
    conversion = agrees(model.fit(houses, value), houses)
    found = policies(conversion)
    assert found.pop("ocean_proximity") == "null"
    # the indicator was fitted for this column alone; the imputer covers all
    assert set(found.values()) == {"nan"}
    assert conversion.signature.features[-1].categories == tuple(sorted(houses["ocean_proximity"].unique()))


def texts() -> tuple[pd.DataFrame, np.ndarray[Any, Any]]:
    frame = pd.DataFrame({"city": ["Oslo", "Rome", None, "Oslo"] * 10, "size": [1.0, 2.0, 3.0, np.nan] * 10})
    return frame, np.array([0, 1, 1, 0] * 10)


def text_model(encoder: Any = None) -> tuple[Any, pd.DataFrame]:
    frame, labels = texts()
    step = encoder if encoder is not None else OneHotEncoder(handle_unknown="ignore")
    columns = ColumnTransformer([("t", step, ["city"]), ("n", SimpleImputer(), ["size"])])
    return make_pipeline(columns, LogisticRegression()).fit(frame, labels), frame


@pytest.mark.parametrize("marker", [None, np.nan, pd.NA], ids=["None", "NaN", "NA"])
def test_missing_text_is_a_category_of_its_own_however_pandas_spells_it(marker: Any) -> None:
    frame, labels = texts()
    frame["city"] = pd.Series([marker if c is None or c != c else c for c in frame["city"]], dtype=object)  # noqa: PLR0124
    columns = ColumnTransformer([("t", OneHotEncoder(), ["city"]), ("n", SimpleImputer(), ["size"])])
    if marker is pd.NA:
        # scikit-learn encodes None and NaN only
        frame["city"] = frame["city"].where(frame["city"].notna(), None)
    conversion = agrees(make_pipeline(columns, LogisticRegression()).fit(frame, labels), frame)
    assert policies(conversion) == {"city": "nan", "size": "nan"}


def test_text_equal_to_the_missing_marker_is_refused_not_imputed() -> None:
    model, frame = text_model()
    signature = convert(model, sample=frame).signature
    city = signature.features[0]
    assert city.missing == "<dbscore:missing>"
    with pytest.raises(FeatureError, match="stands for a missing value"):
        feeds(signature, [(city.missing, 1.0)])


def test_marker_avoids_a_text_that_the_sample_holds() -> None:
    frame, labels = texts()
    frame.loc[frame["city"] == "Rome", "city"] = "<dbscore:missing>"
    columns = ColumnTransformer([("t", OneHotEncoder(), ["city"]), ("n", SimpleImputer(), ["size"])])
    conversion = agrees(make_pipeline(columns, LogisticRegression()).fit(frame, labels), frame)
    assert conversion.signature.features[0].missing == "<dbscore:missing:2>"


def test_encoder_that_refuses_unknown_texts_lists_the_known_ones() -> None:
    model, frame = text_model(OneHotEncoder(handle_unknown="error"))
    signature = convert(model, sample=frame).signature
    assert signature.features[0].categories == ("Oslo", "Rome")
    with pytest.raises(FeatureError, match="'Paris', which the model was not trained with"):
        feeds(signature, [("Paris", 1.0)])


def test_encoder_that_ignores_unknown_texts_lists_none() -> None:
    model, frame = text_model()
    conversion = agrees(model, frame)
    assert conversion.signature.features[0].categories is None
    native = model.predict_proba(pd.DataFrame({"city": ["Paris"], "size": [1.0]}))
    given = feeds(conversion.signature, [("Paris", 1.0)])
    assert run(open_session(conversion.onnx), given)["probabilities"] == pytest.approx(native, rel=1e-12)


def test_rows_that_the_native_model_refuses_are_left_out_and_counted() -> None:
    model, frame = text_model(OneHotEncoder(handle_unknown="error"))
    other = pd.concat([frame, pd.DataFrame({"city": ["Paris", "Lima"], "size": [1.0, 2.0]})], ignore_index=True)
    conversion = agrees(model, other)
    assert conversion.parity is not None
    assert conversion.parity.rows["sample"] == len(frame)
    assert any("refuses 2 of the rows" in note for note in conversion.provenance.notes)


def test_every_row_refused_is_an_error_with_the_native_reason() -> None:
    model, _ = text_model(OneHotEncoder(handle_unknown="error"))
    with pytest.raises(FeatureError, match="Found unknown categories"):
        convert(model, sample=pd.DataFrame({"city": ["Paris"], "size": [1.0]}))


@pytest.mark.parametrize("unknown", ["ignore", "infrequent_if_exist"])
def test_numeric_categories_with_fractions_and_nan_are_exact(unknown: str) -> None:
    codes = np.array([[0.5], [1.5], [1.25], [np.nan], [1.25], [7.0]] * 10)
    model = make_pipeline(OneHotEncoder(handle_unknown=unknown, min_frequency=11), LogisticRegression())
    model.fit(codes, [0, 1, 1, 0, 1, 1] * 10)
    sample = np.vstack([codes, [[1.0], [1.5000001], [-3.0]]])
    assert policies(agrees(model, sample)) == {"f0": "nan"}


def test_numeric_codes_of_an_ordinal_encoder_are_exact() -> None:
    codes = np.array([[3.0], [-1.0], [2.5], [np.nan]] * 10)
    encoder = OrdinalEncoder(
        handle_unknown="use_encoded_value", unknown_value=-5, encoded_missing_value=-9, max_categories=3
    )
    model = make_pipeline(encoder, Ridge()).fit(codes, np.arange(40.0))
    agrees(model, np.vstack([codes, [[8.0]]]))


def test_integer_column_that_may_be_null_goes_into_a_float_input() -> None:
    frame = pd.DataFrame({"a": [1, 2, 3, 4] * 5, "b": [True, False] * 10})
    model = make_pipeline(SimpleImputer(), LogisticRegression()).fit(frame, [0, 1] * 10)
    conversion = agrees(model, frame)
    assert [f.type for f in conversion.signature.features] == [SqlType.BIGINT, SqlType.BOOLEAN]
    assert policies(conversion) == {"a": "nan", "b": "nan"}
    assert {t.dtype for t in conversion.signature.tensors} == {"float64"}
    assert math.isnan(feeds(conversion.signature, [(None, None)])["X"][0, 1])


def test_forest_trained_without_missing_values_answers_null_for_null() -> None:
    conversion = agrees(RandomForestClassifier(n_estimators=3, random_state=0).fit(X, LABELS), X)
    assert set(policies(conversion).values()) == {"null"}
    assert conversion.checks is not None
    gaps = [p for row, p in zip(conversion.checks.rows, conversion.checks.predictions, strict=True) if None in row]
    assert gaps == [None] * 4


def test_forest_trained_with_missing_values_follows_their_learned_direction() -> None:
    holed = X.copy()
    holed[::3, 2] = np.nan
    conversion = agrees(RandomForestClassifier(n_estimators=5, random_state=0).fit(holed, LABELS), holed)
    assert policies(conversion)["f2"] == "nan"
    assert conversion.parity is not None
    assert conversion.parity.rows["null"] > 0


def test_histogram_boosting_takes_missing_values_it_never_saw() -> None:
    conversion = agrees(HistGradientBoostingClassifier(max_iter=5).fit(X, LABELS), X)
    assert set(policies(conversion).values()) == {"nan"}
    assert all(f.accepts_infinity for f in conversion.signature.features)


def test_linear_model_takes_no_infinity_and_any_finite_number() -> None:
    features = agrees(LogisticRegression(max_iter=1000).fit(X, LABELS), X).signature.features
    assert not any(f.accepts_infinity for f in features)
    assert {f.largest for f in features} == {None}


def test_forest_takes_no_number_beyond_float32() -> None:
    features = agrees(RandomForestClassifier(n_estimators=3, random_state=0).fit(X, LABELS), X).signature.features
    # the largest double that rounds to a finite float32
    assert {f.largest for f in features} == {math.nextafter(2.0**128 - 2.0**103, 0.0)}


def test_number_beyond_what_the_model_takes_is_refused() -> None:
    model = RandomForestClassifier(n_estimators=3, random_state=0).fit(X, LABELS)
    signature = convert(model, sample=X).signature
    with pytest.raises(FeatureError, match=r"f0 is 1e\+39"):
        feeds(signature, [(1e39, 1.0, 1.0, 1.0)])
    with pytest.raises(FeatureError, match="f1 is inf"):
        feeds(signature, [(1.0, math.inf, 1.0, 1.0)])


def test_null_policy_for_all_features_overrides() -> None:
    model = make_pipeline(SimpleImputer(), Ridge()).fit(X, LABELS)
    assert set(policies(agrees(model, X)).values()) == {"nan"}
    assert set(policies(agrees(model, X, null_policy="null")).values()) == {"null"}


def test_null_policy_by_source_or_identifier_overrides() -> None:
    frame = pd.DataFrame(X, columns=["Sepal Length", "b", "c", "d"])
    model = make_pipeline(SimpleImputer(), Ridge()).fit(frame, LABELS)
    found = policies(agrees(model, frame, null_policy={"Sepal Length": "null", "c": "null"}))
    assert found == {"sepal_length": "null", "b": "nan", "c": "null", "d": "nan"}
    assert policies(agrees(model, frame, null_policy={"sepal_length": "null"}))["sepal_length"] == "null"


def test_null_policy_nan_where_the_model_refuses_is_an_error() -> None:
    with pytest.raises(FeatureError, match="refuses a missing value") as caught:
        convert(Ridge().fit(X, LABELS), sample=X, null_policy={"f1": "nan"})
    assert "imputer" in caught.value.remedy


@pytest.mark.parametrize("asked", ["none", {"f0": "zero"}, {"f9": "nan"}])
def test_null_policy_that_is_none_or_for_no_feature_is_an_error(asked: Any) -> None:
    with pytest.raises(FeatureError, match="null_policy"):
        convert(Ridge().fit(X, LABELS), sample=X, null_policy=asked)


def test_rows_with_a_null_under_policy_null_are_not_scorable() -> None:
    model, frame = text_model()
    signature = convert(model, sample=frame).signature
    strict = replace(signature, features=tuple(replace(f, null_policy=NullPolicy.NULL) for f in signature.features))
    rows = [("Oslo", 1.0), (None, 1.0), ("Oslo", None)]
    assert scorable(signature, rows) == [True, True, True]
    assert scorable(strict, rows) == [True, False, False]


def test_sample_without_one_complete_row_is_refused() -> None:
    holed = X.copy()
    holed[:, 1] = np.nan
    with pytest.raises(FeatureError, match="every row of the sample has a missing value"):
        convert(Ridge().fit(X, LABELS), sample=holed)


def test_without_a_sample_policies_follow_from_the_imputers() -> None:
    model, _ = text_model(
        make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore"))
    )
    conversion = convert(model)
    assert conversion.parity is None
    assert conversion.checks is None
    assert policies(conversion) == {"city": "nan", "size": "nan"}
    assert [f.type for f in conversion.signature.features] == [SqlType.TEXT, SqlType.DOUBLE]
