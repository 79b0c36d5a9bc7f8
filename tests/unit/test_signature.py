"""Names of features, and the signature's journey through JSON."""

from __future__ import annotations

import json

import pytest

from dbscore.errors import FeatureError, NameRefusedError
from dbscore.signature import (
    Feature,
    NullPolicy,
    Output,
    OutputKind,
    Signature,
    SqlType,
    Task,
    Tensor,
    feature_identifier,
    feature_identifiers,
)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("sepal length (cm)", "sepal_length_cm"),
        ("Age", "age"),
        ("2nd class", "f_2nd_class"),
        ("_private", "_private"),
        ("a--b..c", "a_b_c"),
        ("Größe", "größe"),
        ("(x)", "x"),
    ],
)
def test_name_becomes_an_identifier(source: str, expected: str) -> None:
    assert feature_identifier(source) == expected


@pytest.mark.parametrize("source", ["", "()", "___", "x" * 64, "é" * 32])
def test_name_that_makes_no_identifier_is_refused(source: str) -> None:
    with pytest.raises(NameRefusedError):
        feature_identifier(source)


def test_two_names_with_one_identifier_are_refused_with_both() -> None:
    with pytest.raises(FeatureError, match="'a b' and 'A-B' both become the identifier 'a_b'"):
        feature_identifiers(["a b", "c", "A-B"])


def test_signature_survives_json() -> None:
    signature = Signature(
        task=Task.CLASSIFICATION,
        features=(
            Feature(
                name="city",
                source="City",
                type=SqlType.TEXT,
                null_policy=NullPolicy.NAN,
                tensor="City",
                categories=("Oslo", "Rome"),
                missing="<dbscore:missing>",
            ),
            Feature(
                name="v",
                source="v",
                type=SqlType.REAL_ARRAY,
                null_policy=NullPolicy.NULL,
                tensor="X",
                position=1,
                width=4,
                accepts_infinity=True,
                largest=3.4028234663852886e38,
            ),
        ),
        tensors=(Tensor(name="City", dtype="string", width=1), Tensor(name="X", dtype="float64", width=5)),
        outputs=(
            Output(kind=OutputKind.PREDICTION, tensor="label", type=SqlType.BOOLEAN),
            Output(kind=OutputKind.PROBABILITIES, tensor="probabilities", type=SqlType.DOUBLE_ARRAY, width=2),
        ),
        classes=(False, True),
    )
    assert Signature.from_json(json.loads(json.dumps(signature.to_json()))) == signature
    assert signature.prediction.tensor == "label"
    assert signature.probabilities is not None
    assert not signature.is_numeric
