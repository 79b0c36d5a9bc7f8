"""What holds for every row: the tensors that are fed, and encoders and imputers on whatever texts there are."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from dbscore.convert import convert
from dbscore.convert.feeds import feeds, scorable
from dbscore.convert.sqlvalue import as_sql
from dbscore.convert.thresholds import steps_around
from dbscore.signature import Feature, NullPolicy, Output, OutputKind, Signature, SqlType, Task, Tensor

QUICK = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
# PostgreSQL's text holds no NUL and no lone surrogate
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=6)


def signature(type_: SqlType, dtype: str) -> Signature:
    return Signature(
        task=Task.REGRESSION,
        features=(Feature(name="a", source="a", type=type_, null_policy=NullPolicy.NULL, tensor="X"),),
        tensors=(Tensor(name="X", dtype=dtype, width=1),),
        outputs=(Output(kind=OutputKind.PREDICTION, tensor="y", type=SqlType.DOUBLE),),
    )


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1))
def test_bigints_reach_an_int64_input_unchanged(values: list[int]) -> None:
    given_rows = feeds(signature(SqlType.BIGINT, "int64"), [(v,) for v in values])
    assert given_rows["X"][:, 0].tolist() == values


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1))
def test_doubles_reach_a_float32_input_as_c_casts_them(values: list[float]) -> None:
    found = feeds(signature(SqlType.DOUBLE, "float32"), [(v,) for v in values])["X"][:, 0]
    with np.errstate(over="ignore"):
        assert found.tolist() == [float(np.float32(v)) for v in values]


@given(st.lists(st.none() | st.booleans()))
def test_only_rows_without_null_are_scorable(values: list[bool | None]) -> None:
    assert scorable(signature(SqlType.BOOLEAN, "bool"), [(v,) for v in values]) == [v is not None for v in values]


@given(st.floats(allow_nan=False, width=32))
def test_real_column_gives_a_float32_back_unchanged(value: float) -> None:
    assert as_sql(value, SqlType.REAL, "a") == value


@given(st.floats(allow_nan=False, allow_infinity=False, min_value=-1e37, max_value=1e37))
def test_steps_enclose_their_threshold(threshold: float) -> None:
    steps = steps_around(threshold, SqlType.DOUBLE)
    assert steps == sorted(set(steps))
    assert threshold in steps
    assert steps[0] < threshold < steps[-1]
    singles = steps_around(threshold, SqlType.REAL)
    assert singles[0] < threshold < singles[-1] or threshold in singles
    assert all(float(np.float32(s)) == s for s in singles)


@st.composite
def tables(draw: Any) -> pd.DataFrame:
    rows = draw(st.integers(4, 12))
    known = draw(st.lists(TEXTS, min_size=1, max_size=4, unique=True))
    column = st.lists(st.none() | st.sampled_from(known), min_size=rows, max_size=rows)
    numbers = st.lists(st.none() | st.integers(-3, 3).map(float) | st.floats(-1e6, 1e6), min_size=rows, max_size=rows)
    return pd.DataFrame(
        {
            "t": pd.Series(draw(column), dtype=object),
            "n": pd.Series([math.nan if v is None else v for v in draw(numbers)], dtype=float),
        }
    )


@QUICK
@given(tables(), TEXTS, st.sampled_from(["ignore", "infrequent_if_exist"]), st.booleans())
def test_any_texts_and_gaps_are_encoded_exactly(
    frame: pd.DataFrame,
    unseen: str,
    unknown: str,
    imputed: bool,  # noqa: FBT001
) -> None:
    encoder = OneHotEncoder(handle_unknown=unknown, min_frequency=2 if unknown != "ignore" else None)
    # text None is missing to an imputer only if it is told so
    step = make_pipeline(SimpleImputer(missing_values=None, strategy="most_frequent"), encoder) if imputed else encoder
    if imputed and frame["t"].isna().all():
        frame["t"] = "text"
    if frame["n"].isna().all():
        frame["n"] = 0.5
    columns = ColumnTransformer([("t", step, ["t"]), ("n", SimpleImputer(strategy="median"), ["n"])])
    model = make_pipeline(columns, Ridge()).fit(frame, np.arange(float(len(frame))))
    sample = pd.concat([frame, pd.DataFrame({"t": pd.Series([unseen], dtype=object), "n": [1.25]})], ignore_index=True)
    conversion = convert(model, sample=sample)
    assert conversion.parity is not None
    assert conversion.parity.total_mismatches == 0, conversion.parity.examples
    assert conversion.provenance.precision == "float64"
