"""Which variant a unit gets, computed here: the same as the functions of sql/050_assignment.sql, bucket for bucket.

For applications that assign on their side, and tell the database afterwards with `dbscore.record_assignment`.

Source: SHA-256 is FIPS 180-4; FNV-1a is http://www.isthe.com/chongo/tech/comp/fnv/; GrowthBook's hash is in
https://docs.growthbook.io/lib/build-your-own
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from itertools import accumulate
from typing import TYPE_CHECKING

from dbscore.errors import ExperimentError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["BUCKETS", "SCHEMES", "boundaries", "bucket", "fnv1a", "is_held_out", "layer_bucket", "variant_at"]

BUCKETS = 10_000
SCHEMES = ("sha256", "growthbook2")

_OFFSET, _PRIME, _MASK = 0x811C9DC5, 0x01000193, 0xFFFFFFFF


def bucket(scheme: str, salt: str, unit: str) -> int:
    """Return the bucket of a unit, from 0 to 9999.

    Args:
        scheme: `sha256`: the first 8 bytes, big-endian, of SHA-256 of the salt, a point and the unit in UTF-8, modulo
            10000; `growthbook2`: FNV-1a of the salt and the unit, then FNV-1a of that number's digits, modulo 10000.
        salt: The experiment's salt.
        unit: What tells the unit apart, as a text.

    Raises:
        ExperimentError: There is no such scheme, or a text has half of a surrogate pair, which PostgreSQL refuses.
    """
    if _known(scheme) == "sha256":
        return int.from_bytes(hashlib.sha256(_encoded(f"{salt}.{unit}", "utf-8")).digest()[:8], "big") % BUCKETS
    return fnv1a(str(fnv1a(salt + unit))) % BUCKETS


def layer_bucket(scheme: str, layer: str, unit: str) -> int:
    """Return which part of a layer a unit is in, from 0 to 9999; under `growthbook2` a multiple of ten.

    Raises:
        ExperimentError: There is no such scheme.
    """
    if _known(scheme) == "sha256":
        return bucket(scheme, f"layer.{layer}", unit)
    # GrowthBook's namespaces
    return fnv1a(f"{unit}__{layer}") % 1000 * 10


def is_held_out(scheme: str, salt: str, unit: str, *, holdout: int) -> bool:
    """Say whether a unit is in the share, in ten thousandths, that is held out, whatever its variant would be."""
    return holdout > 0 and bucket(scheme, f"{salt}.holdout", unit) < holdout


def boundaries(scheme: str, weights: Sequence[int]) -> list[int]:
    """Return the first bucket beyond each variant.

    GrowthBook adds weights up in double precision and compares the bucket as a share: under `growthbook2` so do we.

    Args:
        scheme: `sha256` or `growthbook2`.
        weights: Of each variant, in ten thousandths.

    Raises:
        ExperimentError: There is no such scheme.
    """
    if _known(scheme) == "sha256":
        return list(accumulate(weights))
    shares = accumulate(weight / BUCKETS for weight in weights)
    return [_first_beyond(share, near) for share, near in zip(shares, accumulate(weights), strict=True)]


def variant_at(boundaries: Sequence[int], bucket: int) -> int:
    """Return the number of the variant that a bucket is in, from 1."""
    return bisect_right(boundaries, bucket) + 1


def fnv1a(text: str) -> int:
    """Return the 32-bit FNV-1a over the UTF-16 code units of a text, as GrowthBook's SDKs compute it."""
    data = _encoded(text, "utf-16-le")
    number = _OFFSET
    for low, high in zip(data[::2], data[1::2], strict=True):
        number = ((number ^ (low | high << 8)) * _PRIME) & _MASK
    return number


def _first_beyond(share: float, near: int) -> int:
    while near > 0 and (near - 1) / BUCKETS >= share:
        near -= 1
    while near < BUCKETS and near / BUCKETS < share:
        near += 1
    return near


def _known(scheme: str) -> str:
    if scheme not in SCHEMES:
        raise ExperimentError(f"there is no scheme {scheme!r}", remedy="It is sha256 or growthbook2.")
    return scheme


def _encoded(text: str, encoding: str) -> bytes:
    try:
        return text.encode(encoding)
    except UnicodeEncodeError as error:
        raise ExperimentError(
            f"{text!r} is no text that PostgreSQL takes: {error.reason}", remedy="Pass a text of whole characters."
        ) from error
