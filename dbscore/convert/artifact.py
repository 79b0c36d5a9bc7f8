"""Whether bytes of any producer are an ONNX model that dbscore can store and run."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import TensorProto

from dbscore.convert.graph import dimensions, dtype_of, inputs, tensors
from dbscore.convert.session import open_session
from dbscore.errors import ArtifactError

if TYPE_CHECKING:
    from onnx import ModelProto, ValueInfoProto

__all__ = ["check_inputs", "check_loads", "read_model"]

_RANKS = (1, 2)


def read_model(data: bytes, *, max_bytes: int) -> ModelProto:
    """Parse ONNX bytes and refuse what may not be stored, whoever wrote them.

    Args:
        data: The bytes of a model file.
        max_bytes: The largest accepted.

    Raises:
        ArtifactError: They are too large, no ONNX model or a truncated one, or name files outside themselves.
    """
    if len(data) > max_bytes:
        raise ArtifactError(
            f"the model has {len(data)} bytes, more than the limit of {max_bytes}",
            remedy="Make the model smaller, or raise DBSCORE_MAX_MODEL_MB.",
        )
    try:
        model = onnx.load_model_from_string(data)
    except (DecodeError, ValueError, TypeError) as error:
        raise ArtifactError(
            f"these {len(data)} bytes are no ONNX model, or a truncated one: {str(error).splitlines()[0]}",
            remedy="Check that the file was copied whole.",
        ) from error
    if not model.graph.node or not model.opset_import:
        raise ArtifactError(
            f"these {len(data)} bytes hold no ONNX graph (no node, or no operator set)",
            remedy="Check that the file was copied whole, and that it is an ONNX model.",
        )
    for tensor in tensors(model):
        if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
            entry = next((e.value for e in tensor.external_data if e.key == "location"), "")
            raise ArtifactError(
                f"tensor {tensor.name!r} lies outside the model, in {entry!r}: the server would open that path",
                remedy="Save the model in one file: onnx.save(model, path, save_as_external_data=False).",
            )
    return model


def check_inputs(model: ModelProto) -> list[tuple[ValueInfoProto, str, list[int | None]]]:
    """Return the graph's inputs with their dtypes and shapes, or refuse those that rows cannot fill.

    Raises:
        ArtifactError: An input is no tensor, of a dtype that has no SQL type, of unknown rank or one other than 1
            or 2, or has a fixed number of rows or an unknown number of columns.
    """
    found = []
    for value in inputs(model.graph):
        if not value.type.HasField("tensor_type"):
            kind = value.type.WhichOneof("value") or "nothing"
            raise ArtifactError(
                f"input {value.name!r} is a {kind.removesuffix('_type')}, not a tensor",
                remedy="Export the model with plain tensors as inputs.",
            )
        dtype = dtype_of(value)
        if dtype is None:
            given = TensorProto.DataType.Name(value.type.tensor_type.elem_type)
            raise ArtifactError(
                f"input {value.name!r} is of type {given}, which no SQL type fills",
                remedy="Export it with float32, float64, int32, int64, bool or string inputs.",
            )
        found.append((value, dtype, _shape(value)))
    if not found:
        raise ArtifactError("the model has no input", remedy="A constant needs no model.")
    return found


def check_loads(data: bytes) -> None:
    """Load the model as the server will.

    Raises:
        ArtifactError: ONNX Runtime refuses it: an operator or operator set it does not know, or an invalid graph.
    """
    try:
        open_session(data)
    except Exception as error:  # ONNX Runtime has its own exceptions, one per status code
        said = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", str(error).strip())
        raise ArtifactError(
            f"ONNX Runtime cannot load the model: {said[:500]}",
            remedy="Export it for an older operator set, or without custom operators.",
        ) from error


def _shape(value: ValueInfoProto) -> list[int | None]:
    shape = dimensions(value)
    if shape is None:
        raise ArtifactError(
            f"input {value.name!r} has no declared rank",
            remedy="Export the model with the input's shape, such as (None, 10).",
        )
    if len(shape) not in _RANKS:
        raise ArtifactError(
            f"input {value.name!r} has rank {len(shape)}; rows fill tensors of rank 1 or 2",
            remedy="Export a model that takes (rows, columns) and reshapes inside.",
        )
    if shape[0] is not None:
        raise ArtifactError(
            f"input {value.name!r} takes {shape[0]} rows, no more and no less",
            remedy="Export it with a dynamic first dimension (torch.onnx.export: dynamic_axes).",
        )
    if len(shape) > 1 and shape[1] is None:
        raise ArtifactError(
            f"input {value.name!r} has a dynamic second dimension: its columns cannot be counted",
            remedy="Export it with a fixed number of columns, such as (None, 10).",
        )
    return shape
