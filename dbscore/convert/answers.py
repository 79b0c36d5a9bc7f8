"""What an ONNX model of any producer answers: its task, its outputs, its classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dbscore.convert.graph import attributes, constants, dimensions, dtype_of
from dbscore.convert.session import open_session, run
from dbscore.errors import ArtifactError
from dbscore.signature import Output, OutputKind, SqlType, Task

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onnx import GraphProto, ModelProto

    from dbscore.signature import Tensor

__all__ = ["Answered", "read_outputs"]

PROBES = 2
_PASSING = ("Identity", "Cast", "Reshape", "Squeeze", "Unsqueeze", "Flatten")
_LABELS = {
    "int32": SqlType.INTEGER,
    "int64": SqlType.BIGINT,
    "bool": SqlType.BOOLEAN,
    "string": SqlType.TEXT,
}
_LABEL_ARRAYS = {
    "int32": SqlType.BIGINT_ARRAY,
    "int64": SqlType.BIGINT_ARRAY,
    "bool": SqlType.BOOLEAN_ARRAY,
    "string": SqlType.TEXT_ARRAY,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """What the graph answers."""

    task: Task
    outputs: tuple[Output, ...]
    classes: tuple[Any, ...] | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Given:
    """One output of the graph; width 0 where unknown."""

    name: str
    dtype: str
    width: int

    @property
    def is_label(self) -> bool:
        return self.dtype in _LABELS


def read_outputs(model: ModelProto, data: bytes, tensors: Sequence[Tensor], keys: tuple[Any, ...] | None) -> Answered:
    """Return the task and outputs that a graph's outputs look like.

    An integer, boolean or string output is a label; numbers beside it are its probabilities where they are named so
    and as many as the classes. A float output alone is a regression, or a vector where a row has several.

    Args:
        model: The graph.
        data: Its bytes, for a trial on two rows that tells shapes the graph does not declare.
        tensors: Its inputs.
        keys: The class labels that a ZipMap had; None where there was none.

    Raises:
        ArtifactError: An output is no tensor or of a dtype without a SQL type, or does not have a row per row,
            or there are several that might be the prediction.
    """
    given = _outputs(model, _trial(data, tensors))
    labels = [g for g in given if g.is_label]
    numbers = [g for g in given if not g.is_label]
    if len(labels) > 1 or (not labels and len(numbers) > 1):
        raise ArtifactError(
            f"the model has several predictions: {', '.join(g.name for g in (labels or numbers))}",
            remedy="Export it with one prediction, or one label and its probabilities.",
        )
    if not labels:
        return _numeric(numbers[0])
    return _labelled(model.graph, labels[0], numbers, keys)


def _numeric(given: _Given) -> Answered:
    single = given.width == 1
    return Answered(
        task=Task.REGRESSION if single else Task.TRANSFORM,
        outputs=(
            Output(
                kind=OutputKind.PREDICTION,
                tensor=given.name,
                type=SqlType.DOUBLE if single else SqlType.DOUBLE_ARRAY,
                width=given.width,
            ),
        ),
        classes=None,
    )


def _labelled(graph: GraphProto, label: _Given, numbers: Sequence[_Given], keys: tuple[Any, ...] | None) -> Answered:
    notes: list[str] = []
    classes = keys or _classes(graph, label.name)
    named = [g for g in numbers if "prob" in g.name.lower() or keys is not None]
    if classes is None and named and named[0].width > 1 and label.dtype in ("int32", "int64"):
        classes = tuple(range(named[0].width))
        notes.append(f"the graph does not say its classes: taken for 0 to {len(classes) - 1}")
    prediction = Output(
        kind=OutputKind.PREDICTION,
        tensor=label.name,
        type=(_LABELS if label.width == 1 else _LABEL_ARRAYS)[label.dtype],
        width=label.width,
    )
    task = Task.CLASSIFICATION if classes is not None or label.dtype in ("string", "bool") else Task.CLUSTERING
    if label.dtype == "bool" and classes is not None:
        classes = tuple(bool(c) for c in classes)
    fitting = [g for g in named if classes is not None and g.width in (0, len(classes))]
    unnamed = [g.name for g in numbers if g not in fitting[:1]]
    if unnamed:
        notes.append(f"outputs that are no probabilities of known classes are not used: {', '.join(unnamed)}")
    if not fitting:
        return Answered(task=task, outputs=(prediction,), classes=classes, notes=tuple(notes))
    probabilities = Output(
        kind=OutputKind.PROBABILITIES,
        tensor=fitting[0].name,
        type=SqlType.DOUBLE_ARRAY,
        width=len(classes or ()),
    )
    return Answered(task=task, outputs=(prediction, probabilities), classes=classes, notes=tuple(notes))


def _outputs(model: ModelProto, tried: dict[str, Any] | None) -> list[_Given]:
    found = []
    for value in model.graph.output:
        dtype = dtype_of(value)
        if dtype is None:
            kind = value.type.WhichOneof("value") or "nothing"
            raise ArtifactError(
                f"output {value.name!r} is a {kind.removesuffix('_type')} that no SQL type holds",
                remedy="Export the model with tensors of numbers or strings as outputs (zipmap=False).",
            )
        shape: list[int | None] = list(dimensions(value) or [])
        if tried is not None:
            shape = list(np.shape(tried[value.name]))
            # skl2onnx declares integer labels where its graph gives booleans
            answered = np.asarray(tried[value.name]).dtype
            dtype = answered.name if answered.kind in "bi" else dtype
            if not shape or shape[0] != PROBES:
                raise ArtifactError(
                    f"output {value.name!r} has shape {tuple(shape)} for {PROBES} rows, not one answer per row",
                    remedy="Export it so that every output's first dimension is the number of rows.",
                )
        width = 1 if len(shape) == 1 else 0
        if len(shape) > 1 and all(d is not None for d in shape[1:]):
            width = int(np.prod([d or 0 for d in shape[1:]]))
        found.append(_Given(name=value.name, dtype=dtype, width=width))
    return found


def _trial(data: bytes, tensors: Sequence[Tensor]) -> dict[str, Any] | None:
    """Score two rows of zeros and empty strings; None where the model refuses them, as it may."""
    zeros = {}
    for tensor in tensors:
        shape = (PROBES,) if tensor.rank == 1 else (PROBES, tensor.width)
        text = tensor.dtype == "string"
        zeros[tensor.name] = np.full(shape, "", dtype=object) if text else np.zeros(shape, dtype=tensor.dtype)
    try:
        return run(open_session(data), zeros)
    except Exception:  # noqa: BLE001 - a category that is not "" or 0, for instance
        return None


def _classes(graph: GraphProto, label: str) -> tuple[Any, ...] | None:
    """Find the class labels that the label output is picked from, by walking back from it."""
    known = constants(graph)
    makers = {name: node for node in graph.node for name in node.output}
    name = label
    while name in makers:
        node = makers[name]
        given = attributes(node)
        if node.op_type in _PASSING:
            name = node.input[0]
            continue
        if node.op_type in ("ArrayFeatureExtractor", "Gather") and node.input[0] in known:
            return tuple(np.ravel(known[node.input[0]]).tolist())
        for key in ("classlabels_ints", "classlabels_int64s", "classlabels_strings"):
            if given.get(key):
                return tuple(c.decode() if isinstance(c, bytes) else int(c) for c in given[key])
        if node.op_type == "LabelEncoder" and given.get("keys_int64s") and given.get("values_strings"):
            pairs = dict(zip(given["keys_int64s"], given["values_strings"], strict=True))
            if sorted(pairs) == list(range(len(pairs))):
                return tuple(pairs[i].decode() for i in range(len(pairs)))
        return None
    return None
