"""Promotion of a large model's alias beside that of a tiny one's."""

from __future__ import annotations

import time
from itertools import pairwise
from statistics import median, quantiles
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from onnx import TensorProto, helper, numpy_helper

from benchmarks.bench import say
from benchmarks.report import Figure, ratio

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.bench import Bench

__all__ = ["measure"]

# the sides of the matrices between ten features and one number; four bytes a weight
SHAPES = {"tiny_model": (10, 1), "large_model": (10, 1_000, 12_500, 1)}


def measure(bench: Bench, *, rounds: int) -> Iterator[Figure]:
    """Yield the figure of promotion: both aliases go to and fro between two versions, by turns."""
    say("promotion: deploying")
    sizes = {}
    for name, sides in SHAPES.items():
        for seed in (1, 2):
            content = _network(sides, seed)
            sample = pd.DataFrame(np.zeros((5, 10), np.float32), columns=[f"x{i}" for i in range(10)])
            bench.client.deploy(name, content, sample=sample)
            sizes[name] = len(content)
    say("promotion: promoting")
    seconds: dict[str, list[float]] = {name: [] for name in SHAPES}
    for number in range(2 * rounds):
        # who goes first changes too: the first of a pair pays for what the pause let go
        for name in sorted(SHAPES, reverse=number // 2 % 2 == 1):
            begin = time.perf_counter()
            bench.client.promote(f"{name}:{1 + number % 2}")
            seconds[name].append(time.perf_counter() - begin)
    told = "; ".join(
        f"{sizes[name] / 1e3:,.1f} kB: {median(values) * 1e3:.1f} ms, quartiles "
        + " to ".join(f"{q * 1e3:.1f}" for q in quantiles(values)[::2])
        for name, values in seconds.items()
    )
    # "no longer" within what two equal things differ by on a shared machine
    yield Figure(
        arm="promotion",
        name="50 MB model, to 1 kB model",
        value=ratio(seconds["large_model"], seconds["tiny_model"]),
        at_most=1.05,
        detail=told,
        samples=seconds,
    )


def _network(sides: tuple[int, ...], seed: int) -> bytes:
    """Return an ONNX model of matrix products, float32, with random weights."""
    rng = np.random.default_rng(seed)
    weights, nodes, last = [], [], "features"
    for i, shape in enumerate(pairwise(sides)):
        weights.append(numpy_helper.from_array(rng.normal(size=shape).astype(np.float32) * 1e-3, f"w{i}"))
        output = "prediction" if i == len(sides) - 2 else f"hidden{i}"
        nodes.append(helper.make_node("MatMul", [last, f"w{i}"], [output]))
        last = output
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, [None, sides[0]])],
        [helper.make_tensor_value_info("prediction", TensorProto.FLOAT, [None, 1])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())
