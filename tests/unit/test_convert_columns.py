"""How a sample's columns become features: names, SQL types, ONNX inputs, arrays."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer, make_column_selector
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from dbscore.convert import Conversion, convert
from dbscore.convert.sample import read_sample
from dbscore.errors import FeatureError
from dbscore.signature import SqlType

X, LABELS = load_iris(return_X_y=True)


def agrees(model: Any, sample: Any, **options: Any) -> Conversion:
    """Convert, and check that every row agrees in float64."""
    conversion = convert(model, sample=sample, **options)
    assert conversion.parity is not None
    assert conversion.parity.total_mismatches == 0, conversion.parity.examples[:2]
    assert conversion.provenance.precision == "float64", conversion.provenance.notes
    return conversion


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([1.5, 2.0]), SqlType.DOUBLE),
        (np.array([1.5, 2.0], np.float32), SqlType.REAL),
        (np.array([1.5, 2.0], np.float16), SqlType.REAL),
        (np.array([1, 2], np.int8), SqlType.INTEGER),
        (np.array([1, 2], np.uint8), SqlType.INTEGER),
        (np.array([1, 2], np.int16), SqlType.INTEGER),
        (np.array([1, 2], np.uint16), SqlType.INTEGER),
        (np.array([1, 2], np.int32), SqlType.INTEGER),
        (np.array([1, 2], np.uint32), SqlType.BIGINT),
        (np.array([1, 2], np.int64), SqlType.BIGINT),
        (np.array([True, False]), SqlType.BOOLEAN),
        (pd.array([1, None], dtype="Int16"), SqlType.INTEGER),
        (pd.array([1, None], dtype="Int64"), SqlType.BIGINT),
        (pd.array([1.5, None], dtype="Float32"), SqlType.REAL),
        (pd.array([True, None], dtype="boolean"), SqlType.BOOLEAN),
        (pd.array(["a", None], dtype="string"), SqlType.TEXT),
        (pd.array(["a", None], dtype="str"), SqlType.TEXT),
        (pd.Categorical(["a", None]), SqlType.TEXT),
        (pd.Categorical([3, 4]), SqlType.BIGINT),
        (np.array(["a", None], object), SqlType.TEXT),
        (np.array([1, None], object), SqlType.BIGINT),
        (np.array([True, None], object), SqlType.BOOLEAN),
        (np.array([Decimal("1.5"), None], object), SqlType.DOUBLE),
    ],
    ids=lambda v: str(getattr(v, "dtype", v)),
)
def test_dtype_becomes_sql_type(values: Any, expected: SqlType) -> None:
    read = read_sample(pd.DataFrame({"a": values}), names=None, width=None, types={})
    assert read.columns[0].type is expected


def test_bigints_beyond_float64_keep_every_digit() -> None:
    frame = pd.DataFrame({"id": pd.array([2**62 + 1, None], dtype="Int64")})
    (column,) = read_sample(frame, names=None, width=None, types={}).columns
    assert column.values == (2**62 + 1, None)  # noqa: PD011 - not a pandas column


@pytest.mark.parametrize(
    "values",
    [
        pd.to_datetime(["2024-01-01", "2024-01-02"]),
        pd.to_timedelta([1, 2], unit="h"),
        pd.Series([dt.date(2024, 1, 1), dt.date(2024, 1, 2)], dtype=object),
    ],
    ids=["timestamp", "interval", "date"],
)
def test_date_is_refused_with_the_sql_that_makes_a_number_of_it(values: Any) -> None:
    with pytest.raises(FeatureError, match="pickup_at") as caught:
        read_sample(pd.DataFrame({"pickup_at": values}), names=None, width=None, types={})
    assert "extract(hour from pickup_at)" in caught.value.remedy


def test_value_of_no_sql_type_is_refused_with_its_class() -> None:
    with pytest.raises(FeatureError, match="complex"):
        read_sample(pd.DataFrame({"a": [1j, 2j]}), names=None, width=None, types={})


def test_names_become_identifiers_and_keep_their_source() -> None:
    frame = pd.DataFrame(X, columns=["sepal length (cm)", "Sepal Width", "label", "2nd"])
    features = agrees(LogisticRegression(max_iter=1000).fit(frame, LABELS), frame).signature.features
    assert [f.name for f in features] == ["sepal_length_cm", "sepal_width", "label", "f_2nd"]
    assert [f.source for f in features] == list(frame)


def test_column_names_that_skl2onnx_uses_itself_do_no_harm() -> None:
    frame = pd.DataFrame(X, columns=["label", "probabilities", "variable", "X"])
    columns = ColumnTransformer([("a", StandardScaler(), ["X", "label"])], remainder="passthrough")
    signature = agrees(make_pipeline(columns, LogisticRegression(max_iter=1000)).fit(frame, LABELS), frame).signature
    assert [f.name for f in signature.features] == ["label", "probabilities", "variable", "x"]
    assert len({t.name for t in signature.tensors} | {o.tensor for o in signature.outputs}) == 6


def test_array_sample_without_names_counts_its_features() -> None:
    signature = agrees(Ridge().fit(X, LABELS), X).signature
    assert [f.name for f in signature.features] == ["f0", "f1", "f2", "f3"]
    assert [f.position for f in signature.features] == [0, 1, 2, 3]
    assert [(t.name, t.width, t.rank) for t in signature.tensors] == [("X", 4, 2)]


def test_array_sample_takes_the_names_that_the_estimator_was_fitted_with() -> None:
    model = Ridge().fit(pd.DataFrame(X, columns=list("abcd")), LABELS)
    assert [f.name for f in agrees(model, X).signature.features] == list("abcd")


def test_target_and_other_columns_of_the_sample_are_left_out() -> None:
    frame = pd.DataFrame(X, columns=list("abcd"))
    model = Ridge().fit(frame, LABELS)
    sample = frame.assign(y=LABELS, at=pd.Timestamp("2024-01-01"))[["y", "d", "a", "at", "c", "b"]]
    assert [f.name for f in agrees(model, sample).signature.features] == list("abcd")


def test_absent_column_is_refused_by_name() -> None:
    frame = pd.DataFrame(X, columns=list("abcd"))
    with pytest.raises(FeatureError, match="lacks the columns 'b'"):
        convert(Ridge().fit(frame, LABELS), sample=frame.drop(columns="b"))


def test_array_of_another_width_is_refused() -> None:
    with pytest.raises(FeatureError, match="3 columns, the estimator was fitted on 4"):
        convert(Ridge().fit(X, LABELS), sample=X[:, :3])


def test_two_columns_with_one_identifier_are_refused() -> None:
    frame = pd.DataFrame(X, columns=["a b", "a-b", "c", "d"])
    with pytest.raises(FeatureError, match="both become the identifier 'a_b'"):
        convert(Ridge().fit(frame, LABELS), sample=frame)


def test_table_types_win_over_dtypes_and_the_sample_is_read_as_the_table_would_hold_it() -> None:
    types = {f"f{i}": SqlType.REAL for i in range(4)} | {"no_feature": SqlType.TEXT}
    conversion = agrees(RandomForestClassifier(n_estimators=5, random_state=0).fit(X, LABELS), X, columns=types)
    assert {f.type for f in conversion.signature.features} == {SqlType.REAL}
    assert conversion.checks is not None
    for row in conversion.checks.rows:
        assert all(v is None or float(np.float32(v)) == v for v in row)


def test_float32_sample_gives_a_float64_graph_and_a_note() -> None:
    conversion = agrees(LogisticRegression(max_iter=1000).fit(X.astype(np.float32), LABELS), X.astype(np.float32))
    assert {f.type for f in conversion.signature.features} == {SqlType.REAL}
    assert any("float32 values" in note for note in conversion.provenance.notes)


@pytest.mark.parametrize(("type_", "said"), [(SqlType.INTEGER, "5.1"), (SqlType.BOOLEAN, "5.1"), (SqlType.TEXT, "5.1")])
def test_value_that_the_type_cannot_hold_is_refused(type_: SqlType, said: str) -> None:
    with pytest.raises(FeatureError, match=f"f0 is {said} in the sample, which is no {type_}"):
        convert(Ridge().fit(X, LABELS), sample=X, columns={"f0": type_})


def test_smallint_out_of_range_is_refused() -> None:
    with pytest.raises(FeatureError, match="40000"):
        convert(Ridge().fit([[1], [40000]], [0, 1]), sample=np.array([[1], [40000]]), columns={"f0": SqlType.SMALLINT})


def test_columns_that_a_column_transformer_drops_are_no_features() -> None:
    frame = pd.DataFrame(X, columns=list("abcd")).assign(e="text")
    columns = ColumnTransformer([("s", StandardScaler(), ["d"]), ("p", "passthrough", ["b"])])
    signature = agrees(make_pipeline(columns, LogisticRegression()).fit(frame, LABELS), frame).signature
    assert [f.name for f in signature.features] == ["b", "d"]
    assert [t.name for t in signature.tensors] == ["b", "d"]


@pytest.mark.parametrize(
    "columns",
    [
        ColumnTransformer([("s", StandardScaler(), make_column_selector(dtype_include="number"))], remainder="drop"),
        ColumnTransformer([("s", StandardScaler(), [0, 2])], remainder="passthrough"),
        ColumnTransformer([("s", StandardScaler(), slice("b", "d"))]),
        ColumnTransformer([("s", StandardScaler(), slice(1, 3))], remainder=StandardScaler()),
        ColumnTransformer([("s", StandardScaler(), [True, False, True, False])], remainder="passthrough"),
        ColumnTransformer([("s", StandardScaler(), ["a"]), ("again", "passthrough", ["a", "c"])]),
        ColumnTransformer([("s", StandardScaler(), ["d", "a"])], transformer_weights={"s": 0.5}),
        FeatureUnion(
            [
                ("one", ColumnTransformer([("s", StandardScaler(), ["c"])])),
                ("two", ColumnTransformer([("p", "passthrough", ["a"])])),
            ]
        ),
        make_pipeline(StandardScaler(), ColumnTransformer([("p", "passthrough", [3, 1])])),
    ],
    ids=lambda c: repr(c).replace("\n", "").replace(" ", "")[:70],
)
def test_columns_selected_in_any_way_are_exact(columns: Any) -> None:
    frame = pd.DataFrame(X, columns=list("abcd"))
    model = make_pipeline(columns, RandomForestClassifier(n_estimators=5, random_state=0)).fit(frame, LABELS)
    conversion = agrees(model, frame)
    assert conversion.parity is not None
    assert conversion.parity.rows["threshold"] > 0


def test_matrix_with_columns_selected_by_position_is_exact() -> None:
    columns = ColumnTransformer([("s", StandardScaler(), [2]), ("p", "passthrough", slice(0, 2))])
    signature = agrees(make_pipeline(columns, LogisticRegression(max_iter=1000)).fit(X, LABELS), X).signature
    assert [t.width for t in signature.tensors] == [4]


def test_numbers_and_texts_before_one_encoder_are_an_input_each() -> None:
    frame = pd.DataFrame({"a": ["x", "y"] * 10, "b": [1, 2, 3, 1] * 5})
    model = make_pipeline(OneHotEncoder(handle_unknown="ignore"), LogisticRegression()).fit(frame, [0, 1] * 10)
    assert [t.dtype for t in agrees(model, frame).signature.tensors] == ["string", "float64"]


def test_array_column_is_one_feature_among_others() -> None:
    frame = pd.DataFrame({"age": np.arange(150), "vector": list(X), "flag": LABELS > 0})
    model = LogisticRegression(max_iter=5000).fit(np.c_[np.arange(150), X, LABELS > 0], LABELS)
    conversion = agrees(model, frame)
    features = conversion.signature.features
    assert [(f.name, f.type, f.position, f.width) for f in features] == [
        ("age", SqlType.BIGINT, 0, 1),
        ("vector", SqlType.DOUBLE_ARRAY, 1, 4),
        ("flag", SqlType.BOOLEAN, 5, 1),
    ]
    assert conversion.checks is not None
    assert isinstance(conversion.checks.rows[0][1], list)


def test_whole_array_is_one_feature_as_an_embedding() -> None:
    model = RandomForestClassifier(n_estimators=5, random_state=0).fit(X, LABELS)
    conversion = agrees(model, X.astype(np.float32), embedding="vector")
    (feature,) = conversion.signature.features
    assert (feature.name, feature.type, feature.width) == ("vector", SqlType.REAL_ARRAY, 4)
    assert conversion.parity is not None
    assert conversion.parity.rows["threshold"] > 0


def test_arrays_of_two_lengths_are_refused() -> None:
    frame = pd.DataFrame({"vector": [[1.0, 2.0], [1.0]]})
    with pytest.raises(FeatureError, match="arrays of 1 and of 2 elements"):
        read_sample(frame, names=None, width=None, types={})


REVIEWS = ["Good film, été à Paris", "bad FILM", "not good; don't", "", "x", "ЖУК жук 12", "good good bad_thing"] * 6
LIKED = [1, 0, 0, 1, 0, 1, 1] * 6


@pytest.mark.parametrize(
    "vectorizer",
    [
        TfidfVectorizer(),
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, norm="l1"),
        TfidfVectorizer(stop_words=["good"], use_idf=False, norm=None, token_pattern=r"(?u)\b\w+\b"),  # noqa: S106
        CountVectorizer(binary=True, lowercase=False),
        CountVectorizer(ngram_range=(2, 3)),
    ],
    ids=lambda v: repr(v).replace("\n", "").replace(" ", "")[:60],
)
def test_texts_in_any_script_are_counted_exactly(vectorizer: Any) -> None:
    conversion = agrees(make_pipeline(vectorizer, LogisticRegression()).fit(REVIEWS, LIKED), REVIEWS)
    (feature,) = conversion.signature.features
    assert (feature.name, feature.type, feature.null_policy) == ("text", SqlType.TEXT, "null")


def test_series_of_texts_gives_the_feature_its_name() -> None:
    model = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(REVIEWS, LIKED)
    assert agrees(model, pd.Series(REVIEWS, name="Body Text")).signature.features[0].name == "body_text"


def test_text_column_beside_numbers_is_exact() -> None:
    frame = pd.DataFrame({"body": REVIEWS, "stars": np.arange(len(REVIEWS)) % 5})
    columns = ColumnTransformer([("t", TfidfVectorizer(), "body"), ("n", StandardScaler(), ["stars"])])
    model = make_pipeline(columns, RandomForestClassifier(n_estimators=5, random_state=0)).fit(frame, LIKED)
    assert [f.name for f in agrees(model, frame).signature.features] == ["body", "stars"]


def test_without_a_sample_names_and_types_come_from_estimator_and_table() -> None:
    frame = pd.DataFrame({"City": ["x", "y"] * 10, "b": [1.0, 2.0, 3.0, 1.0] * 5})
    columns = ColumnTransformer([("t", OneHotEncoder(), ["City"]), ("n", "passthrough", ["b"])])
    model = make_pipeline(columns, LogisticRegression()).fit(frame, [0, 1] * 10)
    conversion = convert(model, columns={"b": SqlType.INTEGER})
    assert conversion.parity is None
    assert [(f.name, f.type) for f in conversion.signature.features] == [
        ("city", SqlType.TEXT),
        ("b", SqlType.INTEGER),
    ]
