"""What came of units: metrics, outcomes, and the views that say which variant is better."""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import psycopg
import pytest
from scipy.stats import chi2, chisquare, norm
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import brier_score_loss, log_loss, mean_absolute_error, mean_squared_error
from statsmodels.stats.proportion import proportions_ztest

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbscore import Client

Connection = psycopg.Connection[Any]


def frame(rows: int = 300) -> pd.DataFrame:
    return pd.DataFrame(np.random.default_rng(0).normal(size=(rows, 2)), columns=["a", "b"])


def one(db: Connection, statement: str, *parameters: Any) -> Any:
    return db.execute(statement, parameters).fetchall()[0][0]


def rows_of(db: Connection, statement: str) -> list[dict[str, Any]]:
    cursor = db.execute(statement)
    names = [column.name for column in cursor.description or ()]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def classifier(strength: float = 1.0, labels: Any = (0, 1)) -> LogisticRegression:
    target = np.array(labels)[np.searchsorted([0.0] if len(labels) == 2 else [-0.5, 0.5], frame()["a"])]
    return LogisticRegression(C=strength).fit(frame(), target)


def experiment(
    client: Client, db: Connection, *models: Any, mode: str = "ab", weights: tuple[int, int] = (50, 50)
) -> None:
    db.execute("create table people as select i as id, sin(i) as a, cos(i) as b from generate_series(1, 1000) i")
    for number, model in enumerate(models or (classifier(), classifier(0.01))):
        client.deploy("tip", model, sample=frame(), **({"alias": "challenger"} if number else {}))
    listed = [f"control=tip:1:{weights[0]}", f"treatment=tip:2:{weights[1]}"]
    db.execute("select dbscore.create_experiment('test', 'id', %s, mode => %s)", [listed, mode])
    db.execute("select dbscore.start_experiment('test')")
    db.execute("call dbscore.run_experiment('test', 'select * from people', 'id')")


def metric(db: Connection, name: str, kind: str, **options: Any) -> None:
    listed = "".join(f', "{key}" => %({key})s' for key in options)
    db.execute(
        f"select dbscore.create_metric('test', %(name)s, %(kind)s{listed})", {"name": name, "kind": kind, **options}
    )


def variants(db: Connection) -> dict[str, str]:
    return dict(
        db.execute("select unit, variant from dbscore.experiment_assignments where left_out is null").fetchall()
    )


def outcomes(
    db: Connection, name: str, values: list[tuple[str, float]], *, denominators: list[float] | None = None
) -> None:
    for place, (unit, value) in enumerate(values):
        db.execute(
            "select dbscore.record_outcome('test', %s, %s, %s::double precision, clock_timestamp(), %s)",
            [unit, name, value, denominators[place] if denominators else None],
        )


# --- what is counted ---


def test_each_kind_of_metric_is_what_pandas_makes_of_the_outcomes(client: Client, db: Connection) -> None:
    experiment(client, db)
    random = np.random.default_rng(1)
    units = [str(u) for u in random.integers(1, 1001, 900)]
    values, denominators = random.normal(2, 1, 900).round(3), random.integers(1, 5, 900).astype(float)
    values[random.random(900) < 0.3] = 0
    for kind in ("conversion", "mean", "count", "ratio"):
        metric(db, f"the_{kind}", kind)
        outcomes(
            db,
            f"the_{kind}",
            list(zip(units, values.tolist(), strict=True)),
            denominators=denominators.tolist() if kind == "ratio" else None,
        )
    known = pd.DataFrame({"unit": units, "value": values, "denominator": denominators})
    by_unit = known.groupby("unit").agg(
        conversion=("value", lambda v: float((v != 0).any())),
        mean=("value", "sum"),
        count=("value", "size"),
        y=("denominator", "sum"),
    )
    everyone = pd.DataFrame({"variant": variants(db)}).join(by_unit).fillna(0.0)
    for refreshed in (False, True):
        if refreshed:
            db.execute("select dbscore.refresh_experiment('test')")
            assert one(db, "select count(*) from dbscore.metric_day") > 0
        found = {(r["metric"], r["variant"]): r for r in rows_of(db, "select * from dbscore.experiment_summary")}
        for variant, arm in everyone.groupby("variant"):
            for kind in ("conversion", "mean", "count"):
                row = found[(f"the_{kind}", variant)]
                assert (row["n"], row["sum"]) == (len(arm), pytest.approx(arm[kind].sum(), rel=1e-12))
                assert row["mean"] == pytest.approx(arm[kind].mean(), rel=1e-12)
                assert row["variance"] == pytest.approx(arm[kind].var(), rel=1e-9)
            ratio = arm["mean"].sum() / arm["y"].sum()
            linear = (arm["mean"] - ratio * arm["y"]) / arm["y"].mean()
            row = found[("the_ratio", variant)]
            assert row["mean"] == pytest.approx(ratio, rel=1e-12)
            assert row["variance"] == pytest.approx(linear.var(), rel=1e-9)


def test_only_outcomes_after_the_exposure_and_within_the_window_count(client: Client, db: Connection) -> None:
    experiment(client, db)
    metric(db, "paid", "mean", window="7 days")
    for offset in ("-1 second", "0 seconds", "6 days", "7 days", "8 days"):
        db.execute(
            """select dbscore.record_outcome('test', '1', 'paid', 1::float8, (select assigned_at from dbscore.assignment where unit = '1') + %s::interval)""",
            [offset],
        )
    assert one(db, "select sum(total) from dbscore.experiment_daily") == 2
    counted = db.execute(
        "select counts, reason, count(*) from dbscore.experiment_outcomes group by 1, 2 order by 2"
    ).fetchall()
    assert counted == [(False, "after the window", 2), (False, "before the exposure", 1), (True, None, 2)]


def test_sums_by_day_are_the_same_whether_they_were_refreshed_before_between_or_after(
    client: Client, db: Connection, url: str
) -> None:
    experiment(client, db)
    metric(db, "paid", "mean")
    metric(db, "any", "conversion")
    random = np.random.default_rng(2)

    def live() -> list[Any]:
        query = "select metric, variant, allocation, day, assigned, units, round(total::numeric, 6), round(squares::numeric, 6) from dbscore.experiment_daily order by 1, 2, 3, 4"
        return db.execute(query).fetchall()

    def same_as_anew() -> None:
        before = live()
        db.execute("select dbscore.refresh_experiment('test')")
        assert live() == before
        with db.transaction(force_rollback=True):
            db.execute("select dbscore.count_anew(experiment_id) from dbscore.experiment")
            assert live() == before

    with psycopg.connect(url) as slow:
        # a transaction that is open all the while: what it writes is counted when it is there, and once
        slow.execute("select dbscore.record_outcome('test', '1', 'paid', 100)")
        for _ in range(3):
            for name in ("paid", "any"):
                outcomes(
                    db,
                    name,
                    [
                        (str(u), float(v))
                        for u, v in zip(random.integers(1, 200, 20), random.normal(size=20), strict=True)
                    ],
                )
            same_as_anew()
        slow.commit()
    assert sum(row[6] for row in live() if row[0] == "paid") > 50
    same_as_anew()
    for unit in ("1", "2", "3"):
        db.execute("select dbscore.force_assignment('test', %s, 'control')", [unit])
    same_as_anew()
    db.execute("select dbscore.ramp_experiment('test', array['control=10', 'treatment=90'])")
    db.execute("call dbscore.run_experiment('test', 'select id + 5000 as id, a, b from people', 'id')")
    outcomes(db, "paid", [("5001", 3.0)])
    same_as_anew()
    assert one(db, "select sum(units) from dbscore.exposure_day where variant > 0") == 1997


def test_a_database_that_was_restored_elsewhere_counts_its_units_once(client: Client, db: Connection) -> None:
    experiment(client, db)
    metric(db, "paid", "mean")
    outcomes(db, "paid", [("1", 2.0)])
    db.execute("select dbscore.refresh_experiment('test')")
    before = db.execute("select * from dbscore.experiment_daily order by variant").fetchall()
    # the other cluster has come to transactions that this one has not
    for table in ("assignment", "outcome"):
        db.execute(f"update dbscore.{table} set xact = '900000000000'")
    db.execute("update dbscore.experiment set counted_xact = '900000000001'")
    db.execute("select dbscore.refresh_experiment('test')")
    assert db.execute("select * from dbscore.experiment_daily order by variant").fetchall() == before
    outcomes(db, "paid", [("1", 3.0)])
    assert one(db, "select sum(total) from dbscore.experiment_daily") == 5


def test_outcomes_come_from_the_users_own_tables(client: Client, db: Connection) -> None:
    experiment(client, db)
    db.execute("create schema shop create table sales (customer bigint, paid numeric, sold_at timestamptz)")
    db.execute(
        "insert into shop.sales select i, i, now() + interval '1 hour' from generate_series(1, 10) i union all select 777777, 1, now()"
    )
    db.execute("set search_path = shop, public")
    metric(db, "paid", "mean", source="select customer as unit, paid as value, sold_at as at from sales;")
    for _ in range(2):
        assert one(db, "select dbscore.collect_outcomes('test')") == 10
        assert one(db, "select sum(total) from dbscore.experiment_daily") == 55
        db.execute("select dbscore.refresh_experiment('test')")
    db.execute("update sales set paid = 1")
    db.execute("select dbscore.collect_outcomes('test')")
    assert one(db, "select sum(total) from dbscore.experiment_daily") == 10


def test_two_that_collect_at_once_take_each_outcome_once(client: Client, db: Connection, url: str) -> None:
    experiment(client, db)
    metric(db, "paid", "mean", source="select id as unit, 1 as value, now() + interval '1 hour' as at from people")
    with psycopg.connect(url) as first:
        first.execute("select dbscore.collect_outcomes('test')")
        waiting = threading.Thread(target=lambda: db.execute("select dbscore.collect_outcomes('test')"))
        waiting.start()
        waiting.join(0.5)
        assert waiting.is_alive()
        first.commit()
        waiting.join()
    assert one(db, "select count(*) from dbscore.outcome") == 1000


def test_numbers_that_are_none_are_not_taken(client: Client, db: Connection) -> None:
    experiment(client, db)
    listed = "unnest(array['inf', '+Infinity', 'nan', '2', null]) as value"
    metric(db, "paid", "mean", source=f"select 1 as unit, {listed}, now() + interval '1 hour' as at")
    assert one(db, "select dbscore.collect_outcomes('test')") == 1


# --- the truth beside the prediction ---


@pytest.mark.parametrize("labels", [(0, 1), ("no", "yes"), ("high", "low", "mid")])
def test_losses_of_classifiers_are_those_of_scikit_learn(
    client: Client, db: Connection, labels: tuple[Any, ...]
) -> None:
    experiment(client, db, classifier(1.0, labels), classifier(0.01, labels))
    kinds = ["log_loss"] + (["brier", "auc"] if len(labels) == 2 else [])
    for kind in kinds:
        metric(db, f"the_{kind}", kind)
    random = np.random.default_rng(3)
    truth = {str(u): labels[random.integers(len(labels))] for u in range(1, 301)}
    for unit, label in truth.items():
        for kind in kinds:
            db.execute("select dbscore.record_outcome('test', %s, %s, %s::text)", [unit, f"the_{kind}", str(label)])
    shares = dict(db.execute("select id, probabilities from experiments.test_log").fetchall())
    arms = variants(db)
    for row in rows_of(db, "select * from dbscore.experiment_summary"):
        units = [u for u in truth if arms[u] == row["variant"]]
        known, predicted = [truth[u] for u in units], np.array([shares[u] for u in units])
        expected = (
            log_loss(known, predicted, labels=sorted(labels))
            if row["kind"] == "log_loss"
            else brier_score_loss([k == labels[1] for k in known], predicted[:, 1])
        )
        assert (row["n"], row["mean"]) == (len(units), pytest.approx(expected, rel=1e-9))
    if len(labels) == 2:
        kept = db.execute(
            "select unit, value, predicted from dbscore.experiment_outcomes where metric = 'the_auc'"
        ).fetchall()
        assert {(u, v, p) for u, v, p in kept} == {(u, float(truth[u] == labels[1]), shares[u][1]) for u in truth}


def test_errors_of_regressions_are_those_of_scikit_learn_for_each_version_in_shadow_mode(
    client: Client, db: Connection
) -> None:
    first = LinearRegression().fit(frame(), frame()["a"])
    second = LinearRegression().fit(frame(), frame()["a"] + 0.5 * frame()["b"])
    experiment(client, db, first, second, mode="shadow")
    for kind in ("rmse", "mae"):
        metric(db, kind, kind)
        outcomes(db, kind, [(str(u), float(np.cos(3 * u))) for u in range(1, 101)])
    people = pd.DataFrame({"a": np.sin(np.arange(1, 101)), "b": np.cos(np.arange(1, 101))})
    truth = np.cos(3 * np.arange(1, 101))
    for row in rows_of(db, "select * from dbscore.experiment_summary"):
        predicted = (first if row["variant"] == "control" else second).predict(people)
        expected = {"rmse": mean_squared_error, "mae": mean_absolute_error}[row["kind"]](truth, predicted)
        assert (row["n"], row["mean"]) == (100, pytest.approx(expected, rel=1e-9))


# --- which variant is better ---


def counted(
    db: Connection, arms: dict[str, tuple[int, float, float]], kind: str = "conversion", allocation: int = 1
) -> None:
    """Put sums of units there, as refreshed: n, sum and sum of squares of each variant."""
    where = "e.name = 'test' and l.number = %s and v.name = %s"
    for variant, (n, total, squares) in arms.items():
        db.execute(
            f"""insert into dbscore.exposure_day select e.experiment_id, l.allocation_id, v.number, current_date, {n} from dbscore.experiment e
            join dbscore.allocation l using (experiment_id) join dbscore.variant v using (experiment_id) where {where}""",
            [allocation, variant],
        )
        db.execute(
            f"""insert into dbscore.metric_day select m.metric_id, l.allocation_id, v.number, current_date, {n}, {total}, {squares}, 0, 0, 0
            from dbscore.experiment e join dbscore.metric m using (experiment_id) join dbscore.allocation l using (experiment_id)
            join dbscore.variant v using (experiment_id) where {where} and m.kind = %s""",
            [allocation, variant, kind],
        )


@pytest.fixture
def drafted(client: Client, db: Connection) -> Connection:
    """An experiment that has recorded nothing."""
    for number in range(2):
        client.deploy("tip", classifier(0.1 + number), sample=frame(), **({"alias": "challenger"} if number else {}))
    db.execute("select dbscore.create_experiment('test', 'id', array['control=tip:1:50', 'treatment=tip:2:50'])")
    metric(db, "paid", "conversion")
    metric(db, "revenue", "mean")
    return db


def test_two_proportions_have_the_references_z_and_p(drafted: Connection) -> None:
    counted(drafted, {"control": (10_000, 1000, 1000), "treatment": (10_000, 1100, 1100)})
    (row,) = [r for r in rows_of(drafted, "select * from dbscore.experiment_results") if r["metric"] == "paid"]
    assert row["z"] == pytest.approx(2.3066347738, abs=1e-9)
    assert row["p"] == pytest.approx(0.0210751893, abs=1e-9)
    assert (row["control_n"], row["n"], row["lift"]) == (10_000, 10_000, pytest.approx(0.1))
    z, p = proportions_ztest([1100, 1000], [10_000, 10_000])
    assert (row["z"], row["p"]) == (pytest.approx(z, rel=1e-9), pytest.approx(p, rel=1e-9))


def test_two_means_have_the_normal_approximation_of_welchs_test(drafted: Connection) -> None:
    a = [12.1, 9.8, 15.3, 11.0, 8.7, 13.4, 10.2, 14.9, 9.1, 12.8]
    b = [14.2, 11.9, 16.8, 13.1, 9.9, 15.7, 12.4, 17.5, 10.3, 14.6, 18.1, 13.3]
    counted(
        drafted, {k: (len(v), sum(v), sum(x * x for x in v)) for k, v in (("control", a), ("treatment", b))}, "mean"
    )
    (row,) = [r for r in rows_of(drafted, "select * from dbscore.experiment_results") if r["metric"] == "revenue"]
    # Welch's t is the same number; only its distribution is another
    assert row["z"] == pytest.approx(2.1023099038, abs=1e-9)
    assert row["p"] == pytest.approx(2 * norm.sf(2.1023099038), abs=1e-9)
    half = norm.ppf(0.975) * row["standard_error"]
    assert (row["lower"], row["upper"]) == (
        pytest.approx(row["difference"] - half),
        pytest.approx(row["difference"] + half),
    )


def test_a_sample_ratio_that_fails_is_told(drafted: Connection) -> None:
    counted(drafted, {"control": (50_421, 0, 0), "treatment": (49_579, 0, 0)})
    (row,) = [r for r in rows_of(drafted, "select * from dbscore.experiment_results") if r["metric"] == "paid"]
    assert row["sample_ratio_chi_square"] == pytest.approx(7.08964, abs=1e-9)
    assert row["sample_ratio_p"] == pytest.approx(0.0077530820, abs=1e-9)
    assert row["sample_ratio_suspicious"] is False
    drafted.execute("update dbscore.exposure_day set units = units + 1500 where variant = 1")
    assert one(drafted, "select bool_and(sample_ratio_suspicious) from dbscore.experiment_results")


def test_a_period_without_units_leaves_the_sample_ratio_as_it_is(drafted: Connection) -> None:
    counted(drafted, {"control": (50_421, 0, 0), "treatment": (49_579, 0, 0)})
    drafted.execute("select dbscore.ramp_experiment('test', array['control=0', 'treatment=100'])")
    (row,) = [r for r in rows_of(drafted, "select * from dbscore.experiment_results") if r["metric"] == "paid"]
    assert row["sample_ratio_p"] == pytest.approx(0.0077530820, abs=1e-9)
    # units in a variant that gets none
    counted(drafted, {"control": (5, 0, 0), "treatment": (900, 0, 0)}, allocation=2)
    (row,) = [r for r in rows_of(drafted, "select * from dbscore.experiment_results") if r["metric"] == "paid"]
    assert (row["sample_ratio_p"], row["sample_ratio_suspicious"]) == (0, True)


def test_an_outcome_in_the_transaction_of_the_prediction_counts(client: Client, db: Connection) -> None:
    experiment(client, db)
    metric(db, "paid", "mean")
    with db.transaction():
        db.execute("select * from experiments.test('new', 0.1::float8, 0.1::float8)")
        db.execute("select dbscore.record_outcome('test', 'new', 'paid', 2)")
    assert one(db, "select sum(total) from dbscore.experiment_daily") == 2


def test_periods_of_other_weights_are_compared_apart(drafted: Connection) -> None:
    drafted.execute("select dbscore.ramp_experiment('test', array['control=10', 'treatment=90'])")
    periods = [((900, 90, 90), (900, 99, 99)), ((200, 60, 60), (1800, 560, 560))]
    for number, (control, treatment) in enumerate(periods, 1):
        counted(drafted, {"control": control, "treatment": treatment}, allocation=number)
    (row,) = [r for r in rows_of(drafted, "select * from dbscore.experiment_results") if r["metric"] == "paid"]
    sizes = [c[0] + t[0] for c, t in periods]
    shares = [n / sum(sizes) for n in sizes]
    differences = [t[1] / t[0] - c[1] / c[0] for c, t in periods]
    pooled = [(c[1] + t[1]) / (c[0] + t[0]) for c, t in periods]
    error = math.sqrt(
        sum(w * w * p * (1 - p) * (1 / c[0] + 1 / t[0]) for w, p, (c, t) in zip(shares, pooled, periods, strict=True))
    )
    assert row["difference"] == pytest.approx(sum(w * d for w, d in zip(shares, differences, strict=True)), rel=1e-12)
    assert row["z"] == pytest.approx(row["difference"] / error, rel=1e-9)
    ratio = chisquare([900, 900]).statistic + chisquare([200, 1800], [200, 1800]).statistic
    assert row["sample_ratio_chi_square"] == pytest.approx(ratio, abs=1e-9)
    assert row["sample_ratio_p"] == pytest.approx(chi2.sf(ratio, 2), abs=1e-9)


def test_probabilities_are_those_of_scipy(db: Connection) -> None:
    for df in (1, 2, 3, 4, 7, 50):
        for x in (0.0, 1e-6, 0.5, 1.0, 3.84, 10.0, 60.0, 700.0):
            found = one(db, "select dbscore.chi_square_p(%s, %s)", x, df)
            assert found == pytest.approx(chi2.sf(x, df), rel=1e-9, abs=1e-300)
    for z in (0.0, 0.1, -1.0, 1.959963984540054, 5.0, -12.0, 37.0):
        assert one(db, "select dbscore.normal_p(%s::float8)", z) == pytest.approx(2 * norm.sf(abs(z)), rel=1e-9)


# --- what is refused ---


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("record_outcome('test', 'nobody', 'paid', 1)", "unit 'nobody' was never exposed to experiment test"),
        ("record_outcome('test', '', 'paid', 1)", "the unit is empty"),
        ("record_outcome('test', '1', 'nothing', 1)", "the experiment has no metric 'nothing'"),
        ("record_outcome('test', '1', 'paid', null::float8)", "the value of metric paid is NULL"),
        ("record_outcome('test', '1', 'paid', 'NaN'::float8)", "the value of metric paid is NaN"),
        ("record_outcome('test', '1', 'paid', 'much'::text)", "the value of metric paid is 'much'"),
        ("record_outcome('test', '1', 'paid', 1, null)", "the time of the outcome is NULL"),
        ("record_outcome('test', '1', 'paid', 1, now(), 3)", "the denominator of metric paid is 3"),
        ("record_outcome('test', '1', 'share', 1)", "the denominator of metric share is NULL"),
        ("record_outcome('test', '1', 'loss', 'maybe'::text)", "the truth 'maybe' is no class of the versions"),
        ("record_outcome('test', '1', 'loss', '1'::text, '2000-01-01')", "unit '1' has no prediction before"),
        ("create_metric('test', 'paid', 'mean')", "experiment test has a metric 'paid' already"),
        ("create_metric('test', 'x', 'median')", "there is no kind of metric 'median'"),
        ("create_metric('test', 'x', 'mean', direction => 'up')", "the direction is 'up'"),
        ("create_metric('test', 'x', 'mean', role => 'guardrail')", "the margin of a guardrail is NULL"),
        ("create_metric('test', 'x', 'mean', margin => 0.1)", "the margin of a goal is 0.1"),
        ("create_metric('test', 'x', 'quantile')", "the quantile of a quantile is NULL"),
        ("create_metric('test', 'x', 'mean', \"window\" => '-1 day')", "the window is"),
        ("create_metric('test', 'x', 'rmse')", "the versions predict no number"),
    ],
)
def test_what_cannot_be_recorded_is_refused_and_says_what_to_do(
    client: Client, db: Connection, call: str, said: str
) -> None:
    experiment(client, db)
    metric(db, "paid", "conversion")
    metric(db, "share", "ratio")
    metric(db, "loss", "log_loss")
    with pytest.raises(psycopg.Error, match=said) as refused:
        db.execute(f"select dbscore.{call}")
    assert refused.value.sqlstate in ("ML001", "ML003", "ML014")
    assert refused.value.diag.message_hint
    assert one(db, "select count(*) from dbscore.outcome") == 0


def test_metrics_that_do_not_fit_the_versions_are_refused(client: Client, db: Connection) -> None:
    three = classifier(1.0, ("x", "y", "z"))
    experiment(
        client,
        db,
        three,
        GradientBoostingClassifier(n_estimators=5).fit(frame(), three.predict(frame())),
        mode="shadow",
    )
    with pytest.raises(psycopg.Error, match="no probabilities of two classes"):
        metric(db, "auc", "auc")
    with pytest.raises(psycopg.Error, match="experiment test in shadow mode"):
        metric(db, "paid", "conversion")


def test_views_answer_where_nothing_was_recorded(drafted: Connection, role: Callable[[], str]) -> None:
    for view in ("assignments", "predictions", "outcomes", "daily", "summary", "results"):
        assert rows_of(drafted, f"select * from dbscore.experiment_{view}") == []
    with pytest.raises(psycopg.Error, match="there is no role 'nobody'"):
        drafted.execute("select dbscore.grant_experiment('test', 'nobody')")
    assert role()


def scanned(plan: dict[str, Any], tables: set[str]) -> int:
    """Return how many rows a plan read of tables, those that a filter removed with them."""
    own = 0
    if plan.get("Relation Name") in tables:
        own = (plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)) * plan["Actual Loops"]
    return int(own) + sum(scanned(below, tables) for below in plan.get("Plans", ()))


@pytest.mark.parametrize("view", ["experiment_daily", "experiment_summary", "experiment_results"])
def test_a_view_of_one_experiment_reads_nothing_that_others_have_recorded(
    client: Client, db: Connection, role: Callable[[], str], view: str
) -> None:
    experiment(client, db)
    for name in ("other", "third"):
        db.execute(
            "select dbscore.create_experiment(%s, 'id', array['control=tip:1:50', 'treatment=tip:2:50'])", [name]
        )
        db.execute("select dbscore.start_experiment(%s)", [name])
        db.execute("call dbscore.run_experiment(%s, 'select * from people', 'id')", [name])
    for name in ("test", "other", "third"):
        for made in ("paid", "spent"):
            db.execute("select dbscore.create_metric(%s, %s, 'mean')", [name, made])
            db.execute(
                "select dbscore.record_outcome(%s, i::text, %s, i) from generate_series(1, 1000) i", [name, made]
            )
    db.execute("select dbscore.refresh_experiment('test')")
    db.execute("select dbscore.record_outcome('test', i::text, 'paid', 1) from generate_series(1, 5) i")
    db.execute("analyze")
    someone = role()
    client.experiments.grant("test", someone)
    for name in ("postgres", someone):
        db.execute(f"set role {name}")
        plan = one(db, f"explain (analyze, format json) select * from dbscore.{view} where experiment = 'test'")
        # five units have something new, by one of two metrics: their outcomes, old and new, and themselves
        assert scanned(plan[0]["Plan"], {"assignment", "outcome"}) < 100
        db.execute("reset role")


def test_a_refresh_of_one_experiment_counts_it_alone(client: Client, db: Connection) -> None:
    experiment(client, db)
    metric(db, "paid", "mean")
    db.execute("select dbscore.create_experiment('other', 'id', array['control=tip:1:50', 'treatment=tip:2:50'])")
    db.execute("select dbscore.start_experiment('other')")
    db.execute("call dbscore.run_experiment('other', 'select * from people', 'id')")
    db.execute("select dbscore.create_metric('other', 'paid', 'mean')")
    for name in ("test", "other"):
        db.execute("select dbscore.record_outcome(%s, i::text, 'paid', i) from generate_series(1, 10) i", [name])
    before = rows_of(db, "select * from dbscore.experiment_daily order by 1, 2, 3")
    db.execute("select dbscore.refresh_experiment('test')")
    assert one(db, "select count(distinct metric_id) from dbscore.metric_day") == 1
    assert one(db, "select count(distinct experiment_id) from dbscore.exposure_day") == 1
    assert rows_of(db, "select * from dbscore.experiment_daily order by 1, 2, 3") == before
