"""Exact float64 converters for transformers of numbers that skl2onnx has in float32 only, or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType
from sklearn.preprocessing import Binarizer, FunctionTransformer, KBinsDiscretizer, PolynomialFeatures, PowerTransformer

from dbscore.convert.nodes import Nodes
from dbscore.convert.rewrite import Columns

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["numeric_converters"]

# what each numpy function is in ONNX, given the input's name; ONNX has neither log1p nor expm1
_FUNCTIONS: dict[Any, Callable[[Nodes, str], str]] = {
    None: lambda nodes, x: nodes.add("Identity", [x]),
    np.abs: lambda nodes, x: nodes.add("Abs", [x]),
    np.exp: lambda nodes, x: nodes.add("Exp", [x]),
    np.expm1: lambda nodes, x: nodes.add("Sub", [nodes.add("Exp", [x]), nodes.numbers([[1.0]])]),
    np.log: lambda nodes, x: nodes.add("Log", [x]),
    np.log1p: lambda nodes, x: nodes.add("Log", [nodes.add("Add", [x, nodes.numbers([[1.0]])])]),
    np.log2: lambda nodes, x: nodes.add("Div", [nodes.add("Log", [x]), nodes.numbers([[np.log(2.0)]])]),
    np.log10: lambda nodes, x: nodes.add("Div", [nodes.add("Log", [x]), nodes.numbers([[np.log(10.0)]])]),
    np.reciprocal: lambda nodes, x: nodes.add("Div", [nodes.numbers([[1.0]]), x]),
    np.sqrt: lambda nodes, x: nodes.add("Sqrt", [x]),
    np.square: lambda nodes, x: nodes.add("Mul", [x, x]),
}


def numeric_converters(
    precision: str,
) -> tuple[dict[type, Callable[[Any], None]], dict[type, Callable[[Any, Any, Any], None]]]:
    """Return shape calculators and converters by estimator class, as convert_sklearn takes them."""
    number = DoubleTensorType if precision == "float64" else FloatTensorType

    def shape(width: Callable[[Any], int | None]) -> Callable[[Any], None]:
        def calculate(operator: Any) -> None:  # noqa: ANN401 - skl2onnx's own, untyped
            operator.outputs[0].type = number([None, width(operator)])

        return calculate

    def converter(write: Callable[[Nodes, str, Any], str]) -> Callable[[Any, Any, Any], None]:
        def convert(scope: Any, operator: Any, container: Any) -> None:  # noqa: ANN401
            nodes = Nodes(scope, container, precision, "")
            nodes.name(write(nodes, nodes.joined(operator.inputs), operator.raw_operator), operator)

        return convert

    return (
        {
            Binarizer: shape(_same_width),
            Columns: shape(lambda o: len(o.raw_operator.indexes)),
            FunctionTransformer: shape(_same_width),
            KBinsDiscretizer: shape(lambda o: _binned_width(o.raw_operator)),
            PolynomialFeatures: shape(lambda o: int(o.raw_operator.n_output_features_)),
            PowerTransformer: shape(_same_width),
        },
        {
            Binarizer: converter(_binary),
            Columns: converter(lambda nodes, matrix, model: nodes.columns(matrix, model.indexes)),
            FunctionTransformer: converter(_function),
            KBinsDiscretizer: converter(_bins),
            PolynomialFeatures: converter(_polynomial),
            PowerTransformer: converter(_power),
        },
    )


def _same_width(operator: Any) -> int | None:  # noqa: ANN401
    widths = [value.type.shape[1] for value in operator.inputs]
    return None if None in widths else sum(widths)


def _function(nodes: Nodes, matrix: str, model: Any) -> str:  # noqa: ANN401
    if model.func not in _FUNCTIONS or model.kw_args:
        name = getattr(model.func, "__name__", repr(model.func))
        known = ", ".join(sorted(f.__name__ for f in _FUNCTIONS if f is not None))
        raise NotImplementedError(f"FunctionTransformer({name}) has no ONNX equivalent here; numpy's {known} have")
    return _FUNCTIONS[model.func](nodes, matrix)


def _binary(nodes: Nodes, matrix: str, model: Any) -> str:  # noqa: ANN401
    return nodes.cast(nodes.add("Greater", [matrix, nodes.numbers([[float(model.threshold)]])]))


def _polynomial(nodes: Nodes, matrix: str, model: Any) -> str:  # noqa: ANN401
    """Multiply columns, one factor of every product at a time; a column of ones stands for no factor."""
    powers = model.powers_
    degree = max(1, int(powers.sum(axis=1).max()))
    ones = powers.shape[1]
    factors = np.full((len(powers), degree), ones)
    for row, exponents in zip(factors, powers, strict=True):
        columns = np.repeat(np.arange(ones), exponents)
        row[: len(columns)] = columns
    first = nodes.columns(matrix, [0])
    # one, made of the matrix for its rows, and not by division, as 0/0 and NaN are no ones
    one = nodes.add("Cast", [nodes.add("Not", [nodes.add("Less", [first, first])])], to=nodes.type)
    wide = nodes.concat([matrix, one])
    product = nodes.columns(wide, factors[:, 0].tolist())
    for i in range(1, degree):
        product = nodes.add("Mul", [product, nodes.columns(wide, factors[:, i].tolist())])
    return product


def _power(nodes: Nodes, matrix: str, model: Any) -> str:  # noqa: ANN401
    lambdas = np.asarray(model.lambdas_, dtype=np.float64)
    if model.method == "box-cox":
        out = _box_cox(nodes, matrix, lambdas)
    else:
        zero = nodes.numbers([[0.0]])
        one = nodes.numbers([[1.0]])
        below = nodes.add("Less", [matrix, zero])
        # each branch sees only what is its own, so that no logarithm of a negative number spreads as NaN
        above = nodes.add("Add", [nodes.add("Where", [below, zero, matrix]), one])
        under = nodes.add("Sub", [one, nodes.add("Where", [below, matrix, zero])])
        right = _box_cox(nodes, above, lambdas)
        left = nodes.add("Neg", [_box_cox(nodes, under, 2.0 - lambdas)])
        out = nodes.add("Where", [below, left, right])
    if not model.standardize:
        return out
    scaler = model._scaler  # noqa: SLF001 - scikit-learn keeps it nowhere else
    centred = nodes.add("Sub", [out, nodes.numbers([scaler.mean_.tolist()])])
    return nodes.add("Div", [centred, nodes.numbers([scaler.scale_.tolist()])])


def _box_cox(nodes: Nodes, matrix: str, lambdas: np.ndarray[Any, Any]) -> str:
    """(x**l - 1) / l, or log(x) where l is 0: Box & Cox (1964)."""
    flat = np.abs(lambdas) < np.spacing(1.0)
    powers = np.where(flat, 1.0, lambdas)
    raised = nodes.add("Pow", [matrix, nodes.numbers([powers.tolist()])])
    moved = nodes.add("Sub", [raised, nodes.numbers([[1.0]])])
    out = nodes.add("Div", [moved, nodes.numbers([powers.tolist()])])
    if not flat.any():
        return out
    chosen = nodes.add("Cast", [nodes.numbers([flat.astype(float).tolist()])], to=nodes.boolean)
    return nodes.add("Where", [chosen, nodes.add("Log", [matrix]), out])


def _binned_width(model: Any) -> int:  # noqa: ANN401
    return len(model.n_bins_) if model.encode == "ordinal" else int(np.sum(model.n_bins_))


def _bins(nodes: Nodes, matrix: str, model: Any) -> str:  # noqa: ANN401
    """Count the inner edges that a value reaches; or a column per bin."""
    parts = []
    for i, edges in enumerate(model.bin_edges_):
        column = nodes.columns(matrix, [i])
        inner = [float(e) for e in edges[1:-1]]
        reached = nodes.add("GreaterOrEqual", [column, nodes.numbers([inner or [np.inf]])])
        index = nodes.add("ReduceSum", [nodes.cast(reached), nodes.integers([1])], keepdims=1)
        if model.encode != "ordinal":
            every = nodes.numbers([[float(b) for b in range(int(model.n_bins_[i]))]])
            index = nodes.cast(nodes.add("Equal", [index, every]))
        parts.append(index)
    return nodes.concat(parts)
