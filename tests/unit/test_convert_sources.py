"""What convert accepts as a source, and what it will not open."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING

import joblib
import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from skops import io

from dbscore.convert import convert
from dbscore.errors import ArtifactError, ConversionError, UntrustedSourceError

if TYPE_CHECKING:
    from pathlib import Path

X = np.arange(12.0).reshape(6, 2)
MODEL = Ridge().fit(X, np.arange(6.0))


def double(values: np.ndarray) -> np.ndarray:
    return values * 2


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('code from the file was run')",)


def test_onnx_file_and_bytes_are_the_same_model(tmp_path: Path) -> None:
    data = convert(MODEL).onnx
    path = tmp_path / "model.ONNX"
    path.write_bytes(data)
    assert convert(path).onnx == convert(str(path)).onnx == convert(data).onnx == data
    assert convert(path).provenance.source == "onnx"


def test_large_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(convert(MODEL).onnx)
    with pytest.raises(ArtifactError, match=r"model\.onnx has \d+ bytes, more than the limit of 10"):
        convert(path, max_bytes=10)


def test_absent_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="there is no file"):
        convert(tmp_path / "absent.onnx")


@pytest.mark.parametrize("name", ["model.txt", "model"])
def test_unknown_suffix_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConversionError, match=name):
        convert(tmp_path / name)


def test_skops_file_is_opened_and_named_as_the_source(tmp_path: Path) -> None:
    path = tmp_path / "model.skops"
    io.dump(MODEL, path)
    conversion = convert(path, sample=X)
    assert conversion.provenance.source == "skops"
    assert conversion.onnx == convert(MODEL, sample=X).onnx


def test_skops_file_with_unknown_types_is_refused_with_their_names(tmp_path: Path) -> None:
    path = tmp_path / "model.skops"
    io.dump(make_pipeline(FunctionTransformer(double), Ridge()).fit(X, X[:, 0]), path)
    with pytest.raises(UntrustedSourceError, match="double") as caught:
        convert(path)
    assert "trusted_types" in caught.value.remedy


def test_skops_file_with_types_said_to_be_trusted_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "model.skops"
    io.dump(make_pipeline(FunctionTransformer(double), Ridge()).fit(X, X[:, 0]), path)
    # opened it is; that its function has no ONNX equivalent is another matter
    with pytest.raises(ConversionError, match=r"FunctionTransformer\(double\)"):
        convert(path, trusted_types=io.get_untrusted_types(file=path))


def test_damaged_skops_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.skops"
    path.write_bytes(b"not a zip")
    with pytest.raises(ConversionError, match="not a skops file"):
        convert(path)


@pytest.mark.parametrize("name", ["model.pkl", "model.pickle", "model.joblib"])
def test_pickle_is_not_opened_unless_trusted(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(UntrustedSourceError, match="executes whatever code") as caught:
        convert(path)
    assert "skops" in caught.value.remedy


def test_trusted_pickle_and_joblib_are_opened(tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(MODEL))
    joblib.dump(MODEL, tmp_path / "b.joblib")
    for name in ("a.pkl", "b.joblib"):
        assert convert(tmp_path / name, trust_pickle=True).provenance.source == "pickle"


def test_damaged_pickle_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(b"\x80\x04garbage")
    with pytest.raises(ConversionError, match="cannot be loaded"):
        convert(path, trust_pickle=True)


def test_something_else_is_refused_by_its_class() -> None:
    with pytest.raises(ConversionError, match=r"builtins\.dict"):
        convert({"coef": [1, 2]})
