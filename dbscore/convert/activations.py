"""The logistic function of a converted graph, exact for small probabilities too."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnx import TensorProto, helper, shape_inference

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

__all__ = ["exact_sigmoids"]

_FLOATS = (TensorProto.DOUBLE, TensorProto.FLOAT)


def exact_sigmoids(model: ModelProto) -> bool:
    """Replace each Sigmoid by 1 / (1 + exp(-x)), which is what scikit-learn computes; return whether there was one.

    ONNX Runtime's Sigmoid is exact to 1e-16 and no further, in float64: at -30 it is off by a thousandth of the
    probability, below -40 it is 0.0, so that the least likely rows all tie. exp overflows to infinity, of which the
    reciprocal is 0.0, never NaN.

    Args:
        model: Changed in place; a Sigmoid whose input's type cannot be inferred stays.
    """
    graph = model.graph
    if not any(node.op_type == "Sigmoid" for node in graph.node):
        return False
    known = shape_inference.infer_shapes(model).graph
    types = {v.name: v.type.tensor_type.elem_type for v in (*known.value_info, *known.input, *known.output)}
    nodes: list[NodeProto] = []
    constants: dict[int, str] = {}
    for node in graph.node:
        type_ = types.get(node.input[0]) or types.get(node.output[0]) if node.op_type == "Sigmoid" else None
        if type_ not in _FLOATS:
            nodes.append(node)
            continue
        one = constants.setdefault(type_, f"sigmoid_one_{type_}")
        (result,) = node.output
        negative, power, total = (f"{result}_{part}" for part in ("negative", "exp", "total"))
        nodes += [
            helper.make_node("Neg", [node.input[0]], [negative], name=negative),
            helper.make_node("Exp", [negative], [power], name=power),
            helper.make_node("Add", [power, one], [total], name=total),
            helper.make_node("Div", [one, total], [result], name=f"{result}_quotient"),
        ]
    del graph.node[:]
    graph.node.extend(nodes)
    graph.initializer.extend(helper.make_tensor(name, type_, [1], [1.0]) for type_, name in constants.items())
    return bool(constants)
