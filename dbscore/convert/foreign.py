"""An ONNX model of any producer to a Conversion: its features from its inputs, its task from its outputs."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from dbscore.convert.answers import Answered, read_outputs
from dbscore.convert.artifact import check_inputs, check_loads, read_model
from dbscore.convert.conversion import Conversion, Provenance
from dbscore.convert.graph import opsets, precision, strip_zipmap
from dbscore.convert.policies import requested
from dbscore.convert.sample import is_frame, read_sample
from dbscore.errors import FeatureError
from dbscore.signature import Feature, NullPolicy, Signature, SqlType, Tensor, feature_identifiers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from onnx import ModelProto

__all__ = ["convert_onnx"]

_SCALARS = {
    "float32": SqlType.REAL,
    "float64": SqlType.DOUBLE,
    "int32": SqlType.INTEGER,
    "int64": SqlType.BIGINT,
    "bool": SqlType.BOOLEAN,
    "string": SqlType.TEXT,
}
_ARRAYS = {
    "float32": SqlType.REAL_ARRAY,
    "float64": SqlType.DOUBLE_ARRAY,
    "int32": SqlType.BIGINT_ARRAY,
    "int64": SqlType.BIGINT_ARRAY,
    "bool": SqlType.BOOLEAN_ARRAY,
    "string": SqlType.TEXT_ARRAY,
}
_DOUBLES = (SqlType.DOUBLE, SqlType.DOUBLE_ARRAY)
_FLOAT32_MAX = (2 - 2.0**-23) * 2.0**127
_NUMERIC = tuple(t for t in SqlType if t not in (SqlType.TEXT, SqlType.TEXT_ARRAY))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Slot:
    """A place in an ONNX input that one feature fills."""

    source: str
    type: SqlType
    tensor: str
    dtype: str
    position: int
    width: int


def convert_onnx(
    data: bytes,
    *,
    sample: Any,  # noqa: ANN401 - a DataFrame or an array
    columns: Mapping[str, SqlType] | None,
    null_policy: Mapping[str, str] | str | None,
    max_bytes: int,
) -> Conversion:
    """Describe an ONNX model; its bytes stay as they are unless a ZipMap had to go.

    An input (rows, k) becomes k features where `columns` or the sample names as many as all inputs have columns;
    else one feature named after the input: a number where k is 1, an array otherwise. float32 tensors are
    `real` and float64 ones `double precision` unless `columns` or the sample says otherwise. NULL means NULL
    unless `null_policy` says `nan`, which only float32 and float64 inputs can hold.

    Raises:
        ArtifactError: The model is refused; see `dbscore.convert.artifact`.
        FeatureError: Names, types or policies do not fit its inputs.
    """
    model = read_model(data, max_bytes=max_bytes)
    tensors = [
        Tensor(name=value.name, dtype=dtype, width=1 if len(shape) == 1 else shape[1] or 1, rank=len(shape))
        for value, dtype, shape in check_inputs(model)
    ]
    keys = strip_zipmap(model)
    corrections: tuple[str, ...] = ()
    if keys is not None:
        data = model.SerializeToString(deterministic=True)
        corrections = ("ZipMap: removed, so that probabilities are an array instead of a sequence of maps.",)
    check_loads(data)
    slots = _slots(tensors, sample, dict(columns or {}))
    names = feature_identifiers([slot.source for slot in slots])
    policies = _policies(slots, names, null_policy)
    answered = read_outputs(model, data, tensors, keys)
    features = tuple(
        Feature(
            name=name,
            source=slot.source,
            type=slot.type,
            null_policy=policy,
            tensor=slot.tensor,
            position=slot.position,
            width=slot.width,
            # no native model to ask: what the graph computes of an infinity is the answer
            accepts_infinity=slot.dtype.startswith("float"),
            # a larger double would become an infinity that nobody passed
            largest=_FLOAT32_MAX if slot.dtype == "float32" and slot.type in _DOUBLES else None,
        )
        for slot, name, policy in zip(slots, names, policies, strict=True)
    )
    return Conversion(
        onnx=data,
        signature=Signature(
            task=answered.task,
            features=features,
            tensors=tuple(tensors),
            outputs=answered.outputs,
            classes=answered.classes,
        ),
        provenance=_provenance(model, corrections, answered),
    )


def _provenance(model: ModelProto, corrections: tuple[str, ...], answered: Answered) -> Provenance:
    return Provenance(
        source="onnx",
        estimator=None,
        producer=f"{model.producer_name} {model.producer_version}".strip() or "unknown",
        precision=precision(model),
        opsets=opsets(model),
        libraries={name: version(name) for name in ("onnx", "onnxruntime")},
        corrections=corrections,
        notes=answered.notes,
    )


def _slots(tensors: Sequence[Tensor], sample: Any, types: Mapping[str, SqlType]) -> list[_Slot]:  # noqa: ANN401
    total = sum(t.width for t in tensors)
    named = _named(sample, types)
    apart = [t.name for t in tensors]
    if named and (len(named) == total or not set(apart) <= set(named)):
        if len(named) != total:
            raise FeatureError(
                f"{len(named)} columns are named, the model's inputs have {total}",
                remedy=f"Name one column for each of the inputs' columns, in order: {', '.join(_shapes(tensors))}.",
            )
        # where every input is one column and bears a column's name, names say more than order
        if set(apart) == set(named):
            named = {name: named[name] for name in apart}
        places = [(t, i) for t in tensors for i in range(t.width)]
        slots = [
            _Slot(
                source=source,
                type=type_ or _SCALARS[tensor.dtype],
                tensor=tensor.name,
                dtype=tensor.dtype,
                position=position,
                width=1,
            )
            for (source, type_), (tensor, position) in zip(named.items(), places, strict=True)
        ]
    else:
        slots = [
            _Slot(
                source=t.name,
                type=named.get(t.name) or (_SCALARS if t.width == 1 else _ARRAYS)[t.dtype],
                tensor=t.name,
                dtype=t.dtype,
                position=0,
                width=t.width,
            )
            for t in tensors
        ]
    for slot in slots:
        _check_type(slot)
    return slots


def _named(sample: Any, types: Mapping[str, SqlType]) -> dict[str, SqlType | None]:  # noqa: ANN401
    """The columns that the caller names, in order, each with its SQL type where they say one."""
    if sample is not None and is_frame(sample):
        read = read_sample(sample, names=None, width=None, types=types)
        return {c.source: c.type for c in read.columns}
    return {name: SqlType(type_) for name, type_ in types.items()}


def _shapes(tensors: Sequence[Tensor]) -> list[str]:
    return [f"{t.name} ({t.width})" for t in tensors]


def _check_type(slot: _Slot) -> None:
    if slot.dtype == "string" and slot.width > 1:
        raise FeatureError(
            f"input {slot.tensor!r} takes {slot.width} strings, and nothing says which",
            remedy=f"Pass columns={{name: SqlType.TEXT, ...}} with {slot.width} names, in order.",
        )
    text = slot.type in (SqlType.TEXT, SqlType.TEXT_ARRAY)
    if text != (slot.dtype == "string") or slot.type.is_array != (slot.width > 1):
        size = f" of {slot.width} columns" if slot.width > 1 else ""
        raise FeatureError(
            f"{slot.source} is {slot.type}, but fills {slot.dtype} input {slot.tensor!r}{size}",
            remedy="Give it a type that fits the input.",
        )
    whole = slot.dtype in ("int32", "int64", "bool")
    if whole and slot.type in (SqlType.REAL, SqlType.DOUBLE, SqlType.REAL_ARRAY, SqlType.DOUBLE_ARRAY):
        raise FeatureError(
            f"{slot.source} is {slot.type}, but fills {slot.dtype} input {slot.tensor!r}, which has no fractions",
            remedy=f"Make it {_SCALARS[slot.dtype]}.",
        )


def _policies(slots: Sequence[_Slot], names: Sequence[str], asked: Mapping[str, str] | str | None) -> list[NullPolicy]:
    wanted = requested(asked, [(s.source, n) for s, n in zip(slots, names, strict=True)])
    policies = []
    for i, slot in enumerate(slots):
        policy = wanted.get(i, NullPolicy.NULL)
        holds = slot.dtype in ("float32", "float64")
        if policy is NullPolicy.NAN and not holds and not isinstance(asked, str):
            raise FeatureError(
                f"null_policy is 'nan' for {slot.source}, whose {slot.dtype} input cannot hold a missing value",
                remedy="Leave it at 'null'.",
            )
        policies.append(policy if holds else NullPolicy.NULL)
    return policies
