"""Many values at once in PostgreSQL's binary form: what numpy makes of it, and rows as COPY takes them.

A value is its length in four bytes and then itself, in network order; NULL is the length -1.
"""

from __future__ import annotations

import struct
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["Field", "array_rows", "copied", "elements", "field", "matrix", "texts", "without"]

# one value a row, lengths included: all of one size, shape (rows,); or of any size each
Field: TypeAlias = "np.ndarray[Any, Any] | list[bytes]"

NULL = b"\xff\xff\xff\xff"
# dimensions, whether there is a NULL, element type, length, lower bound
ARRAY_HEADER = 20
SIGNATURE = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER = b"\xff\xff"
# element types, as PostgreSQL numbers them
OIDS = {"b1": 16, "i8": 20, "i2": 21, "i4": 23, "f4": 700, "f8": 701}
TEXT_OID = 25


def matrix(content: bytes, dtype: str, width: int) -> np.ndarray[Any, Any]:
    """Return numbers that follow each other without a length.

    Args:
        content: The bytes of rows * width numbers.
        dtype: `float32`, `float64` or `int64`.
        width: Numbers per row.

    Returns:
        An array of that dtype, shape (rows, width); every bit of a NaN is kept.
    """
    size = np.dtype(dtype).itemsize
    return np.frombuffer(content, f">u{size}").astype(f"u{size}").view(dtype).reshape(-1, width)


def array_rows(content: bytes, dtype: str, width: int, *, null_bits: int) -> np.ndarray[Any, Any]:
    """Return the numbers of a two-dimensional array in binary form, shape (rows, width).

    Args:
        content: What `array_send` gave.
        dtype: `float32` or `float64`.
        width: The array's second dimension.
        null_bits: What NULL becomes.
    """
    size = np.dtype(dtype).itemsize
    # two dimensions have a length and a lower bound each
    words = np.frombuffer(content, ">i4", offset=ARRAY_HEADER + 8)
    rows = struct.unpack_from(">i", content, 12)[0]
    body = size // 4
    count = rows * width
    numbers = np.full(count, null_bits, f"u{size}")
    places, known = np.arange(count) * (1 + body), np.ones(count, bool)
    if len(words) != count * (1 + body):
        # a NULL is a length only; a -1 where no length is, is part of a number
        missing: list[int] = []
        for word in np.flatnonzero(words == -1).tolist():
            element, rest = divmod(word + body * len(missing), 1 + body)
            if rest == 0:
                missing.append(element)
        known[missing] = False
        places -= body * (np.cumsum(~known) - ~known)
    halves = words.astype(np.uint32)
    first = places[known] + 1
    numbers[known] = halves[first] if body == 1 else halves[first].astype("u8") << 32 | halves[first + 1]
    return numbers.view(dtype).reshape(rows, width)


def elements(content: bytes, count: int) -> Field:
    """Return the elements of a one-dimensional array in binary form, none of which is NULL.

    Args:
        content: What `array_send` gave.
        count: How many elements there are.
    """
    size = 4 + struct.unpack_from(">i", content, ARRAY_HEADER)[0]
    if len(content) == ARRAY_HEADER + count * size:
        values = np.frombuffer(content, f"V{size}", offset=ARRAY_HEADER)
        if (_lengths(values) == size - 4).all():
            return values
    pieces, start = [], ARRAY_HEADER
    length = struct.Struct(">i").unpack_from
    for _ in range(count):
        end = start + 4 + length(content, start)[0]
        pieces.append(content[start:end])
        start = end
    return pieces


def _lengths(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    dtype = np.dtype({"names": ["length"], "formats": [">i4"], "itemsize": values.itemsize})
    return values.view(dtype)["length"]


def field(values: np.ndarray[Any, Any], nulls: np.ndarray[Any, Any] | None = None) -> Field:
    """Return a column of numbers, booleans or texts, or of arrays of them, as COPY takes it.

    Args:
        values: Shape (rows,), or (rows, width) for arrays; texts have the dtype object.
        nulls: bool, shape (rows,): the rows that are NULL.
    """
    if values.dtype == object:
        made: Field = _texts(values.tolist()) if values.ndim == 1 else _text_arrays(values.tolist())
    else:
        kind = values.dtype.str[1:]
        number = np.dtype([("length", ">i4"), ("value", f">{kind}")])
        if values.ndim == 1:
            column = np.empty(len(values), number)
            column["length"], column["value"] = values.itemsize, values
        else:
            column = _arrays(values, number, OIDS[kind])
        made = column.view(f"V{column.itemsize}")
    if nulls is None or not nulls.any():
        return made
    pieces = _pieces(made)
    for row in np.flatnonzero(nulls).tolist():
        pieces[row] = NULL
    return pieces


def _arrays(values: np.ndarray[Any, Any], number: np.dtype[Any], oid: int) -> np.ndarray[Any, Any]:
    rows, width = values.shape
    header = ["length", "dimensions", "nulls", "type", *(["size", "lower"] if width else [])]
    column = np.zeros(rows, [*((name, ">i4") for name in header), ("elements", number, (width,))])
    column["length"], column["type"] = column.itemsize - 4, oid
    if width:
        column["dimensions"], column["size"], column["lower"] = 1, width, 1
        column["elements"]["length"], column["elements"]["value"] = values.itemsize, values
    return column


def texts(values: Iterable[object]) -> Field:
    """Return texts as COPY takes them."""
    return _texts(list(values))


def _texts(values: list[Any]) -> list[bytes]:
    # labels are few
    known = {value: _sized(str(value).encode()) for value in set(values)}
    return [known[value] for value in values]


def _text_arrays(rows: list[list[Any]]) -> list[bytes]:
    pieces = []
    for row in rows:
        header = struct.pack(">5i", 1, 0, TEXT_OID, len(row), 1) if row else struct.pack(">3i", 0, 0, TEXT_OID)
        pieces.append(_sized(header + b"".join(_texts(row))))
    return pieces


def _sized(content: bytes) -> bytes:
    return struct.pack(">i", len(content)) + content


def _pieces(column: Field) -> list[bytes]:
    return column if isinstance(column, list) else column.tolist()


def without(column: Field, left_out: np.ndarray[Any, Any]) -> Field:
    """Return a column without some rows: bool, shape (rows,)."""
    if isinstance(column, list):
        return [piece for piece, out in zip(column, left_out.tolist(), strict=True) if not out]
    kept: Field = column[~left_out]
    return kept


def copied(columns: Sequence[Field], rows: int) -> tuple[bytes, ...]:
    """Return columns as the rows, in pieces, that `COPY ... FROM STDIN (FORMAT binary)` takes."""
    count = np.full(rows, len(columns), ">i2").view("V2")
    # what has one size is put together by numpy, and the rest joined
    parts: list[Field] = []
    fixed: list[np.ndarray[Any, Any]] = [count]
    for column in columns:
        if isinstance(column, list):
            parts += [_joined(fixed)] if fixed else []
            parts.append(column)
            fixed = []
        else:
            fixed.append(column)
    parts += [_joined(fixed)] if fixed else []
    if len(parts) == 1 and not isinstance(parts[0], list):
        body = parts[0].tobytes()
    else:
        body = b"".join(chain.from_iterable(zip(*map(_pieces, parts), strict=True)))
    return SIGNATURE, body, TRAILER


def _joined(columns: list[np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    whole = np.empty(len(columns[0]), [(f"c{place}", column.dtype) for place, column in enumerate(columns)])
    for place, column in enumerate(columns):
        whole[f"c{place}"] = column
    return whole.view(f"V{whole.itemsize}")
