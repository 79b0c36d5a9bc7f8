"""What is read from an ONNX graph, and the few changes made to one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from onnx import GraphProto, ModelProto, NodeProto, ValueInfoProto

__all__ = [
    "attributes",
    "boolean_output",
    "constants",
    "dimensions",
    "dtype_of",
    "flatten_output",
    "inputs",
    "keep_outputs",
    "opsets",
    "precision",
    "strip_zipmap",
    "tensors",
]

_DTYPES: dict[int, str] = {
    TensorProto.FLOAT: "float32",
    TensorProto.DOUBLE: "float64",
    TensorProto.INT32: "int32",
    TensorProto.INT64: "int64",
    TensorProto.BOOL: "bool",
    TensorProto.STRING: "string",
}


def tensors(message: Any) -> Iterator[TensorProto]:  # noqa: ANN401 - any protobuf message
    """Yield every tensor in a message: initializers, attributes, subgraphs, functions, sparse and training ones."""
    if isinstance(message, TensorProto):
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        for child in value if field.is_repeated else (value,):
            yield from tensors(child)


def inputs(graph: GraphProto) -> list[ValueInfoProto]:
    """Return the inputs that must be fed (before IR 4 initializers are listed among the inputs too)."""
    known = {t.name for t in graph.initializer} | {t.values.name for t in graph.sparse_initializer}
    return [value for value in graph.input if value.name not in known]


def dtype_of(value: ValueInfoProto) -> str | None:
    """Return the numpy name of a tensor's element type, or None where dbscore has no use for it."""
    if not value.type.HasField("tensor_type"):
        return None
    return _DTYPES.get(value.type.tensor_type.elem_type)


def dimensions(value: ValueInfoProto) -> list[int | None] | None:
    """Return a tensor's shape, None for each dynamic dimension, or None where even the rank is unknown."""
    if not value.type.HasField("tensor_type") or not value.type.tensor_type.HasField("shape"):
        return None
    return [
        d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else None for d in value.type.tensor_type.shape.dim
    ]


def opsets(model: ModelProto) -> dict[str, int]:
    """Return operator set versions by domain, the default one spelt `ai.onnx`."""
    return {o.domain or "ai.onnx": o.version for o in model.opset_import}


def precision(model: ModelProto) -> str:
    """Return `float64` where a floating output or input is a double and none is a float, else `float32`."""
    kinds = {dtype_of(v) for v in (*inputs(model.graph), *model.graph.output)} & {"float32", "float64"}
    return "float64" if kinds == {"float64"} else "float32"


def attributes(node: NodeProto) -> dict[str, Any]:
    """Return a node's attributes as Python values."""
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def constants(graph: GraphProto) -> dict[str, Any]:
    """Return initializers and Constant nodes as arrays, by name; strings as an array of str."""
    found = {t.name: t for t in graph.initializer}
    for node in graph.node:
        value = attributes(node).get("value")
        if node.op_type == "Constant" and isinstance(value, TensorProto):
            found[node.output[0]] = value
    return {name: _array(tensor) for name, tensor in found.items()}


def strip_zipmap(model: ModelProto) -> tuple[Any, ...] | None:
    """Replace a ZipMap output, a sequence of maps, by the matrix of probabilities that it was made from.

    Returns:
        The class labels that the maps had as keys, in the matrix's column order; None where there is no ZipMap.
    """
    graph = model.graph
    node = next((n for n in graph.node if n.op_type == "ZipMap"), None)
    if node is None:
        return None
    given = attributes(node)
    labels = given.get("classlabels_int64s") or [
        s.decode() if isinstance(s, bytes) else s for s in given.get("classlabels_strings", [])
    ]
    index = next((i for i, o in enumerate(graph.output) if o.name == node.output[0]), None)
    graph.node.remove(node)
    if index is not None:
        # the ZipMap operator takes float32 only, so that its input is one
        matrix = helper.make_tensor_value_info(node.input[0], TensorProto.FLOAT, [None, len(labels)])
        graph.output[index].CopyFrom(matrix)
    return tuple(labels)


def flatten_output(model: ModelProto, index: int) -> None:
    """Give an output the shape (rows,), whatever shape its one value per row has."""
    graph = model.graph
    value = graph.output[index]
    inner = f"{value.name}_unshaped"
    for node in graph.node:
        for names in (node.input, node.output):
            for i, name in enumerate(names):
                if name == value.name:
                    names[i] = inner
    graph.initializer.append(helper.make_tensor(f"{value.name}_shape", TensorProto.INT64, [1], [-1]))
    graph.node.append(helper.make_node("Reshape", [inner, f"{value.name}_shape"], [value.name]))
    flat = helper.make_tensor_value_info(value.name, value.type.tensor_type.elem_type, [None])
    value.CopyFrom(flat)


def boolean_output(model: ModelProto, index: int) -> None:
    """Make an output a boolean, and declare it so, whatever number it was."""
    value = model.graph.output[index]
    inner = f"{value.name}_number"
    for node in model.graph.node:
        for names in (node.input, node.output):
            for i, name in enumerate(names):
                if name == value.name:
                    names[i] = inner
    model.graph.node.append(helper.make_node("Cast", [inner], [value.name], to=TensorProto.BOOL))
    value.type.tensor_type.elem_type = TensorProto.BOOL


def keep_outputs(model: ModelProto, names: Sequence[str], *, feeds: Collection[str] = ()) -> None:
    """Drop the graph's other outputs, and the nodes, initializers and inputs that only they needed.

    Args:
        model: Changed in place.
        names: The outputs that stay, in this order.
        feeds: Inputs that stay even if nothing reads them.
    """
    graph = model.graph
    kept = {o.name: o for o in graph.output}
    chosen = [kept[name] for name in names]
    del graph.output[:]
    graph.output.extend(chosen)
    needed = set(names)
    nodes: list[NodeProto] = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            nodes.append(node)
            needed.update(_reads(node))
    if len(nodes) < len(graph.node):
        del graph.node[:]
        graph.node.extend(reversed(nodes))
    stay = needed | set(feeds)
    for values in (graph.initializer, graph.input):
        for i in reversed(range(len(values))):
            if values[i].name not in stay:
                del values[i]


def _reads(node: NodeProto) -> set[str]:
    names = set(node.input)
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                names |= _reads(inner)
            names.update(o.name for o in graph.output)
    return names


def _array(tensor: TensorProto) -> Any:  # noqa: ANN401 - an array of any dtype
    array = numpy_helper.to_array(tensor)
    if tensor.data_type == TensorProto.STRING:
        return array.astype(str)
    return array
