"""The same answers wherever a model comes from: memory, a .skops file, a pickle, ONNX of another producer."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any, NamedTuple

import joblib
import numpy as np
import onnx
import pandas as pd
import psycopg
import pytest
import skops.io
from onnx import TensorProto, helper, numpy_helper
from psycopg import sql
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from dbscore.errors import UntrustedSourceError
from tests.acceptance.rows import answers, classified, load

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from dbscore import Client

Connection = psycopg.Connection[Any]

NUMBERS = ["total_rooms", "total_bedrooms", "median_income", "latitude"]
FEATURES = [*NUMBERS, "ocean_proximity"]
DISTRICTS = sql.Identifier("districts")
TYPES = {
    "key": "integer",
    "ocean_proximity": "text",
    "latitude": "double precision",
    "median_income": "double precision",
    "total_bedrooms": "double precision",
    "total_rooms": "double precision",
}


class Dear(NamedTuple):
    features: pd.DataFrame
    pipeline: Any


@pytest.fixture(scope="module")
def dear(house: Connection, real: Callable[[str], pd.DataFrame]) -> Dear:
    """3,000 districts, and a pipeline that tells the dear ones."""
    frame = real("california_housing").sample(3000, random_state=0)
    load(house, DISTRICTS, frame, types=TYPES)
    encoder = make_column_transformer(
        (make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), NUMBERS),
        (OneHotEncoder(handle_unknown="ignore", sparse_output=False), ["ocean_proximity"]),
    )
    pipeline = make_pipeline(encoder, LogisticRegression())
    return Dear(frame[FEATURES], pipeline.fit(frame[FEATURES], frame["median_house_value"] > 250_000))


@pytest.mark.parametrize("source", ["estimator", "skops", "joblib", "pickle"])
def test_a_model_in_memory_and_its_files_answer_alike(
    dear: Dear, house: Connection, keeper: Client, tmp_path: Path, source: str
) -> None:
    path = tmp_path / f"model.{source}"
    if source == "skops":
        skops.io.dump(dear.pipeline, path)
    elif source == "joblib":
        joblib.dump(dear.pipeline, path)
    elif source == "pickle":
        path.write_bytes(pickle.dumps(dear.pipeline))
    name = f"from_{source}"
    given = dear.pipeline if source == "estimator" else str(path)
    version = keeper.deploy(
        name,
        given,
        sample=dear.features,
        table="districts",
        trust_pickle=source in ("joblib", "pickle"),
        # the encoder's output type, which skops does not trust by itself
        trusted_types=["numpy.dtype"] if source == "skops" else [],
    )
    assert version.provenance["source"] == ("pickle" if source == "joblib" else source)
    classified(answers(house, DISTRICTS, [name, f"{name}_proba", f"{name}_score"]), name, dear.pipeline, dear.features)


@pytest.mark.parametrize("suffix", ["pkl", "pickle", "joblib"])
def test_a_pickle_is_refused_unread_unless_it_is_trusted(keeper: Client, tmp_path: Path, suffix: str) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (exec, (f"open({str(tmp_path / 'sprung')!r}, 'w')",))

    path = tmp_path / f"model.{suffix}"
    path.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(UntrustedSourceError, match="executes") as caught:
        keeper.deploy("trap", path)
    assert "trust_pickle" in caught.value.remedy
    assert not (tmp_path / "sprung").exists()
    assert "trap" not in [m.name for m in keeper.models()]


def test_a_skops_file_with_a_function_in_it_is_refused_by_its_type(dear: Dear, keeper: Client, tmp_path: Path) -> None:
    path = tmp_path / "model.skops"
    pipeline = make_pipeline(FunctionTransformer(joblib.hash), LogisticRegression())
    skops.io.dump(pipeline, path)
    with pytest.raises(UntrustedSourceError, match=r"joblib\.hashing\.hash"):
        keeper.deploy("trap", path, sample=dear.features)


def test_exported_bytes_deployed_again_answer_alike(dear: Dear, house: Connection, keeper: Client) -> None:
    numbers = dear.features[NUMBERS].dropna()
    dearer = LogisticRegression(max_iter=1000).fit(numbers, (numbers["median_income"] > 4).astype(int))
    keeper.deploy("first", dearer, sample=numbers, table="districts")
    # the bytes say nothing of names: the sample's columns do
    keeper.deploy("again", keeper.export("first"), sample=numbers, table="districts")
    found = answers(house, DISTRICTS, ["first", "first_proba", "again", "again_proba"])
    assert found["first"].notna().sum() == len(numbers)
    pd.testing.assert_series_equal(found["first"], found["again"], check_names=False)
    pd.testing.assert_series_equal(found["first_proba"], found["again_proba"], check_names=False)


def model_of(nodes: list[Any], given: list[Any], made: list[Any], weights: dict[str, np.ndarray[Any, Any]]) -> bytes:
    """Return the bytes of a graph, checked."""
    initializers = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "main_graph", given, made, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], producer_name="hand", ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def test_a_network_as_torch_exports_it_answers_as_numpy_does_in_float32(
    dear: Dear, house: Connection, keeper: Client
) -> None:
    random = np.random.default_rng(0)
    weights = {
        "fc1.weight": (random.normal(size=(16, 4)) / [2000, 400, 4, 35]).astype(np.float32),
        "fc1.bias": random.normal(size=16).astype(np.float32),
        "fc2.weight": random.normal(size=(3, 16)).astype(np.float32) / 4,
        "fc2.bias": random.normal(size=3).astype(np.float32),
    }
    nodes = [
        helper.make_node("Gemm", ["input", "fc1.weight", "fc1.bias"], ["/fc1/Gemm_output_0"], transB=1),
        helper.make_node("Relu", ["/fc1/Gemm_output_0"], ["/relu/Relu_output_0"]),
        helper.make_node("Gemm", ["/relu/Relu_output_0", "fc2.weight", "fc2.bias"], ["logits"], transB=1),
        helper.make_node("Softmax", ["logits"], ["output"], axis=1),
    ]
    given = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch_size", 4])
    made = helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch_size", 3])
    version = keeper.deploy(
        "network", model_of(nodes, [given], [made], weights), sample=dear.features[NUMBERS], table="districts"
    )
    assert [f.name for f in version.signature.features] == NUMBERS
    assert version.parity is None
    found = answers(house, DISTRICTS, ["network"])
    rows = dear.features[NUMBERS].sort_index()
    gaps = rows.isna().any(axis=1)
    assert gaps.sum() == found["network"].isna().sum() > 0
    hidden = np.maximum(rows[~gaps].to_numpy(np.float32) @ weights["fc1.weight"].T + weights["fc1.bias"], 0)
    logits = hidden @ weights["fc2.weight"].T + weights["fc2.bias"]
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(np.array(found["network"][~gaps].tolist()), expected, rtol=2e-5, atol=1e-6)


def test_a_hand_made_graph_with_a_text_and_an_integer_input_is_fed_by_their_names(
    house: Connection, keeper: Client
) -> None:
    nodes = [
        helper.make_node(
            "LabelEncoder",
            ["plan"],
            ["price"],
            domain="ai.onnx.ml",
            keys_strings=["basic", "größer", "it's"],
            values_floats=[1.0, 2.5, 4.0],
            default_float=-1.0,
        ),
        helper.make_node("Cast", ["months"], ["count"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["price", "count"], ["total"]),
    ]
    graph = helper.make_graph(
        nodes,
        "prices",
        [
            helper.make_tensor_value_info("months", TensorProto.INT64, [None, 1]),
            helper.make_tensor_value_info("plan", TensorProto.STRING, [None, 1]),
        ],
        [helper.make_tensor_value_info("total", TensorProto.FLOAT, [None, 1])],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    house.execute("create table contracts (plan varchar(9), id int, months int)")
    house.execute(
        """insert into contracts values
           ('basic', 1, 12), ('größer', 2, 2), ('it''s', 3, -3), ('', 4, 7), (null, 5, 1), ('basic', 6, null)"""
    )
    keeper.deploy("total", model.SerializeToString(), table="contracts")
    found = dict(house.execute("select id, models.total(c) from contracts c").fetchall())
    assert found == {1: 12.0, 2: 5.0, 3: -12.0, 4: -7.0, 5: None, 6: None}
    assert house.execute("select models.total(months => 2, plan => 'it''s')").fetchone() == (8.0,)
