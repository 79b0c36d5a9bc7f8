"""Many rows at once: columns of values become the model's tensors, its answers arrays."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

from dbscore.runtime.answers import Answer, alike, typed
from dbscore.runtime.row import SHOWN, Refusal, Row

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np

    from dbscore.runtime.model import Model

# NULL among numbers is a NaN that no computation makes; sql/010_frame.sql has the same bits
NULL_BITS = {8: 0x7FF8000000000DB5, 4: 0x7FC00DB5}
# what an array feature's shape says, behind its numbers: that it fits, has several dimensions or no element, else how
# many elements; NULL where the array is
FITS, NESTED, EMPTY = 0, -1, -2
# a slice is short enough to be cancelled within a second, and small enough for the processor's cache
SLICE_SECONDS = 0.05
FIRST_SLICE, LARGEST_SLICE = 256, 4096
TICK_SECONDS = 0.1


class Batch:
    """How many rows' values become the model's tensors: the rules are Row's, applied to whole columns.

    Whatever a column-wise look cannot pass as certainly good is given to Row, one row at a time: so both lanes
    accept the same rows, and refuse with the same words.

    Attributes:
        dtype: Of the frame's numbers: float32 where every feature is a real, else float64.
        width: How many numbers a row has; an array feature has one more, for its shape.
        integers: The bigint features that go into an int64 tensor, in a frame of their own: each a value, and 1
            where it is NULL.
        texts: The text features.
    """

    def __init__(self, name: str, signature: dict[str, Any]) -> None:
        self.features = signature["features"]
        self.tensors = {t["name"]: t for t in signature["tensors"]}
        self.row = Row(name, self.features)
        self.texts = [i for i, f in enumerate(self.features) if f["type"] == "text"]
        self.integers = [
            i
            for i, f in enumerate(self.features)
            if f["type"] == "bigint" and self.tensors[f["tensor"]]["dtype"] == "int64"
        ]
        apart = {*self.texts, *self.integers}
        numbers = [i for i in range(len(self.features)) if i not in apart]
        real = all(self.features[i]["type"] in ("real", "real[]") for i in numbers)
        self.dtype = "float32" if numbers and real else "float64"
        self.starts: dict[int, int] = {}
        # where the features' values are, between the arrays' shapes
        self.blocks: list[tuple[int, int]] = []
        self.width = begin = 0
        for index in numbers:
            self.starts[index] = self.width
            self.width += self.features[index]["width"]
            if self._has_shape(index):
                self.blocks.append((begin, self.width))
                self.width = begin = self.width + 1
        if begin < self.width:
            self.blocks.append((begin, self.width))
        outputs = {o["kind"]: o for o in signature["outputs"]}
        self.prediction, self.probabilities = outputs["prediction"], outputs.get("probabilities")

    def _has_shape(self, index: int) -> bool:
        return bool(self.features[index]["type"].endswith("[]"))

    def score(
        self,
        model: Model,
        numbers: np.ndarray[Any, Any] | None,
        integers: np.ndarray[Any, Any] | None,
        texts: Sequence[Sequence[str | None]],
        *,
        tick: Callable[[], object] = lambda: None,
    ) -> Answer:
        """Score rows.

        Args:
            model: The loaded model.
            numbers: Shape (rows, width), of `dtype`, NULL as the NaN of `NULL_BITS`; None where the width is 0.
            integers: int64, shape (rows, 2 * len(self.integers)); None where there are none.
            texts: One sequence per text feature, of one value a row.
            tick: Called every tenth of a second or so, between slices: it may raise to cancel.
        """
        import numpy as np

        columns = [c for c in (numbers, integers, *texts) if c is not None]
        rows = len(columns[0]) if columns else 0
        if any(len(c) != rows for c in columns):
            raise Refusal(
                f"{self.row.name}: the parts of the frame have {', '.join(str(len(c)) for c in columns)} rows",
                "Pack numbers, integers and texts of the same rows.",
            )
        nulls, suspects = np.zeros(rows, bool), np.zeros(rows, bool)
        numbers = np.zeros((rows, 0), self.dtype) if numbers is None else np.ascontiguousarray(numbers)
        integers = np.zeros((rows, 0), np.int64) if integers is None else integers
        self._look_at_numbers(numbers, nulls, suspects)
        for place, index in enumerate(self.integers):
            self._look_at_integers(index, integers[:, 2 * place], integers[:, 2 * place + 1], nulls, suspects)
        words = [self._look_at_texts(i, column, nulls, suspects) for i, column in zip(self.texts, texts)]
        errors: dict[int, str] = {}

        def values(row: int) -> list[Any]:
            return self._values(row, numbers, integers, texts)

        for row in np.flatnonzero(suspects & ~nulls).tolist():
            try:
                nulls[row] = not self.row.fill(model, values(row))
            except Refusal as refusal:
                errors[row], nulls[row] = refusal.message, True
        with np.errstate(all="ignore"):
            feeds = {t: self._tensor(t, numbers, integers, words, nulls, rows) for t in self.tensors}
        outputs = self._run(model, feeds, tick, nulls, errors, values)
        model.calls += rows
        return Answer(outputs[0], outputs[1] if self.probabilities else None, nulls, errors)

    # --- looking for rows that need a closer look ---

    def _look_at_numbers(
        self, numbers: np.ndarray[Any, Any], nulls: np.ndarray[Any, Any], suspects: np.ndarray[Any, Any]
    ) -> None:
        import numpy as np

        finite = all(bool(np.isfinite(numbers[:, begin:end]).all()) for begin, end in self.blocks)
        for index, start in self.starts.items():
            feature = self.features[index]
            values = numbers[:, start : start + feature["width"]]
            dtype = self.tensors[feature["tensor"]]["dtype"]
            if not finite:
                takes_nan = feature["null_policy"] == "nan" and dtype.startswith("float")
                if not takes_nan:
                    suspects |= np.isnan(values).any(axis=1)
                if not feature["accepts_infinity"]:
                    suspects |= np.isinf(values).any(axis=1)
                if feature["null_policy"] == "null" and not self._has_shape(index):
                    nulls |= _is_null(values[:, 0])
            if self._has_shape(index):
                self._look_at_shapes(index, numbers[:, start + feature["width"]], nulls, suspects)
            if feature["largest"] is not None:
                suspects |= (np.abs(values) > _at_most(feature["largest"], values.dtype)).any(axis=1)
            if dtype.startswith("int"):
                limits = np.iinfo(dtype)
                # the largest int64 is no float64; the next one down is
                suspects |= ~((values >= limits.min) & (values < float(limits.max) + 1)).all(axis=1)
            if feature["categories"] is not None:
                known = np.array([float(c) for c in feature["categories"]])
                suspects |= ~(np.isin(values.astype(np.float64), known) | np.isnan(values)).all(axis=1)

    def _look_at_shapes(
        self, index: int, shapes: np.ndarray[Any, Any], nulls: np.ndarray[Any, Any], suspects: np.ndarray[Any, Any]
    ) -> None:
        import numpy as np

        suspects |= (shapes != FITS) & ~np.isnan(shapes)
        if self.features[index]["null_policy"] == "null":
            # a NULL as an element of an array is refused, a NULL for all of it gives NULL
            nulls |= _is_null(shapes)

    def _look_at_integers(
        self,
        index: int,
        values: np.ndarray[Any, Any],
        missing: np.ndarray[Any, Any],
        nulls: np.ndarray[Any, Any],
        suspects: np.ndarray[Any, Any],
    ) -> None:
        import numpy as np

        feature = self.features[index]
        (nulls if feature["null_policy"] == "null" else suspects)[missing != 0] = True
        if feature["largest"] is not None:
            suspects |= np.abs(values.astype(np.float64)) > feature["largest"]
        if feature["categories"] is not None:
            suspects |= ~np.isin(values, np.array([int(c) for c in feature["categories"]], np.int64))

    def _look_at_texts(
        self,
        index: int,
        values: Sequence[str | None],
        nulls: np.ndarray[Any, Any],
        suspects: np.ndarray[Any, Any],
    ) -> Sequence[str | None]:
        """Return the column as the model's input has it, NULL as what stands for it there."""
        feature = self.features[index]
        missing, known = feature["missing"], feature.get("known")
        absent = [row for row, value in enumerate(values) if value is None] if None in values else []
        if feature["null_policy"] == "null":
            nulls[absent] = True
        elif missing is None:
            suspects[absent] = True
        if missing is not None and missing in values:
            suspects[[row for row, value in enumerate(values) if value == missing]] = True
        if known is not None and not known.issuperset(values):
            suspects[[row for row, value in enumerate(values) if value is not None and value not in known]] = True
        if not absent:
            return values
        stand_in = "" if missing is None else missing
        return [stand_in if value is None else value for value in values]

    def _values(
        self,
        row: int,
        numbers: np.ndarray[Any, Any],
        integers: np.ndarray[Any, Any],
        texts: Sequence[Sequence[str | None]],
    ) -> list[Any]:
        """Return one row as the values that a call would have had."""
        values: list[Any] = [None] * len(self.features)
        for index, start in self.starts.items():
            values[index] = self._value(index, numbers[row, start : start + self.features[index]["width"] + 1])
        for place, index in enumerate(self.integers):
            value, missing = integers[row, 2 * place : 2 * place + 2].tolist()
            values[index] = None if missing else value
        for index, column in zip(self.texts, texts):
            values[index] = column[row]
        return values

    def _value(self, index: int, numbers: np.ndarray[Any, Any]) -> Any:
        feature = self.features[index]
        width, kind = feature["width"], feature["type"]
        null, plain = _is_null(numbers).tolist(), numbers.tolist()
        if self._has_shape(index):
            if null[width]:
                return None
            if plain[width] != FITS:
                count = 0 if plain[width] == EMPTY else int(plain[width])
                said = "of more than one dimension" if plain[width] == NESTED else f"of {count} elements"
                self.row.refuse(
                    f"feature {feature['name']} is an array {said}, not of {width} numbers",
                    f"Pass a one-dimensional array of {width} numbers.",
                )
            return [None if n else v for n, v in zip(null[:width], plain)]
        if null[0]:
            return None
        if kind in ("smallint", "integer", "bigint") and not math.isnan(plain[0]):
            return int(plain[0])
        return bool(plain[0]) if kind == "boolean" else plain[0]

    # --- scoring ---

    def _tensor(
        self,
        name: str,
        numbers: np.ndarray[Any, Any],
        integers: np.ndarray[Any, Any],
        words: Sequence[Sequence[str | None]],
        nulls: np.ndarray[Any, Any],
        rows: int,
    ) -> np.ndarray[Any, Any]:
        """Return one of the model's inputs for all rows; a row without a prediction may hold anything it takes."""
        import numpy as np

        tensor = self.tensors[name]
        indices = [i for i, f in enumerate(self.features) if f["tensor"] == name]
        if tensor["width"] == numbers.shape[1] and numbers.dtype == tensor["dtype"]:
            places = [(self.features[i]["position"], self.starts.get(i)) for i in indices]
            if len(indices) == len(self.starts) and all(position == start for position, start in places):
                return numbers if tensor["rank"] != 1 else numbers.reshape(-1)
        text = tensor["dtype"] == "string"
        filled = np.zeros((rows, tensor["width"]), object if text else tensor["dtype"])
        for index in indices:
            position, width = self.features[index]["position"], self.features[index]["width"]
            if text:
                filled[:, position] = words[self.texts.index(index)]
            elif index in self.integers:
                filled[:, position] = integers[:, 2 * self.integers.index(index)]
            else:
                filled[:, position : position + width] = numbers[:, self.starts[index] : self.starts[index] + width]
        if not text and filled.dtype.kind != "f":
            filled[nulls] = 0
        return filled if tensor["rank"] != 1 else filled.reshape(-1)

    def _run(
        self,
        model: Model,
        feeds: dict[str, np.ndarray[Any, Any]],
        tick: Callable[[], object],
        nulls: np.ndarray[Any, Any],
        errors: dict[int, str],
        values: Callable[[int], list[Any]],
    ) -> list[np.ndarray[Any, Any]]:
        """Run the model over slices of the rows; return the wanted outputs of all of them."""
        import numpy as np

        rows = len(nulls)
        wanted = [o for o in (self.prediction, self.probabilities) if o is not None]
        pieces: list[list[np.ndarray[Any, Any]]] = [[] for _ in wanted]
        fixed = model.session.get_inputs()[0].shape[0]
        largest = fixed if isinstance(fixed, int) and fixed > 0 else LARGEST_SLICE
        size, start, ticked = min(FIRST_SLICE, largest), 0, time.monotonic()
        while start < rows:
            end, begin = min(rows, start + size), time.monotonic()
            answers = self._slice(model, feeds, start, end, nulls, errors, values)
            for piece, output, answer in zip(pieces, wanted, answers):
                piece.append(typed(answer, output, end - start))
            start, now = end, time.monotonic()
            # as many rows as are scored in a twentieth of a second; it grows step by step
            size = max(1, min(largest, int(size * min(4.0, SLICE_SECONDS / max(now - begin, 1e-9)))))
            if now - ticked > TICK_SECONDS:
                tick()
                ticked = time.monotonic()
        return [
            np.concatenate(piece) if len(piece) > 1 else piece[0] if piece else typed(np.empty(0), output, 0)
            for piece, output in zip(pieces, wanted)
        ]

    def _slice(
        self,
        model: Model,
        feeds: dict[str, np.ndarray[Any, Any]],
        start: int,
        end: int,
        nulls: np.ndarray[Any, Any],
        errors: dict[int, str],
        values: Callable[[int], list[Any]],
    ) -> list[np.ndarray[Any, Any]]:
        """Run the model over a slice; where ONNX Runtime refuses it, find the row that it refuses."""
        import numpy as np

        wanted = [o for o in (self.prediction, self.probabilities) if o is not None]
        try:
            answers = model.session.run([o["tensor"] for o in wanted], {k: v[start:end] for k, v in feeds.items()})
        except Exception as error:  # noqa: BLE001 - whatever ONNX Runtime says of these rows
            if end - start > 1:
                middle = (start + end) // 2
                halves = (
                    self._slice(model, feeds, start, middle, nulls, errors, values),
                    self._slice(model, feeds, middle, end, nulls, errors, values),
                )
                return [np.concatenate(alike(*pair)) for pair in zip(*halves)]
            if not nulls[start]:
                shown = f"{values(start)!r:.{SHOWN}}"
                errors[start] = f"{self.row.name}: ONNX Runtime cannot score the row {shown}: {error}"
                nulls[start] = True
            return [np.empty((1, 0)) for _ in wanted]
        return [a.reshape(end - start, -1) for a in answers]


def _is_null(numbers: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return which numbers stand for NULL."""
    null: np.ndarray[Any, Any] = numbers.view(f"u{numbers.itemsize}") == NULL_BITS[numbers.itemsize]
    return null


def _at_most(bound: float, dtype: np.dtype[Any]) -> Any:
    """Return the largest number of the dtype that is not beyond the bound, which a conversion might round up."""
    import numpy as np

    with np.errstate(over="ignore"):
        rounded = np.float64(bound).astype(dtype)
    return np.nextafter(rounded, dtype.type(0)) if rounded > np.float64(bound) else rounded
