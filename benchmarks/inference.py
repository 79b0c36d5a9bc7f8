"""ONNX Runtime in this process, on arrays in memory: the deployed version's own bytes, as fast as they go."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime as ort

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dbscore.signature import Signature

__all__ = ["Answers", "Scorer", "best_scorer"]

Feeds = dict[str, np.ndarray]

SLICES = (1_000, 10_000, 50_000, 200_000)
TRIAL_ROWS = 200_000
TRIALS = 2


@dataclass(frozen=True, slots=True)
class Answers:
    """What the model says: labels of shape (n,), probabilities of shape (n, classes)."""

    labels: np.ndarray
    probabilities: np.ndarray


class Scorer:
    """A session, the slices that it is given, and whose threads work on them.

    Args:
        content: The version's ONNX bytes.
        signature: What it takes and gives.
        threads: How many threads work.
        slice_rows: How many rows a call of `session.run` has.
        own_threads: Whether the threads are ONNX Runtime's, within a call; else each takes a slice of its own.
    """

    def __init__(
        self, content: bytes, signature: Signature, *, threads: int, slice_rows: int, own_threads: bool = True
    ) -> None:
        if signature.probabilities is None or signature.classes is None:
            raise ValueError("the benchmark's models are classifiers")
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads if own_threads else 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        self._pool = None if own_threads else ThreadPoolExecutor(threads)
        self._signature = signature
        self._outputs = [signature.prediction.tensor, signature.probabilities.tensor]
        self._slice = slice_rows
        self.classes = len(signature.classes)
        whose = "its own" if own_threads else "Python's"
        self.told = f"slices of {slice_rows:,}" + (f", {whose} threads" if threads > 1 else "")

    def feeds(self, values: np.ndarray) -> Feeds:
        """Return the model's inputs for rows of features, shape (n, features), in the signature's order."""
        found = {}
        for tensor in self._signature.tensors:
            own = [(f.position, i) for i, f in enumerate(self._signature.features) if f.tensor == tensor.name]
            columns = [i for _, i in sorted(own)]
            whole = columns == list(range(values.shape[1]))
            array = values if whole else values[:, columns]
            found[tensor.name] = np.ascontiguousarray(array, dtype=tensor.dtype)
        return found

    def run(self, feeds: Feeds) -> Answers:
        """Score rows that are already as the model takes them."""
        rows = len(next(iter(feeds.values())))
        answers = Answers(np.empty(rows, np.int64), np.empty((rows, self.classes), np.float64))

        def one(begin: int) -> None:
            end = min(begin + self._slice, rows)
            piece = {name: array[begin:end] for name, array in feeds.items()}
            answers.labels[begin:end], answers.probabilities[begin:end] = self._session.run(self._outputs, piece)

        begins = range(0, rows, self._slice)
        for _ in map(one, begins) if self._pool is None else self._pool.map(one, begins):
            pass
        return answers

    def score(self, values: np.ndarray) -> Answers:
        """Score rows of features, shape (n, features)."""
        return self.run(self.feeds(values))


def best_scorer(
    content: bytes, signature: Signature, values: np.ndarray, *, threads: int, slices: Sequence[int] = SLICES
) -> Scorer:
    """Return the fastest scorer with so many threads, by a trial on the first rows."""
    sample = values[:TRIAL_ROWS]
    best: tuple[float, Scorer] | None = None
    for own_threads in (True, False) if threads > 1 else (True,):
        for slice_rows in slices:
            scorer = Scorer(content, signature, threads=threads, slice_rows=slice_rows, own_threads=own_threads)
            feeds = scorer.feeds(sample)
            scorer.run({name: array[:1_000] for name, array in feeds.items()})
            for _ in range(TRIALS):
                begin = time.perf_counter()
                scorer.run(feeds)
                seconds = time.perf_counter() - begin
                if best is None or seconds < best[0]:
                    best = seconds, scorer
    if best is None:
        raise ValueError("no slices to try")
    return best[1]
