"""Which elements, and where: nothing is computed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import numpy_helper

from dbscore.compiler.graph import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dbscore.compiler.graph import Node

# the operator set in which axes became an input
AXES_ARE_INPUT = 13


def identity(_: Node, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return the tensor."""
    return [inputs[0]]


def constant(node: Node, _: Sequence[Tensor]) -> list[Tensor]:
    """Return what the node's attribute holds."""
    for name, value in node.attributes.items():
        if name == "value":
            array = numpy_helper.to_array(value)
            return [Tensor(array, "string" if array.dtype.kind in "OSU" else array.dtype.name)]
        if name in ("value_float", "value_floats"):
            return [Tensor(np.array(value, np.float32), "float32")]
        if name in ("value_int", "value_ints"):
            return [Tensor(np.array(value, np.int64), "int64")]
    raise NotImplementedError(f"a value of {', '.join(node.attributes)}")


def constant_of_shape(node: Node, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return one value many times."""
    value = node.get("value")
    fill = np.zeros(1, np.float32) if value is None else numpy_helper.to_array(value)
    return [Tensor(np.full(_integers(node, inputs[0]), fill[0], fill.dtype), fill.dtype.name)]


def shape(node: Node, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return the dimensions, of one row."""
    start, end = node.get("start", 0), node.get("end")
    return [Tensor(np.array(inputs[0].values.shape[start:end], np.int64), "int64")]


def size(_: Node, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return how many elements one row has."""
    return [Tensor(np.array(inputs[0].values.size, np.int64), "int64")]


def reshape(node: Node, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return the elements in another shape; 0 leaves a dimension as it is."""
    tensor = inputs[0]
    wanted = [
        tensor.values.shape[i] if n == 0 and not node.get("allowzero", 0) else n
        for i, n in enumerate(_integers(node, inputs[1]))
    ]
    return [_like(tensor, tensor.values.reshape(wanted))]


def flatten(node: Node, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return two dimensions."""
    values = inputs[0].values
    axis = node.get("axis", 1) % (values.ndim + 1)
    return [_like(inputs[0], values.reshape(int(np.prod(values.shape[:axis])), -1))]


def squeeze(node: Node, inputs: Sequence[Tensor | None]) -> list[Tensor]:
    """Return the elements without dimensions of 1."""
    tensor, axes = _with_axes(node, inputs)
    return [_like(tensor, np.squeeze(tensor.values, None if axes is None else tuple(axes)))]


def unsqueeze(node: Node, inputs: Sequence[Tensor | None]) -> list[Tensor]:
    """Return the elements with dimensions of 1."""
    tensor, axes = _with_axes(node, inputs)
    return [_like(tensor, np.expand_dims(tensor.values, tuple(axes or ())))]


def transpose(node: Node, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return the elements with dimensions changed over."""
    return [_like(inputs[0], np.transpose(inputs[0].values, node.get("perm")))]


def expand(node: Node, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return the elements repeated along dimensions of 1."""
    values = inputs[0].values
    return [_like(inputs[0], np.broadcast_to(values, np.broadcast_shapes(values.shape, _integers(node, inputs[1]))))]


def tile(node: Node, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return the elements repeated."""
    return [_like(inputs[0], np.tile(inputs[0].values, _integers(node, inputs[1])))]


def concat(node: Node, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return tensors side by side."""
    dtype = inputs[0].dtype
    if all(t.is_constant for t in inputs):
        return [Tensor(np.concatenate([t.values for t in inputs], node.get("axis")), dtype)]
    return [node.tensor(np.concatenate([node.expressions(t) for t in inputs], node.get("axis")), dtype)]


def split(node: Node, inputs: Sequence[Tensor | None]) -> list[Tensor]:
    """Return a tensor in parts."""
    tensor, axis = inputs[0], node.get("axis", 0)
    assert tensor is not None  # noqa: S101 - the operator's first input is not optional
    sizes = node.get("split")
    if len(inputs) > 1 and inputs[1] is not None:
        sizes = _integers(node, inputs[1])
    if sizes is None:
        return [_like(tensor, part) for part in np.array_split(tensor.values, node.outputs, axis)]
    return [_like(tensor, part) for part in np.split(tensor.values, np.cumsum(sizes)[:-1], axis)]


def slice_(node: Node, inputs: Sequence[Tensor | None]) -> list[Tensor]:
    """Return the elements from here to there."""
    tensor, *given = inputs
    assert tensor is not None  # noqa: S101 - the operator's first input is not optional
    if given:
        starts, ends, axes, steps = (
            None if i >= len(given) or given[i] is None else _integers(node, given[i]) for i in range(4)
        )
    else:
        starts, ends, axes, steps = node.get("starts"), node.get("ends"), node.get("axes"), None
    index = [slice(None)] * tensor.values.ndim
    for place, (start, end) in enumerate(zip(starts or (), ends or (), strict=True)):
        step = steps[place] if steps else 1
        # the least integer there is means: to the very beginning
        last = None if step < 0 and end < -tensor.values.size else end
        index[axes[place] if axes else place] = slice(start, last, step)
    return [_like(tensor, tensor.values[tuple(index)])]


def range_(node: Node, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return numbers from here to there."""
    start, end, step = (node.constant(t, "bounds").item() for t in inputs)
    return [Tensor(np.arange(start, end, step, dtype=inputs[0].dtype), inputs[0].dtype)]


def gather(node: Node, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return the elements at places: constant ones of anything, or those of a row from a constant table."""
    tensor, places = inputs
    axis = node.get("axis", 0)
    if places.is_constant:
        return [_like(tensor, np.take(tensor.values, places.values.astype(np.int64), axis))]
    table = np.moveaxis(node.constant(tensor, "a table and places in it"), axis, 0)
    made = np.empty((*places.values.shape, *table.shape[1:]), object)
    for place in np.ndindex(places.values.shape):
        for rest in np.ndindex(table.shape[1:]):
            column = [table[(i, *rest)] for i in range(len(table))]
            made[(*place, *rest)] = node.pool.element(
                [c.item() if hasattr(c, "item") else c for c in column], node.expressions(places)[place], tensor.dtype
            )
    if places.values.ndim and axis:
        # what was taken stands where it was taken from
        made = np.moveaxis(made, list(range(places.values.ndim)), list(range(axis, axis + places.values.ndim)))
    return [node.tensor(made, tensor.dtype)]


def gather_elements(node: Node, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return, for each place, the element there in its row."""
    places = node.constant(inputs[1], "places").astype(np.int64)
    return [_like(inputs[0], np.take_along_axis(inputs[0].values, places, node.get("axis", 0)))]


def array_feature_extractor(node: Node, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return columns: constant ones of anything, or that of a row from a constant table."""
    tensor, places = inputs
    if places.is_constant:
        taken = np.take(tensor.values, places.values.reshape(-1).astype(np.int64), -1)
        return [_like(tensor, taken if taken.ndim > 1 else taken.reshape(1, -1))]
    table = node.constant(tensor, "a table and places in it").reshape(-1).tolist()
    made = [node.pool.element(table, place, tensor.dtype) for place in places.values.reshape(-1)]
    return [node.tensor(np.array(made, object).reshape(1, -1), tensor.dtype)]


def feature_vectorizer(node: Node, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return tensors side by side, as floats."""
    casted = [node.each(lambda a: node.pool.cast(a, "float32"), t, dtype="float32") for t in inputs]
    return [node.tensor(np.concatenate([node.expressions(t).reshape(1, -1) for t in casted], 1), "float32")]


def _like(tensor: Tensor, values: np.ndarray[Any, Any]) -> Tensor:
    return Tensor(values, tensor.dtype)


def _integers(node: Node, tensor: Tensor | None) -> list[int]:
    return [int(n) for n in node.constant(tensor, "sizes or places").reshape(-1)]


def _with_axes(node: Node, inputs: Sequence[Tensor | None]) -> tuple[Tensor, list[int] | None]:
    tensor = inputs[0]
    assert tensor is not None  # noqa: S101 - the operator's first input is not optional
    if node.opset >= AXES_ARE_INPUT:
        return tensor, _integers(node, inputs[1]) if len(inputs) > 1 and inputs[1] is not None else None
    return tensor, node.get("axes")
