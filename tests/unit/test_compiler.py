"""Graphs as expressions, without a server: each operator beside ONNX Runtime, what is merged, what is refused."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from dbscore.compiler.affine import weighted_sum
from dbscore.compiler.compilation import compile_model
from dbscore.compiler.emit import with_features
from dbscore.compiler.expression import COMPARISONS, Expression, Pool, Tree, reachable
from dbscore.compiler.graph import run
from dbscore.compiler.operators import ML, OPERATORS
from dbscore.compiler.ranges import guarded, ranges
from dbscore.errors import CompilationError
from dbscore.signature import Feature, NullPolicy, Output, OutputKind, Signature, SqlType, Task, Tensor

KINDS = {
    "float64": SqlType.DOUBLE,
    "float32": SqlType.REAL,
    "int64": SqlType.BIGINT,
    "string": SqlType.TEXT,
    "bool": SqlType.BOOLEAN,
}
ONNX = {
    "float64": TensorProto.DOUBLE,
    "float32": TensorProto.FLOAT,
    "int64": TensorProto.INT64,
    "string": TensorProto.STRING,
    "bool": TensorProto.BOOL,
}
X = np.array([[0.5, -1.25, 3.0], [0.0, -0.0, 2.0], [1e3, 2.5, -7.0], [1.0, 1.0, 1.0]])
POSITIVE = np.abs(X) + 0.25
WHOLE = np.array([[0, 1, 2], [5, -3, 1], [2, 2, 2]])
WORDS = np.array([["a", "b"], ["c", "a"], ["", "it's"]], object)
TRUTH = np.array([[True, False], [False, False], [True, True]])
NAN = np.array([[np.nan, 1.0, 2.0], [3.0, np.nan, np.nan], [0.0, 1.0, 2.0]])
PAIR = np.array([[1.0, 2.0], [-1.0, 0.5], [0.25, 0.25]])


@dataclass(frozen=True)
class Example:
    """A node, and the rows that it is given.

    Attributes:
        op: The operator.
        rows: Shape (rows, width); the node's first input.
        others: Further inputs, which are constants; None for one that is left out, "x" for the rows again.
        attributes: The node's.
        first: Inputs before the rows.
        outputs: How many are compared.
    """

    op: str
    rows: np.ndarray
    others: tuple[Any, ...] = ()
    attributes: dict[str, Any] = field(default_factory=dict)
    domain: str = "ai.onnx"
    first: tuple[Any, ...] = ()
    outputs: int = 1
    opset: int = 18
    ml: int = 3

    def __str__(self) -> str:
        return f"{self.op} {' '.join(self.attributes)}".strip()


def of(
    op: str, rows: np.ndarray, *others: Any, first: tuple[Any, ...] = (), outputs: int = 1, **attributes: Any
) -> Example:
    return Example(op, rows, others, attributes, first=first, outputs=outputs)


def ml(op: str, rows: np.ndarray, *others: Any, outputs: int = 1, version: int = 3, **attributes: Any) -> Example:
    return Example(op, rows, others, attributes, ML, outputs=outputs, ml=version)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


F32 = X.astype(np.float32)
STUMPS: dict[str, Any] = {
    "nodes_treeids": [0, 0, 0, 1, 1, 1], "nodes_nodeids": [0, 1, 2, 0, 1, 2], "nodes_featureids": [0, 0, 0, 2, 0, 0],
    "nodes_values": [0.5, 0.0, 0.0, 2.0, 0.0, 0.0], "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF", "BRANCH_LT", "LEAF", "LEAF"],
    "nodes_truenodeids": [1, 0, 0, 1, 0, 0], "nodes_falsenodeids": [2, 0, 0, 2, 0, 0],
}  # fmt: skip


def leaves(prefix: str, weights: list[float], ids: list[int]) -> dict[str, Any]:
    return {
        f"{prefix}_treeids": [0, 0, 1, 1], f"{prefix}_nodeids": [1, 2, 1, 2], f"{prefix}_ids": ids, f"{prefix}_weights": weights,
    }  # fmt: skip


def tensor(values: Any, dtype: str) -> Any:
    return numpy_helper.from_array(np.array(values, dtype))


EXAMPLES = [
    *(of(op, X, X[:1] + 0.5) for op in ("Add", "Sub", "Mul", "Div")),
    *(of(op, X) for op in ("Neg", "Reciprocal", "Abs", "Sqrt", "Exp", "Log", "Floor", "Ceil", "Sign", "Tanh", "Sigmoid", "Relu")),
    of("LeakyRelu", F32, alpha=0.25),
    of("Pow", X, np.array([2.0])), of("Pow", X, np.array([0.5])), of("Pow", X[:, :1], first=(np.array([2.0]),)),
    of("Clip", X, np.array(-1.0), np.array(2.0)), of("Min", X, X[2:3]), of("Max", X, X[2:3]), of("Sum", X, "x"),
    of("Cast", X, to=TensorProto.INT64), of("Cast", X, to=TensorProto.FLOAT), of("CastLike", X, F32),
    of("Where", X, X[:1], first=(np.array([[True, False, True]]),)),
    of("IsNaN", NAN), of("Not", TRUTH), of("And", TRUTH, TRUTH[:1]), of("Or", TRUTH, TRUTH[:1]), of("Xor", TRUTH, TRUTH[:1]),
    *(of(op, X, np.array([[0.5, 1.0, 2.0]])) for op in ("Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual")),
    of("Identity", X), of("Shape", X[:1]), of("Size", X[:1]),
    of("Constant", X, value=tensor([[1.5]], "float64")), of("ConstantOfShape", X, first=(ints(1, 2),), value=tensor([7.0], "float64")),
    of("Reshape", X, ints(-1, 3, 1)), of("Flatten", X), of("Squeeze", X[:, :1], ints(1)), of("Unsqueeze", X, ints(2)),
    of("Transpose", X[:1], perm=[1, 0]), of("Expand", X[:, :1], ints(1, 3)), of("Tile", X, ints(1, 2)),
    of("Concat", X, "x", axis=1), of("Split", X, ints(1, 2), axis=1, outputs=2), of("Slice", X, ints(1), ints(3), ints(1)),
    of("Slice", X, ints(-1), ints(-4), ints(1), ints(-1)), of("Range", X, first=(np.array(0.0), np.array(3.0), np.array(1.0))),
    of("Gather", X, ints(2, 0), axis=1), of("GatherElements", X[:1], ints(2, 0).reshape(1, 2), axis=1),
    ml("ArrayFeatureExtractor", X, ints(2, 0)), ml("FeatureVectorizer", F32, "x", inputdimensions=[3, 3]),
    *(of(op, X, ints(1)) for op in ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin")), of("ReduceSum", F32, ints(1), keepdims=0),
    *(of(op, F32, ints(1)) for op in ("ReduceProd", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSumExp")),
    of("CumSum", X, np.array(1, np.int64)), of("ArgMax", X, axis=1), of("ArgMin", X, axis=1, keepdims=0),
    of("Softmax", X), of("LogSoftmax", X), of("LpNormalization", X, p=1), of("LpNormalization", X, p=2),
    *(ml("Normalizer", F32, norm=norm) for norm in ("L1", "L2")), ml("Normalizer", POSITIVE.astype(np.float32), norm="MAX"),
    of("MatMul", X, np.arange(6.0).reshape(3, 2) - 2.5), of("Gemm", X, np.arange(6.0).reshape(2, 3), np.array([0.5, 1.0]), transB=1, alpha=2.0),
    of("Gemm", X, np.arange(9.0).reshape(3, 3) / 9, "x", beta=0.5),
    ml("Scaler", F32, offset=[1.0, 0.0, -1.0], scale=[2.0, 0.5, 1.0]), ml("LinearRegressor", F32, coefficients=[0.5, -1.0, 2.0], intercepts=[0.25]),
    *(
        ml("LinearClassifier", F32, coefficients=[0.5, -1.0, 2.0, -0.5, 1.0, -2.0], intercepts=[0.25, -0.25], outputs=2, post_transform=link, classlabels_ints=[3, 5])
        for link in ("NONE", "LOGISTIC", "SOFTMAX")
    ),
    ml("LabelEncoder", WORDS, keys_strings=["a", "it's"], values_int64s=[4, 5], default_int64=-2),
    ml("LabelEncoder", WHOLE, keys_int64s=[1, 2], values_strings=["one", "two"], default_string="many"),
    ml("OneHotEncoder", WORDS[:, :1], cats_strings=["a", "c"], zeros=1), ml("OneHotEncoder", WHOLE[:, :1], cats_int64s=[0, 5], zeros=1),
    ml("CategoryMapper", WORDS, cats_strings=["a", "b"], cats_int64s=[1, 2], default_int64=-1),
    ml("Imputer", NAN.astype(np.float32), imputed_value_floats=[9.0, 8.0, 7.0], replaced_value_float=math.nan), ml("Binarizer", F32, threshold=0.75),
    ml("TreeEnsembleRegressor", F32, n_targets=1, **STUMPS, **leaves("target", [1.0, 2.0, 10.0, 20.0], [0] * 4)),
    ml("TreeEnsembleRegressor", F32, n_targets=2, aggregate_function="AVERAGE", **STUMPS, **leaves("target", [1.0, 2.0, 10.0, 20.0], [0, 1, 1, 0])),
    *(
        ml("TreeEnsembleClassifier", F32, outputs=2, classlabels_int64s=[3, 5], post_transform=link, **STUMPS, **leaves("class", [-1.0, 2.0, 1.0, -3.0], [0] * 4))
        for link in ("NONE", "LOGISTIC")
    ),
    ml("TreeEnsembleClassifier", F32, outputs=2, classlabels_strings=["a", "b", "c"], post_transform="SOFTMAX", **STUMPS, **leaves("class", [1.0, 2.0, 1.0, 3.0], [0, 1, 2, 0])),
    ml(
        "TreeEnsemble", X, version=5, n_targets=1, tree_roots=[0], nodes_featureids=[0, 2], nodes_modes=tensor([0, 1], "uint8"),
        nodes_splits=tensor([0.5, 2.0], "float64"), nodes_truenodeids=[1, 0], nodes_trueleafs=[0, 1], nodes_falsenodeids=[2, 1],
        nodes_falseleafs=[1, 1], leaf_targetids=[0, 0, 0], leaf_weights=tensor([1.0, 2.0, 4.0], "float64"),
    ),
]  # fmt: skip


def dtype_of(array: np.ndarray) -> str:
    return "string" if array.dtype == object else array.dtype.name


def model(example: Example) -> bytes:
    inputs, initializers, order = ["x"], [], []
    for part, given in (("first", example.first), ("rows", ("x",)), ("others", example.others)):
        for place, value in enumerate(given):
            if isinstance(value, str) or value is None:
                order.append(value or "")
            else:
                initializers.append(numpy_helper.from_array(np.asarray(value), f"{part}{place}"))
                order.append(f"{part}{place}")
    if example.op in ("Constant", "ConstantOfShape", "Range"):
        # they have no input that depends on the row
        order = [name for name in order if name != "x"]
    outputs = [f"y{i}" for i in range(example.outputs)]
    node = helper.make_node(
        example.op, order, outputs, domain="" if example.domain == "ai.onnx" else ML, **example.attributes
    )
    graph = helper.make_graph(
        [node],
        "g",
        [
            helper.make_tensor_value_info(name, ONNX[dtype_of(example.rows)], [None, example.rows.shape[1]])
            for name in inputs
        ],
        [helper.make_empty_tensor_value_info(name) for name in outputs],
        initializers,
    )
    opsets = [helper.make_opsetid("", example.opset), helper.make_opsetid(ML, example.ml)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()


def signature(rows: np.ndarray, outputs: int = 1) -> Signature:
    dtype = dtype_of(rows)
    policy = NullPolicy.NAN if dtype.startswith("float") else NullPolicy.NULL
    features = tuple(
        Feature(name=f"x{i}", source=f"x{i}", type=KINDS[dtype], null_policy=policy, tensor="x", position=i)
        for i in range(rows.shape[1])
    )
    return Signature(
        task=Task.REGRESSION,
        features=features,
        tensors=(Tensor(name="x", dtype=dtype, width=rows.shape[1]),),
        outputs=(Output(kind=OutputKind.PREDICTION, tensor="y0", type=SqlType.DOUBLE),),
    )


# --- expressions computed by numpy ---


def value(root: Expression, row: np.ndarray) -> Any:
    """Return what an expression is for a row; NaN where it is missing."""
    done: dict[int, Any] = {}
    with np.errstate(all="ignore"):
        for one in reachable([root]):
            made = _value(one, [done[a.number] for a in one.args], row)
            done[one.number] = made if one.dtype in ("string", "bool") else np.dtype(one.dtype).type(made)
    return done[root.number]


def _value(one: Expression, args: list[Any], row: np.ndarray) -> Any:  # noqa: PLR0911 - one for each kind
    if one.op == "const":
        return math.nan if one.value is None else one.value
    if one.op == "feature":
        return row[one.value]
    if one.op == "affine":
        weights, constant = one.value
        return sum(w * float(a) for w, a in zip(weights, args, strict=True)) + constant
    if one.op == "total":
        return sum(args)
    if one.op == "lookup":
        table, default = one.value
        return dict(table).get(args[0] if isinstance(args[0], str) else args[0].item(), default)
    if one.op == "tree":
        return _leaf(one.value, args)
    if one.op in COMPARISONS:
        return bool(COMPARISONS[one.op](args[0], args[1]))
    simple = {
        "add": lambda a, b: a + b, "sub": lambda a, b: a - b, "mul": lambda a, b: a * b, "div": lambda a, b: a / b,
        "neg": lambda a: -a, "abs": abs, "sqrt": np.sqrt, "exp": np.exp, "power_below_one": np.exp, "ln": np.log, "tanh": np.tanh,
        "floor": np.floor, "ceil": np.ceil, "sign": np.sign, "power": np.power, "min": min, "max": max, "not": lambda a: not a,
        "logistic": lambda a: 1 / (1 + np.exp(-a)), "and": lambda a, b: a and b, "or": lambda a, b: a or b,
        "missing": math.isnan, "filled": lambda a, b: b if math.isnan(a) else a, "case": lambda c, a, b: a if c else b,
        "cast": lambda a: np.trunc(a) if one.dtype == "int64" else a, "element": lambda a: one.value[int(a)],
        "greatest_at": lambda *a: int(np.argmax(a)),
    }  # fmt: skip
    return simple[one.op](*args)


def _leaf(tree: Tree, args: list[Any]) -> Any:
    node = 0
    while node >= 0:
        a = args[tree.columns[node]]
        op = tree.comparisons[node]
        yes = (
            tree.missing[node]
            if math.isnan(a)
            else (a != tree.thresholds[node] if op == "ne" else COMPARISONS[op](a, tree.thresholds[node]))
        )
        node = tree.yes[node] if yes else tree.no[node]
    return tree.leaves[~node]


@pytest.mark.parametrize("example", EXAMPLES, ids=str)
def test_an_operator_computes_what_onnx_runtime_does(example: Example) -> None:
    content = model(example)
    names = [f"y{i}" for i in range(example.outputs)]
    tensors, pool = run(content, signature(example.rows), names, OPERATORS)
    session = ort.InferenceSession(content)
    for row in example.rows:
        expected = session.run(names, {"x": row.reshape(1, -1)})
        for name, answer in zip(names, expected, strict=True):
            made = tensors[name]
            flat = list(made.values.flat)
            found = flat if made.is_constant else [value(e, row) for e in flat]
            assert made.values.shape == answer.shape
            if made.dtype == "string":
                assert found == answer.reshape(-1).tolist()
            else:
                assert made.dtype == answer.dtype.name
                tolerance = 1e-6 if made.dtype == "float32" else 1e-12
                # ONNX Runtime's logistic function of reals has no more digits
                absolute = 1e-7 if example.op == "LinearClassifier" else 0.0
                np.testing.assert_allclose(
                    np.array(found, float), answer.reshape(-1).astype(float), rtol=tolerance, atol=absolute
                )
    assert len(pool) > 0


def test_every_operator_has_an_example() -> None:
    assert {(e.domain, e.op) for e in EXAMPLES} == set(OPERATORS)


# --- what cannot be compiled ---


@pytest.mark.parametrize(
    ("example", "said"),
    [
        (of("TopK", X, ints(1)), r"ai\.onnx\.TopK is not compiled to SQL: an expression does not sort"),
        (of("Erf", F32), r"the operator ai\.onnx\.Erf is not compiled to SQL\n"),
        (of("MatMul", X[:, :1], "x"), r"ai\.onnx\.MatMul is not compiled to SQL with two factors that depend on the row"),
        (of("CumSum", X, np.array(1, np.int64), reverse=1), "with exclusive or reverse"),
        (ml("LinearRegressor", F32, coefficients=[1.0] * 3, post_transform="PROBIT"), "with post_transform PROBIT"),
        (ml("TreeEnsembleRegressor", F32, n_targets=2, base_values=[0.5, 1.5], **STUMPS, **leaves("target", [1.0] * 4, [0, 1, 1, 0])), "base_values for targets that a row may have no leaf of"),
        (ml("OneHotEncoder", WORDS[:, :1], cats_strings=["a"], zeros=0), "with an error for unknown categories"),
        (ml("LabelEncoder", F32, keys_floats=[math.nan], values_floats=[1.0]), "with a missing number among its keys"),
        (ml("TreeEnsembleRegressor", F32, aggregate_function="MIN", **STUMPS, **leaves("target", [1.0] * 4, [0] * 4)), "aggregate_function MIN"),
    ],
    ids=str,
)  # fmt: skip
def test_what_cannot_be_compiled_says_which_operator_and_why(example: Example, said: str) -> None:
    with pytest.raises(CompilationError, match=said) as caught:
        compile_model(model(example), signature(example.rows))
    assert "--engine onnx" in str(caught.value.remedy)


def test_a_model_of_a_hundred_features_is_refused_with_their_number() -> None:
    rows = np.zeros((1, 100))
    with pytest.raises(CompilationError, match="has 100 features, and a SQL function at most 99"):
        compile_model(model(of("ReduceSum", rows, ints(1))), signature(rows))


# --- what is merged ---


def test_a_network_too_large_for_a_function_is_refused_in_seconds() -> None:
    rng = np.random.default_rng(0)
    sides = (10, 1_000, 2_000, 1)
    weights = [rng.normal(size=shape).astype(np.float32) for shape in pairwise(sides)]
    nodes = [
        helper.make_node("MatMul", ["x" if i == 0 else f"h{i}", f"w{i}"], ["y0" if i == 2 else f"h{i + 1}"])
        for i in range(3)
    ]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 10])],
        [helper.make_tensor_value_info("y0", TensorProto.FLOAT, [None, 1])],
        [numpy_helper.from_array(w, f"w{i}") for i, w in enumerate(weights)],
    )
    content = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    began = time.perf_counter()
    with pytest.raises(CompilationError, match=r"MatMul.*more than 200,000 weights"):
        compile_model(content, signature(np.zeros((1, 10), np.float32)))
    assert time.perf_counter() - began < 20


def test_equal_expressions_are_one() -> None:
    pool = Pool()
    x = pool.feature(0, "float64", is_nullable=False)
    assert pool.mul(x, pool.const(2, "float64")) is pool.mul(x, pool.const(2.0, "float64"))
    assert pool.const(0.0, "float64") is not pool.const(-0.0, "float64")


def test_what_is_constant_is_computed_with_the_rounding_of_its_dtype() -> None:
    pool = Pool()
    tenth = pool.add(pool.const(0.1, "float32"), pool.const(0.2, "float32"))
    assert tenth.value == float(np.float32(0.1) + np.float32(0.2))
    assert pool.div(pool.const(0, "float64"), pool.const(0, "float64")).value is None
    assert pool.exp(pool.const(1000, "float64")).value == math.inf


def test_a_scaler_before_a_linear_model_leaves_one_weight_for_each_feature() -> None:
    pool = Pool()
    x, y = (pool.feature(i, "float64", is_nullable=False) for i in range(2))
    scaled = [pool.div(pool.sub(e, pool.const(3, "float64")), pool.const(2, "float64")) for e in (x, y)]
    merged = weighted_sum(pool, [*scaled, x], [4.0, 6.0, 1.0], 0.5, "float64")
    assert merged.args == (x, y)
    assert merged.value == ((3.0, 3.0), 0.5 - 6.0 - 9.0)
    assert pool.add(weighted_sum(pool, [x], [2.0], 0.0, "float64"), pool.const(1, "float64")).value == ((2.0,), 1.0)


def test_the_weights_of_one_hot_columns_become_one_look_up() -> None:
    pool = Pool()
    word = pool.feature(0, "string", is_nullable=False)
    columns = [pool.cast(pool.compare("eq", word, pool.const(c, "string")), "float64") for c in ("a", "b")]
    merged = weighted_sum(pool, columns, [1.5, -2.0], 0.0, "float64")
    assert [(a.op, a.value) for a in merged.args] == [("lookup", ((("a", 1.5), ("b", -2.0)), 0.0))]


def test_a_share_of_a_sum_of_exponentials_is_recognized() -> None:
    pool = Pool()
    x, one = pool.feature(0, "float64", is_nullable=False), pool.const(1, "float64")
    assert pool.div(one, pool.add(one, pool.exp(pool.neg(x)))) is pool.logistic(x)


# --- how large numbers get ---


def test_numbers_of_double_precision_are_looked_at_before_they_are_multiplied_and_reals_are_not() -> None:
    pool = Pool()
    double, single = pool.feature(0, "float64", is_nullable=False), pool.feature(1, "float32", is_nullable=False)
    total = weighted_sum(pool, [double, pool.cast(single, "float64")], [0.5, 0.5], 1.0, "float64")
    assert list(guarded(reachable([total]))) == [double.number]
    compared = pool.compare("lt", double, pool.const(1, "float64"))
    assert guarded(reachable([compared])) == {}


def test_a_sum_with_a_constant_is_never_nearer_to_zero_than_its_last_digits() -> None:
    pool = Pool()
    x = pool.feature(0, "float64", is_nullable=False)
    total = weighted_sum(pool, [x], [0.5], 2.0, "float64")
    found = ranges(reachable([total]), {x.number: 1e70})[total.number]
    assert found.least == 2.0 * 2.0**-54
    assert found.most == pytest.approx(5e69)


def test_the_text_of_an_expression_holds_the_features_where_they_belong() -> None:
    program = compile_model(model(of("ReduceMax", X, ints(1))), signature(X))
    text = program.results[""].expression
    assert text is not None
    assert with_features(text, ["t.a", "t.b", "t.c"]).count("t.a") == 1


def test_a_tree_deeper_than_pythons_stack_is_written() -> None:
    depth = 3000
    attributes = {
        "nodes_treeids": [0] * (2 * depth + 1),
        "nodes_nodeids": list(range(2 * depth + 1)),
        "nodes_featureids": [0] * (2 * depth + 1),
        "nodes_values": [float(i) for i in range(depth)] + [0.0] * (depth + 1),
        "nodes_modes": ["BRANCH_LEQ"] * depth + ["LEAF"] * (depth + 1),
        "nodes_truenodeids": list(range(depth, 2 * depth)) + [0] * (depth + 1),
        "nodes_falsenodeids": [*range(1, depth), 2 * depth] + [0] * (depth + 1),
        "target_treeids": [0] * (depth + 1),
        "target_nodeids": list(range(depth, 2 * depth + 1)),
        "target_ids": [0] * (depth + 1),
        "target_weights": [float(i) for i in range(depth + 1)],
    }
    program = compile_model(model(ml("TreeEnsembleRegressor", F32, n_targets=1, **attributes)), signature(F32))
    assert program.splits == depth
