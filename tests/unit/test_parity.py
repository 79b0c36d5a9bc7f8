"""The comparison itself, by hand: what counts as equal, what is shown, what is kept for the database."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.tree import DecisionTreeClassifier

from dbscore.convert import Tolerance, convert
from dbscore.convert.native import Answers
from dbscore.convert.outputs import plain
from dbscore.convert.parity import compare, differences, pick_checks
from dbscore.convert.thresholds import steps_around
from dbscore.signature import Feature, NullPolicy, Output, OutputKind, Signature, SqlType, Task, Tensor

X, LABELS = load_iris(return_X_y=True)


def signature(type_: SqlType = SqlType.DOUBLE, policy: NullPolicy = NullPolicy.NULL) -> Signature:
    return Signature(
        task=Task.REGRESSION,
        features=(Feature(name="a", source="a", type=SqlType.DOUBLE, null_policy=policy, tensor="X"),),
        tensors=(Tensor(name="X", dtype="float64", width=1),),
        outputs=(Output(kind=OutputKind.PREDICTION, tensor="y", type=type_),),
    )


def compared(native: Any, converted: Any, type_: SqlType = SqlType.DOUBLE, relative: float = 1e-9) -> Any:
    left, right = np.asarray(native), np.asarray(converted)
    rows = [(float(i),) for i in range(len(left))]
    return compare(
        signature=signature(type_),
        rows=rows,
        origins=["sample"] * len(rows),
        native=Answers(predictions=left),
        converted=Answers(predictions=right),
        tolerance=Tolerance(relative=relative, absolute=1e-12),
    )


def test_numbers_within_the_tolerance_agree_and_the_largest_difference_is_kept() -> None:
    parity = compared([1000.0, 0.0], [1000.0 + 5e-7, 5e-13])
    assert parity.total_mismatches == 0
    assert parity.max_absolute == pytest.approx(5e-7, rel=1e-3)
    assert parity.max_relative == pytest.approx(5e-10, rel=1e-3)


def test_number_beyond_the_tolerance_is_shown_with_its_row() -> None:
    parity = compared([1.0, 2.0, 3.0], [1.0, 2.001, 3.0])
    assert parity.mismatches == {"sample": 1}
    (example,) = parity.examples
    assert (example.origin, example.row) == ("sample", {"a": 1.0})
    assert (example.native, example.converted) == (2.0, 2.001)


def test_ten_examples_are_shown_at_most() -> None:
    parity = compared(np.zeros(40), np.ones(40))
    assert parity.mismatches == {"sample": 40}
    assert len(parity.examples) == 10


@pytest.mark.parametrize(
    ("native", "converted", "equal"),
    [
        (math.nan, math.nan, True),
        (math.inf, math.inf, True),
        (math.inf, -math.inf, False),
        (math.nan, 0.0, False),
        (0.0, math.nan, False),
        (1e308, math.inf, False),
        (0.0, -0.0, True),
    ],
)
def test_nan_equals_nan_and_an_infinity_itself(native: float, converted: float, equal: bool) -> None:  # noqa: FBT001
    beyond, absolute, relative = differences(
        np.array([[native]]), np.array([[converted]]), Tolerance(relative=0.5, absolute=0.5)
    )
    assert bool(beyond[0]) is not equal
    assert (absolute, relative) == (0.0, 0.0)


def test_labels_must_be_equal_however_close() -> None:
    assert compared([1, 2], [1, 3], SqlType.BIGINT, relative=10.0).mismatches == {"sample": 1}
    assert compared(["a", "b"], ["a", "c"], SqlType.TEXT).mismatches == {"sample": 1}
    # the graph's label of a boolean class is 0 or 1
    assert compared([True, False], [1, 0], SqlType.BOOLEAN).total_mismatches == 0


def test_answers_of_another_width_are_mismatches_in_every_row() -> None:
    parity = compared(np.zeros((3, 2)), np.zeros((3, 4)), SqlType.DOUBLE_ARRAY)
    assert parity.mismatches == {"sample": 3}
    assert parity.max_absolute == math.inf


def test_parity_is_json_with_infinities_as_text() -> None:
    parity = compared([math.inf, 1.0], [1.0, 1.0]).to_json()
    assert parity["examples"][0]["native"] == "inf"


def test_tolerance_of_the_caller_decides() -> None:
    model = LogisticRegression(max_iter=1000).fit(X, LABELS)
    strict = convert(model, sample=X, tolerance=Tolerance(relative=0.0, absolute=0.0))
    assert strict.parity is not None
    assert strict.parity.total_mismatches > 0
    assert strict.parity.tolerance == Tolerance(relative=0.0, absolute=0.0)


def test_rows_compared_are_bounded_and_picked_by_the_seed() -> None:
    model = DecisionTreeClassifier(random_state=0).fit(X, LABELS)
    one, same, other = (convert(model, sample=X, max_rows=50, seed=seed) for seed in (1, 1, 2))
    assert one.parity is not None
    assert one.parity.rows["sample"] == 50
    assert one.parity.rows["threshold"] <= 50
    assert one.checks == same.checks
    assert one.checks != other.checks


def test_checks_hold_rows_of_every_origin_and_some_without_an_answer() -> None:
    rows = [(float(i),) for i in range(1000)]
    origins = ["sample"] * 900 + ["threshold"] * 100
    native = Answers(predictions=np.arange(1000.0))
    checks = pick_checks(signature=signature(), rows=rows, origins=origins, native=native, seed=0)
    assert len(checks.rows) == 256
    assert checks.rows[-1] == (None,)
    assert checks.predictions[-1] is None
    answered = [(row[0], p) for row, p in zip(checks.rows, checks.predictions, strict=True) if row[0] is not None]
    assert all(a == p for a, p in answered)
    assert sum(a >= 900 for a, _ in answered) == 100
    assert checks.probabilities is None


def test_checks_are_plain_python_values() -> None:
    checks = convert(LogisticRegression(max_iter=1000).fit(X, LABELS > 0), sample=X).checks
    assert checks is not None
    assert {type(p) for p in checks.predictions} == {bool, type(None)}
    assert checks.probabilities is not None
    first = checks.probabilities[0]
    assert first is not None
    assert {type(p) for p in first} == {float}
    assert checks.probabilities[-1] is None


@pytest.mark.parametrize(
    ("value", "type_", "expected"),
    [
        (np.int64(1), SqlType.BOOLEAN, True),
        (np.float32(2.0), SqlType.BIGINT, 2),
        (np.str_("a"), SqlType.TEXT, "a"),
        (np.array([1.5]), SqlType.DOUBLE, 1.5),
        (np.array([1, 2]), SqlType.BIGINT_ARRAY, [1, 2]),
        (np.array([0, 1]), SqlType.BOOLEAN_ARRAY, [False, True]),
        (np.array(["x", "y"]), SqlType.TEXT_ARRAY, ["x", "y"]),
        (np.array([1, 2]), SqlType.DOUBLE_ARRAY, [1.0, 2.0]),
    ],
)
def test_answer_becomes_the_python_value_of_its_sql_type(value: Any, type_: SqlType, expected: Any) -> None:
    found = plain(value, type_)
    assert found == expected
    assert type(found) is type(expected)


def test_steps_around_a_threshold_are_the_neighbours_in_float64_and_float32() -> None:
    steps = steps_around(0.1, SqlType.DOUBLE)
    # 0.1 rounds up to float32: 0.100000001490116; its neighbours are 2**-27 away
    assert 0.1 in steps
    assert math.nextafter(0.1, 0) in steps
    assert math.nextafter(0.1, 1) in steps
    assert float(np.float32(0.1)) in steps
    assert 0.09999999403953552 in steps
    assert 0.10000000894069672 in steps
    assert len(steps) == 6


def test_steps_of_a_real_column_are_float32_numbers() -> None:
    assert steps_around(0.5, SqlType.REAL) == [0.4999999701976776, 0.5, 0.5000000596046448]


@pytest.mark.parametrize(
    ("threshold", "type_", "expected"),
    [
        (2.5, SqlType.INTEGER, [2, 3]),
        (2.0, SqlType.INTEGER, [1, 2]),
        (40000.5, SqlType.SMALLINT, []),
        (0.5, SqlType.BOOLEAN, [False, True]),
        (math.inf, SqlType.DOUBLE, []),
    ],
)
def test_steps_of_whole_numbers_are_whole(threshold: float, type_: SqlType, expected: list[int]) -> None:
    assert steps_around(threshold, type_) == expected
