"""What a version takes and gives: features, the tensors they go into, outputs."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from dbscore.errors import FeatureError, NameRefusedError

__all__ = [
    "Feature",
    "NullPolicy",
    "Output",
    "OutputKind",
    "Signature",
    "SqlType",
    "Task",
    "Tensor",
    "feature_identifier",
    "feature_identifiers",
]

IDENTIFIER_BYTES = 63


class SqlType(StrEnum):
    """A SQL type, as PostgreSQL spells it, that a feature or an output may have."""

    BOOLEAN = "boolean"
    SMALLINT = "smallint"
    INTEGER = "integer"
    BIGINT = "bigint"
    REAL = "real"
    DOUBLE = "double precision"
    TEXT = "text"
    REAL_ARRAY = "real[]"
    DOUBLE_ARRAY = "double precision[]"
    BIGINT_ARRAY = "bigint[]"
    BOOLEAN_ARRAY = "boolean[]"
    TEXT_ARRAY = "text[]"

    @property
    def is_array(self) -> bool:
        """Whether a value of this type is an array."""
        return self.endswith("[]")


class NullPolicy(StrEnum):
    """What a NULL feature means.

    NAN: it is a missing value, which the model was trained with or imputes.
    NULL: the prediction is NULL.
    """

    NAN = "nan"
    NULL = "null"


class Task(StrEnum):
    """What kind of answer the model gives."""

    CLASSIFICATION = "classification"
    REGRESSION = "regression"
    CLUSTERING = "clustering"
    OUTLIER = "outlier"
    TRANSFORM = "transform"


class OutputKind(StrEnum):
    """Which answer an ONNX output carries: the prediction itself, or one number per class."""

    PREDICTION = "prediction"
    PROBABILITIES = "probabilities"


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature:
    """One argument of the scoring functions.

    Attributes:
        name: Its SQL identifier, the argument's name.
        source: The name the estimator knows it by (`sepal length (cm)`).
        type: Its SQL type.
        null_policy: What NULL means.
        tensor: The ONNX input it goes into.
        position: Its first column in that input, from 0.
        width: How many columns it takes; more than one for an array feature.
        accepts_infinity: Whether the native model takes +Infinity and -Infinity.
        largest: The largest magnitude that the native model takes (float32's, for trees); None where any will do.
        categories: The only values, texts or numbers, the native model takes; None where it takes any.
        missing: For text: the string that stands for a missing value in the ONNX input. None otherwise.
    """

    name: str
    source: str
    type: SqlType
    null_policy: NullPolicy
    tensor: str
    position: int = 0
    width: int = 1
    accepts_infinity: bool = False
    largest: float | None = None
    categories: tuple[bool | int | float | str, ...] | None = None
    missing: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """An ONNX input.

    Attributes:
        name: Its name in the graph.
        dtype: `float32`, `float64`, `int32`, `int64`, `bool` or `string`.
        width: Columns per row.
        rank: 2 for shape (rows, width), 1 for shape (rows,).
    """

    name: str
    dtype: str
    width: int
    rank: int = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """An ONNX output that a scoring function returns.

    Attributes:
        kind: Prediction or probabilities.
        tensor: Its name in the graph.
        type: The SQL type of the function's result; an array where a row has several numbers.
        width: Numbers per row, where known; 0 where not.
    """

    kind: OutputKind
    tensor: str
    type: SqlType
    width: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """The ordered features of a version, the ONNX inputs they fill, and its outputs.

    Attributes:
        task: What kind of answer it gives.
        features: In the order of the functions' arguments.
        tensors: The ONNX inputs, each filled exactly by the features that name it.
        outputs: At most one of each kind; the prediction is always there.
        classes: A classifier's classes in the order of its probabilities; else None.
    """

    task: Task
    features: tuple[Feature, ...]
    tensors: tuple[Tensor, ...]
    outputs: tuple[Output, ...]
    classes: tuple[bool | int | float | str, ...] | None = None

    @property
    def prediction(self) -> Output:
        """The output that the plain function returns."""
        return next(o for o in self.outputs if o.kind is OutputKind.PREDICTION)

    @property
    def probabilities(self) -> Output | None:
        """The output that `_proba` returns, or None where the model has none."""
        return next((o for o in self.outputs if o.kind is OutputKind.PROBABILITIES), None)

    @property
    def is_numeric(self) -> bool:
        """Whether every feature is one number, so that a row fits a `float8[]`."""
        return all(not f.type.is_array and f.type is not SqlType.TEXT for f in self.features)

    def to_json(self) -> dict[str, Any]:
        """Return the signature as JSON values; `from_json` reads it back equal."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Signature:
        """Read what `to_json` wrote, or PostgreSQL's jsonb copy of it."""
        return cls(
            task=Task(data["task"]),
            features=tuple(
                Feature(
                    **{
                        **f,
                        "type": SqlType(f["type"]),
                        "null_policy": NullPolicy(f["null_policy"]),
                        "categories": None if f["categories"] is None else tuple(f["categories"]),
                    }
                )
                for f in data["features"]
            ),
            tensors=tuple(Tensor(**t) for t in data["tensors"]),
            outputs=tuple(
                Output(**{**o, "kind": OutputKind(o["kind"]), "type": SqlType(o["type"])}) for o in data["outputs"]
            ),
            classes=None if data["classes"] is None else tuple(data["classes"]),
        )


def feature_identifier(source: str) -> str:
    """Return the SQL identifier for a feature's name.

    The rule: lower case; every run of characters other than letters, digits and `_` becomes one `_`; none is
    left at either end unless the name itself begins or ends with one; `f_` goes in front of a leading digit.
    `sepal length (cm)` becomes `sepal_length_cm`.

    Raises:
        NameRefusedError: Nothing is left, or the identifier is longer than PostgreSQL's 63 bytes.
    """
    # a removed run at an end leaves nothing behind; an underscore the author wrote there stays
    words = re.sub(r"^[^\w]+|[^\w]+$", "", source.lower())
    name = re.sub(r"[^\w]+", "_", words)
    if name[:1].isdigit():
        name = f"f_{name}"
    if not name.strip("_"):
        raise NameRefusedError(
            f"feature name {source!r} has no letter or digit to make a SQL identifier from",
            remedy="Rename the column in the sample before fitting.",
        )
    if len(name.encode()) > IDENTIFIER_BYTES:
        raise NameRefusedError(
            f"feature name {source!r} makes an identifier of {len(name.encode())} bytes, over PostgreSQL's 63",
            remedy="Rename the column in the sample before fitting.",
        )
    return name


def feature_identifiers(sources: list[str]) -> list[str]:
    """Return an identifier for each name, in order.

    Raises:
        FeatureError: Two names give the same identifier.
        NameRefusedError: A name gives none.
    """
    seen: dict[str, str] = {}
    for source in sources:
        name = feature_identifier(source)
        if name in seen:
            raise FeatureError(
                f"features {seen[name]!r} and {source!r} both become the identifier {name!r}",
                remedy="Rename one of them in the sample before fitting.",
            )
        seen[name] = source
    return list(seen)
