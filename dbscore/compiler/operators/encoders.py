"""Categories and missing values."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import numpy_helper

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dbscore.compiler.expression import Expression
    from dbscore.compiler.graph import Node, Tensor

# how the attributes of a LabelEncoder name the dtypes
_KINDS = {"strings": "string", "int64s": "int64", "floats": "float32", "tensor": ""}


def label_encoder(node: Node, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return what a table has for each value."""
    keys, _ = _listed(node, "keys")
    values, dtype = _listed(node, "values")
    default = _default(node, dtype)
    if any(isinstance(key, float) and math.isnan(key) for key in keys):
        raise NotImplementedError("a missing number among its keys")
    # the first of equal keys counts
    table = dict(reversed(list(zip(keys, values, strict=True))))
    return [node.each(lambda a: node.pool.lookup(a, table, default, dtype), inputs[0], dtype=dtype)]


def category_mapper(node: Node, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return the number of each text, or the text of each number."""
    texts, numbers = node.texts("cats_strings"), list(node.get("cats_int64s", ()))
    if inputs[0].dtype == "string":
        keys, values, dtype, default = texts, numbers, "int64", node.get("default_int64", -1)
    else:
        keys, values, dtype, default = numbers, texts, "string", node.get("default_string", "_Unused")
    # the last of equal keys counts
    table: dict[Any, Any] = dict(zip(keys, values, strict=True))
    return [node.each(lambda a: node.pool.lookup(a, table, default, dtype), inputs[0], dtype=dtype)]


def _listed(node: Node, what: str) -> tuple[list[Any], str]:
    for kind, dtype in _KINDS.items():
        given = node.get(f"{what}_{kind}")
        if given is None:
            continue
        if kind == "tensor":
            array = numpy_helper.to_array(given)
            is_text = array.dtype.kind in "OSU"
            listed = [_text(v) for v in array.reshape(-1).tolist()] if is_text else array.reshape(-1).tolist()
            return listed, "string" if is_text else array.dtype.name
        return (node.texts(f"{what}_{kind}") if kind == "strings" else list(given)), dtype
    raise NotImplementedError(f"{what} that are not there")


def _text(value: Any) -> str:  # noqa: ANN401 - bytes or text
    return value.decode() if isinstance(value, bytes) else str(value)


def _default(node: Node, dtype: str) -> Any:  # noqa: ANN401 - of that dtype
    tensor = node.get("default_tensor")
    if tensor is not None:
        value = numpy_helper.to_array(tensor).reshape(-1).tolist()[0]
        return _text(value) if dtype == "string" else value
    name, otherwise = {
        "string": ("default_string", "_Unused"),
        "int64": ("default_int64", -1),
    }.get(dtype, ("default_float", -0.0))
    return node.get(name, otherwise)


def one_hot_encoder(node: Node, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return, for each category, 1 where the value is it and else 0."""
    categories: Sequence[Any] = node.texts("cats_strings") or list(node.get("cats_int64s", ()))
    if not node.get("zeros", 1):
        raise NotImplementedError("an error for unknown categories")
    values = node.expressions(inputs[0])
    made = np.empty((*values.shape, len(categories)), object)
    for place in np.ndindex(values.shape):
        value: Expression = values[place]
        whole = value if value.dtype in ("string", "int64") else node.pool.cast(value, "int64")
        for i, category in enumerate(categories):
            hit = node.pool.compare("eq", whole, node.pool.const(category, whole.dtype))
            made[(*place, i)] = node.pool.cast(hit, "float32")
    return [node.tensor(made, "float32")]


def imputer(node: Node, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return the values, others where they are missing."""
    tensor = inputs[0]
    whole = node.get("imputed_value_int64s")
    fills = whole or node.get("imputed_value_floats")
    replaced = node.get("replaced_value_int64", 0) if whole else node.get("replaced_value_float", 0.0)
    values = node.expressions(tensor)
    filled = np.broadcast_to(fills, values.shape)

    def made(value: Expression, fill: float) -> Expression:
        if isinstance(replaced, float) and math.isnan(replaced):
            gone = node.pool.missing(value)
        else:
            gone = node.pool.compare("eq", value, node.pool.const(replaced, value.dtype))
        return node.pool.choose(gone, node.pool.const(fill, value.dtype), value)

    out = np.empty(values.shape, object)
    for place in np.ndindex(values.shape):
        out[place] = made(values[place], float(filled[place]))
    return [node.tensor(out, tensor.dtype)]


def binarizer(node: Node, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return 1 above the threshold and else 0, in float32."""

    def made(value: Expression) -> Expression:
        above = node.pool.compare("gt", value, node.pool.const(node.get("threshold", 0.0), value.dtype))
        return node.pool.cast(above, inputs[0].dtype)

    return [node.each(made, inputs[0])]
