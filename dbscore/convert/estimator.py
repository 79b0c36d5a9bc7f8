"""A fitted estimator to a Conversion: float64 where that works, float32 where it must be, compared row by row."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.exceptions import NotFittedError
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer
from sklearn.utils.validation import check_is_fitted

from dbscore.convert.conversion import Checks, Conversion, Parity, Provenance, Tolerance
from dbscore.convert.features import (
    build_features,
    choose_missing,
    fronts,
    spans_of,
    text_columns,
    used_columns,
)
from dbscore.convert.feeds import feeds, scorable
from dbscore.convert.graph import opsets, precision
from dbscore.convert.lineage import Visit, visits
from dbscore.convert.markers import passing_imputers, with_markers
from dbscore.convert.native import Answers, Native, qualified
from dbscore.convert.nulls import Nulls, decide
from dbscore.convert.outputs import answers_of, describe_outputs
from dbscore.convert.parity import FLOAT32, FLOAT64, compare, pick_checks
from dbscore.convert.policies import requested
from dbscore.convert.rows import answer_all, null_rows
from dbscore.convert.sample import Sample, read_sample, without_sample
from dbscore.convert.session import open_session, run
from dbscore.convert.skl import corrections, to_onnx
from dbscore.convert.thresholds import threshold_rows
from dbscore.errors import ArtifactError, ConversionError, FeatureError
from dbscore.signature import NullPolicy, Signature, SqlType, Tensor

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from onnx import ModelProto

__all__ = ["Request", "convert_estimator"]

_LIBRARIES = ("scikit-learn", "skl2onnx", "onnx", "onnxruntime", "numpy", "pandas")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The decisions of `convert` that concern an estimator; see there."""

    kind: str
    sample: Any
    columns: Mapping[str, SqlType]
    null_policy: Mapping[str, str] | str | None
    embedding: str | None
    tolerance: Tolerance | None
    max_bytes: int
    max_rows: int
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Subject:
    """What is known of the estimator before it is converted."""

    estimator: Any
    sample: Sample
    used: list[int]
    seen: list[Visit]
    native: Native
    nulls: list[Nulls]
    missing: str
    rows: list[tuple[Any, ...]]
    origins: list[str]
    answers: Answers | None
    notes: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Attempt:
    """One conversion that ONNX Runtime loads."""

    precision: str
    model: ModelProto
    onnx: bytes
    signature: Signature
    parity: Parity | None
    changes: tuple[str, ...]


class _UnconvertibleError(Exception):
    """The converter, or ONNX Runtime, does not manage; `reason` is what it raised."""

    def __init__(self, reason: Exception) -> None:
        super().__init__(str(reason))
        self.reason = reason


def convert_estimator(estimator: Any, request: Request) -> Conversion:  # noqa: ANN401 - an estimator
    """Convert a fitted estimator; see `dbscore.convert.convert` for what it takes, gives and raises."""
    subject = _examine(_fitted(estimator), request)
    attempts: list[_Attempt] = []
    failures: dict[str, Exception] = {}
    for wanted in ("float64", "float32"):
        try:
            attempt = _attempt(subject, wanted, request)
        except _UnconvertibleError as error:
            failures[wanted] = error.reason
            continue
        attempts.append(attempt)
        if attempt.parity is None or attempt.parity.total_mismatches == 0:
            break
    if not attempts:
        raise _refusal(subject.estimator, failures)
    chosen = min(attempts, key=lambda a: a.parity is not None and a.parity.total_mismatches > 0)
    notes = [*subject.notes, *_why(chosen, attempts, failures)]
    return Conversion(
        onnx=chosen.onnx,
        signature=chosen.signature,
        provenance=Provenance(
            source=request.kind,
            estimator=qualified(subject.estimator),
            producer=f"{chosen.model.producer_name} {chosen.model.producer_version}".strip(),
            precision=chosen.precision,
            opsets=opsets(chosen.model),
            libraries=_libraries(),
            corrections=(*corrections(subject.seen, chosen.precision, subject.missing), *chosen.changes),
            notes=tuple(notes),
        ),
        parity=chosen.parity,
        checks=_checks(subject, chosen.signature, request.seed) if chosen.parity is not None else None,
        sample=tuple(r for r, origin in zip(subject.rows, subject.origins, strict=True) if origin == "sample"),
    )


def _fitted(estimator: Any) -> Any:  # noqa: ANN401 - an estimator
    try:
        check_is_fitted(estimator)
    except NotFittedError as error:
        raise ConversionError(f"{qualified(estimator)} is not fitted", remedy="Call fit before converting.") from error
    except TypeError as error:
        raise ConversionError(
            f"{type(estimator).__qualname__} is no scikit-learn estimator: {error}",
            remedy="Export it to ONNX with its own library and pass the bytes.",
        ) from error
    while hasattr(estimator, "best_estimator_"):
        estimator = estimator.best_estimator_
    return estimator


def _examine(estimator: Any, request: Request) -> _Subject:  # noqa: ANN401 - an estimator
    sample = _sample(estimator, request)
    used = used_columns(estimator, sample)
    columns = [sample.columns[i] for i in used]
    names = [c.source for c in sample.columns]
    spans = spans_of(sample.columns)
    width = spans[-1].stop if spans else 0
    seen = visits(estimator, width, names if sample.form == "frame" else None)
    sample = with_markers(sample, spans, seen)
    columns = [sample.columns[i] for i in used]
    native = Native(estimator, sample, used)
    rows = sample.tuples(used)
    own = [spans[i] for i in used]
    asked = requested(request.null_policy, [(c.source, c.name) for c in columns])
    nulls, notes = decide(native, columns, rows, seen=seen, spans=own, asked=asked)
    notes = [*sample.notes, *notes]
    every, origins = list(rows), ["sample"] * len(rows)
    more, said = threshold_rows(rows, columns, seen=seen, spans=own, limit=request.max_rows, seed=request.seed)
    every, origins, notes = every + more, origins + ["threshold"] * len(more), notes + said
    gaps = null_rows(rows, nulls, request.seed)
    every, origins = every + gaps, origins + ["null"] * len(gaps)
    strict = [i for i, null in enumerate(nulls) if null.policy is NullPolicy.NULL]
    kept = [i for i, row in enumerate(every) if not any(row[j] is None for j in strict)]
    every, origins = [every[i] for i in kept], [origins[i] for i in kept]
    if rows and not every:
        raise FeatureError(
            "every row of the sample has a missing value in a feature whose NULL policy is 'null'",
            remedy="Pass rows that the model answers, or put an imputer before it and fit again.",
        )
    answers, refused = answer_all(native, every)
    if refused:
        notes.append(f"the native estimator refuses {len(refused)} of the rows: {refused[min(refused)]}")
        every = [row for i, row in enumerate(every) if i not in refused]
        origins = [origin for i, origin in enumerate(origins) if i not in refused]
    return _Subject(
        estimator=estimator,
        sample=sample,
        used=used,
        seen=seen,
        native=native,
        nulls=nulls,
        missing=choose_missing(columns, seen),
        rows=every,
        origins=origins,
        answers=answers,
        notes=notes,
    )


def _sample(estimator: Any, request: Request) -> Sample:  # noqa: ANN401 - an estimator
    known = getattr(estimator, "feature_names_in_", None)
    names = None if known is None else [str(name) for name in known]
    width = getattr(estimator, "n_features_in_", None)
    if request.sample is not None:
        return read_sample(
            request.sample,
            names=names,
            width=width,
            types=request.columns,
            embedding=request.embedding,
            max_rows=request.max_rows,
            seed=request.seed,
        )
    vectorizer = any(isinstance(step, CountVectorizer | HashingVectorizer) for step in fronts(estimator))
    if width is None and vectorizer:
        return without_sample(["text"], types=request.columns, texts=[True], form="texts")
    if width is None:
        raise FeatureError(
            f"{qualified(estimator)} does not say how many columns it takes",
            remedy="Pass a sample of the rows that it was fitted on.",
        )
    if request.embedding is not None:
        return read_sample(
            np.empty((0, width)), names=None, width=width, types=request.columns, embedding=request.embedding
        )
    sources = names or [f"f{i}" for i in range(width)]
    texts = text_columns(visits(estimator, width, names), width)
    return without_sample(sources, types=request.columns, texts=texts, form="matrix" if names is None else "frame")


def _attempt(subject: _Subject, wanted: str, request: Request) -> _Attempt:
    features, tensors = build_features(
        subject.estimator,
        subject.sample,
        used=subject.used,
        nulls=subject.nulls,
        seen=subject.seen,
        missing=subject.missing,
        precision=wanted,
    )
    try:
        model, called, changes = to_onnx(
            subject.estimator,
            _with_unused(subject, tensors, wanted),
            kept=[t.name for t in tensors],
            precision=wanted,
            missing=subject.missing,
            passing=passing_imputers(subject.sample, spans_of(subject.sample.columns), subject.seen),
            outputs=2 if subject.native.has_probabilities else 1,
        )
    except Exception as error:  # skl2onnx raises what it likes
        raise _UnconvertibleError(error) from error
    features = tuple(replace(f, tensor=called[f.tensor]) for f in features)
    tensors = tuple(replace(t, name=called[t.name]) for t in tensors)
    onnx = model.SerializeToString(deterministic=True)
    if len(onnx) > request.max_bytes:
        raise ArtifactError(
            f"the converted model has {len(onnx)} bytes, more than the limit of {request.max_bytes}",
            remedy="Make the model smaller, or raise DBSCORE_MAX_MODEL_MB.",
        )
    outputs, classes = describe_outputs(model, subject.estimator, subject.native, subject.answers)
    signature = Signature(
        task=subject.native.task, features=features, tensors=tensors, outputs=outputs, classes=classes
    )
    found = precision(model) if _floats(model) else wanted
    raw = _run(onnx, feeds(signature, subject.rows))
    parity = None
    if subject.answers is not None:
        parity = compare(
            signature=signature,
            rows=subject.rows,
            origins=subject.origins,
            native=subject.answers,
            converted=answers_of(outputs, raw),
            tolerance=request.tolerance or (FLOAT64 if found == "float64" else FLOAT32),
        )
    return _Attempt(precision=found, model=model, onnx=onnx, signature=signature, parity=parity, changes=changes)


def _run(onnx: bytes, given: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, Any]:
    try:
        session = open_session(onnx)
        rows = len(next(iter(given.values())))
        raw = run(session, given) if rows else {}
    except Exception as error:  # ONNX Runtime has its own exceptions, one per status code
        raise _UnconvertibleError(error) from error
    for name, value in raw.items():
        if len(value) != rows:
            raise _UnconvertibleError(ValueError(f"output {name!r} has {len(value)} answers for {rows} rows"))
    return raw


def _floats(model: ModelProto) -> bool:
    return any(o.type.tensor_type.elem_type in (1, 11) for o in (*model.graph.input, *model.graph.output))


def _with_unused(subject: _Subject, tensors: Sequence[Tensor], wanted: str) -> list[Tensor]:
    """Return the inputs with those of dropped columns among them, as a step selects columns by position."""
    if len(subject.used) == len(subject.sample.columns):
        return list(tensors)
    named = {t.name: t for t in tensors}
    return [
        named.get(c.source)
        or Tensor(name=c.source, dtype="string" if c.type is SqlType.TEXT else wanted, width=c.width)
        for c in subject.sample.columns
    ]


def _checks(subject: _Subject, signature: Signature, seed: int) -> Checks | None:
    if subject.answers is None:
        return None
    usable = scorable(signature, subject.rows)
    if not all(usable):
        raise AssertionError("rows that a NULL leaves without a prediction were compared")
    return pick_checks(
        signature=signature, rows=subject.rows, origins=subject.origins, native=subject.answers, seed=seed
    )


def _why(chosen: _Attempt, attempts: Sequence[_Attempt], failures: Mapping[str, Exception]) -> list[str]:
    if chosen.precision == "float64":
        return []
    if "float64" in failures:
        return [f"float32, as float64 fails: {_first_line(failures['float64'])}"]
    other = attempts[0]
    if other is chosen or other.parity is None:
        return ["float32, as the converter computes part of it so"]
    return [
        (
            f"float32, as in float64 {other.parity.total_mismatches} rows differ, "
            f"by up to {other.parity.max_absolute:.3g}"
        )
    ]


def _refusal(estimator: Any, failures: Mapping[str, Exception]) -> ConversionError:  # noqa: ANN401
    said = {wanted: _first_line(error) for wanted, error in failures.items()}
    same = len(set(said.values())) == 1
    reasons = said["float32"] if same else "; ".join(f"in {w}: {text}" for w, text in said.items())
    error = ConversionError(
        f"{qualified(estimator)} cannot be converted to ONNX ({reasons})",
        remedy="Use an estimator that skl2onnx supports, replace custom steps by scikit-learn's own, "
        "or export the model to ONNX yourself and pass the bytes.",
    )
    error.__cause__ = next(iter(failures.values()))
    return error


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:300] if lines else ''}".removesuffix(": ")


def _libraries() -> dict[str, str]:
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
