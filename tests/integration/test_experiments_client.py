"""`client.experiments`, and the hashes of sql/050_assignment.sql beside those computed in Python."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import psycopg
import pytest
from sklearn.linear_model import LogisticRegression

from dbscore import Client, Variant
from dbscore.errors import (
    ExperimentError,
    FeatureError,
    NameRefusedError,
    NotFoundError,
    PrivilegeError,
    SchemaError,
    ServerError,
)
from dbscore.experiments.assignment import boundaries, bucket, fnv1a, is_held_out, layer_bucket, variant_at
from tests.conftest import at
from tests.unit.test_assignment import GOLDEN

if TYPE_CHECKING:
    from collections.abc import Callable

Connection = psycopg.Connection[Any]
PAIR = [
    Variant(name="control", reference="tip:1", weight=50),
    Variant(name="treatment", reference="tip@challenger", weight=50.0),
]


@pytest.fixture
def tip(client: Client, db: Connection) -> Client:
    """A model with two versions, and a table of 400 units."""
    db.execute("create table people as select i as id, sin(i) as a, cos(i) as b from generate_series(1, 400) i")
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(300, 2)), columns=["a", "b"])
    for strength, alias in ((1.0, None), (0.01, "challenger")):
        model = LogisticRegression(C=strength).fit(frame, (frame["a"] > 0).astype(int))
        client.deploy("tip", model, sample=frame, table="people", alias=alias)
    return client


def unicode_units(number: int) -> list[tuple[str, str]]:
    """Return salts and units of any characters that a text of PostgreSQL may have."""
    randomly = random.Random(14)  # noqa: S311 - nothing to keep secret
    ranges = [(1, 0x7F), (0x80, 0xD7FF), (0xE000, 0xFFFF), (0x10000, 0x10FFFF)]

    def text() -> str:
        spans = randomly.choices(ranges, weights=[6, 3, 1, 2], k=randomly.randrange(12))
        return "".join(chr(randomly.randint(*span)) for span in spans)

    return [(text(), text()) for _ in range(number)]


# --- in SQL as in Python ---


def test_sql_puts_units_into_the_golden_buckets(db: Connection) -> None:
    query = """select dbscore.bucket('sha256', %(s)s, %(u)s), dbscore.bucket('growthbook2', %(s)s, %(u)s),
                      dbscore.layer_bucket('sha256', %(s)s, %(u)s), dbscore.layer_bucket('growthbook2', %(s)s, %(u)s)"""
    for salt, unit, *golden in GOLDEN:
        assert db.execute(query, {"s": salt, "u": unit}).fetchall() == [tuple(golden)]


def test_sql_and_python_put_units_of_any_characters_into_the_same_buckets(db: Connection) -> None:
    pairs = unicode_units(400)
    rows = db.execute(
        """select dbscore.bucket('sha256', s, u), dbscore.bucket('growthbook2', s, u),
                  dbscore.layer_bucket('sha256', s, u), dbscore.layer_bucket('growthbook2', s, u), dbscore.fnv1a(u),
                  dbscore.is_held_out('sha256', s, u, 5000), dbscore.is_held_out('growthbook2', s, u, 5000)
           from unnest(%s::text[], %s::text[]) with ordinality as given (s, u, i) order by i""",
        [[salt for salt, _ in pairs], [unit for _, unit in pairs]],
    ).fetchall()
    assert rows == [
        (
            bucket("sha256", salt, unit),
            bucket("growthbook2", salt, unit),
            layer_bucket("sha256", salt, unit),
            layer_bucket("growthbook2", salt, unit),
            fnv1a(unit),
            is_held_out("sha256", salt, unit, holdout=5000),
            is_held_out("growthbook2", salt, unit, holdout=5000),
        )
        for salt, unit in pairs
    ]


@pytest.mark.parametrize("scheme", ["sha256", "growthbook2"])
def test_sql_and_python_draw_the_same_boundaries_and_variants(db: Connection, scheme: str) -> None:
    randomly = random.Random(15)  # noqa: S311 - nothing to keep secret
    for _ in range(100):
        cuts = sorted(
            randomly.choices(range(0, 10001, randomly.choice([1, 10, 100, 1000])), k=randomly.randrange(1, 9))
        )
        weights = [upper - lower for lower, upper in zip([0, *cuts], [*cuts, 10000], strict=True)]
        made = boundaries(scheme, weights)
        numbers = sorted({0, 9999, *(n for b in made for n in (b - 1, b) if 0 <= n < 10000)})
        rows = db.execute(
            """select dbscore.boundaries(%(scheme)s, %(weights)s::integer[]),
                      array(select dbscore.variant_at(dbscore.boundaries(%(scheme)s, %(weights)s::integer[]), n)
                            from unnest(%(numbers)s::integer[]) with ordinality as given (n, i) order by i)""",
            {"scheme": scheme, "weights": weights, "numbers": numbers},
        ).fetchall()
        assert rows == [(made, [variant_at(made, n) for n in numbers])]


# --- the Python face ---


def test_what_is_designed_is_what_is_read_back(tip: Client) -> None:
    made = tip.experiments.create(
        "test",
        unit="id",
        variants=PAIR,
        scheme="growthbook2",
        salt="pepper",
        layer="pages",
        layer_share=12.5,
        eligible="a > 0",
        holdout=0.05,
        record_features=True,
        description="which one",
    )
    assert made == tip.experiments.get("test")
    assert list(tip.experiments.list()) == [made]
    assert (made.name, made.mode, made.status, made.unit, made.description) == (
        "test",
        "ab",
        "draft",
        "id",
        "which one",
    )
    assert (made.scheme, made.salt, made.layer, made.layer_from, made.layer_to) == (
        "growthbook2",
        "pepper",
        "pages",
        0,
        1250,
    )
    assert (made.eligible, made.holdout, made.record_features, made.features) == ("a > 0", 0.05, True, ("a", "b"))
    assert made.variants == (
        Variant(name="control", reference="tip:1", weight=50.0),
        Variant(name="treatment", reference="tip:2", weight=50.0),
    )
    assert made.allocations is not None
    (period,) = made.allocations
    assert (period.number, period.weights, period.boundaries, period.valid_to) == (
        1,
        {"control": 50.0, "treatment": 50.0},
        (5000, 10000),
        None,
    )
    assert (made.metrics, made.winner, made.started_at) == ((), None, None)


def test_the_status_moves_and_weights_are_numbers_or_texts(tip: Client) -> None:
    experiments = tip.experiments
    experiments.create("test", unit="id", variants=["control=tip:1:50", "treatment=tip:2:50"])
    assert experiments.start("test").status == "running"
    assert experiments.pause("test", reason="lunch").status == "paused"
    assert experiments.start("test").status == "running"
    assert [v.weight for v in experiments.ramp("test", {"control": 33.33, "treatment": 66.67}).variants] == [
        33.33,
        66.67,
    ]
    assert [v.weight for v in experiments.ramp("test", ["control=0", "treatment=100"]).variants] == [0.0, 100.0]
    with pytest.raises(ExperimentError, match=r"weight of variant control is '33\.333333333"):
        experiments.ramp("test", {"control": 100 / 3, "treatment": 200 / 3})
    assert experiments.stop("test", reason="enough").winner is None
    events = experiments.history("test")
    assert [(e.action, e.reason) for e in events] == [
        ("create", ""),
        ("start", ""),
        ("pause", "lunch"),
        ("start", ""),
        ("ramp", ""),
        ("ramp", ""),
        ("stop", "enough"),
    ]
    experiments.drop("test")
    with pytest.raises(NotFoundError, match="there is no experiment 'test'"):
        experiments.get("test")
    assert experiments.history("test")[-1].action == "drop"


def test_the_winner_is_promoted(tip: Client) -> None:
    tip.experiments.create("test", unit="id", variants=PAIR)
    tip.experiments.start("test")
    ended = tip.experiments.conclude("test", "treatment", reason="better")
    assert (ended.status, ended.winner, tip.show("tip").number) == ("concluded", "treatment", 2)


def test_rows_are_scored_and_what_came_of_them_is_summed_up(tip: Client, db: Connection) -> None:
    experiments = tip.experiments
    experiments.create("test", unit="id", variants=PAIR)
    experiments.start("test")
    assert experiments.run("test", "select * from people where id <= 300;", key="id") == 300
    assert experiments.run("test", source="people", key="id", request_id="all") == 400
    assert experiments.run("test", source="people", key="id", request_id="all") == 0
    made = experiments.add_metric("test", "revenue", kind="mean", window=timedelta(days=7))
    assert (made.name, made.kind, made.direction, made.role, made.window) == (
        "revenue",
        "mean",
        "higher",
        "goal",
        "7 days",
    )
    units = db.execute("select unit, variant from dbscore.experiment_assignments order by unit").fetchall()
    for value, (unit, _) in enumerate(units[:20]):
        experiments.record_outcome("test", unit, metric="revenue", value=value / 3)
    experiments.refresh("test")
    for variant in ("control", "treatment"):
        values = np.array([i / 3 if i < 20 else 0.0 for i, (_, v) in enumerate(units) if v == variant])
        (found,) = [s for s in experiments.summary("test") if s.variant == variant]
        assert (found.metric, found.kind, found.allocation, found.n) == ("revenue", "mean", 1, len(values))
        assert found.mean == pytest.approx(values.mean(), rel=1e-12)
        assert found.variance == pytest.approx(values.var(ddof=1), rel=1e-9)
    (result,) = experiments.results("test")
    by_variant = {s.variant: s for s in experiments.summary("test")}
    assert (result.variant, result.n) == ("treatment", by_variant["treatment"].n)
    assert result.difference == pytest.approx((by_variant["treatment"].mean or 0) - (by_variant["control"].mean or 0))
    experiments.drop_metric("test", "revenue")
    assert list(experiments.summary("test")) == []


def test_a_number_is_recorded_to_its_last_bit(tip: Client, db: Connection) -> None:
    experiments = tip.experiments
    experiments.create("test", unit="id", variants=PAIR)
    experiments.start("test")
    experiments.run("test", source="people", key="id")
    experiments.add_metric("test", "m", kind="mean")
    values = [0.1 + 0.2, -1e-300, 1.7976931348623157e308, 3, np.float64(1 / 3)]
    for value in values:
        experiments.record_outcome("test", "1", metric="m", value=value)
    rows = db.execute("select value from dbscore.experiment_outcomes order by recorded_at").fetchall()
    assert [value for (value,) in rows] == [float(value) for value in values]


def test_a_design_that_cannot_be_has_the_error_of_its_kind(tip: Client) -> None:
    experiments = tip.experiments
    with pytest.raises(ExperimentError, match="variant control has no weight"):
        experiments.create("test", unit="id", variants=[Variant(name="control", reference="tip:1"), PAIR[1]])
    with pytest.raises(NotFoundError, match="model tip has no version 9"):
        experiments.create("test", unit="id", variants=["control=tip:9:50", PAIR[1]])
    with pytest.raises(NameRefusedError, match="the unit is called as a feature is: a"):
        experiments.create("test", unit="a", variants=PAIR)
    shadow = [Variant(name="control", reference="tip:1"), Variant(name="other", reference="tip")]
    assert experiments.create("test", unit="id", variants=shadow, mode="shadow").variants[1].reference == "tip:1"
    with pytest.raises(ExperimentError, match="in shadow mode, and has no weights"):
        experiments.ramp("test", {"control": 50, "other": 50})
    for arguments in ({}, {"query": "select 1", "source": "people"}):
        with pytest.raises(ExperimentError, match="there is no query and no table, or both"):
            experiments.run("test", key="id", **arguments)
    with pytest.raises(FeatureError, match="there is no table or view 'nothing'"):
        experiments.run("test", source="nothing", key="id")
    with pytest.raises(ServerError, match="invalid input syntax for type interval"):
        experiments.add_metric("test", "m", kind="auc", window="soon")


def test_a_role_with_a_grant_uses_and_reads_the_experiment_and_is_told_what_it_may_not(
    tip: Client, url: str, db: Connection, role: Callable[[], str]
) -> None:
    analyst, stranger = role(), role()
    tip.experiments.create("test", unit="id", variants=PAIR)
    tip.experiments.create("other", unit="id", variants=PAIR)
    tip.experiments.start("test")
    tip.experiments.add_metric("test", "paid", kind="mean")
    tip.experiments.grant("test", analyst)
    db.execute(f"grant select on people to {analyst}")
    with Client(at(url, user=analyst, password=analyst)) as granted:
        assert granted.experiments.run("test", source="people", key="id") == 400
        granted.experiments.record_outcome("test", "7", metric="paid", value=2.0)
        assert granted.experiments.assign("test", "7") in ("control", "treatment")
        (seen,) = granted.experiments.list()
        assert (seen.name, seen.allocations, seen.metrics) == ("test", None, None)
        assert sum(s.n for s in granted.experiments.summary("test")) == 400
        assert len(granted.experiments.results("test")) == 1
        with pytest.raises(NotFoundError, match="there is no experiment 'other'"):
            granted.experiments.results("other")
        for call in (
            lambda: granted.experiments.start("test"),
            lambda: granted.experiments.ramp("test", {"control": 0, "treatment": 100}),
            lambda: granted.experiments.conclude("test", "treatment"),
            lambda: granted.experiments.create("mine", unit="id", variants=PAIR),
            lambda: granted.experiments.add_metric("test", "m", kind="mean"),
            lambda: granted.experiments.force("test", "1", variant="control"),
            lambda: granted.experiments.collect("test"),
            lambda: granted.experiments.history("test"),
        ):
            with pytest.raises(PrivilegeError, match="permission denied for") as denied:
                call()
            assert denied.value.remedy == "Ask the owner of the schema dbscore, or a superuser, for that privilege."
        tip.experiments.revoke("test", analyst)
        assert list(granted.experiments.list()) == []
    with Client(at(url, user=stranger, password=stranger)) as nobody:
        for call in (nobody.experiments.list, lambda: nobody.experiments.start("test")):
            with pytest.raises(PrivilegeError, match="permission denied for schema dbscore"):
                call()


def test_a_database_without_experiments_is_told_so(empty_url: str) -> None:
    with Client(empty_url) as client, pytest.raises(SchemaError, match="dbscore has no experiments in this database"):
        client.experiments.list()
