"""What `convert` was given: an estimator in memory, a file that holds one, or an ONNX model."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dbscore.errors import ArtifactError, ConversionError, UntrustedSourceError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Source", "open_source"]

_PICKLES = (".pkl", ".pickle", ".joblib")


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """An opened source.

    Attributes:
        kind: `estimator`, `onnx`, `skops` or `pickle`.
        estimator: The fitted estimator; None for ONNX.
        onnx: The bytes, not yet validated; None for an estimator.
    """

    kind: str
    estimator: Any = None
    onnx: bytes | None = None


def open_source(
    source: Any,  # noqa: ANN401 - an estimator has no narrower type
    *,
    trust_pickle: bool,
    trusted_types: Sequence[str],
    max_bytes: int,
) -> Source:
    """Open what the caller gave; nothing in it is executed unless they said that it may be.

    Raises:
        ConversionError: It is neither an estimator, nor bytes, nor a path with a known suffix.
        ArtifactError: The file is absent, or larger than `max_bytes` where it is ONNX.
        UntrustedSourceError: It is a pickle without `trust_pickle`, or a skops file with types not in `trusted_types`.
    """
    if isinstance(source, bytes | bytearray | memoryview):
        return Source(kind="onnx", onnx=bytes(source))
    if isinstance(source, str | Path):
        return _open_file(Path(source), trust_pickle=trust_pickle, trusted_types=trusted_types, max_bytes=max_bytes)
    if isinstance(source, type):
        raise ConversionError(
            f"{source.__name__} is a class, not a fitted estimator",
            remedy=f"Fit an instance: {source.__name__}().fit(X, y).",
        )
    if not (hasattr(source, "fit") and (hasattr(source, "predict") or hasattr(source, "transform"))):
        raise ConversionError(
            f"a {type(source).__module__}.{type(source).__qualname__} has no fit with predict or transform",
            remedy="Pass a fitted scikit-learn estimator, ONNX bytes, or the path of an .onnx or .skops file.",
        )
    return Source(kind="estimator", estimator=source)


def _open_file(path: Path, *, trust_pickle: bool, trusted_types: Sequence[str], max_bytes: int) -> Source:
    suffix = path.suffix.lower()
    if suffix not in (".onnx", ".skops", *_PICKLES):
        raise ConversionError(
            f"{path} ends in {suffix or 'nothing'!r}: neither .onnx, .skops nor a pickle",
            remedy="Save the estimator with skops.io.dump(estimator, 'model.skops'), or export it to ONNX.",
        )
    if not path.is_file():
        raise ArtifactError(f"there is no file {path}", remedy="Check the path.")
    if suffix == ".onnx":
        # the size is checked before reading, so that a huge file does not fill memory first
        size = path.stat().st_size
        if size > max_bytes:
            raise ArtifactError(
                f"{path} has {size} bytes, more than the limit of {max_bytes}",
                remedy="Make the model smaller, or raise DBSCORE_MAX_MODEL_MB.",
            )
        return Source(kind="onnx", onnx=path.read_bytes())
    if suffix == ".skops":
        return Source(kind="skops", estimator=_load_skops(path, trusted_types))
    if not trust_pickle:
        raise UntrustedSourceError(
            f"{path} is a pickle: loading it executes whatever code it holds",
            remedy=(
                "Save it with skops.io.dump instead; or, if you made this file yourself, pass --trust-pickle "
                "(trust_pickle=True in Python)."
            ),
        )
    return Source(kind="pickle", estimator=_load_pickle(path))


def _load_skops(path: Path, trusted_types: Sequence[str]) -> Any:  # noqa: ANN401
    try:
        from skops import io
    except ImportError as error:
        raise ConversionError(
            "reading a .skops file needs skops, which is not installed",
            remedy="pip install 'dbscore[sklearn]'",
        ) from error
    try:
        refused = sorted(set(io.get_untrusted_types(file=path)) - set(trusted_types))
    except Exception as error:
        raise ConversionError(f"{path} is not a skops file: {error}", remedy="Save it again.") from error
    if refused:
        raise UntrustedSourceError(
            f"{path} holds types that skops does not know to be safe: {', '.join(refused)}",
            remedy="Look at them, and pass those you trust as trusted_types.",
        )
    try:
        return io.load(path, trusted=list(trusted_types))
    except Exception as error:
        raise ConversionError(
            f"skops cannot load {path}: {error}",
            remedy="Load it with the library versions it was saved with, and save it again.",
        ) from error


def _load_pickle(path: Path) -> Any:  # noqa: ANN401
    try:
        if path.suffix.lower() == ".joblib":
            import joblib

            return joblib.load(path)
        with path.open("rb") as file:
            return pickle.load(file)  # noqa: S301 - the caller passed trust_pickle=True
    except Exception as error:
        raise ConversionError(
            f"{path} cannot be loaded: {type(error).__name__}: {error}",
            remedy="Load it with the library versions it was saved with, and save it as .skops.",
        ) from error
