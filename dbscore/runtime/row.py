"""How one row's values become the model's input: the NULL rule, the checks, the writing into the buffers."""

from __future__ import annotations

import json
import math
import struct
import sys
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dbscore.runtime.model import Model

# how much of a value an error message repeats
SHOWN = 200
LISTED = 20
# a boolean stands as 0 or 1 in an array of numbers
RANGES = {
    "boolean": (0, 1),
    "smallint": (-(2**15), 2**15 - 1),
    "integer": (-(2**31), 2**31 - 1),
    "bigint": (-(2**63), 2**63 - 1),
}


class Refusal(Exception):  # noqa: N818 - it is one, of one row
    """A row that the model cannot take: what is wrong with it, and what to do."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class Row:
    """How one row's values become the model's input: the NULL rule, the checks, the writing into the buffers."""

    def __init__(self, name: str, features: list[dict[str, Any]]) -> None:
        self.name = name
        self.features = features
        self.required = [i for i, f in enumerate(features) if f["null_policy"] == "null"]
        self.texts = [i for i, f in enumerate(features) if f["type"] == "text"]
        self.checked = [i for i, f in enumerate(features) if f["categories"] is not None and f["type"] != "text"]
        self.has_arrays = any(f["type"].endswith("[]") for f in features)
        for feature in features:
            if feature["categories"] is not None:
                feature["known"] = frozenset(feature["categories"])
        bounds = [f["largest"] for f in features if f["largest"] is not None]
        self.largest = min(bounds) if bounds else None

    def refusal(self, message: str, hint: str) -> Refusal:
        """Return the refusal of a value that the model cannot take."""
        return Refusal(f"{self.name}: {message}", hint)

    def refuse(self, message: str, hint: str) -> NoReturn:
        """Raise it."""
        raise self.refusal(message, hint)

    def fill(self, model: Model, values: Sequence[Any]) -> bool:
        """Write the values, in the order of the features; return False where a NULL makes the prediction NULL."""
        if None in values:
            for index in self.required:
                if values[index] is None:
                    return False
        if self.has_arrays or not self._pack(model, values):
            for feature, value, place in zip(self.features, values, model.places):
                self._write(feature, value, *place)
        else:
            for index in self.texts:
                self._write(self.features[index], values[index], *model.places[index])
        for index in self.checked:
            value, feature = values[index], self.features[index]
            # NaN, which equals nothing, has been looked at already
            if value is not None and value == value and value not in feature["known"]:  # noqa: PLR0124
                self._refuse_category(feature, value)
        return True

    def _pack(self, model: Model, values: Sequence[Any]) -> bool:
        """Write all numbers of a row at once; return False where one needs a closer look."""
        numbers = values if model.order is None else [values[i] for i in model.order]
        given = numbers
        if None in numbers:
            given = [n for n in numbers if n is not None]
            numbers = [math.nan if n is None else n for n in numbers]
        try:
            # the sum of finite numbers is finite, but for an overflow, which is looked at closely too
            total = sum(given)
            if total - total != 0.0:
                return False
            bound = self.largest
            if bound is not None and given and not (max(given) <= bound and min(given) >= -bound):
                return False
            model.pack(model.memory, 0, *numbers)
        except (OverflowError, struct.error):
            return False
        return True

    def _write(self, feature: dict[str, Any], value: Any, array: Any, start: int, width: int) -> None:
        """Write one feature's value, or refuse it."""
        if feature["type"] == "text":
            array[start] = self._text(feature, value)
            return
        if value is None:
            array[start : start + width] = math.nan
            return
        if feature["type"].endswith("[]"):
            self._refuse_shape(feature, value)
        try:
            # a NULL element becomes NaN
            array[start : start + width] = value
        except (OverflowError, ValueError, TypeError) as error:
            self.refuse(
                f"feature {feature['name']} is {value!r:.{SHOWN}}, not for the model's {array.dtype}: {error}",
                "Pass a value in the range of the feature's type.",
            )
        # neither NaN nor an infinity is within bounds
        bound = sys.float_info.max if feature["largest"] is None else feature["largest"]
        for number in value if isinstance(value, list) else (value,):
            if number is not None and not -bound <= number <= bound:
                self._refuse_number(feature, number)

    def _refuse_shape(self, feature: dict[str, Any], value: list[Any]) -> None:
        width = feature["width"]
        if len(value) != width or isinstance(value[0], list):
            # as Batch says it
            shape = (
                "of more than one dimension" if value and isinstance(value[0], list) else f"of {len(value)} elements"
            )
            self.refuse(
                f"feature {feature['name']} is an array {shape}, not of {width} numbers",
                f"Pass a one-dimensional array of {width} numbers.",
            )
        if None in value and feature["null_policy"] == "null":
            self.refuse(
                f"feature {feature['name']} has a NULL as its element {value.index(None) + 1}",
                "Pass numbers only, or NULL for the whole array.",
            )

    def _text(self, feature: dict[str, Any], value: str | None) -> str:
        if value is None:
            return feature["missing"]  # type: ignore[no-any-return]
        if value == feature["missing"]:
            self.refuse(
                f"feature {feature['name']} is {value!r}, the text that stands for a missing value in this model",
                "Pass NULL for a missing value.",
            )
        if feature["categories"] is not None and value not in feature["known"]:
            self._refuse_category(feature, value)
        return value

    def _refuse_category(self, feature: dict[str, Any], value: Any) -> None:
        known = feature["categories"]
        listed = ", ".join(repr(c) for c in known[:LISTED]) + (", ..." if len(known) > LISTED else "")
        self.refuse(
            f"feature {feature['name']} has the category {value!r:.{SHOWN}}, unknown to the model",
            f"Pass one of {listed}; or fit the encoder with handle_unknown='ignore' and deploy again.",
        )

    def _refuse_number(self, feature: dict[str, Any], value: Any) -> None:
        """Refuse a number that the native model refuses; the largest that it takes may be small, behind a scaler."""
        if value != value:  # noqa: PLR0124 - NaN, of any numeric type
            if feature["null_policy"] == "nan":
                return
            problem = "NaN, and the model was not trained with missing values"
        elif value in (math.inf, -math.inf):
            if feature["accepts_infinity"]:
                return
            problem = f"{'Infinity' if value > 0 else '-Infinity'}, which the model does not take"
        elif feature["largest"] is not None and abs(value) > feature["largest"]:
            problem = f"{value!r}, beyond the largest number that the model takes, {feature['largest']!r}"
        else:
            return
        self.refuse(f"feature {feature['name']} is {problem}", "Pass a finite number, or NULL for a NULL prediction.")

    def from_array(self, numbers: list[Any], texts: list[Any] | None) -> list[Any]:
        """Return the values of a row given as one flat array of its numbers and one of its texts."""
        expected = sum(f["width"] for f in self.features if f["type"] != "text")
        if len(texts or ()) != len(self.texts):
            self.refuse(
                f"the array of texts has {len(texts or ())} elements, the model takes {len(self.texts)}",
                "Pass one text per text feature, in the order that the function's comment gives.",
            )
        if len(numbers) != expected or any(isinstance(n, list) for n in numbers[:1]):
            self.refuse(
                f"the array has {len(numbers)} elements, the model takes {expected} numbers",
                "Pass one number per feature, in the order that the function's comment gives.",
            )
        if texts is None and expected == len(self.features):
            return [self._typed_number(f, f["type"], n) for f, n in zip(self.features, numbers)]
        values, at, words = [], 0, iter(texts or ())
        for feature in self.features:
            if feature["type"] == "text":
                values.append(next(words))
            else:
                piece = [
                    self._typed_number(feature, feature["type"].removesuffix("[]"), n)
                    for n in numbers[at : at + feature["width"]]
                ]
                values.append(piece if feature["type"].endswith("[]") else piece[0])
                at += feature["width"]
        return values

    def from_json(self, text: str) -> list[Any]:
        """Return the values of a row given as a JSON object, one value per feature by name; null is NULL."""
        try:
            row = json.loads(text)
        except (ValueError, RecursionError) as error:
            self.refuse(f"the features cannot be read: {error}", "Pass shorter numbers, and an object of plain values.")
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

    def _typed(self, feature: dict[str, Any], value: Any) -> Any:
        """Return a JSON value as the feature's SQL type would hold it, or refuse it."""
        kind = feature["type"]
        if value is None:
            return None
        if kind == "text" and isinstance(value, str):
            return value
        if kind == "boolean" and isinstance(value, bool):
            return value
        if kind.endswith("[]") and isinstance(value, list):
            return [self._typed_number(feature, kind[:-2], number) for number in value]
        if kind in ("text", "boolean") or kind.endswith("[]") or type(value) not in (int, float):
            self.refuse(
                f"feature {feature['name']} is {json.dumps(value):.{SHOWN}}, not of type {kind}",
                "Pass a JSON value of the feature's type: a number, true or false, a string, an array of numbers.",
            )
        return self._typed_number(feature, kind, value)

    def _typed_number(self, feature: dict[str, Any], kind: str, value: Any) -> Any:
        """Return the number as its SQL type would hold it, or refuse it: a real has 24 bits, an integer no fraction."""
        if value is None or (kind == "double precision" and type(value) in (int, float)):
            return value
        try:
            if kind == "real":
                return struct.unpack("=f", struct.pack("=f", value))[0]
            whole, (lowest, highest) = int(value), RANGES[kind]
            if type(value) in (int, float) and whole == value and lowest <= whole <= highest:
                return whole
        except (OverflowError, ValueError, struct.error, TypeError, KeyError):
            # an infinity, NaN or a text is no integer, true no double, a double may be out of a real's range
            pass
        raise self.refusal(
            f"feature {feature['name']} is {value!r:.{SHOWN}}, which type {kind} does not hold",
            "Pass a number in the range of the feature's type; a boolean is 0 or 1 in an array.",
        )
