"""Features and ONNX inputs of an estimator: one input per column behind a ColumnTransformer, else one matrix."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder

from dbscore.convert.groups import is_gap
from dbscore.convert.lineage import Visit, selected
from dbscore.convert.nulls import FLOAT32_MAX
from dbscore.signature import Feature, NullPolicy, SqlType, Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dbscore.convert.nulls import Nulls
    from dbscore.convert.sample import Column, Sample

__all__ = [
    "build_features",
    "categories_of",
    "choose_missing",
    "fronts",
    "spans_of",
    "text_columns",
    "used_columns",
]

_TEXTS = (SqlType.TEXT, SqlType.TEXT_ARRAY)
MATRIX = "X"


def fronts(estimator: Any) -> list[Any]:  # noqa: ANN401 - an estimator
    """Return the steps that see the raw columns: the first of a pipeline, all of a union."""
    if isinstance(estimator, Pipeline):
        steps = [step for _, step in estimator.steps if step is not None and step != "passthrough"]
        return fronts(steps[0]) if steps else []
    if isinstance(estimator, FeatureUnion):
        return [f for _, step in estimator.transformer_list if not isinstance(step, str) for f in fronts(step)]
    return [estimator]


def used_columns(estimator: Any, sample: Sample) -> list[int]:  # noqa: ANN401
    """Return the columns that become features: all but those that every ColumnTransformer at the front drops."""
    every = list(range(len(sample.columns)))
    steps = fronts(estimator)
    if sample.form != "frame" or not all(isinstance(step, ColumnTransformer) for step in steps):
        return every
    names = [c.source for c in sample.columns]
    kept = {i for step in steps for indexes in selected(step, names, len(names)) for i in indexes}
    return [i for i in every if i in kept] or every


def spans_of(columns: Sequence[Column]) -> list[range]:
    """Return the raw columns that each column takes in the estimator's input."""
    spans, start = [], 0
    for column in columns:
        spans.append(range(start, start + column.width))
        start += column.width
    return spans


def text_columns(seen: Sequence[Visit], width: int) -> list[bool]:
    """Return for each raw column whether an encoder of texts or a text vectorizer sees it."""
    texts = [False] * width
    for visit in seen:
        for i, origin in enumerate(visit.columns):
            if origin is None:
                continue
            step = visit.estimator
            if isinstance(step, CountVectorizer | HashingVectorizer) or (
                isinstance(step, OneHotEncoder | OrdinalEncoder)
                and any(isinstance(c, str) for c in step.categories_[i])
            ):
                texts[origin.column] = True
    return texts


def categories_of(seen: Sequence[Visit], column: int) -> tuple[bool | int | float | str, ...] | None:
    """Return the only values that a raw column may hold, as its encoders refuse any other; None where they take any.

    What an imputer replaces is taken too. Behind a scaler the raw values are not known exactly, and any is taken.
    """
    accepted: list[Any] | None = None
    replaced: list[Any] = []
    for visit in seen:
        step = visit.estimator
        for i, origin in enumerate(visit.columns):
            if origin is None or origin.column != column or (origin.scale, origin.offset) != (1.0, 0.0):
                continue
            if isinstance(step, SimpleImputer) and not is_gap(step.missing_values):
                value = step.missing_values
                replaced.append(value.item() if hasattr(value, "item") else value)
            if isinstance(step, OneHotEncoder | OrdinalEncoder) and step.handle_unknown == "error":
                known = [c for c in step.categories_[i].tolist() if not is_gap(c)]
                accepted = known if accepted is None else [c for c in accepted if c in known]
    return None if accepted is None else tuple(dict.fromkeys([*accepted, *replaced]))


def choose_missing(columns: Sequence[Column], seen: Sequence[Visit]) -> str:
    """Return a string to stand for a missing text: none that the sample or an encoder knows.

    The runtime refuses a real value that equals it, so that a collision is an error and never a wrong answer.
    """
    known = {v for c in columns if c.type in _TEXTS for v in c.values if isinstance(v, str)}
    for visit in seen:
        if isinstance(visit.estimator, OneHotEncoder | OrdinalEncoder):
            known |= {c for cats in visit.estimator.categories_ for c in cats if isinstance(c, str)}
    missing, count = "<dbscore:missing>", 1
    while missing in known:
        count += 1
        missing = f"<dbscore:missing:{count}>"
    return missing


def build_features(
    estimator: Any,  # noqa: ANN401
    sample: Sample,
    *,
    used: Sequence[int],
    nulls: Sequence[Nulls],
    seen: Sequence[Visit],
    missing: str,
    precision: str,
) -> tuple[tuple[Feature, ...], tuple[Tensor, ...]]:
    """Return the features, and the tensors that they fill.

    Args:
        estimator: The fitted estimator.
        sample: Its columns.
        used: Which of them are features.
        nulls: A decision for each feature.
        seen: Every estimator in the pipeline with the origins of its columns.
        missing: What stands for a missing text.
        precision: `float64` or `float32`: the dtype of numeric tensors, whatever the SQL type, so that they can hold
            NaN; bigint beyond 2**53 is rounded, as scikit-learn rounds it.
    """
    columns = [sample.columns[i] for i in used]
    spans = spans_of(sample.columns)
    apart = one_input_per_column(estimator, sample)
    features, tensors, position = [], [], 0
    for index, column, null in zip(used, columns, nulls, strict=True):
        text = column.type in _TEXTS
        tensor = column.source if apart else MATRIX
        features.append(
            Feature(
                name=column.name,
                source=column.source,
                type=column.type,
                null_policy=null.policy,
                tensor=tensor,
                position=0 if apart else position,
                width=column.width,
                accepts_infinity=null.accepts_infinity,
                largest=_largest(column, null, precision),
                categories=None if column.type.is_array else categories_of(seen, spans[index].start),
                missing=missing if text and null.policy is NullPolicy.NAN else None,
            )
        )
        position += column.width
        if apart:
            tensors.append(Tensor(name=tensor, dtype="string" if text else precision, width=column.width))
    if not apart:
        text = all(c.type in _TEXTS for c in columns)
        tensors.append(Tensor(name=MATRIX, dtype="string" if text else precision, width=position))
    return tuple(features), tuple(tensors)


def _largest(column: Column, null: Nulls, precision: str) -> float | None:
    if precision == "float64" or column.type not in (SqlType.DOUBLE, SqlType.DOUBLE_ARRAY):
        return null.largest
    # what the native model takes and float32 cannot hold would be an infinity to the converted one
    return min(null.largest or FLOAT32_MAX, FLOAT32_MAX)


def one_input_per_column(estimator: Any, sample: Sample) -> bool:  # noqa: ANN401
    """Whether each column is an ONNX input: where columns are selected by name, or are of different kinds."""
    texts = {c.type in _TEXTS for c in sample.columns}
    if len(texts) > 1:
        return True
    return sample.form == "frame" and any(isinstance(step, ColumnTransformer) for step in fronts(estimator))
