"""Experiments in SQL: design, assignment, prediction and what is recorded, for each way of asking."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import psycopg
import pytest
from scipy.stats import chi2_contingency, chisquare
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.tree import DecisionTreeClassifier

from dbscore import Client
from dbscore.errors import DbscoreError, InUseError
from tests.conftest import both_engines

if TYPE_CHECKING:
    from collections.abc import Callable

Connection = psycopg.Connection[Any]

pytestmark = both_engines

COLUMNS = ["a", "b"]
PAIR = ["control=tip:1:50", "treatment=tip@challenger:50"]


def frame(rows: int = 300) -> pd.DataFrame:
    return pd.DataFrame(np.random.default_rng(0).normal(size=(rows, 2)), columns=COLUMNS)


def fitted(strength: float, labels: Any = (0, 1)) -> LogisticRegression:
    return LogisticRegression(C=strength).fit(frame(), np.array(labels)[(frame()["a"] > 0).astype(int)])


@pytest.fixture
def tip(client: Client, db: Connection) -> Client:
    """A model with two versions, and a table of units."""
    db.execute("create table people (id bigint primary key, a double precision, b double precision)")
    db.execute("insert into people select i, sin(i), cos(i) from generate_series(1, 2000) i")
    client.deploy("tip", fitted(1.0), sample=frame(), table="people")
    client.deploy("tip", fitted(0.01), sample=frame(), table="people", alias="challenger")
    return client


def create(db: Connection, name: str = "test", variants: list[str] | None = None, **options: Any) -> None:
    named = {"unit": "id", "variants": variants or PAIR, **options}
    listed = ", ".join(f"{key} => %({key})s" for key in named)
    db.execute(f"select dbscore.create_experiment(name => %(name)s, {listed})", {"name": name, **named})


def running(db: Connection, name: str = "test", variants: list[str] | None = None, **options: Any) -> None:
    create(db, name, variants, **options)
    db.execute("select dbscore.start_experiment(%s)", [name])


def one(db: Connection, statement: str, *parameters: Any) -> Any:
    return db.execute(statement, parameters).fetchall()[0][0]


def asked(db: Connection, unit: Any, a: float = 0.5, b: float = 0.5, request: str | None = None) -> tuple[Any, ...]:
    call = "select * from experiments.test(%s, %s::double precision, %s::double precision, %s)"
    return db.execute(call, [unit, a, b, request]).fetchall()[0]


def recorded(db: Connection, table: str) -> int:
    return int(one(db, f"select count(*) from dbscore.{table}"))


# --- what a unit gets ---


def test_a_unit_gets_its_variants_prediction_and_both_are_recorded(tip: Client, db: Connection) -> None:
    running(db)
    seen = {}
    for unit in range(1, 41):
        variant, version, prediction, probabilities = asked(db, str(unit), 0.3, -0.2)
        own = {"control": 1, "treatment": 2}[variant]
        assert version == own
        label, shares = db.execute(
            f"select models.tip_v{own}(0.3, -0.2), models.tip_v{own}_proba(0.3, -0.2)"
        ).fetchall()[0]
        assert (prediction, probabilities) == (label, shares)
        seen[str(unit)] = variant
    assert set(seen.values()) == {"control", "treatment"}
    rows = db.execute("select unit, variant from dbscore.experiment_assignments").fetchall()
    assert dict(rows) == seen
    logged = db.execute(
        "select id, variant, version, prediction, propensity, is_served, allocation from experiments.test_log"
    ).fetchall()
    assert {(u, v, f"tip:{1 if v == 'control' else 2}", 0.5, True, 1) for u, v in seen.items()} == {
        (u, v, version, propensity, served, allocation) for u, v, version, _, propensity, served, allocation in logged
    }
    assert {type(p) for _, _, _, p, _, _, _ in logged} == {int}


def test_a_unit_may_be_a_number_and_a_row_of_the_models_table(tip: Client, db: Connection) -> None:
    running(db)
    assert asked(db, 7) == asked(db, "7")
    rows = db.execute(
        "select p.id, e.variant, e.prediction from people p, experiments.test(p) e where p.id <= 20"
    ).fetchall()
    for unit, variant, prediction in rows:
        direct = db.execute(
            "select e.variant, e.prediction from people p, experiments.test(p.id, p.a, p.b) e where id = %s", [unit]
        )
        assert direct.fetchall() == [(variant, prediction)]


def test_a_unit_keeps_its_variant_when_the_weights_change_and_new_units_follow_them(
    tip: Client, db: Connection
) -> None:
    running(db)
    before = {unit: asked(db, str(unit))[0] for unit in range(200)}
    db.execute("select dbscore.ramp_experiment('test', array['control=0', 'treatment=100'], 'all in')")
    assert {unit: asked(db, str(unit))[0] for unit in range(200)} == before
    assert {asked(db, str(unit))[0] for unit in range(200, 260)} == {"treatment"}
    periods = db.execute("select number, weights, valid_to is null from dbscore.allocation order by 1").fetchall()
    assert periods == [(1, [5000, 5000], False), (2, [0, 10000], True)]
    rows = db.execute(
        "select allocation, count(*), min(propensity) from dbscore.experiment_assignments group by 1 order by 1"
    )
    assert rows.fetchall() == [(1, 200, 0.5), (2, 60, 1.0)]


def test_what_is_assigned_needs_no_write_and_is_what_is_recorded_later(tip: Client, db: Connection) -> None:
    running(db)
    db.execute("set default_transaction_read_only = on")
    told = [one(db, "select dbscore.assign('test', %s)", str(unit)) for unit in range(50)]
    drawn = [one(db, "select experiments.test_variant(%s)", str(unit)) for unit in range(50)]
    db.execute("set default_transaction_read_only = off")
    assert recorded(db, "assignment") == 0
    assert told == drawn == [asked(db, str(unit))[0] for unit in range(50)]
    db.execute("select dbscore.ramp_experiment('test', array['control=0', 'treatment=100'])")
    assert [one(db, "select dbscore.assign('test', %s)", str(unit)) for unit in range(50)] == told


def test_a_rolled_back_transaction_leaves_no_trace(tip: Client, db: Connection) -> None:
    running(db)
    with db.transaction(force_rollback=True):
        asked(db, "1", request="r")
    assert [recorded(db, table) for table in ("assignment", "prediction", "request")] == [0, 0, 0]


def test_a_request_that_is_asked_again_gets_the_same_answer_and_is_recorded_once(tip: Client, db: Connection) -> None:
    running(db)
    first = asked(db, "1", 0.1, 0.2, "r1")
    assert asked(db, "1", -9.0, 0.2, "r1") == first
    assert asked(db, "1", -9.0, 0.2, "r2") != first
    assert recorded(db, "prediction") == 2
    with pytest.raises(psycopg.Error, match="request 'r1' was about unit '1'"):
        asked(db, "2", 0.1, 0.2, "r1")


def test_twenty_connections_that_ask_for_one_unit_at_once_see_one_variant(
    tip: Client, db: Connection, url: str
) -> None:
    for round_number in range(3):
        name = f"race{round_number}"
        running(db, name, [f"v{i}=tip:{1 + i % 2}:25" for i in range(4)])
        barrier, answers = threading.Barrier(20), []

        def ask(
            number: int, name: str = name, barrier: threading.Barrier = barrier, answers: list[str] = answers
        ) -> None:
            with psycopg.connect(url, autocommit=True) as own:
                barrier.wait()
                if number % 2:
                    # the weights move while they ask, so that a draw alone would not agree
                    weights = ["v0=0", "v1=0", "v2=0", "v3=0"]
                    weights[number % 4] = f"v{number % 4}=100"
                    own.execute("select dbscore.ramp_experiment(%s, %s)", [name, weights])
                row = own.execute(
                    f"select variant from experiments.{name}('unit', 0.1::double precision, 0.2::double precision)"
                )
                answers.append(row.fetchall()[0][0])

        threads = [threading.Thread(target=ask, args=(i,)) for i in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(answers) == 20
        assert len(set(answers)) == 1
    assert recorded(db, "assignment") == 3


# --- who takes part ---


def test_units_that_are_held_out_get_the_controls_prediction_and_are_compared_with_nothing(
    tip: Client, db: Connection
) -> None:
    running(db, holdout=0.2)
    db.execute("call dbscore.run_experiment('test', 'select * from people', 'id')")
    rows = dict(db.execute("select variant, count(*) from dbscore.experiment_assignments group by 1").fetchall())
    assert 300 < rows["holdout"] < 500
    versions = db.execute(
        "select distinct version, propensity from experiments.test_log where variant = 'holdout'"
    ).fetchall()
    assert versions == [("tip:1", 0.2)]
    unit = one(db, "select unit from dbscore.experiment_assignments where variant = 'holdout' limit 1")
    assert asked(db, unit)[:2] == ("holdout", 1)
    assert one(db, "select left_out from dbscore.experiment_assignments where unit = %s", unit) == "held out"
    assert (
        one(db, "select sum(assigned) from dbscore.experiment_daily where variant <> 'holdout'")
        == 2000 - rows["holdout"]
    )


def test_units_that_are_not_eligible_get_the_controls_prediction_and_are_not_recorded(
    tip: Client, db: Connection
) -> None:
    running(db, eligible="a > 0 and b < 0.5")
    assert asked(db, "1", -1.0, 0.0)[:2] == (None, 1)
    assert asked(db, "2", 1.0, 0.9)[:2] == (None, 1)
    assert recorded(db, "assignment") == 0
    assert asked(db, "3", 1.0, 0.0)[0] in ("control", "treatment")
    db.execute("call dbscore.run_experiment('test', 'select * from people', 'id')")
    eligible = one(db, "select count(*) from people where a > 0 and b < 0.5")
    assert one(db, "select count(distinct unit) from dbscore.prediction") == eligible + (
        one(db, "select count(*) from people where id = 3 and not (a > 0 and b < 0.5)")
    )


def test_two_experiments_of_a_layer_share_no_unit_and_those_of_different_layers_are_independent(
    tip: Client, db: Connection
) -> None:
    for name, layer in (("first", "one"), ("second", "one"), ("third", "two")):
        running(db, name, layer=layer, layer_share=50)
        db.execute("call dbscore.run_experiment(%s, 'select * from people', 'id')", [name])
    shared = "select count(*) from dbscore.experiment_assignments x join dbscore.experiment_assignments y using (unit) where x.experiment = %s and y.experiment = %s"
    assert one(db, shared, "first", "second") == 0
    assert (
        one(db, "select count(*) from dbscore.experiment_assignments where experiment in ('first', 'second')") == 2000
    )
    assert 400 < one(db, shared, "first", "third") < 600
    with pytest.raises(psycopg.Error, match="layer 'one' has 0 percent left"):
        create(db, "fourth", layer="one", layer_share=10)
    db.execute("select dbscore.stop_experiment('first')")
    create(db, "fourth", layer="one", layer_share=10)


def test_a_layer_gives_its_largest_part_where_no_share_is_said(tip: Client, db: Connection) -> None:
    create(db, "first", layer="one", layer_share=10)
    create(db, "second", layer="one", layer_share=10)
    db.execute("select dbscore.start_experiment('first')")
    db.execute("select dbscore.stop_experiment('first')")
    create(db, "third", layer="one")
    found = db.execute("select layer_from, layer_to from dbscore.experiment where name = 'third'").fetchall()
    assert found == [(2000, 10000)]
    with pytest.raises(psycopg.Error, match=r"the share of the layer is 0\.05"):
        create(db, "fourth", layer="two", layer_share=0.05, scheme="growthbook2")
    with pytest.raises(psycopg.Error, match="has experiment second of scheme sha256"):
        create(db, "fourth", layer="one", scheme="growthbook2")


def test_a_forced_unit_has_its_variant_and_is_left_out(tip: Client, db: Connection) -> None:
    running(db)
    for unit in range(20):
        db.execute("select dbscore.force_assignment('test', %s, 'treatment')", [str(unit)])
    asked(db, "20")
    assert {asked(db, str(unit))[0] for unit in range(20)} == {"treatment"}
    assert one(db, "select sum(assigned) from dbscore.experiment_daily") == 1
    rows = db.execute(
        "select left_out, forced_by is not null, count(*) from dbscore.experiment_assignments group by 1, 2 order by 1"
    )
    assert rows.fetchall() == [("forced", True, 20), (None, False, 1)]


def test_a_unit_that_was_seen_in_two_variants_is_flagged_counted_and_left_out(tip: Client, db: Connection) -> None:
    running(db)
    for variant in ("control", "control", "treatment", "control"):
        db.execute("select dbscore.record_assignment('test', 'u', %s)", [variant])
    db.execute("select dbscore.record_assignment('test', 'other', 'treatment')")
    rows = db.execute("select unit, variant, left_out from dbscore.experiment_assignments order by 1").fetchall()
    assert rows == [("other", "treatment", None), ("u", "control", "seen in two variants")]
    assert db.execute("select variant, assigned from dbscore.experiment_daily order by 1").fetchall() == [
        ("control", 0),
        ("treatment", 1),
    ]


# --- many units, and other kinds of versions ---


def test_a_query_is_answered_as_each_of_its_rows_would_be(tip: Client, db: Connection) -> None:
    running(db)
    for unit in range(1, 30):
        asked(db, str(unit))
    db.execute("delete from dbscore.prediction")
    (count,) = db.execute("call dbscore.run_experiment('test', 'select * from people where id > 0;', 'id')").fetchall()[
        0
    ]
    assert count == recorded(db, "prediction") == 2000
    wrong = one(
        db,
        """select count(*) from people p join experiments.test_log l on l.id = p.id::text where l.prediction <> case l.variant
           when 'control' then models.tip_v1(a, b) else models.tip_v2(a, b) end or abs(l.probabilities[2] - case l.variant
           when 'control' then models.tip_v1_score(a, b) else models.tip_v2_score(a, b) end) > 1e-12 or l.variant <> experiments.test_variant(l.id)""",
    )
    assert wrong == 0
    assert one(db, "select count(*) from pg_class where relname ~ '^dbscore_rows'") == 0


def test_many_rows_are_scored_in_batches_and_those_that_are_known_keep_their_variant(
    tip: Client, db: Connection
) -> None:
    many = "select i as id, sin(i) as a, cos(i) as b from generate_series({}, {}) i"
    running(db, variants=["control=tip:1:98", "treatment=tip@challenger:2"], layer="page", layer_share=90)
    db.execute(
        "create table before as select i::text as unit, experiments.test_variant(i::text) as variant from generate_series(1, 20000) i"
    )
    db.execute("call dbscore.run_experiment('test', %s, 'id')", [many.format(1, 20_000)])
    db.execute("select dbscore.ramp_experiment('test', array['control=40', 'treatment=60'])")
    db.execute("call dbscore.run_experiment('test', %s, 'id')", [many.format(10_001, 40_000)])
    units = "select count(*) from generate_series(%s::integer, %s::integer) i where experiments.test_variant(i::text) is not null"
    assert recorded(db, "assignment") == one(db, units, 1, 40_000)
    assert recorded(db, "prediction") == one(db, units, 1, 20_000) + one(db, units, 10_001, 40_000)
    wrong = one(
        db,
        f"""select count(*) from ({many.format(1, 40_000)}) p join experiments.test_log l on l.id = p.id::text left join before f on f.unit = l.id
            where l.variant is distinct from coalesce(f.variant, experiments.test_variant(l.id)) or l.prediction is distinct from
            case l.variant when 'control' then models.tip_v1(a, b) else models.tip_v2(a, b) end""",
    )
    assert wrong == 0


def test_a_query_with_a_request_id_is_run_once(tip: Client, db: Connection) -> None:
    running(db)
    call = "call dbscore.run_experiment('test', 'select * from people', 'id', 'nightly')"
    assert db.execute(call).fetchall() == [(2000,)]
    assert db.execute(call).fetchall() == [(0,)]
    assert recorded(db, "prediction") == 2000


def test_features_are_recorded_where_the_experiment_says_so(tip: Client, db: Connection) -> None:
    running(db, record_features=True)
    asked(db, "0", 0.25, -1.0)
    db.execute("call dbscore.run_experiment('test', 'select * from people where id = 5', 'id')")
    rows = dict(db.execute("select id, features from experiments.test_log").fetchall())
    assert rows["0"] == {"a": 0.25, "b": -1.0}
    assert rows["5"] == {"a": pytest.approx(np.sin(5)), "b": pytest.approx(np.cos(5))}


def test_a_unit_that_is_twice_in_a_query_has_the_features_of_each_row(tip: Client, db: Connection) -> None:
    running(db, record_features=True)
    query = "select 1 as id, 0.25::float8 as a, 1::float8 as b union all select 1, 0.75, 1"
    assert db.execute("call dbscore.run_experiment('test', %s, 'id')", [query]).fetchall() == [(2,)]
    logged = db.execute("select features->>'a', prediction, version from experiments.test_log order by 1").fetchall()
    assert [a for a, _, _ in logged] == ["0.25", "0.75"]
    for a, prediction, version in logged:
        assert prediction == one(db, f"select models.tip_v{version[-1]}(%s::float8, 1)", float(a))


def test_in_shadow_mode_every_version_predicts_and_the_control_is_served(tip: Client, db: Connection) -> None:
    running(db, variants=["control=tip:1", "treatment=tip@challenger"], mode="shadow")
    assert asked(db, "1")[:2] == ("control", 1)
    assert recorded(db, "prediction") == 2
    db.execute("call dbscore.run_experiment('test', 'select * from people', 'id')")
    rows = db.execute(
        "select variant, version, is_served, count(*) from experiments.test_log where id <> '1' group by 1, 2, 3 order by 1"
    )
    assert rows.fetchall() == [("control", "tip:1", True, 1999), ("treatment", "tip:2", False, 1999)]
    wrong = one(
        db,
        """select count(*) from people p join experiments.test_log l on l.id = p.id::text where l.id <> '1' and
           l.prediction <> case l.variant when 'control' then models.tip_v1(a, b) else models.tip_v2(a, b) end""",
    )
    assert wrong == 0


@pytest.mark.parametrize("kind", ["texts", "truths", "numbers"])
def test_predictions_keep_their_type(client: Client, db: Connection, kind: str) -> None:
    db.execute("create table people as select i as id, sin(i) as a, cos(i) as b from generate_series(1, 50) i")
    models: dict[str, Callable[[int], Any]] = {
        "texts": lambda depth: DecisionTreeClassifier(max_depth=depth).fit(
            frame(), np.where(frame()["a"] > frame()["b"], "größer", "it's")
        ),
        "truths": lambda depth: DecisionTreeClassifier(max_depth=depth).fit(frame(), frame()["a"] > frame()["b"]),
        "numbers": lambda depth: LinearRegression().fit(frame(), depth * frame()["a"] + frame()["b"] / 3),
    }
    for depth in (1, 3):
        client.deploy(
            "tip", models[kind](depth), sample=frame(), table="people", **({"alias": "challenger"} if depth > 1 else {})
        )
    running(db)
    for unit in range(1, 20):
        first = asked(db, str(unit), float(np.sin(unit)), float(np.cos(unit)), f"r{unit}")
        assert asked(db, str(unit), 0.0, 0.0, f"r{unit}") == first
    db.execute("call dbscore.run_experiment('test', 'select * from people', 'id')")
    wrong = one(
        db,
        """select count(*) from people p join experiments.test_log l on l.id = p.id::text where l.prediction is distinct from case l.variant
           when 'control' then models.tip_v1(a, b) else models.tip_v2(a, b) end""",
    )
    assert (wrong, recorded(db, "prediction")) == (0, 69)


# --- how units are divided ---


def test_a_million_units_are_divided_evenly_and_independently_of_another_salt(tip: Client, db: Connection) -> None:
    for name in ("first", "second"):
        create(db, name, ["a=tip:1:25", "b=tip:2:25", "c=tip:1:40", "d=tip:2:10"])
    counts = db.execute(
        """select experiments.first_variant(i::text), experiments.second_variant(i::text), count(*)
           from generate_series(1, 1000000) i group by 1, 2 order by 1, 2"""
    ).fetchall()
    table = np.array([n for _, _, n in counts], float).reshape(4, 4)
    shares = np.array([0.25, 0.25, 0.4, 0.1]) * 1e6
    assert chisquare(table.sum(axis=1), shares).pvalue > 0.001
    assert chisquare(table.sum(axis=0), shares).pvalue > 0.001
    assert chi2_contingency(table).pvalue > 0.001


# --- what becomes of an experiment ---


def test_to_conclude_with_a_winner_promotes_it_in_the_same_transaction(tip: Client, db: Connection) -> None:
    running(db)
    with db.transaction(force_rollback=True):
        db.execute("select dbscore.conclude_experiment('test', 'treatment')")
    assert one(db, "select status from dbscore.experiments") == "running"
    assert one(db, "select champion from dbscore.models") == 1
    db.execute("select dbscore.conclude_experiment('test', 'treatment', 'better')")
    assert db.execute("select status, winner from dbscore.experiments").fetchall() == [("concluded", "treatment")]
    assert one(db, "select champion from dbscore.models") == 2
    assert one(db, "select models.tip(0.3, -0.2) = models.tip_v2(0.3, -0.2)")
    assert one(db, "select reason from dbscore.alias_history order by alias_history_id desc limit 1") == "better"
    with pytest.raises(psycopg.Error, match="experiment test is concluded") as refused:
        asked(db, "1")
    assert "Its winner is treatment" in (refused.value.diag.message_hint or "")


def test_a_status_moves_along_its_path_only(tip: Client, db: Connection) -> None:
    create(db)
    for call in ("pause_experiment('test')", "stop_experiment('test')", "conclude_experiment('test', 'control')"):
        with pytest.raises(psycopg.Error, match="experiment test is draft, and cannot be"):
            db.execute(f"select dbscore.{call}")
    db.execute("select dbscore.start_experiment('test')")
    with pytest.raises(psycopg.Error, match="experiment test is running, and cannot be started"):
        db.execute("select dbscore.start_experiment('test')")
    with pytest.raises(psycopg.Error, match="experiment test is running, and cannot be dropped"):
        db.execute("select dbscore.drop_experiment('test')")
    for call in ("pause", "start", "pause", "stop"):
        db.execute(f"select dbscore.{call}_experiment('test')")
    with pytest.raises(psycopg.Error, match="experiment test is concluded, and cannot be started"):
        db.execute("select dbscore.start_experiment('test')")
    db.execute("select dbscore.drop_experiment('test')")
    assert one(db, "select count(*) from dbscore.experiments") == 0
    assert one(db, "select count(*) from pg_proc where pronamespace = 'experiments'::regnamespace") == 0
    actions = db.execute("select action from dbscore.experiment_history order by experiment_history_id").fetchall()
    assert [action for (action,) in actions] == ["create", "start", "pause", "start", "pause", "stop", "drop"]


def test_a_version_that_an_experiment_tests_cannot_be_taken_away(tip: Client, db: Connection) -> None:
    create(db, variants=["control=tip:1:50", "treatment=tip:2:50"])
    tip.deploy("tip", fitted(5.0), sample=frame(), alias="challenger")
    with pytest.raises(InUseError, match="tip:2 cannot be retired: experiment test"):
        tip.retire("tip:2")
    db.execute("select dbscore.start_experiment('test'), dbscore.stop_experiment('test')")
    tip.retire("tip:2")
    with pytest.raises(InUseError, match="tip:2 cannot be dropped: experiment test"):
        tip.drop("tip:2")
    with pytest.raises(psycopg.Error, match="model tip has no version 2"):
        create(db, "again", ["control=tip:1:50", "treatment=tip:2:50"])
    db.execute("select dbscore.drop_experiment('test')")
    tip.drop("tip:2")


def test_an_upgrade_keeps_experiments_running(tip: Client, db: Connection) -> None:
    running(db)
    before = asked(db, "1")
    db.execute("update dbscore.installation set functions_sha256 = null")
    tip.install()
    assert asked(db, "1") == before


# --- what is refused ---


@pytest.mark.parametrize(
    ("options", "said", "state"),
    [
        ({"variants": ["a=tip:1:50", "b=tip:2:40"]}, "the weights sum to 90, not to 100", "ML014"),
        ({"variants": ["a=tip:1:50", "b=tip:2:half"]}, "the weight of variant b is 'half'", "ML014"),
        ({"variants": ["a=tip:1:50", "b:50"]}, "the variant 'b:50' cannot be read", "ML014"),
        ({"variants": ["a=:50", "b=tip:2:50"]}, "cannot be read", "ML014"),
        ({"variants": ["a=tip:1:100"]}, "an experiment of 1 variant has nothing to compare", "ML014"),
        ({"variants": ["a=tip:1:50", "a=tip:2:50"]}, "there are two variants 'a'", "ML003"),
        ({"variants": ["a=tip:1:50", "B!=tip:2:50"]}, "a variant cannot be called 'B!'", "ML003"),
        ({"variants": ["a=tip:1:50", "b=tip:9:50"]}, "model tip has no version 9", "ML001"),
        ({"variants": ["a=tip:1:50", "b=nothing:1:50"]}, "there is no model 'nothing'", "ML001"),
        (
            {"variants": ["a=tip:1:50", "b=other:1:50"]},
            "does not take the features of the control .tip:1.: it lacks b; it has c besides",
            "ML002",
        ),
        ({"variants": ["a=tip:1:50", "b=line:1:50"]}, "predicts double precision", "ML014"),
        ({"name": "No"}, "an experiment cannot be called 'No'", "ML003"),
        ({"unit": ""}, "units cannot be told apart by ''", "ML014"),
        ({"unit": "a"}, "the unit is called as a feature is: a", "ML003"),
        ({"mode": "blind"}, "there is no mode 'blind'", "ML014"),
        ({"scheme": "md5"}, "there is no scheme 'md5'", "ML014"),
        ({"holdout": 1}, "the holdout is 1", "ML014"),
        ({"eligible": "nothing > 1"}, "the condition 'nothing > 1' is none on the features", "ML014"),
        ({"eligible": "a >"}, "the condition 'a >' is none on the features", "ML014"),
        ({"layer_share": 20}, "the share of the layer is 20", "ML014"),
    ],
)
def test_a_design_that_cannot_be_is_refused_and_nothing_is_left(
    tip: Client, db: Connection, options: dict[str, Any], said: str, state: str
) -> None:
    wide = frame().rename(columns={"b": "c"})
    tip.deploy("other", LogisticRegression().fit(wide, (wide["a"] > 0).astype(int)), sample=wide)
    tip.deploy("line", LinearRegression().fit(frame(), frame()["a"]), sample=frame())
    with pytest.raises(psycopg.Error, match=said) as refused:
        create(db, **options)
    assert (refused.value.sqlstate, bool(refused.value.diag.message_hint)) == (state, True)
    assert one(db, "select count(*) from dbscore.experiment") == 0


def test_two_experiments_of_one_name_or_of_colliding_functions_are_refused(tip: Client, db: Connection) -> None:
    create(db, "test")
    for name in ("test", "test_assign"):
        with pytest.raises(
            psycopg.Error, match=f"the functions of '{name}' would have names that those of experiment test have"
        ):
            create(db, name)


@pytest.mark.parametrize(("unit", "said"), [(None, "the unit is NULL"), ("", "the unit is empty")])
def test_a_unit_that_is_none_is_refused(tip: Client, db: Connection, unit: str | None, said: str) -> None:
    running(db)
    with pytest.raises(psycopg.Error, match=said):
        db.execute("select * from experiments.test(%s::text, 0.1::double precision, 0.1::double precision)", [unit])
    with pytest.raises(psycopg.Error, match=said):
        db.execute("select dbscore.assign('test', %s::text)", [unit])
    with pytest.raises(psycopg.Error, match="1 rows have a unit that is NULL or empty"):
        db.execute(
            "call dbscore.run_experiment('test', 'select nullif(id::text, ''3'') as id, a, b from people', 'id')"
            if unit is None
            else "call dbscore.run_experiment('test', 'select case id when 3 then '''' else id::text end as id, a, b from people', 'id')"
        )
    assert recorded(db, "assignment") == 0


def test_an_experiment_that_is_unknown_or_not_running_is_refused(tip: Client, db: Connection) -> None:
    create(db)
    for call in (
        "select dbscore.assign('no', '1')",
        "call dbscore.run_experiment('no', 'select 1', 'id')",
        "select dbscore.start_experiment('no')",
        "select dbscore.record_outcome('no', '1', 'm', 1)",
        "select dbscore.record_assignment('no', '1', 'control')",
    ):
        with pytest.raises(psycopg.Error, match="there is no experiment 'no'"):
            db.execute(call)
    with pytest.raises(psycopg.Error, match="experiment test is a draft"):
        asked(db, "1")
    db.execute("select dbscore.start_experiment('test'), dbscore.pause_experiment('test')")
    with pytest.raises(psycopg.Error, match="experiment test is paused"):
        asked(db, "1")
    with pytest.raises(psycopg.Error, match="experiment test is paused"):
        db.execute("call dbscore.run_experiment('test', 'select * from people', 'id')")


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        (["control=50", "treatment=40"], "the weights sum to 90"),
        (["control=50"], "variant treatment has no weight"),
        (["control=50", "other=50"], "has no variant 'other'"),
        (["control=x", "treatment=50"], "the weight of variant control is 'x'"),
        (["control=20", "control=50", "treatment=50"], "variant control has two weights"),
    ],
)
def test_weights_that_cannot_be_leave_those_in_force(
    tip: Client, db: Connection, weights: list[str], said: str
) -> None:
    running(db)
    with pytest.raises(psycopg.Error, match=said):
        db.execute("select dbscore.ramp_experiment('test', %s)", [weights])
    assert recorded(db, "allocation") == 1


def test_a_query_without_a_feature_or_with_a_row_that_cannot_be_scored_leaves_nothing(
    tip: Client, db: Connection
) -> None:
    running(db)
    with pytest.raises(psycopg.Error, match='column "b" does not exist'):
        db.execute("call dbscore.run_experiment('test', 'select id, a from people', 'id')")
    with pytest.raises(psycopg.Error, match=r"Infinity|inf"):
        db.execute("call dbscore.run_experiment('test', 'select id, ''Infinity''::float8 as a, b from people', 'id')")
    assert [recorded(db, table) for table in ("assignment", "prediction")] == [0, 0]


# --- who may ---


def test_a_role_that_was_granted_an_experiment_uses_it_and_writes_nothing_else(
    tip: Client, db: Connection, role: Callable[[], str], as_role: Callable[[str], Connection]
) -> None:
    running(db)
    create(db, "other")
    granted, stranger = role(), role()
    db.execute("select dbscore.grant_experiment('test', %s)", [granted])
    db.execute("select dbscore.create_metric('test', 'paid', 'conversion')")
    own = as_role(granted)
    assert asked(own, "1")[0] == asked(db, "1")[0]
    own.execute("create temporary table mine as select 5 as id, 0.1::float8 as a, 0.2::float8 as b")
    assert own.execute("call dbscore.run_experiment('test', 'select * from mine', 'id')").fetchall() == [(1,)]
    own.execute("select dbscore.record_outcome('test', '1', 'paid', 1)")
    assert one(own, "select count(*) from experiments.test_log") == 3
    assert one(own, "select string_agg(experiment, ',') from dbscore.experiments") == "test"
    for view in ("assignments", "predictions", "outcomes", "daily", "summary", "results"):
        own.execute(f"select * from dbscore.experiment_{view}")
    for statement in (
        "insert into dbscore.assignment (experiment_id, unit, variant, allocation_id) values (1, 'x', 1, 1)",
        "update dbscore.assignment set variant = 2",
        "select * from dbscore.prediction",
        "select * from dbscore.outcome",
        "select dbscore.start_experiment('test')",
        "select dbscore.create_metric('test', 'more', 'mean')",
        "select dbscore.force_assignment('test', '1', 'control')",
        "select dbscore.conclude_experiment('test', 'control')",
        "select dbscore.promote('tip', 2)",
        "select dbscore.grant_experiment('test', 'public')",
        "select * from experiments.other('1', 0.1::float8, 0.1::float8)",
        "select * from dbscore.experiment",
        "call dbscore.run_experiment('test', 'select * from people', 'id')",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            own.execute(statement)
    for statement in (
        "select * from experiments.test('1', 0.1::float8, 0.1::float8)",
        "select * from dbscore.experiments",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            as_role(stranger).execute(statement)
    db.execute("select dbscore.revoke_experiment('test', %s)", [granted])
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        asked(own, "1")


def test_a_relation_that_somebody_prepared_is_not_read_as_the_owner(
    tip: Client, db: Connection, role: Callable[[], str], as_role: Callable[[str], Connection]
) -> None:
    running(db)
    name = role()
    db.execute("select dbscore.grant_experiment('test', %s)", [name])
    own = as_role(name)
    number = one(db, "select experiment_id from dbscore.experiment where name = 'test'")
    relation = f"dbscore_rows_{number}"
    for made in (f"temporary table {relation} (dbscore_unit text, a float8, b float8)",
                 f"temporary view {relation} as select '1'::text as dbscore_unit, 0.5::float8 as a, 0.5::float8 as b"):  # fmt: skip
        own.execute(f"create {made}")
        with pytest.raises(psycopg.Error, match="no rows were taken down"):
            own.execute("select experiments.test_rows(null)")
        with pytest.raises(psycopg.Error):
            own.execute("call dbscore.run_experiment('test', 'select * from people', 'id')")
        own.execute(f"drop {'table' if 'table' in made else 'view'} {relation}")
    assert recorded(db, "assignment") == 0


def test_who_asks_may_insert_rows_and_nothing_else(
    tip: Client, db: Connection, role: Callable[[], str], as_role: Callable[[str], Connection]
) -> None:
    running(db)
    name = role()
    db.execute("select dbscore.grant_experiment('test', %s)", [name])
    own = as_role(name)
    number = one(db, "select experiment_id from dbscore.experiment where name = 'test'")
    relation = f"pg_temp.dbscore_rows_{number}"
    own.execute("begin")
    own.execute("select experiments.test_table(current_user)")
    for statement in (
        f"delete from {relation}",
        f"create index on {relation} (a)",
        f"alter table {relation} add column more integer",
        f"update {relation} set dbscore_unit = '2'",
        f"create trigger t before insert on {relation} for each row execute function suppress_redundant_updates_trigger()",
        f"drop table {relation}",
    ):
        own.execute("savepoint s")
        with pytest.raises(psycopg.Error):
            own.execute(statement)
        own.execute("rollback to s")
    own.execute(f"insert into {relation} values ('1', 0.5, 0.5), ('2', 0.5, 0.5)")
    assert one(own, "select experiments.test_rows(null)") == 2
    own.execute("commit")
    drawn = "select count(*) from dbscore.experiment_assignments where variant = experiments.test_variant(unit)"
    assert one(db, drawn) == 2


def test_who_does_not_own_the_schema_is_told_so(
    tip: Client, url: str, role: Callable[[], str], as_role: Callable[[str], Connection]
) -> None:
    from tests.conftest import at

    name = role()
    with Client(at(url, user=name, password=name)) as stranger, pytest.raises(DbscoreError) as refused:
        stranger.experiments.start("test")
    assert refused.value.sqlstate == "ML010"
