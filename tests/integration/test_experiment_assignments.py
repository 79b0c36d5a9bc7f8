"""Assignments that applications record: in SQL, in Python, on the command line; sticky, and told apart by the audit."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import psycopg
import pytest
from psycopg import sql
from sklearn.linear_model import LogisticRegression

from dbscore import Client
from dbscore.cli import main
from dbscore.errors import DbscoreError, ExperimentError, NotFoundError
from tests.conftest import at

if TYPE_CHECKING:
    from collections.abc import Callable

    Record = Callable[..., None]

Connection = psycopg.Connection[Any]
WEIGHTS = ["control=tip:1:50", "treatment=tip:2:50"]


@pytest.fixture
def test(client: Client, db: Connection) -> Client:
    """A running experiment `test` of two versions, and a table of 40 units."""
    db.execute("create table people as select i as id, sin(i) as a, cos(i) as b from generate_series(1, 40) i")
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(300, 2)), columns=["a", "b"])
    for strength, alias in ((1.0, None), (0.01, "challenger")):
        model = LogisticRegression(C=strength).fit(frame, (frame["a"] > 0).astype(int))
        client.deploy("tip", model, sample=frame, alias=alias)
    client.experiments.create("test", unit="id", variants=WEIGHTS)
    client.experiments.start("test")
    return client


@pytest.fixture(params=["sql", "python", "command line"])
def record(
    request: pytest.FixtureRequest,
    client: Client,
    db: Connection,
    url: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Record:
    """Record an assignment of the experiment `test`; what is refused raises an error with the message."""

    def in_sql(unit: str | None, variant: str | None, when: str | None = None, *, name: str = "test") -> None:
        if when is None:
            db.execute("select dbscore.record_assignment(%s, %s, %s)", [name, unit, variant])
        else:
            db.execute("select dbscore.record_assignment(%s, %s, %s, %s)", [name, unit, variant, when])

    def in_python(unit: Any, variant: Any, when: str | None = None, *, name: str = "test") -> None:
        client.experiments.record_assignment(name, unit, variant=variant, at=when)

    def on_the_command_line(unit: str, variant: str, when: str | None = None, *, name: str = "test") -> None:
        option = [] if when is None else ["--at", when]
        monkeypatch.setenv("DBSCORE_URL", url)
        monkeypatch.setattr(sys, "argv", ["dbscore", "experiment", "record", name, unit, variant, *option])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        assert said.out == ""
        if ended.value.code:
            assert ended.value.code == 1
            raise DbscoreError(said.err)
        assert said.err == f"recorded that unit {unit} has seen variant {variant} of {name}\n"

    return {"sql": in_sql, "python": in_python, "command line": on_the_command_line}[request.param]


def assignments(db: Connection) -> list[tuple[Any, ...]]:
    return db.execute(
        "select unit, variant, left_out, by_application from dbscore.experiment_assignments order by unit"
    ).fetchall()


def other_than(variant: str | None) -> str:
    return "treatment" if variant == "control" else "control"


# --- what is recorded ---


def test_a_unit_keeps_the_variant_that_was_recorded_first(test: Client, db: Connection, record: Record) -> None:
    variant = other_than(test.experiments.assign("test", "u"))
    for _ in range(2):
        record("u", variant)
    assert assignments(db) == [("u", variant, None, True)]
    assert test.experiments.assign("test", "u") == variant
    assert db.execute("select variant from experiments.test('u', 0.5, 0.5)").fetchall() == [(variant,)]


def test_a_unit_seen_in_two_variants_keeps_the_first_is_counted_and_left_out(
    test: Client, db: Connection, record: Record
) -> None:
    for variant in ("control", "treatment", "control"):
        record("u", variant)
    record("v", "treatment")
    assert assignments(db) == [("u", "control", "seen in two variants", True), ("v", "treatment", None, True)]
    health = test.experiments.report("test").health
    assert (health.units, health.seen_in_two_variants) == (1, 1)


def test_outcomes_count_from_the_time_that_was_recorded(test: Client, db: Connection, record: Record) -> None:
    noon = datetime(2026, 1, 2, 12, tzinfo=UTC)
    record("u", "control", noon.isoformat())
    test.experiments.add_metric("test", "paid", kind="mean")
    for hours in (-1, 1):
        test.experiments.record_outcome("test", "u", metric="paid", value=1, at=noon + timedelta(hours=hours))
    assert db.execute("select assigned_at from dbscore.experiment_assignments").fetchall() == [(noon,)]
    counted = db.execute("select counts, reason from dbscore.experiment_outcomes order by occurred_at").fetchall()
    assert counted == [(False, "before the exposure"), (True, None)]


def test_without_a_time_it_is_now(test: Client, db: Connection, record: Record) -> None:
    record("u", "control")
    age = db.execute("select clock_timestamp() - assigned_at from dbscore.experiment_assignments").fetchall()[0][0]
    assert timedelta(0) <= age < timedelta(minutes=1)


def test_a_time_of_python_is_taken_as_it_is(test: Client, db: Connection) -> None:
    noon = datetime(2026, 1, 2, 12, tzinfo=UTC)
    test.experiments.record_assignment("test", "u", variant="control", at=noon)
    assert db.execute("select assigned_at from dbscore.experiment_assignments").fetchall() == [(noon,)]


# --- what is refused ---


@pytest.mark.parametrize(
    ("unit", "variant", "when", "said"),
    [
        ("", "control", None, "experiment test: the unit is empty"),
        ("u", "other", None, "experiment test has no variant 'other'"),
        ("u", "holdout", None, "experiment test has no variant 'holdout'"),
        ("u", "control", "infinity", "the time of the exposure is infinity"),
    ],
)
def test_what_cannot_be_recorded_is_refused(
    test: Client, db: Connection, record: Record, unit: str, variant: str, when: str | None, said: str
) -> None:
    with pytest.raises((psycopg.Error, DbscoreError), match=said):
        record(unit, variant, when)
    assert assignments(db) == []


def test_nothing_is_recorded_where_the_unit_the_variant_or_the_time_is_null(test: Client, db: Connection) -> None:
    for arguments, said in (
        ("'test', null, 'control'", "experiment test: the unit is NULL"),
        ("'test', 'u', null", "experiment test has no variant NULL"),
        ("'test', 'u', 'control', null", "the time of the exposure is NULL"),
        ("null, 'u', 'control'", "there is no experiment NULL"),
    ):
        with pytest.raises(psycopg.Error, match=said):
            db.execute(f"select dbscore.record_assignment({arguments})")
    for call in ("assign(null, 'u')", "record_outcome(null, 'u', 'paid', 1)"):
        with pytest.raises(psycopg.Error, match="there is no experiment NULL"):
            db.execute(f"select dbscore.{call}")
    unit: Any = None
    with pytest.raises(ExperimentError, match="the unit is NULL"):
        test.experiments.record_assignment("test", unit, variant="control")
    assert assignments(db) == []


def test_an_experiment_that_is_unknown_or_not_running_records_nothing(
    test: Client, db: Connection, record: Record
) -> None:
    with pytest.raises((psycopg.Error, DbscoreError), match="there is no experiment 'no'"):
        record("u", "control", name="no")
    test.experiments.create("draft", unit="id", variants=WEIGHTS)
    with pytest.raises((psycopg.Error, DbscoreError), match="experiment draft is a draft"):
        record("u", "control", name="draft")
    test.experiments.pause("test")
    with pytest.raises((psycopg.Error, DbscoreError), match="experiment test is paused"):
        record("u", "control")
    test.experiments.conclude("test", "treatment")
    with pytest.raises((psycopg.Error, DbscoreError), match="experiment test is concluded"):
        record("u", "control")
    assert assignments(db) == []


def test_a_refusal_has_the_class_of_its_code(test: Client) -> None:
    with pytest.raises(NotFoundError):
        test.experiments.record_assignment("test", "u", variant="other")
    with pytest.raises(ExperimentError):
        test.experiments.record_assignment("test", "", variant="control")


def test_a_role_that_was_granted_the_experiment_may_record(
    test: Client, db: Connection, url: str, role: Callable[[], str]
) -> None:
    granted = role()
    test.experiments.grant("test", granted)
    with Client(at(url, user=granted, password=granted)) as client:
        client.experiments.record_assignment("test", "u", variant="control")
    with psycopg.connect(at(url, user=granted, password=granted)) as connection:
        assert assignments(connection) == [("u", "control", None, True)]


# --- who has recorded it ---


def test_only_what_an_application_recorded_first_is_its_own(test: Client, db: Connection) -> None:
    first = test.experiments.assign("test", "1")
    test.experiments.run("test", "select * from people where id in (1, 2)", key="id")
    db.execute("select variant from experiments.test('3', 0.5, 0.5)")
    test.experiments.force("test", "forced", variant="control")
    test.experiments.record_assignment("test", "1", variant=str(first))
    test.experiments.record_assignment("test", "elsewhere", variant="control")
    # what is predicted for it later does not make it the experiment's
    db.execute("select variant from experiments.test('elsewhere', 0.5, 0.5)")
    found = {unit: by_application for unit, _, _, by_application in assignments(db)}
    assert found == {"1": False, "2": False, "3": False, "forced": False, "elsewhere": True}


def test_the_audit_says_of_each_difference_who_recorded_it(
    test: Client,
    db: Connection,
    url: str,
    record: Record,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    test.experiments.run("test", "select * from people where id = 1", key="id")
    db.execute("update dbscore.assignment set variant = 3 - variant where unit = '1'")
    drawn = test.experiments.assign("test", "elsewhere")
    record("elsewhere", other_than(drawn))
    record("alike", str(test.experiments.assign("test", "alike")))
    # the audit does not guess from what was predicted
    db.execute("select variant from experiments.test('elsewhere', 0.5, 0.5)")
    db.execute("delete from dbscore.prediction where unit = '1'")
    found = test.experiments.audit("test")
    assert (found.checked, found.forced) == (3, 0)
    assert [(one.unit, one.by_application) for one in found.differing] == [("1", False), ("elsewhere", True)]
    monkeypatch.setenv("DBSCORE_URL", url)
    monkeypatch.setattr(sys, "argv", ["dbscore", "experiment", "audit", "test"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 3
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [(line[0], line[-1]) for line in lines] == [
        ("unit", "recorded by"),
        ("1", "the experiment"),
        ("elsewhere", "an application"),
    ]


def test_an_upgrade_from_migration_0005_marks_what_an_application_recorded_and_keeps_grants(
    test: Client, db: Connection, url: str, role: Callable[[], str]
) -> None:
    test.experiments.run("test", "select * from people where id = 1", key="id")
    test.experiments.force("test", "forced", variant="control")
    test.experiments.record_assignment("test", "elsewhere", variant="control")
    columns = "select pg_get_function_result(oid) from pg_proc where proname in ('unit_values', 'audit_experiment') order by proname"
    results = db.execute(columns).fetchall()
    granted = role()
    test.experiments.grant("test", granted)
    # as the migrations up to 0005 have left it; the views of sums are of all columns, and are made anew
    text = db.execute("select pg_get_viewdef('dbscore.experiment_assignments')").fetchall()[0][0]
    older = text.replace(",\n    a.by_application", "")
    assert older != text
    db.execute("drop view dbscore.experiment_assignments")
    db.execute(
        sql.SQL("create view dbscore.experiment_assignments with (security_barrier) as {}").format(sql.SQL(older))
    )
    db.execute("alter table dbscore.assignment drop column by_application cascade")
    db.execute("drop function dbscore.unit_values, dbscore.audit_experiment")
    for signature in ("unit_values(text, text)", "audit_experiment(text)"):
        db.execute(f"create function dbscore.{signature} returns table (unit text) language sql return 'old'::text")
    db.execute("update dbscore.alembic_version set version_num = '0005'")
    db.execute("update dbscore.installation set sql_sha256 = 'old'")
    db.execute(sql.SQL("grant select on dbscore.experiment_assignments to {}").format(sql.Identifier(granted)))
    assert test.upgrade().problems == ()
    assert db.execute(columns).fetchall() == results
    expected = {"1": False, "forced": False, "elsewhere": True}
    with psycopg.connect(at(url, user=granted, password=granted)) as connection:
        assert {unit: by_application for unit, _, _, by_application in assignments(connection)} == expected
    for function in ("unit_values(text, text)", "audit_experiment(text)"):
        allowed = db.execute("select has_function_privilege(%s, %s, 'execute')", [granted, f"dbscore.{function}"])
        assert allowed.fetchall() == [(False,)]
    test.experiments.record_assignment("test", "later", variant="control")
    assert ("later", "control", None, True) in assignments(db)


# --- values unit by unit ---


def test_each_units_value_comes_with_the_time_of_its_assignment(test: Client, db: Connection) -> None:
    test.experiments.add_metric("test", "paid", kind="mean")
    days = {unit: datetime(2026, 1, day, tzinfo=UTC) for day, unit in enumerate("abc", start=1)}
    for unit, day in days.items():
        test.experiments.record_assignment("test", unit, variant="control", at=day)
    test.experiments.record_outcome("test", "b", metric="paid", value=2.5)
    found = db.execute(
        "select unit, value, assigned_at from dbscore.unit_values('test', 'paid') order by unit"
    ).fetchall()
    assert found == [("a", 0, days["a"]), ("b", 2.5, days["b"]), ("c", 0, days["c"])]
