"""ONNX models that others wrote: what they take and give, and which are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest
from onnx import ModelProto, TensorProto, helper
from skl2onnx import to_onnx
from sklearn.cluster import KMeans
from sklearn.datasets import load_iris
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.svm import LinearSVC

from dbscore.convert import convert
from dbscore.convert.session import open_session, run
from dbscore.errors import ArtifactError, FeatureError
from dbscore.signature import NullPolicy, SqlType, Task

X, LABELS = load_iris(return_X_y=True)
NAMES = np.array(["setosa", "versicolor", "virginica"])


def graph(
    nodes: list[Any], inputs: list[Any], outputs: list[Any], constants: list[Any] = (), opset: int = 18, **more: Any
) -> ModelProto:
    made = helper.make_graph(nodes, "g", inputs, outputs, initializer=list(constants))
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=9, **more)


def value(name: str, type_: int, shape: Any) -> Any:
    return helper.make_tensor_value_info(name, type_, shape)


def passing(shape: Any, type_: int = TensorProto.FLOAT) -> bytes:
    """A model whose output is its input."""
    model = graph([helper.make_node("Identity", ["x"], ["y"])], [value("x", type_, shape)], [value("y", type_, shape)])
    return bytes(model.SerializeToString())


def network(width: int = 3, outputs: int = 1) -> bytes:
    """x @ w + b in float32, such as torch exports."""
    nodes = [helper.make_node("Gemm", ["input", "w", "b"], ["output"])]
    weights = np.arange(width * outputs, dtype=np.float32).reshape(width, outputs)
    constants = [
        onnx.numpy_helper.from_array(weights, "w"),
        onnx.numpy_helper.from_array(np.ones(outputs, np.float32), "b"),
    ]
    model = graph(
        nodes,
        [value("input", TensorProto.FLOAT, ["batch", width])],
        [value("output", TensorProto.FLOAT, ["batch", outputs])],
        constants,
        producer_name="pytorch",
        producer_version="2.9",
    )
    return bytes(model.SerializeToString())


def exported(estimator: Any, *, target: Any = LABELS, **options: Any) -> bytes:
    model = estimator.fit(X, target)
    return bytes(to_onnx(model, X[:1].astype(np.float32), **options).SerializeToString())


def test_matrix_input_without_names_is_one_array_feature() -> None:
    conversion = convert(network())
    (feature,) = conversion.signature.features
    assert (feature.name, feature.type, feature.width) == ("input", SqlType.REAL_ARRAY, 3)
    assert conversion.signature.task is Task.REGRESSION
    assert conversion.signature.prediction.type is SqlType.DOUBLE
    assert conversion.parity is None
    assert conversion.checks is None
    assert conversion.provenance.producer == "pytorch 2.9"
    assert conversion.provenance.precision == "float32"


def test_accepted_bytes_are_kept_as_they_are() -> None:
    data = network()
    assert convert(data).onnx is data


def test_named_columns_are_one_feature_each_in_order() -> None:
    types = {"Age": SqlType.INTEGER, "b": SqlType.REAL, "c": SqlType.DOUBLE}
    features = convert(network(), columns=types).signature.features
    assert [(f.name, f.type, f.position) for f in features] == [
        ("age", SqlType.INTEGER, 0),
        ("b", SqlType.REAL, 1),
        ("c", SqlType.DOUBLE, 2),
    ]


def test_sample_names_the_columns_and_types_them() -> None:
    frame = pd.DataFrame({"a": [1], "b": [0.5], "c": [True]})
    features = convert(network(), sample=frame).signature.features
    assert [(f.name, f.type) for f in features] == [
        ("a", SqlType.BIGINT),
        ("b", SqlType.DOUBLE),
        ("c", SqlType.BOOLEAN),
    ]


def test_wrong_number_of_names_is_refused_with_the_right_one() -> None:
    with pytest.raises(FeatureError, match="2 columns are named, the model's inputs have 3") as caught:
        convert(network(), columns={"a": SqlType.REAL, "b": SqlType.REAL})
    assert "input (3)" in caught.value.remedy


def test_several_outputs_per_row_are_a_vector() -> None:
    signature = convert(network(outputs=5)).signature
    assert signature.task is Task.TRANSFORM
    assert (signature.prediction.type, signature.prediction.width) == (SqlType.DOUBLE_ARRAY, 5)


@pytest.mark.parametrize(
    ("type_", "dtype", "sql"),
    [
        (TensorProto.FLOAT, "float32", SqlType.REAL),
        (TensorProto.DOUBLE, "float64", SqlType.DOUBLE),
        (TensorProto.INT32, "int32", SqlType.INTEGER),
        (TensorProto.INT64, "int64", SqlType.BIGINT),
        (TensorProto.BOOL, "bool", SqlType.BOOLEAN),
        (TensorProto.STRING, "string", SqlType.TEXT),
    ],
)
@pytest.mark.parametrize("shape", [[None], [None, 1]], ids=["rank 1", "rank 2"])
def test_single_value_input_is_a_feature_of_its_type(type_: int, dtype: str, sql: SqlType, shape: Any) -> None:
    signature = convert(passing(shape, type_)).signature
    assert (signature.features[0].name, signature.features[0].type) == ("x", sql)
    assert [(t.dtype, t.width, t.rank) for t in signature.tensors] == [(dtype, 1, len(shape))]


def test_strings_in_one_matrix_need_names() -> None:
    data = passing([None, 2], TensorProto.STRING)
    with pytest.raises(FeatureError, match="takes 2 strings"):
        convert(data)
    features = convert(data, columns={"a": SqlType.TEXT, "b": SqlType.TEXT}).signature.features
    assert [f.position for f in features] == [0, 1]


def test_inputs_of_several_types_are_found_among_a_tables_columns_by_name() -> None:
    nodes = [helper.make_node("Cast", ["n"], ["f"], to=TensorProto.FLOAT), helper.make_node("Add", ["f", "x"], ["y"])]
    inputs = [value("n", TensorProto.INT64, [None, 1]), value("x", TensorProto.FLOAT, [None, 1])]
    data = bytes(graph(nodes, inputs, [value("y", TensorProto.FLOAT, [None, 1])]).SerializeToString())
    table = {"id": SqlType.BIGINT, "x": SqlType.DOUBLE, "n": SqlType.SMALLINT, "note": SqlType.TEXT}
    features = convert(data, columns=table).signature.features
    assert [(f.name, f.type) for f in features] == [("n", SqlType.SMALLINT), ("x", SqlType.DOUBLE)]


@pytest.mark.parametrize(
    ("type_", "given"),
    [
        (TensorProto.INT64, SqlType.DOUBLE),
        (TensorProto.FLOAT, SqlType.TEXT),
        (TensorProto.STRING, SqlType.REAL),
        (TensorProto.FLOAT, SqlType.REAL_ARRAY),
    ],
)
def test_type_that_does_not_fill_the_input_is_refused(type_: int, given: SqlType) -> None:
    with pytest.raises(FeatureError, match=f"x is {given}".replace("[", r"\[").replace("]", r"\]")):
        convert(passing([None, 1], type_), columns={"x": given})


def test_null_means_null_unless_the_caller_says_that_it_is_a_missing_value() -> None:
    assert convert(network()).signature.features[0].null_policy is NullPolicy.NULL
    assert convert(network(), null_policy="nan").signature.features[0].null_policy is NullPolicy.NAN


def test_missing_values_have_no_place_in_an_integer_input() -> None:
    with pytest.raises(FeatureError, match="int64 input cannot hold a missing value"):
        convert(passing([None, 1], TensorProto.INT64), null_policy={"x": "nan"})


@pytest.mark.parametrize("zipmap", [True, False])
def test_classifier_has_labels_probabilities_and_classes_with_and_without_zipmap(zipmap: bool) -> None:  # noqa: FBT001
    data = exported(LogisticRegression(max_iter=1000), target=NAMES[LABELS], options={"zipmap": zipmap})
    conversion = convert(data)
    signature = conversion.signature
    assert signature.task is Task.CLASSIFICATION
    assert signature.classes == ("setosa", "versicolor", "virginica")
    assert signature.prediction.type is SqlType.TEXT
    assert signature.probabilities is not None
    assert (conversion.onnx == data) is not zipmap
    assert bool(conversion.provenance.corrections) is zipmap
    answers = run(open_session(conversion.onnx), {"X": X.astype(np.float32)})
    expected = run(open_session(data), {"X": X.astype(np.float32)})
    given = answers[signature.probabilities.tensor]
    assert given.shape == (150, 3)
    if zipmap:
        maps = expected["output_probability"]
        assert given == pytest.approx(np.array([[m[c] for c in signature.classes] for m in maps]))


@pytest.mark.parametrize(
    "estimator",
    [
        RandomForestClassifier(n_estimators=3, random_state=0),
        GradientBoostingClassifier(n_estimators=3, random_state=0),
        LogisticRegression(max_iter=1000),
    ],
    ids=lambda e: type(e).__name__,
)
def test_integer_classes_are_read_from_the_graph(estimator: Any) -> None:
    signature = convert(exported(estimator, target=LABELS * 10 + 5, options={"zipmap": False})).signature
    assert signature.classes == (5, 15, 25)
    assert signature.prediction.type is SqlType.BIGINT


def test_linear_scores_are_no_probabilities() -> None:
    conversion = convert(exported(LinearSVC()))
    assert conversion.signature.task is Task.CLASSIFICATION
    assert conversion.signature.classes == (0, 1, 2)


def test_clusters_have_a_number_and_no_classes() -> None:
    conversion = convert(exported(KMeans(3, n_init=1, random_state=0)))
    assert conversion.signature.task is Task.CLUSTERING
    assert conversion.signature.classes is None
    assert conversion.signature.probabilities is None
    assert any("scores" in note for note in conversion.provenance.notes)


def test_float64_model_says_so() -> None:
    model = LinearRegression().fit(X, LABELS)
    data = to_onnx(model, X[:1]).SerializeToString()
    conversion = convert(data)
    assert conversion.provenance.precision == "float64"
    assert conversion.signature.features[0].type is SqlType.DOUBLE_ARRAY


# --- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "no ONNX graph"),
        (b"PK\x03\x04 not a model at all", "no ONNX model"),
        (network()[:60], "no ONNX model"),
        (network()[:-7], "no ONNX model"),
    ],
    ids=["empty", "another format", "cut early", "cut late"],
)
def test_bytes_that_are_no_whole_model_are_refused(data: bytes, said: str) -> None:
    with pytest.raises(ArtifactError, match=said):
        convert(data)


def test_every_truncation_is_refused() -> None:
    data = network()
    for end in range(0, len(data), 7):
        with pytest.raises(ArtifactError):
            convert(data[:end])


def test_model_over_the_limit_is_refused_with_its_size() -> None:
    with pytest.raises(ArtifactError, match="more than the limit of 50"):
        convert(network(), max_bytes=50)


def outside(name: str) -> Any:
    tensor = helper.make_tensor(name, TensorProto.FLOAT, [1], [1.0])
    tensor.ClearField("float_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../../etc/passwd"
    return tensor


def with_external(place: str) -> ModelProto:
    x, y = value("x", TensorProto.FLOAT, [None, 1]), value("y", TensorProto.FLOAT, [None, 1])
    if place == "initializer":
        return graph([helper.make_node("Add", ["x", "w"], ["y"])], [x], [y], [outside("w")])
    constant = helper.make_node("Constant", [], ["w"], value=outside("w"))
    if place == "attribute":
        return graph([constant, helper.make_node("Add", ["x", "w"], ["y"])], [x], [y])
    if place == "subgraph":
        branch = helper.make_graph([constant], "b", [], [value("w", TensorProto.FLOAT, [1])])
        chosen = helper.make_node("If", ["c"], ["w1"], then_branch=branch, else_branch=branch)
        yes = helper.make_tensor("c", TensorProto.BOOL, [], [True])
        return graph([chosen, helper.make_node("Add", ["x", "w1"], ["y"])], [x], [y], [yes])
    model = graph([helper.make_node("F", ["x"], ["y"], domain="own")], [x], [y])
    body = [constant, helper.make_node("Add", ["a", "w"], ["b"])]
    model.functions.append(helper.make_function("own", "F", ["a"], ["b"], body, [helper.make_opsetid("", 18)]))
    model.opset_import.append(helper.make_opsetid("own", 1))
    return model


@pytest.mark.parametrize("place", ["initializer", "attribute", "subgraph", "function"])
def test_data_in_other_files_is_refused_wherever_it_is_named(place: str) -> None:
    with pytest.raises(ArtifactError, match=r"lies outside the model, in '\.\./\.\./etc/passwd'"):
        convert(bytes(with_external(place).SerializeToString()))


def test_operator_that_onnx_runtime_does_not_know_is_refused_in_its_words() -> None:
    node = helper.make_node("NoSuchOperator", ["x"], ["y"])
    model = graph([node], [value("x", TensorProto.FLOAT, [None, 1])], [value("y", TensorProto.FLOAT, [None, 1])])
    with pytest.raises(ArtifactError, match="NoSuchOperator") as caught:
        convert(bytes(model.SerializeToString()))
    assert "operator" in caught.value.remedy


def test_operator_set_of_the_future_is_refused() -> None:
    node = helper.make_node("Identity", ["x"], ["y"])
    io = [value("x", TensorProto.FLOAT, [None, 1])], [value("y", TensorProto.FLOAT, [None, 1])]
    with pytest.raises(ArtifactError, match="ONNX Runtime cannot load"):
        convert(bytes(graph([node], *io, opset=9999).SerializeToString()))


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ([None, 3, 32, 32], "rank 4"),
        ([], "rank 0"),
        ([None, None], "dynamic second dimension"),
        ([None, "columns"], "dynamic second dimension"),
        ([8, 3], "takes 8 rows"),
        (None, "no declared rank"),
    ],
)
def test_input_that_rows_cannot_fill_is_refused(shape: Any, said: str) -> None:
    with pytest.raises(ArtifactError, match=said) as caught:
        convert(passing(shape))
    assert caught.value.remedy


@pytest.mark.parametrize("type_", [TensorProto.FLOAT16, TensorProto.UINT8, TensorProto.INT8])
def test_input_of_a_type_without_sql_is_refused(type_: int) -> None:
    with pytest.raises(ArtifactError, match=TensorProto.DataType.Name(type_)):
        convert(passing([None, 1], type_))


def test_sequence_input_is_refused() -> None:
    sequence = helper.make_tensor_sequence_value_info("x", TensorProto.FLOAT, None)
    node = helper.make_node("ConcatFromSequence", ["x"], ["y"], axis=0)
    model = graph([node], [sequence], [value("y", TensorProto.FLOAT, None)])
    with pytest.raises(ArtifactError, match="is a sequence, not a tensor"):
        convert(bytes(model.SerializeToString()))


def test_two_predictions_are_refused_by_name() -> None:
    nodes = [helper.make_node("Identity", ["x"], ["y"]), helper.make_node("Neg", ["x"], ["z"])]
    outputs = [value(n, TensorProto.FLOAT, [None, 1]) for n in "yz"]
    model = graph(nodes, [value("x", TensorProto.FLOAT, [None, 1])], outputs)
    with pytest.raises(ArtifactError, match="several predictions: y, z"):
        convert(bytes(model.SerializeToString()))


def test_output_without_a_row_per_row_is_refused() -> None:
    node = helper.make_node("ReduceSum", ["x"], ["y"], keepdims=1)
    model = graph([node], [value("x", TensorProto.FLOAT, [None, 2])], [value("y", TensorProto.FLOAT, [1, 1])])
    with pytest.raises(ArtifactError, match=r"shape \(1, 1\) for 2 rows"):
        convert(bytes(model.SerializeToString()))
