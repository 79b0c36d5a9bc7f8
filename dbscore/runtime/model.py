"""One loaded model: its session, and the buffers that a row is written into."""

from __future__ import annotations

import os
import struct
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    import onnxruntime as ort

CACHE_LINE = 64
NOWHERE = os.path.join(os.devnull, "nowhere")
FORMATS = {"float32": "f", "float64": "d", "int32": "i", "int64": "q", "bool": "?"}


def onnx_runtime() -> ModuleType:
    """Return the library ONNX Runtime, imported so that it sends nothing: since 1.29 its telemetry is on by default."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    return onnxruntime  # type: ignore[no-any-return]


def open_session(content: bytes) -> ort.InferenceSession:
    """Load a model on one thread of the CPU, since parallelism is PostgreSQL's; errors are exceptions, not logged."""
    ort = onnx_runtime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    # what a batch needed is given back, not kept for the life of the backend
    options.enable_cpu_mem_arena = False
    # a graph may name files that hold its numbers: there is no such place, so it reads none of the server's
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", NOWHERE)
    return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def _resident_bytes() -> int:
    """Return the memory that this process holds, or 0 where the system does not say."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


class Model:
    """One loaded session with its buffers.

    Numbers of a row are written into one block of memory that the session's inputs are views of, so that nothing
    is allocated for a call. Text has no such block: a model with text features is fed by name.

    Attributes:
        session: The ONNX Runtime session.
        tensors: The session's inputs for one row, by name.
        places: Per feature: its flat array, its first element there, its number of elements.
        bytes: What it costs: its file's size, or the growth of the process at its loading where that is more.
        loaded: When it was loaded, in seconds since 1970.
        seconds: How long the loading took.
        calls: Rows scored with it in this backend.
    """

    def __init__(self, content: bytes, signature: dict[str, Any]) -> None:
        # numpy's algebra is not used, and would start a thread for each processor
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
        import numpy as np

        begin, before = time.perf_counter(), _resident_bytes()
        self.session = open_session(content)
        features, shapes = signature["features"], {t["name"]: t for t in signature["tensors"]}
        self.tensors: dict[str, Any] = {}
        self.has_text = any(t["dtype"] == "string" for t in signature["tensors"])
        # tensors lie in the order in which the features name them first, each at the start of a cache line
        starts: dict[str, int] = {}
        end = 0
        for name in dict.fromkeys(f["tensor"] for f in features):
            starts[name] = end
            if shapes[name]["dtype"] != "string":
                size = np.dtype(shapes[name]["dtype"]).itemsize * shapes[name]["width"]
                end += -(-size // CACHE_LINE) * CACHE_LINE
        block = np.zeros(end + CACHE_LINE, np.uint8)
        self.memory = block[-block.ctypes.data % CACHE_LINE :][:end]
        for name, start in starts.items():
            tensor = shapes[name]
            shape = (1,) if tensor["rank"] == 1 else (1, tensor["width"])
            if tensor["dtype"] == "string":
                self.tensors[name] = np.full(shape, "", object)
            else:
                size = np.dtype(tensor["dtype"]).itemsize * tensor["width"]
                self.tensors[name] = self.memory[start : start + size].view(tensor["dtype"]).reshape(shape)
        self.places = [(self.tensors[f["tensor"]].reshape(-1), f["position"], f["width"]) for f in features]
        self.pack, self.order = self._packer(features, shapes, starts)
        self.runners: dict[str, Callable[[], Any]] = {}
        self.bytes = max(len(content), _resident_bytes() - before)
        self.loaded = time.time()
        self.seconds = time.perf_counter() - begin
        self.calls = 0

    def _packer(
        self, features: list[dict[str, Any]], shapes: dict[str, Any], starts: dict[str, int]
    ) -> tuple[Callable[..., None], list[int] | None]:
        """Return what writes all numbers of a row at once, and the features' order in memory (None: the same)."""
        numbers = []
        for index, feature in enumerate(features):
            dtype = shapes[feature["tensor"]]["dtype"]
            if dtype != "string":
                size = struct.calcsize("=" + FORMATS[dtype])
                numbers.append((starts[feature["tensor"]] + feature["position"] * size, feature["width"], dtype, index))
        numbers.sort()
        layout, end = "=", 0
        for start, width, dtype, _ in numbers:
            layout += f"{start - end}x{width}{FORMATS[dtype]}"
            end = start + width * struct.calcsize("=" + FORMATS[dtype])
        order = [index for *_, index in numbers]
        return struct.Struct(layout).pack_into, None if order == list(range(len(features))) else order

    def runner(self, output: dict[str, Any]) -> Callable[[], Any]:
        """Return a function that scores the row in the buffers and gives one output of it.

        Its result is a Python number, boolean or string, or a list of them where a row has several.
        """
        if output["tensor"] not in self.runners:
            self.runners[output["tensor"]] = self._runner(output["tensor"], output["type"])
        return self.runners[output["tensor"]]

    def _runner(self, name: str, sql_type: str) -> Callable[[], Any]:
        many = sql_type.endswith("[]")
        sample = None if self.has_text else self.session.run([name], self.tensors)[0]
        if sample is None or sample.dtype.kind not in "fiub":
            run, names, tensors = self.session.run, [name], self.tensors

            def execute() -> Any:
                row = run(names, tensors)[0].reshape(-1).tolist()
                return row if many else row[0]

        else:
            wrap = onnx_runtime().OrtValue.ortvalue_from_numpy
            binding = self.session.io_binding()
            for key, array in self.tensors.items():
                binding.bind_ortvalue_input(key, wrap(array))
            # the binding keeps addresses only: `result` lives as long as the closure that reads it
            result = sample.copy()
            binding.bind_ortvalue_output(name, wrap(result))
            run_bound, values, first = self.session.run_with_iobinding, result.reshape(-1).tolist, result.item

            def execute() -> Any:
                run_bound(binding)
                return values() if many else first(0)

        if sql_type == "boolean":
            return lambda: bool(execute())
        if sql_type == "boolean[]":
            return lambda: [bool(value) for value in execute()]
        return execute
