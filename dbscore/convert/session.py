"""ONNX Runtime on the client: load a model as the server will, and run it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import onnxruntime

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

__all__ = ["open_session", "run"]

_FATAL = 4


def open_session(onnx: bytes) -> onnxruntime.InferenceSession:
    """Load a model with one thread on the CPU; ONNX Runtime's own errors pass through."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    # what is wrong reaches the caller as an exception, not on stderr
    options.log_severity_level = _FATAL
    return onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])


def run(session: onnxruntime.InferenceSession, feeds: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, Any]:
    """Run the model and return its outputs by name."""
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(feeds)), strict=True))
