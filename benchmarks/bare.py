"""What bare Python costs: a program for the server's own Python, with numpy and onnxruntime and no dbscore.

    python3 bare.py load MODEL OUTPUT < feeds.json     import, load, answer one row
    python3 bare.py rows MODEL OUTPUT PASSES < feeds.json   answer the rows one by one

The feeds are JSON: the model's inputs, each with its name, dtype, rank and rows. Times are in seconds, from timers
inside the process; they go to standard output as JSON.
"""

import time

BEGIN = time.perf_counter()

# what Python itself needs for its own imports is measured with everything else
import json  # noqa: E402
import sys  # noqa: E402


def session_of(path: str):  # noqa: ANN201 - an onnxruntime class, not imported yet
    """Load the model as dbscore does: one thread, no memory kept."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.enable_cpu_mem_arena = False
    with open(path, "rb") as file:  # noqa: PTH123 - pathlib's import would be measured
        content = file.read()
    return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def feeds_of(inputs: list) -> list:
    """Return what `session.run` takes, row by row."""
    import numpy as np

    arrays = {}
    for one in inputs:
        dtype = object if one["dtype"] == "string" else one["dtype"]
        array = np.array(one["rows"], dtype)
        arrays[one["name"]] = array.reshape(-1) if one["rank"] == 1 else array
    count = len(inputs[0]["rows"])
    return [{name: array[i : i + 1].copy() for name, array in arrays.items()} for i in range(count)]


def load(path: str, output: str) -> dict:
    """Import, load, answer one row."""
    imported = time.perf_counter()
    import numpy  # noqa: ICN001, F401

    numpy_there = time.perf_counter()
    import onnxruntime  # noqa: F401

    there = time.perf_counter()
    session = session_of(path)
    loaded = time.perf_counter()
    feed = feeds_of(json.load(sys.stdin))[0]
    begin = time.perf_counter()
    session.run([output], feed)
    return {
        "standard_library": imported - BEGIN,
        "numpy": numpy_there - imported,
        "onnxruntime": there - numpy_there,
        "load": loaded - there,
        "first_run": time.perf_counter() - begin,
        "total": loaded - BEGIN,
    }


def rows(path: str, output: str, passes: int) -> dict:
    """Answer the rows one by one: with `run`, and with buffers bound once."""
    session = session_of(path)
    feeds = feeds_of(json.load(sys.stdin))
    names = [output]
    run = session.run
    seconds = {"run": [], "bound": []}
    for _ in range(passes):
        begin = time.perf_counter()
        for feed in feeds:
            run(names, feed)
        seconds["run"].append((time.perf_counter() - begin) / len(feeds))
        if all(array.dtype != object for array in feeds[0].values()):
            seconds["bound"].append(bound(session, output, feeds))
    return {name: sorted(values)[len(values) // 2] for name, values in seconds.items() if values}


def bound(session, output: str, feeds: list) -> float:  # noqa: ANN001
    """Answer the rows with IOBinding; return seconds per row, the copying in and the reading included."""
    import onnxruntime as ort

    binding = session.io_binding()
    buffers = {name: array.copy() for name, array in feeds[0].items()}
    for name, buffer in buffers.items():
        binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(buffer))
    result = session.run([output], feeds[0])[0].copy()
    binding.bind_ortvalue_output(output, ort.OrtValue.ortvalue_from_numpy(result))
    run = session.run_with_iobinding
    begin = time.perf_counter()
    for feed in feeds:
        for name, array in feed.items():
            buffers[name][...] = array
        run(binding)
        result.item(0)
    return (time.perf_counter() - begin) / len(feeds)


if __name__ == "__main__":
    _, task, model, wanted, *rest = sys.argv
    print(json.dumps(load(model, wanted) if task == "load" else rows(model, wanted, int(rest[0]))))
