"""What runs inside the server: a model's session, its bound buffers, and the calls that PL/Python makes.

This text is installed into the bodies of the PL/Python functions (sql/015_engine.sql), which run it once in a
backend and keep the module in `GD`; so the server needs no copy of dbscore, and the two can never be of different
versions. It may import the standard library, numpy and onnxruntime only. `plpy` is put into the module by the
function that runs it. Errors are raised through `plpy.error`, which takes a SQLSTATE and a hint.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import struct
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import plpy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import onnxruntime as ort

# relative to the data directory, which is every backend's working directory
DIRECTORY = "dbscore"
# what a parallel worker may keep; the leader reads the setting dbscore.session_cache when it pins a model
CACHE_BYTES = 1 << 30
# a bytea is read from its table in slices, so that a large model is never in memory three times
SLICE_BYTES = 1 << 24
CACHE_LINE = 64
FORMATS = {"float32": "f", "float64": "d", "int32": "i", "int64": "q", "bool": "?"}
SHOWN = 200


def path_of(sha256: str) -> str:
    """Return the file that holds a model, named by its content."""
    return os.path.join(DIRECTORY, sha256 + ".onnx")  # noqa: PTH118 - pathlib costs 5 ms at the first call


class Sessions:
    """The models that this backend has loaded, least recently used first.

    Attributes:
        models: By sha256.
        verified: Size, modification time and inode of the files this backend has compared with their hash.
        limit: How many bytes of models may stay loaded.
    """

    def __init__(self) -> None:
        self.models: OrderedDict[str, Model] = OrderedDict()
        self.verified: dict[str, tuple[int, int, int]] = {}
        self.limit = CACHE_BYTES

    def get(self, sha256: str, signature: dict[str, Any]) -> Model:
        """Return the model of that hash, loading it if this backend does not have it."""
        model = self.models.get(sha256)
        if model is not None:
            self.models.move_to_end(sha256)
            return model
        content = self._read(sha256)
        try:
            model = Model(content, signature)
        except ImportError as error:
            plpy.error(
                f"the server's Python cannot import what scoring needs: {error}",
                hint="Run `dbscore status`: it names the command that installs it for this server's Python.",
                sqlstate="ML009",
            )
        total = model.bytes + sum(other.bytes for other in self.models.values())
        while self.models and total > self.limit:
            total -= self.models.popitem(last=False)[1].bytes
        self.models[sha256] = model
        return model

    def _read(self, sha256: str) -> bytes:
        path = path_of(sha256)
        try:
            with open(path, "rb") as file:
                content = file.read()
        except FileNotFoundError:
            content = b""
        if hashlib.sha256(content).hexdigest() != sha256:
            # a parallel worker cannot read the table, so the next query's leader writes the file anew
            self.forget(sha256)
            plpy.error(
                f"the server's copy of model {sha256} was missing or damaged, and has been removed",
                hint="Run the query again: the copy is written anew from the table dbscore.artifact.",
                sqlstate="ML005",
            )
        return content

    def forget(self, sha256: str) -> None:
        """Drop the session and the file; both come back when they are needed."""
        self.models.pop(sha256, None)
        self.verified.pop(sha256, None)
        if os.path.exists(path_of(sha256)):
            os.unlink(path_of(sha256))


SESSIONS = Sessions()


def pin(sha256: str) -> str:
    """Make sure that the model's file is there and is what its name says; return the hash.

    The planner calls it, in the leader, where SQL may be run, before any parallel worker starts.
    """
    path = path_of(sha256)
    try:
        if SESSIONS.verified.get(sha256) == _identity(path):
            return sha256
        with open(path, "rb") as file:
            intact = hashlib.file_digest(file, "sha256").hexdigest() == sha256
    except FileNotFoundError:
        intact = False
    if not intact:
        _write(sha256, path)
    SESSIONS.verified[sha256] = _identity(path)
    size = plpy.execute("select pg_catalog.current_setting('dbscore.session_cache', true) as size")[0]["size"]
    if size:
        statement = f"select pg_catalog.pg_size_bytes({plpy.quote_literal(size)}) as bytes"
        SESSIONS.limit = plpy.execute(statement)[0]["bytes"]
    return sha256


def _identity(path: str) -> tuple[int, int, int]:
    stat = os.stat(path)
    return stat.st_size, stat.st_mtime_ns, stat.st_ino


def _write(sha256: str, path: str) -> None:
    """Write the model's file from its table, whole or not at all."""
    digest = hashlib.sha256()
    partial = f"{path}.{os.getpid()}"
    try:
        os.makedirs(DIRECTORY, mode=0o700, exist_ok=True)
        with open(partial, "wb") as file:
            for piece in _stored(sha256):
                file.write(piece)
                digest.update(piece)
            file.flush()
            os.fsync(file.fileno())
        if digest.hexdigest() != sha256:
            plpy.error(
                f"the bytes stored for model {sha256} have the hash {digest.hexdigest()}",
                hint="The table dbscore.artifact was altered: restore it from a backup, or deploy the model again.",
                sqlstate="ML005",
            )
        os.replace(partial, path)
    except OSError as error:
        plpy.error(
            f"cannot write the model's file {path} in the data directory: {error}",
            hint=f"Make room, or mend the rights of the directory {DIRECTORY!r} in the data directory.",
            sqlstate="ML009",
        )
    finally:
        if os.path.exists(partial):
            os.unlink(partial)


def _stored(sha256: str) -> Iterator[bytes]:
    """Yield the model's bytes from the table, a slice at a time."""
    plan = plpy.prepare(
        "select pg_catalog.substring(bytes, $2, $3) as slice from dbscore.artifact where sha256 = $1",
        ["text", "integer", "integer"],
    )
    start = 1
    while True:
        rows = plpy.execute(plan, [sha256, start, SLICE_BYTES])
        if not rows:
            plpy.error(
                f"model {sha256} is not in dbscore.artifact",
                hint="Restore the schema dbscore from a backup, or deploy the model again.",
                sqlstate="ML005",
            )
        if not rows[0]["slice"]:
            return
        yield rows[0]["slice"]
        start += SLICE_BYTES


def session_options() -> ort.SessionOptions:
    """Return the options of every session: one thread, since parallelism is PostgreSQL's."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # what a batch needed is given back, not kept for the life of the backend
    options.enable_cpu_mem_arena = False
    return options


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
        import numpy as np
        import onnxruntime as ort

        begin, before = time.perf_counter(), _resident_bytes()
        self.session = ort.InferenceSession(content, session_options(), providers=["CPUExecutionProvider"])
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
        import onnxruntime as ort

        many = sql_type.endswith("[]")
        sample = None if self.has_text else self.session.run([name], self.tensors)[0]
        if sample is None or sample.dtype.kind not in "fiub":
            run, names, tensors = self.session.run, [name], self.tensors

            def execute() -> Any:
                row = run(names, tensors)[0].reshape(-1).tolist()
                return row if many else row[0]

        else:
            binding = self.session.io_binding()
            for key, array in self.tensors.items():
                binding.bind_ortvalue_input(key, ort.OrtValue.ortvalue_from_numpy(array))
            # the binding keeps addresses only: `result` lives as long as the closure that reads it
            result = sample.copy()
            binding.bind_ortvalue_output(name, ort.OrtValue.ortvalue_from_numpy(result))
            run_bound, values, first = self.session.run_with_iobinding, result.reshape(-1).tolist, result.item

            def execute() -> Any:
                run_bound(binding)
                return values() if many else first(0)

        if sql_type == "boolean":
            return lambda: bool(execute())
        if sql_type == "boolean[]":
            return lambda: [bool(value) for value in execute()]
        return execute


class Row:
    """How one row's values become the model's input: the NULL rule, the checks, the writing into the buffers."""

    def __init__(self, name: str, features: list[dict[str, Any]]) -> None:
        self.name = name
        self.features = features
        self.required = [i for i, f in enumerate(features) if f["null_policy"] == "null"]
        # one sum over numbers that are all finite is finite, which settles nearly every row
        self.summable = all(f["type"] != "text" and not f["type"].endswith("[]") for f in features)
        bounds = [f["largest"] for f in features if f["largest"] is not None]
        self.largest = min(bounds) if bounds else None

    def refuse(self, message: str, hint: str) -> None:
        """Raise ML002 for a value that the model cannot take."""
        plpy.error(f"{self.name}: {message}", hint=hint, sqlstate="ML002")

    def fill(self, model: Model, values: Sequence[Any]) -> bool:
        """Write the values, in the order of the features; return False where a NULL makes the prediction NULL."""
        given = values
        if None in values:
            for index in self.required:
                if values[index] is None:
                    return False
            given = [v for v in values if v is not None]
            values = [self._missing(f) if v is None else v for f, v in zip(self.features, values, strict=True)]
        if self.summable and given:
            try:
                total = sum(given)
                bound = self.largest
                if total - total == 0.0 and (bound is None or (max(given) <= bound and min(given) >= -bound)):
                    if model.order is not None:
                        values = [values[i] for i in model.order]
                    model.pack(model.memory, 0, *values)
                    return True
            except (OverflowError, struct.error):
                # a number out of the tensor's range: found and named below
                pass
        for feature, value, place in zip(self.features, values, model.places, strict=True):
            self._write(feature, value, *place)
        return True

    def _write(self, feature: dict[str, Any], value: Any, array: Any, start: int, width: int) -> None:
        value = self._checked(feature, value)
        try:
            array[start : start + width] = value
        except (OverflowError, ValueError, TypeError) as error:
            self.refuse(
                f"feature {feature['name']} is {value!r:.{SHOWN}}, which the model's {array.dtype} cannot hold: {error}",
                "Pass a value in the range of the feature's type.",
            )

    @staticmethod
    def _missing(feature: dict[str, Any]) -> Any:
        """Return what stands for NULL in the model's input."""
        if feature["type"] == "text":
            return None
        return [math.nan] * feature["width"] if feature["type"].endswith("[]") else math.nan

    def _checked(self, feature: dict[str, Any], value: Any) -> Any:
        if feature["type"] == "text":
            return self._text(feature, value)
        if not feature["type"].endswith("[]"):
            return self._number(feature, value)
        width = feature["width"]
        if len(value) != width or any(isinstance(v, list) for v in value):
            self.refuse(
                f"feature {feature['name']} is an array of {len(value)} elements, not of {width} numbers",
                f"Pass a one-dimensional array of {width} numbers.",
            )
        if None in value and feature["null_policy"] == "null":
            self.refuse(
                f"feature {feature['name']} has a NULL as its element {value.index(None) + 1}",
                "Pass numbers only, or NULL for the whole array.",
            )
        return [math.nan if v is None else self._number(feature, v) for v in value]

    def _text(self, feature: dict[str, Any], value: str | None) -> str:
        if value is None:
            return feature["missing"]  # type: ignore[no-any-return]
        if value == feature["missing"]:
            self.refuse(
                f"feature {feature['name']} is {value!r}, the text that stands for a missing value in this model",
                "Pass NULL for a missing value.",
            )
        known = feature["categories"]
        if known is not None and value not in known:
            listed = ", ".join(repr(c) for c in known[:20]) + (", …" if len(known) > 20 else "")  # noqa: PLR2004
            self.refuse(
                f"feature {feature['name']} has the category {value!r:.{SHOWN}}, unknown to the model",
                f"Pass one of {listed}; or fit the encoder with handle_unknown='ignore' and deploy again.",
            )
        return value

    def _number(self, feature: dict[str, Any], value: Any) -> Any:
        problem = ""
        if value != value:  # noqa: PLR0124 - NaN, of any numeric type
            if feature["null_policy"] == "null":
                problem = "NaN, and the model was not trained with missing values"
        elif value in (math.inf, -math.inf):
            if not feature["accepts_infinity"]:
                problem = f"{'Infinity' if value > 0 else '-Infinity'}, which the model does not take"
        elif feature["largest"] is not None and abs(value) > feature["largest"]:
            problem = f"{value!r}, beyond the largest number that the model takes, {feature['largest']!r}"
        if problem:
            self.refuse(
                f"feature {feature['name']} is {problem}",
                "Pass a finite number, or NULL for a NULL prediction.",
            )
        return value

    def from_array(self, numbers: list[Any], texts: list[Any] | None) -> list[Any]:
        """Return the values of a row given as one flat array of its numbers and one of its texts."""
        expected = sum(f["width"] for f in self.features if f["type"] != "text")
        if len(numbers) != expected or any(isinstance(n, list) for n in numbers[:1]):
            self.refuse(
                f"the array has {len(numbers)} elements, the model takes {expected} numbers",
                "Pass one number per feature, in the order that the function's comment gives.",
            )
        if texts is None and expected == len(self.features):
            return [self._typed_number(f, n) for f, n in zip(self.features, numbers, strict=True)]
        values, at, words = [], 0, iter(texts or ())
        for feature in self.features:
            if feature["type"] == "text":
                values.append(next(words))
            else:
                piece = [self._typed_number(feature, n) for n in numbers[at : at + feature["width"]]]
                values.append(piece if feature["type"].endswith("[]") else piece[0])
                at += feature["width"]
        return values

    def from_json(self, text: str) -> list[Any]:
        """Return the values of a row given as a JSON object, one value per feature by name; null is NULL."""
        row = json.loads(text)
        names = [f["name"] for f in self.features]
        if not isinstance(row, dict):
            self.refuse(
                f"the features are {text:.{SHOWN}}, not a JSON object",
                f"Pass an object with {', '.join(names)}.",
            )
        missing, unknown = [n for n in names if n not in row], [n for n in row if n not in names]
        if missing or unknown:
            said = [f"feature {n} is missing" for n in missing] + [f"feature {n!r} is unknown" for n in unknown]
            self.refuse("; ".join(said), f"Pass exactly {', '.join(names)}; null is a missing value.")
        return [self._typed(f, row[f["name"]]) for f in self.features]

    def _typed_number(self, feature: dict[str, Any], value: Any) -> Any:
        """Return the number that the feature's SQL type would hold: a real has 24 bits."""
        if value is None or feature["type"] not in ("real", "real[]"):
            return value
        try:
            return struct.unpack("f", struct.pack("f", value))[0]
        except OverflowError:
            self.refuse(
                f"feature {feature['name']} is {value!r}, out of range for type real", "Pass a smaller number."
            )

    def _typed(self, feature: dict[str, Any], value: Any) -> Any:
        """Return a JSON value as the feature's SQL type would hold it, or refuse it."""
        kind = feature["type"]
        if kind.endswith("[]"):
            right = isinstance(value, list) and all(v is None or type(v) in (int, float) for v in value)
        elif kind == "text":
            right = isinstance(value, str)
        elif kind == "boolean":
            right = isinstance(value, bool)
        elif kind in ("real", "double precision"):
            right = type(value) in (int, float)
        else:
            right = type(value) is int
        if value is not None and not right:
            self.refuse(
                f"feature {feature['name']} is {json.dumps(value):.{SHOWN}}, not of type {kind}",
                "Pass a JSON value of the feature's type: a number, true or false, a string, an array of numbers.",
            )
        if kind.endswith("[]"):
            return None if value is None else [self._typed_number(feature, v) for v in value]
        return self._typed_number(feature, value)


def scorer(name: str, sha256: str, signature_json: str, form: str, result: str) -> Callable[[list[Any]], Any]:
    """Return the call that one PL/Python function makes with its arguments.

    Args:
        name: The version, for messages: `tip_v3`.
        sha256: The model.
        signature_json: Its signature.
        form: `row`: one argument per feature; `array`: numbers, and texts where there are any; `json`: an object.
            In front of them stands the pinned hash, which the planner needs and nothing here does.
        result: `prediction`, `proba` (a list, in the order of the classes), `score` (the second class's), or
            `json` (all of them).
    """
    signature = json.loads(signature_json)
    row = Row(name, signature["features"])
    outputs = {o["kind"]: o for o in signature["outputs"]}
    wanted = outputs["probabilities" if result in ("proba", "score") else "prediction"]
    find, touch, get = SESSIONS.models.get, SESSIONS.models.move_to_end, SESSIONS.get

    def read(args: list[Any]) -> Sequence[Any]:
        if form == "json":
            return row.from_json(args[1])
        return row.from_array(args[1], args[2] if len(args) > 2 else None)  # noqa: PLR2004

    def call(args: list[Any]) -> Any:
        values = args[1:] if form == "row" else read(args)
        model = find(sha256)
        if model is None:
            model = get(sha256, signature)
        else:
            touch(sha256)
        if not row.fill(model, values):
            return json.dumps(dict.fromkeys(outputs)) if result == "json" else None
        model.calls += 1
        try:
            answer = model.runner(wanted)()
            if result == "score":
                return answer[1]
            return _as_json(model, signature, outputs, answer) if result == "json" else answer
        except Exception as error:  # noqa: BLE001 - whatever ONNX Runtime says of this row
            row.refuse(
                f"ONNX Runtime cannot score the row {list(values)!r:.{SHOWN}}: {error}",
                "Correct the row's values.",
            )

    return call


def _as_json(model: Model, signature: dict[str, Any], outputs: dict[str, Any], prediction: Any) -> str:
    """Return a row's prediction and, for a classifier that has them, its probabilities by class."""
    answer = {"prediction": prediction}
    if "probabilities" in outputs:
        names = [c if isinstance(c, str) else json.dumps(c) for c in signature["classes"]]
        answer["probabilities"] = dict(zip(names, model.runner(outputs["probabilities"])(), strict=True))
    return json.dumps(_finite(answer))


def _finite(value: Any) -> Any:
    """Return JSON values in which NaN and the infinities, which JSON has not, are strings."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_finite(v) for v in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def sessions() -> list[tuple[str, int, int, float, str]]:
    """Return what this backend has loaded: sha256, bytes, calls, seconds to load, when (ISO 8601, UTC)."""
    return [
        (sha, m.bytes, m.calls, m.seconds, time.strftime("%Y-%m-%dT%H:%M:%S+00", time.gmtime(m.loaded)))
        for sha, m in SESSIONS.models.items()
    ]
