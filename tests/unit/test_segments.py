"""How values of units become segments."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dbscore.experiments.segments import Cut, _grouped


def grouped(*values: Any) -> tuple[list[str | None], list[str]]:
    """Return the labels in the order of the values, and the labels in their own order."""
    labels, order = _grouped({str(place): value for place, value in enumerate(values)})
    assert list(labels) == [str(place) for place in range(len(values))]
    return list(labels.values()), list(order)


# --- numbers ---


def test_few_numbers_are_kept_as_they_are_and_ordered_as_numbers() -> None:
    values = [10, 9, 100, -1, 9, 10, 0, 2.5]
    assert grouped(*values) == (
        ["10", "9", "100", "-1", "9", "10", "0", "2.5"],
        ["-1", "0", "2.5", "9", "10", "100"],
    )


def test_twelve_numbers_are_kept_and_thirteen_are_cut() -> None:
    assert grouped(*range(12))[1] == [str(i) for i in range(12)]
    labels, order = grouped(*range(13))
    assert len(order) == 4
    assert sum(Counter(labels).values()) == 13


@pytest.mark.parametrize("count", [13, 14, 15, 16, 100, 101, 102, 103, 1000])
def test_more_numbers_are_cut_into_four_ranges_of_nearly_as_many_units(count: int) -> None:
    values = np.random.default_rng(count).permutation(count) / 8
    labels, order = grouped(*values.tolist())
    counts = Counter(labels)
    assert list(counts.keys() - set(order)) == []
    assert len(order) == 4
    assert max(counts.values()) - min(counts.values()) <= 3
    # each range says its least and its greatest number
    for label in order:
        mine = sorted(v for v, mark in zip(values.tolist(), labels, strict=True) if mark == label)
        assert label == f"{mine[0]:.4g} to {mine[-1]:.4g}"
    assert [float(label.split(" to ")[0]) for label in order] == sorted(
        float(label.split(" to ")[0]) for label in order
    )


def test_equal_numbers_are_in_one_range_however_many() -> None:
    values = [0] * 900 + list(range(1, 101))
    labels, order = grouped(*values)
    assert labels[:900] == [labels[0]] * 900
    assert labels[0] == "0"
    assert order[0] == "0"
    assert 1 < len(order) <= 4
    for value in set(values):
        assert len({mark for v, mark in zip(values, labels, strict=True) if v == value}) == 1


def test_a_most_frequent_number_at_the_top_or_in_the_middle_is_in_one_range() -> None:
    for place in (0, 50, 100):
        values = [*range(101), *[place] * 500]
        labels, order = grouped(*values)
        assert len({mark for v, mark in zip(values, labels, strict=True) if v == place}) == 1
        assert set(labels) == set(order)
        assert 1 < len(order) <= 4


@pytest.mark.parametrize("step", [1e-9, 1e-15])
@pytest.mark.parametrize("count", [5, 12, 40])
def test_numbers_that_differ_beyond_what_is_shown_have_labels_of_their_own(step: float, count: int) -> None:
    values = [1 + step * i for i in range(count)]
    assert len(set(values)) == count
    labels, order = grouped(*values)
    assert len(set(order)) == len(order) == (count if count <= 12 else 4)
    assert len(set(labels)) == len(order)


def test_few_numbers_are_written_with_the_digits_that_tell_them_apart() -> None:
    assert grouped(0.1, 1234567, 1e300, 0.1 + 0.2, 1e-7)[1] == [
        "1e-07",
        "0.1",
        "0.30000000000000004",
        "1234567",
        "1e+300",
    ]


def test_where_most_have_the_greatest_number_it_is_a_segment() -> None:
    labels, order = grouped(*range(100), *[100] * 500)
    assert order == ["0 to 99", "100"]
    assert Counter(labels) == {"0 to 99": 100, "100": 500}


def test_some_labels_alike_do_not_join_other_ranges() -> None:
    # three ranges look alike, the fourth does not
    values = [1 + i * 1e-9 for i in range(30)] + [float(i) for i in range(2, 12)]
    labels, order = grouped(*values)
    assert len(set(order)) == len(order) == len(set(labels)) == 4


def test_what_is_no_number_is_in_no_segment() -> None:
    labels, order = grouped(1, None, float("nan"), 2.5, Decimal("NaN"))
    assert (labels, order) == (["1", None, None, "2.5", None], ["1", "2.5"])
    assert grouped(None, None) == ([None, None], [])
    assert grouped(float("nan"), None) == ([None, None], [])
    assert grouped() == ([], [])


def test_infinities_are_numbers() -> None:
    labels, order = grouped(math.inf, 1, -math.inf)
    assert (labels, order) == (["inf", "1", "-inf"], ["-inf", "1", "inf"])
    values = [-math.inf, *map(float, range(30)), math.inf, math.inf]
    labels, order = grouped(*values)
    assert len(order) == len(set(labels)) == 4
    assert None not in labels


def test_decimals_are_numbers() -> None:
    labels, order = grouped(Decimal("10.50"), Decimal(9), 9.0, 10)
    assert (labels, order) == (["10.5", "9", "9", "10"], ["9", "10", "10.5"])


def test_zeros_of_both_signs_are_one_number() -> None:
    labels, order = grouped(0.0, -0.0, 1.0)
    assert labels[0] == labels[1]
    assert len(order) == 2
    labels, order = grouped(0.0, -0.0, *range(1, 30))
    assert labels[0] == labels[1]


# --- texts ---


def test_booleans_are_written_as_postgresql_writes_them() -> None:
    assert grouped(True, False, None, True) == (["true", "false", None, "true"], ["false", "true"])  # noqa: FBT003


def test_texts_are_kept_and_an_empty_one_is_seen() -> None:
    assert grouped("b", "a", "", None, "b") == (["b", "a", "''", None, "b"], ["''", "a", "b"])


def test_numbers_among_texts_are_texts() -> None:
    assert grouped(10, "9", True) == (["10", "9", "true"], ["10", "9", "true"])  # noqa: FBT003


def test_of_many_texts_the_most_frequent_are_kept() -> None:
    # t00 once, t01 twice, ...
    values = [f"t{i:02}" for i in range(30) for _ in range(i + 1)]
    labels, order = grouped(*values)
    kept = [f"t{i:02}" for i in range(11, 30)]
    assert order == [*kept, "11 others"]
    assert Counter(labels)["11 others"] == sum(range(1, 12))
    assert all(mark == (value if value in kept else "11 others") for value, mark in zip(values, labels, strict=True))


def test_twenty_texts_are_kept_and_of_twenty_one_as_frequent_the_first_nineteen() -> None:
    assert grouped(*(f"t{i:02}" for i in range(20)))[1] == [f"t{i:02}" for i in range(20)]
    assert grouped(*(f"t{i:02}" for i in range(21)))[1] == [*(f"t{i:02}" for i in range(19)), "2 others"]


def test_a_text_that_is_called_as_the_others_are_is_told_apart() -> None:
    values = ["11 others"] * 50 + [f"t{i:02}" for i in range(29)]
    labels, order = grouped(*values)
    assert labels[:50] == ["11 others"] * 50
    assert order[-1] == "11 others…"
    assert len(set(order)) == 20


# --- any ---

numbers = st.one_of(
    st.integers(-20, 20),
    st.integers(),
    st.floats(),
    st.floats(1, 1 + 1e-7),
    st.decimals(allow_nan=True, allow_infinity=True).filter(lambda one: not one.is_snan()),
)
texts = st.one_of(st.text(max_size=3), st.booleans(), st.integers(0, 40))


@settings(deadline=None, max_examples=300)
@given(
    values=st.one_of(
        st.lists(st.one_of(st.none(), numbers), max_size=60),
        st.lists(st.one_of(st.none(), texts), max_size=60),
        st.lists(st.integers(0, 45).map(lambda i: f"t{i}"), max_size=200),
    )
)
def test_every_unit_is_in_one_segment(values: list[Any]) -> None:
    units = [str(place) for place in range(len(values))]
    labels, order = _grouped(dict(zip(units, values, strict=True)))
    assert list(labels) == units
    assert len(set(order)) == len(order) <= 20
    assert {mark for mark in labels.values() if mark is not None} == set(order)
    for unit, value in zip(units, values, strict=True):
        if value is None:
            assert labels[unit] is None
        elif isinstance(value, str | bool):
            assert labels[unit] is not None
    # what is equal is together
    by_value: dict[tuple[bool, Any], set[str | None]] = {}
    for unit, value in zip(units, values, strict=True):
        by_value.setdefault((isinstance(value, bool), value), set()).add(labels[unit])
    assert all(len(marks) == 1 for marks in by_value.values())
    cut = Cut(name="n", statement="s", labels=labels, order=order)
    places = cut.of([*units, "unknown"])
    assert places.dtype == np.int64
    assert places.tolist() == [
        *(len(order) if labels[unit] is None else order.index(labels[unit]) for unit in units),
        len(order),
    ]


@settings(deadline=None)
@given(values=st.lists(st.floats(allow_nan=False), min_size=1, max_size=80))
def test_ranges_do_not_overlap(values: list[float]) -> None:
    labels, order = _grouped({str(place): value for place, value in enumerate(values)})
    mine = [sorted(v for place, v in enumerate(values) if labels[str(place)] == label) for label in order]
    assert all(mine)
    assert all(lower[-1] < upper[0] for lower, upper in itertools.pairwise(mine))
    assert len(order) == len(set(values)) or (len(set(values)) > 12 and len(order) <= 4)


def test_units_that_the_cut_does_not_know_are_at_the_end() -> None:
    cut = Cut(name="n", statement="s", labels={"1": "b", "2": None, "3": "a"}, order=("a", "b"))
    assert cut.of(["3", "2", "1", "9", "3"]).tolist() == [0, 2, 1, 2, 0]
    assert cut.of([]).shape == (0,)
