"""What the analysis says of recorded outcomes, beside scipy and statsmodels on the values unit by unit."""

from __future__ import annotations

import io
import json
import math
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import psycopg
import pytest
from scipy import stats
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import roc_auc_score
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import tt_ind_solve_power
from statsmodels.stats.proportion import proportions_ztest

from dbscore import Client
from dbscore.cli import main
from dbscore.errors import ExperimentError, NotFoundError, PrivilegeError
from dbscore.experiments.assignment import bucket
from dbscore.experiments.certification import buckets
from tests.conftest import at

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbscore.experiments import Finding

Connection = psycopg.Connection[Any]
UNITS = 600


def frame(rows: int = 300) -> pd.DataFrame:
    return pd.DataFrame(np.random.default_rng(0).normal(size=(rows, 2)), columns=["a", "b"])


def models() -> list[Any]:
    target = (frame()["a"] > 0).astype(int)
    return [LogisticRegression(C=strength).fit(frame(), target) for strength in (1.0, 0.01)]


def started(client: Client, db: Connection, *, mode: str = "ab", made: list[Any] | None = None, **options: Any) -> None:
    db.execute(
        f"create table people as select i as id, sin(i) as a, cos(i) as b from generate_series(1, {2 * UNITS}) i"
    )
    for number, model in enumerate(made or models()):
        client.deploy("tip", model, sample=frame(), **({"alias": "challenger"} if number else {}))
    weights = ["", ""] if mode == "shadow" else [":50", ":50"]
    listed = [f"control=tip:1{weights[0]}", f"treatment=tip:2{weights[1]}"]
    client.experiments.create("test", unit="id", variants=listed, mode=mode, **options)
    client.experiments.start("test")
    client.experiments.run("test", f"select * from people where id <= {UNITS}", key="id")


def record(db: Connection, metric: str, values: dict[str, float], denominators: dict[str, float] | None = None) -> None:
    with db.cursor() as cursor:
        cursor.executemany(
            "select dbscore.record_outcome('test', %s, %s, %s::double precision, clock_timestamp(), %s)",
            [(unit, metric, value, (denominators or {}).get(unit)) for unit, value in values.items()],
        )


def arms(db: Connection, values: dict[str, float], *, default: float | None = 0.0) -> list[np.ndarray]:
    found = db.execute("select unit, variant from dbscore.experiment_assignments where left_out is null").fetchall()
    return [
        np.array([v for u, w in found if w == variant and (v := values.get(u, default)) is not None], dtype=float)
        for variant in ("control", "treatment")
    ]


def random_values(seed: int, *, share: float = 0.7) -> dict[str, float]:
    random = np.random.default_rng(seed)
    drawn = random.normal(3, 1, UNITS).round(4)
    return {str(i + 1): float(drawn[i]) for i in range(UNITS) if random.random() < share}


def only(client: Client, metric: str, **options: Any) -> Finding:
    made = client.experiments.report("test", **options)
    assert made.findings is not None
    return next(one for one in made.findings if one.metric == metric)


# --- numbers ---


def test_a_mean_is_compared_as_scipy_compares_the_units(client: Client, db: Connection) -> None:
    started(client, db)
    client.experiments.add_metric("test", "paid", kind="mean")
    values = random_values(1)
    record(db, "paid", values)
    control, treatment = arms(db, values)
    expected = stats.ttest_ind(treatment, control, equal_var=False)
    found = only(client, "paid", sequential=False)
    assert (found.control_n, found.n) == (len(control), len(treatment))
    assert found.control_value == pytest.approx(control.mean(), rel=1e-9)
    assert found.value == pytest.approx(treatment.mean(), rel=1e-9)
    assert found.p_value == found.comparison.p_value == pytest.approx(expected.pvalue, rel=1e-9)
    interval = expected.confidence_interval(0.95)
    assert (found.comparison.lower, found.comparison.upper) == pytest.approx((interval.low, interval.high), rel=1e-9)
    assert found.comparison.relative == pytest.approx(treatment.mean() / control.mean() - 1, rel=1e-9)
    assert found.always_valid is None


def test_a_conversion_is_compared_as_statsmodels_compares_the_units(client: Client, db: Connection) -> None:
    started(client, db)
    client.experiments.add_metric("test", "bought", kind="conversion")
    values = dict.fromkeys(random_values(2, share=0.3), 1.0)
    record(db, "bought", values)
    control, treatment = arms(db, values)
    _, p_value = proportions_ztest([treatment.sum(), control.sum()], [len(treatment), len(control)])
    found = only(client, "bought", sequential=False)
    assert found.p_value == pytest.approx(p_value, rel=1e-9)
    assert found.comparison.difference == pytest.approx(treatment.mean() - control.mean(), rel=1e-9)


def test_a_ratio_is_compared_by_the_delta_method(client: Client, db: Connection) -> None:
    started(client, db)
    client.experiments.add_metric("test", "rate", kind="ratio")
    values = random_values(3)
    denominators = {unit: float(1 + int(unit) % 4) for unit in values}
    record(db, "rate", values, denominators)
    sides = []
    for y, x in zip(arms(db, values), arms(db, denominators), strict=True):
        ratio = y.sum() / x.sum()
        sides.append(ratio + (y - ratio * x) / x.mean())
    found = only(client, "rate", sequential=False)
    assert found.p_value == pytest.approx(stats.ttest_ind(*sides, equal_var=False).pvalue, rel=1e-9)
    assert found.value == pytest.approx(sides[1].mean(), rel=1e-9)


def test_periods_of_other_weights_are_compared_apart_and_put_together(client: Client, db: Connection) -> None:
    started(client, db)
    client.experiments.add_metric("test", "paid", kind="mean")
    client.experiments.ramp("test", {"control": 20, "treatment": 80})
    client.experiments.run("test", f"select * from people where id > {UNITS}", key="id")
    values = {str(i): math.sin(i) + (5 if i > UNITS else 0) for i in range(1, 2 * UNITS + 1)}
    record(db, "paid", values)
    rows = pd.DataFrame(
        db.execute("select unit, variant, allocation from dbscore.experiment_assignments").fetchall(),
        columns=["unit", "variant", "allocation"],
    )
    rows["value"] = rows["unit"].map(values)
    difference = square = 0.0
    for _, period in rows.groupby("allocation"):
        a, b = (period.loc[period["variant"] == v, "value"] for v in ("control", "treatment"))
        share = len(period) / len(rows)
        difference += share * (b.mean() - a.mean())
        square += share**2 * (a.var() / len(a) + b.var() / len(b))
    found = only(client, "paid", sequential=False)
    assert found.comparison.difference == pytest.approx(difference, rel=1e-9)
    assert found.comparison.standard_error == pytest.approx(math.sqrt(square), rel=1e-9)
    assert "2 periods" in found.comparison.method
    assert found.value is not None
    assert found.control_value is not None
    assert found.value - found.control_value == pytest.approx(difference, rel=1e-9)


def test_a_quantile_is_that_of_the_units_with_an_outcome(client: Client, db: Connection) -> None:
    started(client, db)
    client.experiments.add_metric("test", "late", kind="quantile", quantile=0.9, direction="lower")
    values = random_values(4)
    record(db, "late", values)
    control, treatment = arms(db, values, default=None)
    found = only(client, "late")
    assert (found.control_n, found.n) == (len(control), len(treatment))
    assert found.control_value == pytest.approx(np.quantile(control, 0.9), rel=1e-9)
    assert found.comparison.difference == pytest.approx(
        np.quantile(treatment, 0.9) - np.quantile(control, 0.9), rel=1e-9
    )


def truths(db: Connection, metric: str, *, seed: int = 5, flips: float = 0.3) -> dict[str, int]:
    random = np.random.default_rng(seed)
    found = {str(i): int((math.sin(i) > 0) != (random.random() < flips)) for i in range(1, UNITS + 1)}
    record(db, metric, {unit: float(truth) for unit, truth in found.items()})
    return found


def test_areas_of_two_arms_have_delongs_errors(client: Client, db: Connection) -> None:
    started(client, db)
    client.experiments.add_metric("test", "area", kind="auc")
    known = truths(db, "area")
    rows = db.execute("select unit, variant, probabilities[2] from dbscore.experiment_predictions").fetchall()
    areas, square = [], 0.0
    for variant in ("control", "treatment"):
        y = np.array([known[u] for u, v, _ in rows if v == variant])
        p = np.array([q for _, v, q in rows if v == variant])
        areas.append(roc_auc_score(y, p))
        wins = (p[y == 1][:, None] > p[y == 0]) + 0.5 * (p[y == 1][:, None] == p[y == 0])
        square += wins.mean(axis=1).var(ddof=1) / (y == 1).sum() + wins.mean(axis=0).var(ddof=1) / (y == 0).sum()
    found = only(client, "area", sequential=False)
    assert (found.control_value, found.value) == pytest.approx(areas, rel=1e-9)
    assert found.comparison.standard_error == pytest.approx(math.sqrt(square), rel=1e-9)
    assert found.p_value == pytest.approx(2 * stats.norm.sf(abs(areas[1] - areas[0]) / math.sqrt(square)), rel=1e-9)


def test_an_rmse_has_its_root_at_the_end(client: Client, db: Connection) -> None:
    made = [LinearRegression().fit(frame(), frame()["a"] * factor) for factor in (1, 1.5)]
    started(client, db, made=made)
    client.experiments.add_metric("test", "error", kind="rmse")
    known = random_values(6, share=1.0)
    record(db, "error", known)
    rows = db.execute("select unit, variant, prediction from dbscore.experiment_predictions").fetchall()
    roots, square = [], 0.0
    for variant in ("control", "treatment"):
        losses = np.array([(p - known[u]) ** 2 for u, v, p in rows if v == variant])
        roots.append(math.sqrt(losses.mean()))
        square += losses.var(ddof=1) / len(losses) / (4 * losses.mean())
    found = only(client, "error", sequential=False)
    assert (found.control_value, found.value) == pytest.approx(roots, rel=1e-9)
    assert found.comparison.standard_error == pytest.approx(math.sqrt(square), rel=1e-9)


def test_in_shadow_mode_versions_are_compared_on_the_same_units(client: Client, db: Connection) -> None:
    started(client, db, mode="shadow")
    for kind in ("auc", "brier", "log_loss"):
        client.experiments.add_metric("test", kind, kind=kind)
        known = truths(db, kind)
    rows = db.execute(
        "select unit, version, probabilities[2], prediction from dbscore.experiment_predictions"
    ).fetchall()
    scores = [{u: (p, c) for u, v, p, c in rows if v == f"tip:{number}"} for number in (1, 2)]
    units = sorted(known)
    y = np.array([known[u] for u in units])
    first, second = (np.array([side[u][0] for u in units]) for side in scores)
    right = [np.array([side[u][1] == known[u] for u in units]) for side in scores]
    made = client.experiments.report("test")
    assert made.sample_ratio is None
    assert {(one.units, one.with_outcome, one.missing) for one in made.health.coverage} == {(UNITS, UNITS, 0.0)}
    found = {one.kind: one for one in made.findings or ()}
    assert found["auc"].comparison.method == "DeLong's test"
    assert found["auc"].control_value == pytest.approx(roc_auc_score(y, first), rel=1e-9)
    losses = [np.square(one - y) for one in (first, second)]
    assert found["brier"].comparison.difference == pytest.approx((losses[1] - losses[0]).mean(), rel=1e-9)
    expected = stats.ttest_rel(losses[1], losses[0])
    # a bootstrap's error is off by some percent
    error = (losses[1] - losses[0]).mean() / expected.statistic
    assert found["brier"].comparison.standard_error == pytest.approx(error, rel=0.1)
    table = [[int((right[0] & right[1]).sum()), int((right[0] & ~right[1]).sum())]]
    table.append([int((~right[0] & right[1]).sum()), int((~right[0] & ~right[1]).sum())])
    accuracy = found["log_loss"].accuracy
    assert accuracy is not None
    assert accuracy.difference == pytest.approx(right[1].mean() - right[0].mean(), rel=1e-9, abs=1e-12)
    if table[0][1] + table[1][0]:
        exact = table[0][1] + table[1][0] <= 25
        assert accuracy.p_value == pytest.approx(mcnemar(table, exact=exact, correction=False).pvalue, rel=1e-9)


def test_a_covariate_takes_out_what_was_known_before(client: Client, db: Connection) -> None:
    started(client, db)
    values = random_values(7, share=1.0)
    db.execute("create table before as select i as unit, sin(i * 7) as value from generate_series(1, 600) i")
    before = {str(i): math.sin(i * 7) for i in range(1, UNITS + 1)}
    values = {unit: value + 4 * before[unit] for unit, value in values.items()}
    client.experiments.add_metric("test", "paid", kind="mean", covariate="select unit, value from before; ")
    record(db, "paid", values)
    y, x = arms(db, values), arms(db, before)
    theta = np.cov(np.concatenate(y), np.concatenate(x))[0, 1] / np.var(np.concatenate(x), ddof=1)
    expected = stats.ttest_ind(*(b - theta * a for a, b in zip(x, y, strict=True)), equal_var=False)
    found = only(client, "paid", sequential=False)
    assert found.p_value == pytest.approx(expected.pvalue, rel=1e-9)
    assert found.unadjusted is not None
    assert found.unadjusted.p_value == pytest.approx(stats.ttest_ind(*y, equal_var=False).pvalue, rel=1e-9)
    assert found.variance_reduction is not None
    assert found.variance_reduction > 0.5


def test_a_covariate_is_taken_out_within_each_period(client: Client, db: Connection) -> None:
    started(client, db)
    client.experiments.ramp("test", {"control": 30, "treatment": 70})
    client.experiments.run("test", f"select * from people where id > {UNITS}", key="id")
    before = {str(i): math.sin(i * 7) for i in range(1, 2 * UNITS + 1)}
    values = {unit: 4 * x + math.cos(int(unit) ** 2) for unit, x in before.items()}
    query = "select i as unit, sin(i * 7) as value from generate_series(1, 1200) i where '%' <> '{'"
    client.experiments.add_metric("test", "paid", kind="mean", covariate=query)
    record(db, "paid", values)
    rows = pd.DataFrame(
        db.execute("select unit, variant, allocation from dbscore.experiment_assignments").fetchall(),
        columns=["unit", "variant", "allocation"],
    )
    rows["x"], rows["y"] = rows["unit"].map(before), rows["unit"].map(values)
    difference = square = 0.0
    for _, period in rows.groupby("allocation"):
        theta = period["x"].cov(period["y"]) / period["x"].var()
        left = period["y"] - theta * period["x"]
        a, b = (left[period["variant"] == v] for v in ("control", "treatment"))
        share = len(period) / len(rows)
        difference += share * (b.mean() - a.mean())
        square += share**2 * (a.var() / len(a) + b.var() / len(b))
    found = only(client, "paid", sequential=False)
    assert found.comparison.difference == pytest.approx(difference, rel=1e-9)
    assert found.comparison.standard_error == pytest.approx(math.sqrt(square), rel=1e-9)
    assert found.comparison.method == "CUPED, stratified t-test, 2 periods"


def test_goals_are_corrected_and_guardrails_are_not(client: Client, db: Connection) -> None:
    started(client, db)
    for number in range(3):
        client.experiments.add_metric("test", f"goal_{number}", kind="mean")
        record(db, f"goal_{number}", random_values(10 + number))
    client.experiments.add_metric("test", "guard", kind="mean", role="guardrail", margin=0.5)
    record(db, "guard", random_values(20))
    for correction, method in (("holm", "holm"), ("bh", "fdr_bh")):
        made = client.experiments.report("test", correction=correction, sequential=False)
        goals = [one for one in made.findings or () if one.role == "goal"]
        expected = multipletests([one.p_value for one in goals], method=method)[1]
        assert [one.p_corrected for one in goals] == pytest.approx(expected.tolist(), rel=1e-9)
    guard = only(client, "guard", sequential=False)
    assert (guard.p_corrected, guard.verdict) == (None, None)
    assert guard.guardrail is not None
    assert guard.guardrail.verdict == "held"


def test_an_always_valid_interval_is_wider_and_the_verdict_rests_on_it(client: Client, db: Connection) -> None:
    started(client, db)
    client.experiments.add_metric("test", "paid", kind="mean")
    treated = db.execute("select unit from dbscore.experiment_assignments where variant = 'treatment'").fetchall()
    values = random_values(8, share=1.0)
    record(db, "paid", {unit: value + 2 * ((unit,) in treated) for unit, value in values.items()})
    found = only(client, "paid")
    assert found.always_valid is not None
    assert found.always_valid.lower is not None
    assert found.comparison.lower is not None
    assert found.always_valid.lower < found.comparison.lower
    assert found.p_value == found.always_valid.p_value
    assert found.verdict == "better"


# --- health ---


def test_where_units_are_lost_the_results_are_withheld(client: Client, db: Connection, dbscore: Run) -> None:
    started(client, db)
    client.experiments.add_metric("test", "paid", kind="mean")
    record(db, "paid", random_values(1))
    db.execute("delete from dbscore.assignment where variant = 2 and unit::integer % 3 > 0")
    made = client.experiments.report("test")
    assert made.findings is None
    assert made.sample_ratio is not None
    assert made.sample_ratio.is_suspicious
    assert made.withheld is not None
    ended = dbscore("report", "test")
    assert ended.returncode == 0
    assert "paid\twithheld" in ended.stdout
    assert "results are withheld" in ended.stderr


def test_health_counts_who_is_left_out_and_what_is_missing(client: Client, db: Connection) -> None:
    started(client, db)
    client.experiments.add_metric("test", "paid", kind="mean", window="7 days")
    client.experiments.force("test", "1", variant="control")
    client.experiments.force("test", "tester", variant="treatment")
    other = "treatment" if client.experiments.assign("test", "2") == "control" else "control"
    db.execute("select dbscore.record_assignment('test', '2', %s)", [other])
    record(db, "paid", random_values(1, share=0.25))
    db.execute(
        "update dbscore.assignment set assigned_at = now() - interval '8 days' where unit::text in ('3', '4', '5')"
    )
    health = client.experiments.report("test").health
    assert (health.units, health.forced, health.seen_in_two_variants, health.held_out) == (UNITS - 2, 2, 1, 0)
    assert sum(one.units for one in health.coverage) == UNITS - 2
    assert sum(one.mature or 0 for one in health.coverage) == 3
    counted = db.execute("select count(distinct unit) from dbscore.experiment_outcomes where counts").fetchall()[0][0]
    assert sum(one.with_outcome for one in health.coverage) == counted
    assert all(one.missing == 1 - one.with_outcome / one.units for one in health.coverage)


def test_an_experiment_without_units_is_not_tested(client: Client, db: Connection, dbscore: Run) -> None:
    client.deploy("tip", models()[0], sample=frame())
    client.experiments.create("test", unit="id", variants=["control=tip:1:50", "treatment=tip:1:50"])
    for kind in ("mean", "conversion", "ratio", "auc", "log_loss"):
        client.experiments.add_metric("test", f"the_{kind}", kind=kind)
    client.experiments.add_metric("test", "the_quantile", kind="quantile", quantile=0.5)
    made = client.experiments.report("test")
    assert [one.comparison.p_value for one in made.findings or ()] == [None] * 6
    assert all(one.comparison.method.startswith("not tested") for one in made.findings or ())
    assert "NaN" not in json.dumps(made.to_json(), default=str)
    assert dbscore("report", "test").returncode == 0


def test_who_is_no_member_of_the_owner_is_told_what_to_ask_for(
    client: Client, db: Connection, url: str, role: Callable[[], str]
) -> None:
    started(client, db)
    name = role()
    db.execute(f"grant usage on schema dbscore, experiments to {name}")
    client.experiments.grant("test", name)
    with Client(at(url, user=name, password=name)) as other:
        for ask in (other.experiments.report, other.experiments.audit, other.experiments.certify):
            with pytest.raises(PrivilegeError, match="no member of the owner") as caught:
                ask("test")
            assert "experiment results" in caught.value.remedy


def test_what_cannot_be_is_refused(client: Client, db: Connection) -> None:
    started(client, db, mode="shadow")
    with pytest.raises(ExperimentError, match="alpha"):
        client.experiments.report("test", alpha=1.5)
    with pytest.raises(ExperimentError, match="no correction 'sidak'"):
        client.experiments.report("test", correction="sidak")  # type: ignore[arg-type]
    with pytest.raises(ExperimentError, match="shadow"):
        client.experiments.certify("test")
    for ask in (client.experiments.report, client.experiments.audit, client.experiments.certify):
        with pytest.raises(NotFoundError):
            ask("nothing")


@pytest.mark.parametrize("package", ["scipy", "statsmodels"])
def test_a_missing_package_is_named_with_what_installs_it(package: str) -> None:
    program = f"import sys; sys.modules[{package!r}] = None; from dbscore.cli import main; main()"
    asked = ["experiment", "power", "--kind", "mean", "--sd", "1", "--difference", "1"]
    ended = subprocess.run([sys.executable, "-c", program, *asked], capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert f"the package {package}, which the analysis of experiments needs, is not installed" in ended.stderr
    assert "pip install 'dbscore[experiments]'" in ended.stderr


# --- the audit ---


@pytest.mark.parametrize("scheme", ["sha256", "growthbook2"])
def test_the_audit_finds_a_tampered_row_and_nothing_else(
    client: Client, db: Connection, dbscore: Run, scheme: str
) -> None:
    started(client, db, scheme=scheme, layer="front", layer_share=70, holdout=0.1)
    client.experiments.ramp("test", {"control": 20, "treatment": 80})
    client.experiments.run("test", f"select * from people where id > {UNITS}", key="id")
    client.experiments.force("test", "tester", variant="treatment")
    found = client.experiments.audit("test")
    assert (found.forced, found.differing) == (1, ())
    assert found.checked == db.execute("select count(*) - 1 from dbscore.assignment").fetchall()[0][0]
    assert dbscore("audit", "test").returncode == 0
    unit = db.execute(
        "update dbscore.assignment set variant = 2 where unit = (select min(unit) from dbscore.assignment where variant = 1) returning unit"
    ).fetchall()[0][0]
    found = client.experiments.audit("test")
    assert [(one.unit, one.recorded, one.expected) for one in found.differing] == [(unit, "treatment", "control")]
    assert not found.differing[0].by_application
    ended = dbscore("audit", "test", "--json")
    assert ended.returncode == 3
    assert [one["unit"] for one in json.loads(ended.stdout)["differing"]] == [unit]
    ended = dbscore("audit", "test")
    assert "1 of" in ended.stderr
    assert f"{unit}\ttreatment\tcontrol\t1" in ended.stdout


def test_the_audit_tells_what_an_application_has_recorded(client: Client, db: Connection) -> None:
    started(client, db)
    expected = client.experiments.assign("test", "elsewhere")
    other = "treatment" if expected == "control" else "control"
    db.execute("select dbscore.record_assignment('test', 'elsewhere', %s)", [other])
    differing = client.experiments.audit("test").differing
    assert [(one.unit, one.expected, one.by_application) for one in differing] == [("elsewhere", expected, True)]


# --- A/A ---


def test_where_nothing_differs_the_p_values_are_uniform(client: Client, db: Connection, dbscore: Run) -> None:
    started(client, db)
    client.experiments.add_metric("test", "paid", kind="mean")
    client.experiments.add_metric("test", "rate", kind="ratio")
    client.experiments.add_metric("test", "late", kind="quantile", quantile=0.9)
    values = random_values(9, share=1.0)
    record(db, "paid", values)
    record(db, "rate", values, {unit: float(1 + int(unit) % 4) for unit in values})
    found = client.experiments.certify("test", salts=400, seed=3)
    assert {one.metric: one.is_uniform for one in found.metrics} == {"paid": True, "rate": True}
    assert found.not_replayed == ("late",)
    assert [one.tests for one in found.metrics] == [400, 400]
    assert found == client.experiments.certify("test", salts=400, seed=3)
    ended = dbscore("aa", "test", "--salts", "400", "--seed", "3", "--json")
    assert ended.returncode == 0
    assert json.loads(ended.stdout)["is_uniform"] is True
    assert "not replayed" in dbscore("aa", "test", "--salts", "100", "--seed", "3").stderr


def test_where_p_values_are_not_uniform_the_exit_code_is_three(client: Client, db: Connection, dbscore: Run) -> None:
    started(client, db)
    client.experiments.add_metric("test", "paid", kind="mean")
    # one unit has nearly all: t is then about 1 or -1, whatever the salt
    record(db, "paid", {"1": 1e6, **{str(i): 0.001 * i for i in range(2, UNITS)}})
    ended = dbscore("aa", "test", "--salts", "300")
    assert ended.returncode == 3
    assert "\tno" in ended.stdout


@pytest.mark.parametrize("scheme", ["sha256", "growthbook2"])
def test_buckets_of_many_units_are_those_of_each(scheme: str) -> None:
    units = ["1", "42", "ü", "日本", "😀x", "a" * 40, "0"]
    for salt in ("s", "salt-é", "x" * 30):
        assert buckets(scheme, salt, units).tolist() == [bucket(scheme, salt, unit) for unit in units]


# --- the command line ---


@dataclass(frozen=True)
class Ended:
    """What a command left."""

    returncode: int
    stdout: str
    stderr: str


if TYPE_CHECKING:
    Run = Callable[..., Ended]


@pytest.fixture
def dbscore(url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run `dbscore experiment ...` in this process."""
    monkeypatch.setenv("DBSCORE_URL", url)

    def run(*arguments: str) -> Ended:
        monkeypatch.setattr("sys.argv", ["dbscore", "experiment", *arguments])
        monkeypatch.setattr("sys.stdin", io.StringIO(""))
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return Ended(ended.value.code if isinstance(ended.value.code, int) else 0, said.out, said.err)

    return run


def test_the_report_is_a_table_or_json(client: Client, db: Connection, dbscore: Run) -> None:
    started(client, db)
    client.experiments.add_metric("test", "paid", kind="mean")
    client.experiments.add_metric("test", "guard", kind="mean", role="guardrail", margin=0.5)
    record(db, "paid", random_values(1))
    record(db, "guard", random_values(2))
    ended = dbscore("report", "test")
    assert ended.returncode == 0
    lines = [line.split("\t") for line in ended.stdout.splitlines()]
    assert lines[0][8] == "95 % interval"
    assert [(line[0], line[1], line[-1]) for line in lines[1:]] == [
        ("paid", "treatment", "undecided"),
        ("guard", "treatment", "held"),
    ]
    assert "600 units; sample ratio p = " in ended.stderr
    given = json.loads(dbscore("report", "test", "--no-sequential", "--correction", "none", "--json").stdout)
    found = client.experiments.report("test", sequential=False, correction=None)
    assert given["findings"] == json.loads(json.dumps([one.to_json() for one in found.findings or ()]))
    assert given["withheld"] is None
    assert dbscore("report", "nothing").returncode == 1


def test_power_says_how_many_units_are_needed_without_a_database(dbscore: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DBSCORE_URL", "postgresql://nobody@127.0.0.1:1/none")
    found = json.loads(dbscore("power", "--kind", "mean", "--sd", "4", "--difference", "0.5", "--json").stdout)
    assert found["control"] == found["treatment"] == math.ceil(tt_ind_solve_power(0.125, alpha=0.05, power=0.8))
    # Fleiss, Levin & Paik (2003), eq. 4.14 without a continuity correction
    p, q = 0.1, 0.105
    middle = (p + q) / 2
    z, w = stats.norm.isf(0.025), stats.norm.isf(0.2)
    needed = ((z * math.sqrt(2 * middle * (1 - middle)) + w * math.sqrt(p * (1 - p) + q * (1 - q))) / (q - p)) ** 2
    found = json.loads(dbscore("power", "--kind", "conversion", "--baseline", "0.1", "--lift", "0.05", "--json").stdout)
    assert found["control"] == math.ceil(needed)
    told = dbscore("power", "--kind", "conversion", "--baseline", "0.1", "--units", str(found["control"])).stdout
    assert "lift\t+5.000%" in told


@pytest.mark.parametrize(
    "arguments",
    [
        ("--kind", "conversion", "--lift", "0.1"),
        ("--kind", "mean", "--difference", "1"),
        ("--kind", "mean", "--sd", "1"),
        ("--kind", "mean", "--sd", "1", "--lift", "0.1"),
        ("--kind", "mean", "--sd", "1", "--difference", "1", "--units", "9"),
    ],
)
def test_power_refuses_what_does_not_go_together(dbscore: Run, arguments: tuple[str, ...]) -> None:
    assert dbscore("power", *arguments).returncode == 2


def test_power_refuses_numbers_out_of_range(dbscore: Run) -> None:
    ended = dbscore("power", "--kind", "conversion", "--baseline", "0.5", "--lift", "2")
    assert ended.returncode == 1
    assert "proportion" in ended.stderr
