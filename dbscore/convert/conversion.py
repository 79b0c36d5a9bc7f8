"""What a conversion yields: ONNX bytes, their signature, where they came from, how they compare."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dbscore.signature import Signature

__all__ = ["Checks", "Conversion", "Mismatch", "Parity", "Provenance", "Tolerance"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """How far a number may be from the native one: |a - b| <= absolute + relative * |b|. Labels must be equal.

    Attributes:
        relative: A fraction.
        absolute: In the output's own unit.
    """

    relative: float
    absolute: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Mismatch:
    """One row on which two engines disagree beyond the tolerance.

    Attributes:
        origin: `sample`, `threshold` or `null`: where the row came from.
        row: The features' values by name, NULL as None.
        native: What the native model answers.
        converted: What the converted model answers.
    """

    origin: str
    row: dict[str, Any]
    native: Any
    converted: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """The comparison of the converted model with the native one, stored with the version.

    Attributes:
        rows: Rows compared, by origin.
        mismatches: Rows beyond the tolerance, by origin.
        max_absolute: The largest difference of a number; 0.0 where there are only labels.
        max_relative: The largest difference as a fraction of the native number.
        tolerance: What was allowed.
        examples: Up to ten of the mismatches.
    """

    rows: dict[str, int]
    mismatches: dict[str, int]
    max_absolute: float
    max_relative: float
    tolerance: Tolerance
    examples: tuple[Mismatch, ...] = ()

    @property
    def total_mismatches(self) -> int:
        """Rows beyond the tolerance, whatever their origin."""
        return sum(self.mismatches.values())

    def to_json(self) -> dict[str, Any]:
        """Return the comparison as JSON values (NaN and infinities as strings)."""
        found: dict[str, Any] = _jsonable(asdict(self))
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Where the bytes came from.

    Attributes:
        source: `estimator`, `onnx`, `skops` or `pickle`.
        estimator: The estimator's class, qualified; for a pipeline, its last step's. None for ONNX.
        producer: What wrote the ONNX graph, with its version.
        precision: `float64` or `float32`: the arithmetic of the converted graph.
        opsets: Operator set versions, by domain.
        libraries: Versions of the libraries that took part.
        corrections: What was changed in, or written instead of, the converter's own graph; one sentence each.
        notes: What a reader should know besides (why float32, which NULL policy was probed).
    """

    source: str
    estimator: str | None
    producer: str
    precision: str
    opsets: dict[str, int]
    libraries: dict[str, str]
    corrections: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the provenance as JSON values."""
        found: dict[str, Any] = _jsonable(asdict(self))
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Checks:
    """Rows with the native model's answers, for comparing what SQL answers with them.

    Attributes:
        rows: Values in the order of the signature's features, as psycopg takes them; NULL is None.
        predictions: The native prediction per row; None where a NULL feature makes it NULL.
        probabilities: The native probabilities per row, in class order; None where there are none.
    """

    rows: tuple[tuple[Any, ...], ...]
    predictions: tuple[Any, ...]
    probabilities: tuple[tuple[float, ...] | None, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """A model ready to be deployed.

    Attributes:
        onnx: The bytes that are stored.
        signature: What they take and give.
        provenance: Where they came from.
        parity: The comparison with the native model; None where there was no native model or no sample.
        checks: Rows for the comparison in the database; None where parity is None.
        sample: The sample's rows that have a prediction, as psycopg takes them; empty where there was none.
    """

    onnx: bytes = field(repr=False)
    signature: Signature
    provenance: Provenance
    parity: Parity | None = None
    checks: Checks | None = field(default=None, repr=False)
    sample: tuple[tuple[Any, ...], ...] = field(default=(), repr=False)


def _jsonable(value: Any) -> Any:  # noqa: ANN401 - JSON values have no narrower type
    if isinstance(value, dict):
        return {str(k): _jsonable(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(v) for v in value]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):  # noqa: PLR0124
        return str(value)
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
