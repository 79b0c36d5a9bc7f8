"""What a converted estimator's graph gives: its outputs as the signature names them, and as numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dbscore.convert.native import Answers, Native, class_values, label_type
from dbscore.errors import ConversionError
from dbscore.signature import Output, OutputKind, SqlType, Task

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from onnx import ModelProto

__all__ = ["answers_of", "describe_outputs", "plain"]

_ARRAYS = {
    SqlType.SMALLINT: SqlType.BIGINT_ARRAY,
    SqlType.INTEGER: SqlType.BIGINT_ARRAY,
    SqlType.BIGINT: SqlType.BIGINT_ARRAY,
    SqlType.BOOLEAN: SqlType.BOOLEAN_ARRAY,
    SqlType.TEXT: SqlType.TEXT_ARRAY,
    SqlType.DOUBLE: SqlType.DOUBLE_ARRAY,
}


def describe_outputs(
    model: ModelProto,
    estimator: Any,  # noqa: ANN401 - an estimator
    native: Native,
    answers: Answers | None,
) -> tuple[tuple[Output, ...], tuple[Any, ...] | None]:
    """Return the outputs that a scoring function returns, and a classifier's classes.

    The first graph output is the prediction; a classifier's second one its probabilities, where the native
    estimator has them (it may be raw scores otherwise, which are left out).

    Args:
        model: The converted graph.
        estimator: The fitted estimator.
        native: The same, behind the interface of rows.
        answers: Its answers for some rows; None without a sample, which then leaves widths of vectors at 0.
    """
    names = [o.name for o in model.graph.output]
    type_, width = _prediction(estimator, native.task, answers)
    prediction = Output(kind=OutputKind.PREDICTION, tensor=names[0], type=type_, width=width)
    classes = class_values(estimator) if native.task is Task.CLASSIFICATION else None
    if classes is None or not native.has_probabilities:
        return (prediction,), classes
    if len(names) < 2:  # noqa: PLR2004 - label and probabilities
        raise ConversionError(
            f"the converted {type(estimator).__name__} has no probabilities, the native one has",
            remedy="Convert an estimator without predict_proba, or another version of skl2onnx.",
        )
    probabilities = Output(
        kind=OutputKind.PROBABILITIES, tensor=names[1], type=SqlType.DOUBLE_ARRAY, width=len(classes)
    )
    return (prediction, probabilities), classes


def answers_of(outputs: Sequence[Output], raw: Mapping[str, Any]) -> Answers:
    """Return what ONNX Runtime answered in the shapes of the native answers."""
    found = {o.kind: raw[o.tensor] for o in outputs}
    probabilities = found.get(OutputKind.PROBABILITIES)
    return Answers(
        predictions=np.asarray(found[OutputKind.PREDICTION]),
        probabilities=None if probabilities is None else np.asarray(probabilities, dtype=np.float64),
    )


def plain(value: Any, type_: SqlType) -> Any:  # noqa: ANN401 - any SQL value
    """Return one row's prediction as the Python value that psycopg gives for this type."""
    if type_.is_array:
        element = next(k for k, v in reversed(_ARRAYS.items()) if v is type_)
        return [plain(v, element) for v in np.ravel(value)]
    item = np.ravel(value)[0] if np.ndim(value) else value
    if type_ is SqlType.TEXT:
        return str(item)
    if type_ is SqlType.BOOLEAN:
        return bool(item)
    return float(item) if type_ in (SqlType.DOUBLE, SqlType.REAL) else int(item)


def _prediction(estimator: Any, task: Task, answers: Answers | None) -> tuple[SqlType, int]:  # noqa: ANN401
    width = 1
    if answers is not None and answers.predictions.ndim > 1:
        width = answers.predictions.shape[1]
    if task is Task.TRANSFORM:
        return SqlType.DOUBLE_ARRAY, width if answers is not None else 0
    if task is Task.REGRESSION:
        several = answers is not None and answers.predictions.ndim > 1 and width > 1
        return (SqlType.DOUBLE_ARRAY if several else SqlType.DOUBLE), width
    if task is Task.CLASSIFICATION:
        return _labels(estimator, width)
    dtype = answers.predictions.dtype if answers is not None else np.dtype(np.int64)
    return label_type(dtype), 1


def _labels(estimator: Any, width: int) -> tuple[SqlType, int]:  # noqa: ANN401
    classes = estimator.classes_
    if class_values(estimator) is not None:
        one = np.asarray(classes)
        return label_type(one.dtype, one.tolist()), 1
    each = [np.asarray(c) for c in classes]
    types = {_ARRAYS[label_type(c.dtype, c.tolist())] for c in each}
    if len(types) > 1:
        raise ConversionError(
            f"the targets have labels of several types: {', '.join(sorted(types))}",
            remedy="Fit one classifier per target.",
        )
    return types.pop(), max(width, len(each))
