"""Conversion: a fitted estimator, or an ONNX model of any producer, to bytes and a signature, with proof of parity.

Importing this package loads neither scikit-learn nor onnx nor pandas; calling `convert` loads what its source needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dbscore.convert.conversion import Checks, Conversion, Mismatch, Parity, Provenance, Tolerance
from dbscore.errors import ConversionError
from dbscore.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dbscore.signature import SqlType

__all__ = [
    "Checks",
    "Conversion",
    "Mismatch",
    "Parity",
    "Provenance",
    "Tolerance",
    "convert",
]

MAX_BYTES = Settings().max_model_bytes


def convert(  # noqa: PLR0913 - each is a decision of the caller's, all by keyword
    source: Any,  # noqa: ANN401 - an estimator has no narrower type
    *,
    sample: Any = None,  # noqa: ANN401 - a DataFrame, an array or a list; pandas is optional
    columns: Mapping[str, SqlType] | None = None,
    null_policy: Mapping[str, str] | str | None = None,
    embedding: str | None = None,
    trust_pickle: bool = False,
    trusted_types: Sequence[str] = (),
    tolerance: Tolerance | None = None,
    max_bytes: int = MAX_BYTES,
    max_rows: int = 2000,
    seed: int = 0,
) -> Conversion:
    """Convert a model to ONNX, describe what it takes and gives, and compare it with the native one.

    Args:
        source: A fitted scikit-learn estimator or Pipeline; ONNX bytes; or a path: `.onnx`, `.skops`, or a pickle
            (`.pkl`, `.pickle`, `.joblib`), which is opened only with `trust_pickle`.
        sample: Rows such as the estimator was fitted on: a DataFrame, a 2-D array, or a list of texts. Columns that
            the estimator does not know are left out. Without it nothing can be compared.
        columns: SQL types by column name; they win over the sample's dtypes, and the sample is read as the
            database would hold it (a `real` is rounded to float32). Columns that are no features are ignored.
        null_policy: `nan` or `null`, for all features or by name. By default a NULL is a missing value where the
            native model accepts one and was fitted for it, and makes the prediction NULL elsewhere.
        embedding: The whole 2-D sample is one array feature of this name.
        trust_pickle: Loading a pickle runs code from it. True says that this one may.
        trusted_types: What a `.skops` file may load besides skops's own list.
        tolerance: What the comparison allows; by default 1e-9 relative and 1e-12 absolute for float64 graphs,
            1e-5 and 1e-6 for float32 ones.
        max_bytes: The largest ONNX model accepted, in bytes.
        max_rows: Rows of the sample that are compared, and at most as many rows at split thresholds.
        seed: Picks the rows.

    Returns:
        The conversion. It carries mismatches rather than raising for them: whoever deploys decides.

    Raises:
        ConversionError: The estimator is not fitted, or has no ONNX equivalent in float64 or float32.
        FeatureError: The sample, its types or the NULL policy do not fit the estimator.
        ArtifactError: The ONNX model is refused, or exceeds `max_bytes`.
        UntrustedSourceError: The file could run code, and nobody said that it is trusted.
    """
    from dbscore.convert.sources import open_source

    opened = open_source(source, trust_pickle=trust_pickle, trusted_types=trusted_types, max_bytes=max_bytes)
    if opened.onnx is not None:
        from dbscore.convert.foreign import convert_onnx

        return convert_onnx(opened.onnx, sample=sample, columns=columns, null_policy=null_policy, max_bytes=max_bytes)
    try:
        from dbscore.convert.estimator import Request, convert_estimator
    except ImportError as error:
        raise ConversionError(
            f"converting an estimator needs {error.name}, which is not installed",
            remedy="pip install 'dbscore[sklearn]'",
        ) from error

    return convert_estimator(
        opened.estimator,
        Request(
            kind=opened.kind,
            sample=sample,
            columns=dict(columns or {}),
            null_policy=null_policy,
            embedding=embedding,
            tolerance=tolerance,
            max_bytes=max_bytes,
            max_rows=max_rows,
            seed=seed,
        ),
    )
