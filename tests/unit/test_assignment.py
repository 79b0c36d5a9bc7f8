"""The hashes that divide units, against numbers that hashlib and GrowthBook's own SDK gave."""

from __future__ import annotations

import pytest

from dbscore.errors import ExperimentError
from dbscore.experiments.assignment import boundaries, bucket, fnv1a, is_held_out, layer_bucket, variant_at

# salt or layer, unit, and the buckets: sha256, growthbook2; of the layer: sha256, growthbook2. From hashlib.sha256, and
# from growthbook 4.0.0 (PyPI): gbhash(salt, unit, 2) and gbhash("__" + layer, unit, 1)
GOLDEN = [
    ("tip_test", "42", 7910, 6836, 2399, 6870),
    ("tip_test", "", 64, 401, 8245, 5930),
    ("", "42", 6575, 6443, 6360, 1370),
    ("salt", "Zo\xeb", 1077, 3722, 651, 1770),
    ("gr\xf6\xdfe", "Stra\xdfe 7", 3284, 4626, 8296, 9810),
    ("s", "\u65e5\u672c\u8a9e", 5566, 1943, 1285, 5330),
    ("s", "\U0001f984", 4709, 7198, 2619, 7540),
    ("\U0001f984", "x\U0001f984y", 4690, 2652, 8344, 9760),
    ("it's", 'say "hi"', 8632, 6498, 2103, 440),
    ("back\\slash", "a\\b\\\\n", 2322, 6135, 5591, 360),
    ("s", "a.b", 8269, 7666, 1256, 7710),
    ("s.a", "b", 8269, 8897, 1256, 8090),
    ("s", "\u0301e\u200d", 6078, 9115, 5860, 1290),
    ("tab\t", "line\nend", 281, 2236, 6003, 2320),
    ("s", "\U0010ffff", 8736, 8894, 6895, 5740),
    ("s", "x" * 300, 8556, 5686, 6847, 2720),
]
# weights, the first bucket beyond each variant, and the variants of buckets 0, 999, 1000, 2999, 3000 and 9999: from
# growthbook's getBucketRanges and chooseVariation, asked for each of the 10,000 buckets
RANGES = [
    ([5000, 5000], [5000, 10000], [1, 1, 1, 1, 1, 2]),
    # 0.1 + 0.1 + 0.1 is more than 0.3
    ([1000] * 10, [1000, 2000, 3001, 4000, 5000, 6000, 7000, 8000, 9000, 10000], [1, 1, 2, 3, 3, 10]),
    ([1000, 2000, 7000], [1000, 3001, 10000], [1, 1, 2, 2, 2, 3]),
    ([3333, 3333, 3334], [3333, 6666, 10000], [1, 1, 1, 1, 1, 3]),
    ([0, 10000], [0, 10000], [2, 2, 2, 2, 2, 2]),
    ([500, 9500], [500, 10000], [1, 2, 2, 2, 2, 2]),
    ([1, 9998, 1], [1, 9999, 10000], [1, 2, 2, 2, 2, 3]),
]


@pytest.mark.parametrize(("salt", "unit", "sha256", "growthbook2", "layer_sha256", "layer_growthbook2"), GOLDEN)
def test_a_unit_is_in_the_bucket_that_hashlib_and_growthbook_say(
    salt: str, unit: str, sha256: int, growthbook2: int, layer_sha256: int, layer_growthbook2: int
) -> None:
    assert bucket("sha256", salt, unit) == sha256
    assert bucket("growthbook2", salt, unit) == growthbook2
    assert layer_bucket("sha256", salt, unit) == layer_sha256
    assert layer_bucket("growthbook2", salt, unit) == layer_growthbook2


@pytest.mark.parametrize(
    ("text", "number"),
    # the first three from the page of FNV's authors; the others from growthbook, whose JavaScript sees two code units
    [("", 0x811C9DC5), ("a", 0xE40C292C), ("foobar", 0xBF9CF968), ("Zoë", 0x7907A397), ("🦄", 0xC12BD8BF)],
)
def test_fnv1a_is_over_utf_16_code_units(text: str, number: int) -> None:
    assert fnv1a(text) == number


@pytest.mark.parametrize(("weights", "beyond", "variants"), RANGES)
def test_growthbook_boundaries_are_those_of_its_sums_in_double_precision(
    weights: list[int], beyond: list[int], variants: list[int]
) -> None:
    made = boundaries("growthbook2", weights)
    assert made == beyond
    assert [variant_at(made, n) for n in (0, 999, 1000, 2999, 3000, 9999)] == variants


def test_sha256_boundaries_are_sums_of_the_weights() -> None:
    assert boundaries("sha256", [1000, 2000, 7000]) == [1000, 3000, 10000]


def test_a_bucket_at_a_boundary_is_the_next_variants_and_a_weight_of_0_is_nobodys() -> None:
    assert [variant_at([5000, 5000, 10000], n) for n in (0, 4999, 5000, 9999)] == [1, 1, 3, 3]


def test_units_are_held_out_by_a_salt_of_their_own() -> None:
    # bucket("sha256", "tip_test.holdout", "42") is 4410 by hashlib
    assert not is_held_out("sha256", "tip_test", "42", holdout=4410)
    assert is_held_out("sha256", "tip_test", "42", holdout=4411)
    assert not is_held_out("sha256", "tip_test", "42", holdout=0)


def test_an_unknown_scheme_is_refused_and_named() -> None:
    for call in (bucket, layer_bucket):
        with pytest.raises(ExperimentError, match="there is no scheme 'md5'"):
            call("md5", "s", "u")
    with pytest.raises(ExperimentError, match="there is no scheme 'md5'"):
        boundaries("md5", [10000])


@pytest.mark.parametrize("scheme", ["sha256", "growthbook2"])
def test_half_of_a_surrogate_pair_is_refused(scheme: str) -> None:
    with pytest.raises(ExperimentError, match="no text that PostgreSQL takes"):
        bucket(scheme, "s", "\ud83e")
