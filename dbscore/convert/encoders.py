"""Exact float64 converters for imputers and encoders, in which a missing text is a string of its own.

ONNX has no NULL in string tensors, its Imputer and FeatureVectorizer compute in float32, and its encoders cast
numbers to integers. These converters compare instead, so that every category, number or text, is itself.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from skl2onnx.common.data_types import (
    DoubleTensorType,
    FloatTensorType,
    StringTensorType,
)
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder

from dbscore.convert.groups import code_of, codes, is_gap, one_hot_groups
from dbscore.convert.nodes import Nodes

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbscore.convert.groups import Groups

__all__ = ["encoder_converters"]


def encoder_converters(
    missing: str, precision: str, passing: frozenset[int] = frozenset()
) -> tuple[dict[type, Callable[[Any], None]], dict[type, Callable[[Any, Any, Any], None]]]:
    """Return shape calculators and converters by estimator class, as convert_sklearn takes them.

    Args:
        missing: The string that stands for a missing text in the ONNX inputs.
        precision: `float64` or `float32`: what the converted numbers are.
        passing: The ids of imputers of texts that take another missing value than the texts have.
    """
    number = DoubleTensorType if precision == "float64" else FloatTensorType

    def shape(width: Callable[[Any], int]) -> Callable[[Any], None]:
        def calculate(operator: Any) -> None:  # noqa: ANN401 - skl2onnx's own, untyped
            operator.outputs[0].type = number([None, width(operator.raw_operator)])

        return calculate

    def shape_of_imputer(operator: Any) -> None:  # noqa: ANN401
        text = isinstance(operator.inputs[0].type, StringTensorType)
        width = _imputed_width(operator.raw_operator)
        operator.outputs[0].type = (StringTensorType if text else number)([None, width])

    def impute(scope: Any, operator: Any, container: Any) -> None:  # noqa: ANN401
        _impute(Nodes(scope, container, precision, missing), operator, passing)

    def encode(scope: Any, operator: Any, container: Any) -> None:  # noqa: ANN401
        _one_hot(Nodes(scope, container, precision, missing), operator)

    def order(scope: Any, operator: Any, container: Any) -> None:  # noqa: ANN401
        _ordinal(Nodes(scope, container, precision, missing), operator)

    def indicate(scope: Any, operator: Any, container: Any) -> None:  # noqa: ANN401
        nodes = Nodes(scope, container, precision, missing)
        nodes.name(_flags(nodes, nodes.joined(operator.inputs), operator.raw_operator, operator, passing), operator)

    return (
        {
            SimpleImputer: shape_of_imputer,
            OneHotEncoder: shape(lambda e: sum(len(g.groups) for g in one_hot_groups(e))),
            OrdinalEncoder: shape(lambda e: len(e.categories_)),
            MissingIndicator: shape(lambda e: len(e.features_)),
        },
        {SimpleImputer: impute, OneHotEncoder: encode, OrdinalEncoder: order, MissingIndicator: indicate},
    )


def _is_text(operator: Any) -> bool:  # noqa: ANN401
    return isinstance(operator.inputs[0].type, StringTensorType)


def _kept(imputer: Any) -> list[int]:  # noqa: ANN401
    return [i for i, s in enumerate(imputer.statistics_) if not is_gap(s) or imputer.keep_empty_features]


def _imputed_width(imputer: Any) -> int:  # noqa: ANN401
    flags = len(imputer.indicator_.features_) if imputer.add_indicator else 0
    return len(_kept(imputer)) + flags


def _impute(nodes: Nodes, operator: Any, passing: frozenset[int]) -> None:  # noqa: ANN401
    imputer = operator.raw_operator
    matrix = nodes.joined(operator.inputs)
    text = _is_text(operator)
    kept = _kept(imputer)
    if not kept:
        raise NotImplementedError("every column of this SimpleImputer was empty when it was fitted")
    values = [imputer.statistics_[i] for i in kept]
    columns = matrix if len(kept) == len(imputer.statistics_) else nodes.columns(matrix, kept)
    if text and id(imputer) in passing and not imputer.add_indicator:
        nodes.name(columns, operator)
        return
    gaps = _gaps(nodes, columns, imputer.missing_values, text=text)
    fill = nodes.texts([values]) if text else nodes.numbers([[float(v) for v in values]])
    filled = nodes.add("Where", [gaps, fill, columns])
    if imputer.add_indicator:
        if text:
            raise NotImplementedError("SimpleImputer(add_indicator=True) on text mixes texts and numbers")
        filled = nodes.concat([filled, _flags(nodes, matrix, imputer.indicator_, operator, passing)])
    nodes.name(filled, operator)


def _flags(nodes: Nodes, matrix: str, indicator: Any, operator: Any, passing: frozenset[int]) -> str:  # noqa: ANN401
    if _is_text(operator) and id(indicator) in passing:
        raise NotImplementedError(f"{type(indicator).__name__} of NaN, where a missing text is None")
    gaps = _gaps(nodes, matrix, indicator.missing_values, text=_is_text(operator))
    return nodes.columns(nodes.cast(gaps), [int(i) for i in indicator.features_])


def _gaps(nodes: Nodes, matrix: str, missing_values: Any, *, text: bool) -> str:  # noqa: ANN401
    """Where the matrix holds what the imputer takes for missing; a NaN that it does not take passes through."""
    if is_gap(missing_values):
        if text:
            return nodes.add("Equal", [matrix, nodes.texts([[nodes.missing]])])
        return nodes.add("IsNaN", [matrix])
    if text:
        return nodes.add("Equal", [matrix, nodes.texts([[str(missing_values)]])])
    return nodes.add("Equal", [matrix, nodes.numbers([[float(missing_values)]])])


def _one_hot(nodes: Nodes, operator: Any) -> None:  # noqa: ANN401
    encoder = operator.raw_operator
    parts = []
    for groups, (column, text) in zip(one_hot_groups(encoder), nodes.singles(operator.inputs), strict=True):
        if groups.groups:
            parts.append(_hot_texts(nodes, column, groups) if text else _hot_numbers(nodes, column, groups))
    if not parts:
        raise NotImplementedError("this OneHotEncoder has no column left after dropping categories")
    nodes.name(nodes.concat(parts), operator)


def _hot_texts(nodes: Nodes, column: str, groups: Groups) -> str:
    heads = [nodes.text(group[0]) for group in groups.groups]
    simple = groups.default is None and all(len(group) == 1 for group in groups.groups)
    if not simple:
        # several categories share a column: each is first replaced by the first of its group
        pairs = [(nodes.text(c), nodes.text(group[0])) for group in groups.groups for c in group]
        pairs += [(nodes.text(c), nodes.text(c)) for c in groups.dropped]
        rest = nodes.nothing(heads) if groups.default is None else heads[groups.default]
        column = nodes.add(
            "LabelEncoder",
            [column],
            domain="ai.onnx.ml",
            op_version=2,
            keys_strings=[k for k, _ in pairs],
            values_strings=[v for _, v in pairs],
            default_string=rest,
        )
    hot = nodes.add("OneHotEncoder", [column], domain="ai.onnx.ml", cats_strings=heads, zeros=1)
    flat = nodes.add("Reshape", [hot, nodes.integers([-1, len(heads)])])
    return nodes.cast(flat)


def _hot_numbers(nodes: Nodes, column: str, groups: Groups) -> str:
    parts = []
    for i, group in enumerate(groups.groups):
        if i == groups.default:
            # whatever is none of the others
            others = [c for j, g in enumerate(groups.groups) if j != i for c in g] + list(groups.dropped)
            parts.append(nodes.add("Sub", [nodes.numbers([[1.0]]), _any(nodes, column, others)]))
        else:
            parts.append(_any(nodes, column, list(group)))
    if all(len(g) == 1 and not is_gap(g[0]) for g in groups.groups) and groups.default is None:
        return nodes.cast(nodes.add("Equal", [column, nodes.numbers([[float(g[0]) for g in groups.groups]])]))
    return nodes.concat(parts)


def _any(nodes: Nodes, column: str, categories: list[Any]) -> str:
    """1.0 where the column is one of the categories, else 0.0; shape (rows, 1)."""
    hits: list[str] = []
    plain = [float(c) for c in categories if not is_gap(c)]
    if plain:
        equal = nodes.cast(nodes.add("Equal", [column, nodes.numbers([plain])]))
        hits.append(equal if len(plain) == 1 else nodes.add("ReduceSum", [equal, nodes.integers([1])], keepdims=1))
    if len(plain) < len(categories):
        hits.append(nodes.cast(nodes.add("IsNaN", [column])))
    if not hits:
        return nodes.cast(nodes.add("Less", [column, column]))
    return hits[0] if len(hits) == 1 else nodes.add("Add", hits)


def _ordinal(nodes: Nodes, operator: Any) -> None:  # noqa: ANN401
    encoder = operator.raw_operator
    parts = []
    for i, (column, text) in enumerate(nodes.singles(operator.inputs)):
        pairs = codes(encoder, i)
        unknown = math.nan if encoder.handle_unknown == "error" else float(encoder.unknown_value)
        if text:
            label = nodes.add(
                "LabelEncoder",
                [column],
                domain="ai.onnx.ml",
                op_version=2,
                keys_strings=[nodes.text(c) for c, _ in pairs],
                # codes are counts of categories, far below 2**24: exact in float32
                values_floats=[float(v) for _, v in pairs],
                default_float=unknown,
            )
            parts.append(nodes.cast(label))
        else:
            parts.append(_ordinal_numbers(nodes, column, pairs, unknown))
    nodes.name(nodes.concat(parts), operator)


def _ordinal_numbers(nodes: Nodes, column: str, pairs: list[tuple[Any, float]], unknown: float) -> str:
    plain = [(float(c), v) for c, v in pairs if not is_gap(c)]
    hit = nodes.cast(nodes.add("Equal", [column, nodes.numbers([[c for c, _ in plain]])]))
    code = nodes.add("MatMul", [hit, nodes.numbers([[v] for _, v in plain])])
    known = nodes.add("ReduceSum", [hit, nodes.integers([1])], keepdims=1)
    seen = nodes.add("Greater", [known, nodes.numbers([[0.5]])])
    out = nodes.add("Where", [seen, code, nodes.numbers([[unknown]])])
    gap = code_of(pairs)
    if gap is None:
        return out
    return nodes.add("Where", [nodes.add("IsNaN", [column]), nodes.numbers([[gap]]), out])
