"""ONNX Runtime on the client: load a model just as the server does, and run it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dbscore.runtime.model import open_session

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import onnxruntime as ort

__all__ = ["open_session", "run"]


def run(session: ort.InferenceSession, feeds: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, Any]:
    """Run the model and return its outputs by name."""
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(feeds)), strict=True))
