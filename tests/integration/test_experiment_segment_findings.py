"""What the report says of parts of the units, beside scipy and statsmodels on the values of those units."""

from __future__ import annotations

import dataclasses
import io
import itertools
import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import psycopg
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score
from sklearn.tree import DecisionTreeClassifier
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportions_ztest

from dbscore import Client
from dbscore.cli import main
from dbscore.errors import ExperimentError, FeatureError, PrivilegeError
from dbscore.experiments import lookup, outcomes
from dbscore.experiments.contrasts import contrast
from tests.conftest import at, database

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dbscore.experiments import Finding
    from dbscore.experiments.report import Report, Segment, Segmentation

Connection = psycopg.Connection[Any]
UNITS = 1600
HALF = UNITS // 2
PEOPLE = f"""
create table people as
select i as id, sin(i) as a, case when i % 50 = 0 then 'NaN' when i % 75 <> 0 then round(cos(i)::numeric, 3) end::float8 as b,
    1 + i * 7 % 4 as party
from generate_series(1, {2 * UNITS}) i
"""
# each unit of it is in one period, so that the usual tests apply; `party` goes across the periods
ONE_PERIOD = (
    "select unit, allocation * 10 + unit::integer % 2 as segment from dbscore.experiment_assignments "
    "where experiment = 'test'; "
)
METRICS = ("paid", "visits", "bought", "rate", "late", "area", "off", "adjusted")
WEIGHTS = {1: [0.4, 0.3, 0.3], 2: [0.2, 0.5, 0.3]}
VARIANTS = ("control", "warm", "hot")

RANDOM = np.random.default_rng(12)
NUMBERS = {str(i): round(float(RANDOM.normal(3, 1)), 4) for i in range(1, UNITS + 1)}
KNOWN = {
    "paid": {unit: value for unit, value in NUMBERS.items() if RANDOM.random() < 0.7},
    "visits": {unit: 5.0 for unit in NUMBERS if RANDOM.random() < 0.6},
    "bought": {unit: 1.0 for unit in NUMBERS if RANDOM.random() < 0.3},
    "rate": {unit: value + RANDOM.normal() for unit, value in NUMBERS.items() if RANDOM.random() < 0.8},
    "late": {unit: float(RANDOM.exponential(2)) for unit in NUMBERS if RANDOM.random() < 0.9},
    "area": {unit: float((math.sin(int(unit)) > 0) != (RANDOM.random() < 0.3)) for unit in NUMBERS},
    "off": {unit: float(RANDOM.random() < 0.5) for unit in NUMBERS if RANDOM.random() < 0.9},
    "adjusted": {unit: value + 4 * math.sin(int(unit) * 7) for unit, value in NUMBERS.items()},
}
DENOMINATORS = {unit: float(1 + int(unit) % 4) for unit in KNOWN["rate"]}


def close(value: Any) -> Any:
    return pytest.approx(value, rel=1e-9, abs=1e-12)


def frame(rows: int = 400) -> pd.DataFrame:
    random = np.random.default_rng(0)
    made = pd.DataFrame(random.normal(size=(rows, 2)), columns=["a", "b"])
    made.loc[::20, "b"] = np.nan
    return made.assign(party=random.integers(1, 5, rows))


def record(
    db: Connection, name: str, metric: str, values: dict[str, float], others: dict[str, float] | None = None
) -> None:
    db.execute(
        "select dbscore.record_outcome(%s, u, %s, v, clock_timestamp(), d)"
        " from unnest(%s::text[], %s::float8[], %s::float8[]) as given (u, v, d)",
        [name, metric, list(values), list(values.values()), [(others or {}).get(unit) for unit in values]],
    )


@pytest.fixture(scope="module")
def url(server_url: str, template: str) -> Iterator[str]:
    """A database with an experiment in which nothing differs, one in which it does, and others that have less."""
    target = (frame()["a"] > 0).astype(int)
    with database(server_url, template) as made, Client(made) as client, psycopg.connect(made, autocommit=True) as db:
        db.execute(PEOPLE)
        for depth in (3, 5):
            model = DecisionTreeClassifier(max_depth=depth, random_state=0).fit(frame(), target)
            client.deploy("tip", model, sample=frame(), **({} if depth == 3 else {"alias": "challenger"}))
        add, run = client.experiments.add_metric, client.experiments.run

        listed = [f"{name}=tip:1:{100 * weight:.0f}" for name, weight in zip(VARIANTS, WEIGHTS[1], strict=True)]
        client.experiments.create("test", unit="id", variants=listed, record_features=True)
        for name, kind in zip(
            METRICS, ("mean", "count", "conversion", "ratio", "quantile", "auc", "brier"), strict=False
        ):
            add("test", name, kind=kind, **({"quantile": 0.75} if kind == "quantile" else {}))
        add("test", "adjusted", kind="mean", covariate="select id as unit, sin(id * 7) as value from people")
        client.experiments.start("test")
        run("test", f"select * from people where id <= {HALF}", key="id")
        later = {name: 100 * weight for name, weight in zip(VARIANTS, WEIGHTS[2], strict=True)}
        client.experiments.ramp("test", later)
        run("test", f"select * from people where id between {HALF + 1} and {UNITS}", key="id")
        # units that do not count, with a party that no other has
        run("test", f"select id, a, b, 9 as party from people where id = {2 * UNITS}", key="id")
        client.experiments.force("test", str(2 * UNITS), variant="hot")
        # what is asked later divides nothing
        run("test", "select id, a, b, 7 as party from people where id <= 100", key="id")
        for name, values in KNOWN.items():
            record(db, "test", name, values, DENOMINATORS if name == "rate" else None)

        halves = ["control=tip:1:50", "treatment=tip:1:50"]
        client.experiments.create("mixed", unit="id", variants=halves)
        add("mixed", "paid", kind="mean")
        add("mixed", "slow", kind="mean", direction="lower")
        add("mixed", "guard", kind="mean", role="guardrail", margin=0.5)
        client.experiments.start("mixed")
        run("mixed", f"select * from people where id <= {UNITS}", key="id")
        treated = {
            unit
            for (unit,) in db.execute(
                "select unit from dbscore.experiment_assignments where experiment = 'mixed' and variant = 'treatment'"
            )
        }
        # helps those with odd numbers, and hurts the others
        mixed = {u: v + 0.8 * (u in treated) * (1 if int(u) % 2 else -1) for u, v in NUMBERS.items()}
        record(db, "mixed", "paid", mixed)
        record(db, "mixed", "slow", KNOWN["late"])
        record(db, "mixed", "guard", NUMBERS)

        client.experiments.create(
            "versions", unit="id", variants=["control=tip:1", "treatment=tip:2"], mode="shadow", record_features=True
        )
        add("versions", "off", kind="brier")
        add("versions", "area", kind="auc")
        client.experiments.start("versions")
        run("versions", f"select * from people where id <= {HALF}", key="id")
        for metric in ("off", "area"):
            record(db, "versions", metric, {unit: KNOWN["area"][unit] for unit in map(str, range(1, HALF + 1))})

        client.experiments.create("twice", unit="id", variants=halves, record_features=True)
        client.experiments.start("twice")
        asked_twice = "select id, a, b, v as party from people cross join (values (8), (3)) as given (v) where id <= 80"
        run("twice", asked_twice, key="id")

        client.experiments.create("lost", unit="id", variants=halves, record_features=True)
        add("lost", "paid", kind="mean")
        client.experiments.start("lost")
        run("lost", f"select * from people where id <= {HALF}", key="id")
        db.execute(
            "delete from dbscore.assignment a using dbscore.experiment e where e.name = 'lost' and"
            " a.experiment_id = e.experiment_id and a.variant = 2 and a.unit::integer % 3 > 0"
        )
        yield made


@pytest.fixture
def rows(db: Connection) -> pd.DataFrame:
    """The units of `test` that count: variant, period, party, score and what came of each."""
    found = pd.DataFrame(
        db.execute(
            "select a.unit, a.variant, a.allocation, p.party, q.score from dbscore.experiment_assignments a"
            " join people p on p.id = a.unit::integer"
            " join lateral (select (probabilities)[2] as score from dbscore.experiment_predictions q where q.experiment = 'test'"
            "  and q.unit = a.unit order by predicted_at desc limit 1) q on true"
            " where a.experiment = 'test' and a.left_out is null"
        ).fetchall(),
        columns=["unit", "variant", "allocation", "party", "score"],
    )
    for metric, values in KNOWN.items():
        found[metric] = found["unit"].map(values)
    return found.assign(
        denominator=found["unit"].map(DENOMINATORS),
        before=np.sin(found["unit"].astype(float) * 7),
        half=found["allocation"] * 10 + found["unit"].astype(int) % 2,
    )


def values_of(metric: str, part: pd.DataFrame) -> pd.DataFrame:
    """Return the units of one period that have a value by a metric, with the value that is compared."""
    if metric == "late":
        return part.dropna(subset="late").assign(value=lambda one: one["late"])
    if metric == "off":
        return part.dropna(subset="off").assign(value=lambda one: (one["score"] - one["off"]) ** 2)
    if metric == "visits":
        return part.assign(value=part["visits"].notna().astype(float))
    return part.assign(value=part[metric].fillna(0.0))


def arms_of(metric: str, part: pd.DataFrame, variant: str) -> tuple[np.ndarray, np.ndarray]:
    """Return of one period what is compared as means are: the values, or what is left of them, of both variants."""
    both = values_of(metric, part[part["variant"].isin(["control", variant])])
    if metric == "adjusted":
        theta = both["before"].cov(both["value"]) / both["before"].var()
        both["value"] -= theta * (both["before"] - both["before"].mean())
    sides = [both[both["variant"] == name] for name in ("control", variant)]
    if metric == "rate":
        linear = []
        for side in sides:
            x, y = side["denominator"].fillna(0.0), side["value"]
            linear.append(y.sum() / x.sum() + (y - y.sum() / x.sum() * x) / x.mean())
        return linear[0].to_numpy(), linear[1].to_numpy()
    return sides[0]["value"].to_numpy(), sides[1]["value"].to_numpy()


def area_of(part: pd.DataFrame) -> tuple[float, float]:
    """Return an area and its variance, by DeLong's formula with all pairs."""
    p, y = part["score"].to_numpy(), part["area"].to_numpy()
    wins = (p[y == 1][:, None] > p[y == 0]) + 0.5 * (p[y == 1][:, None] == p[y == 0])
    variance = wins.mean(axis=1).var(ddof=1) / (y == 1).sum() + wins.mean(axis=0).var(ddof=1) / (y == 0).sum()
    return roc_auc_score(y, p), variance


def division(made: Report, name: str) -> Segmentation:
    return next(one for one in made.segmentations if one.name == name)


def finding(part: Segment, metric: str, variant: str) -> Finding:
    assert part.findings is not None
    return next(one for one in part.findings if (one.metric, one.variant) == (metric, variant))


@pytest.fixture(scope="module")
def made(url: str) -> Report:
    """The report of `test`, by a feature and by a query, for one look."""
    with Client(url) as client:
        return client.experiments.report("test", sequential=False, segments={"party": None, "half": ONE_PERIOD})


# --- the numbers ---


@pytest.mark.parametrize("variant", VARIANTS[1:])
@pytest.mark.parametrize("metric", METRICS)
def test_a_segment_of_one_period_is_compared_as_scipy_compares_its_units(
    made: Report, rows: pd.DataFrame, metric: str, variant: str
) -> None:
    parts = division(made, "half").segments
    assert [one.value for one in parts] == ["10", "11", "20", "21"]
    for one in parts:
        mine = rows[rows["half"] == int(one.value or "")]
        found = finding(one, metric, variant)
        if metric == "area":
            (a, v), (b, w) = (area_of(mine[mine["variant"] == name]) for name in ("control", variant))
            assert (found.control_value, found.value) == close((a, b))
            assert found.p_value == close(2 * stats.norm.sf(abs(b - a) / math.sqrt(v + w)))
            continue
        control, treatment = arms_of(metric, mine, variant)
        assert (found.control_n, found.n) == (len(control), len(treatment))
        if metric == "late":
            ends = (np.quantile(control, 0.75), np.quantile(treatment, 0.75))
            assert (found.control_value, found.value) == close(ends)
            assert found.comparison.difference == close(ends[1] - ends[0])
            continue
        assert found.comparison.difference == close(treatment.mean() - control.mean())
        if metric == "bought":
            sizes = (len(treatment), len(control))
            assert found.p_value == close(proportions_ztest([treatment.sum(), control.sum()], sizes)[1])
            continue
        expected = stats.ttest_ind(treatment, control, equal_var=False)
        interval = expected.confidence_interval(0.95)
        assert found.p_value == close(expected.pvalue)
        assert (found.comparison.lower, found.comparison.upper) == close((interval.low, interval.high))


@pytest.mark.parametrize("variant", VARIANTS[1:])
@pytest.mark.parametrize("metric", [one for one in METRICS if one not in ("late", "area")])
def test_a_segment_of_two_periods_is_compared_within_each(
    made: Report, rows: pd.DataFrame, metric: str, variant: str
) -> None:
    parts = division(made, "party").segments
    assert [one.value for one in parts] == ["1", "2", "3", "4"]
    for one in parts:
        mine = rows[rows["party"] == int(one.value or "")]
        pairs = [arms_of(metric, period, variant) for _, period in mine.groupby("allocation")]
        n = sum(len(a) + len(b) for a, b in pairs)
        shares = [(len(a) + len(b)) / n for a, b in pairs]
        difference = sum(w * (b.mean() - a.mean()) for w, (a, b) in zip(shares, pairs, strict=True))
        components = [
            (w**2 * side.var(ddof=1) / len(side), len(side))
            for w, pair in zip(shares, pairs, strict=True)
            for side in pair
        ]
        square = sum(v for v, _ in components)
        freedom = square**2 / sum(v**2 / (k - 1) for v, k in components)
        found = finding(one, metric, variant)
        assert found.control_n + found.n == n
        assert found.comparison.difference == close(difference)
        assert found.comparison.standard_error == close(math.sqrt(square))
        assert found.p_value == close(2 * stats.t.sf(abs(difference) / math.sqrt(square), freedom))


def test_a_segment_has_the_units_that_count_and_their_own_sample_ratio(made: Report, rows: pd.DataFrame) -> None:
    assert sum(one.units for one in division(made, "party").segments) == made.health.units == len(rows)
    for name, one in ((s.name, one) for s in made.segmentations for one in s.segments):
        mine = rows[rows[name] == int(one.value or "")]
        assert one.units == len(mine)
        statistic, freedom = 0.0, 0
        for period, part in mine.groupby("allocation"):
            counts = part["variant"].value_counts().reindex(VARIANTS).to_numpy()
            statistic += stats.chisquare(counts, np.array(WEIGHTS[period]) * counts.sum()).statistic
            freedom += 2
        assert one.sample_ratio is not None
        assert one.sample_ratio.statistic == close(statistic)
        assert one.sample_ratio.p_value == close(stats.chi2.sf(statistic, freedom))


def flat(record: Any) -> dict[str, Any]:
    """Return the numbers and texts of a record and of those within it."""
    found: dict[str, Any] = {}
    for field in dataclasses.fields(record):
        value = getattr(record, field.name)
        if dataclasses.is_dataclass(value):
            found |= {f"{field.name}.{name}": one for name, one in flat(value).items()}
        else:
            found[field.name] = value
    return found


def same(first: Any, second: Any) -> None:
    one, other = flat(first), flat(second)
    numbers = {name for name, value in one.items() if isinstance(value, float)}
    assert {k: v for k, v in one.items() if k not in numbers} == {k: v for k, v in other.items() if k not in numbers}
    assert {k: one[k] for k in numbers} == close({k: other[k] for k in numbers})


def test_sums_of_all_units_give_what_the_sums_of_the_view_give(client: Client) -> None:
    with client.experiments._begun() as connection:
        experiment, summaries = lookup.experiment(connection, "test"), lookup.summary(connection, "test")
        read = [outcomes.read(connection, experiment, one, summaries, by_unit=True) for one in experiment.metrics or ()]
    assert [one.metric.name for one in read] == list(METRICS)
    compared = 0
    for one in read:
        assert one.sample is not None
        whole = one.only(np.ones(len(one.sample.units), dtype=np.bool_))
        mine = {(s.variant, s.allocation): s for s in whole.sums}
        for given in one.sums:
            own = mine[given.variant, given.allocation]
            for name in (
                "n",
                "sum",
                "sum_of_squares",
                "mean",
                "denominator_sum",
                "denominator_sum_of_squares",
                "sum_of_products",
            ):
                assert getattr(own, name) == close(getattr(given, name))
            compared += 1
        for number in (2, 3):
            same(contrast(whole, number, alpha=0.05), contrast(one, number, alpha=0.05))
    # two periods and three variants, but of the quantile and the area
    assert compared == 6 * 6


@pytest.mark.parametrize("sequential", [True, False])
@pytest.mark.parametrize("name", ["test", "mixed", "versions"])
def test_one_segment_of_all_units_is_the_whole(client: Client, name: str, *, sequential: bool) -> None:
    query = "select id as unit, 'all' as segment from people"
    found = client.experiments.report(name, sequential=sequential, segments={"all": query})
    (part,) = found.segmentations[0].segments
    assert (part.value, part.units) == ("all", found.health.units)
    assert part.findings is not None
    for one, whole in zip(part.findings, found.findings or (), strict=True):
        same(one, whole)
    if found.sample_ratio is not None:
        same(part.sample_ratio, found.sample_ratio)
    assert {(one.statistic, one.p_value, one.p_corrected) for one in found.segmentations[0].heterogeneity} == {
        (None, None, None)
    }


def test_pairs_are_compared_within_segments(client: Client, db: Connection) -> None:
    found = client.experiments.report("versions", sequential=False, segments="party")
    scored = pd.DataFrame(
        db.execute(
            "select q.unit, q.version, q.probabilities[2], p.party from dbscore.experiment_predictions q"
            " join people p on p.id = q.unit::integer where q.experiment = 'versions'"
        ).fetchall(),
        columns=["unit", "version", "score", "party"],
    )
    wide = scored.pivot_table(index=["unit", "party"], columns="version", values="score").reset_index()
    wide["truth"] = wide["unit"].map(KNOWN["area"])
    for one in division(found, "party").segments:
        mine = wide[wide["party"] == int(one.value or "")]
        assert (one.units, one.sample_ratio) == (len(mine), None)
        scores = [mine[f"tip:{number}"].to_numpy() for number in (1, 2)]
        areas = [roc_auc_score(mine["truth"], score) for score in scores]
        area = finding(one, "area", "treatment")
        assert (area.control_value, area.value) == close(tuple(areas))
        losses = [(score - mine["truth"]) ** 2 for score in scores]
        off = finding(one, "off", "treatment")
        assert (off.control_n, off.n) == (len(mine), len(mine))
        assert off.comparison.difference == close((losses[1] - losses[0]).mean())
        assert off.accuracy is not None


# --- verdicts ---


@pytest.mark.parametrize(("correction", "method"), [("holm", "holm"), ("bh", "fdr_bh")])
def test_all_goals_treatments_and_segments_of_a_division_are_corrected_together(
    client: Client, correction: Any, method: str
) -> None:
    by = {
        "odd": "select id as unit, id % 2 = 1 as segment from people",
        "third": "select id as unit, id % 3 as segment from people",
    }
    found = client.experiments.report("mixed", correction=correction, sequential=False, segments=by)
    for divided in found.segmentations:
        all_of_them = [one for part in divided.segments for one in part.findings or ()]
        goals = [one for one in all_of_them if one.role == "goal"]
        assert len(goals) == 2 * len(divided.segments)
        expected = multipletests([one.p_value for one in goals], method=method)[1]
        assert [one.p_corrected for one in goals] == close(expected.tolist())
        guards = [one for one in all_of_them if one.role == "guardrail"]
        assert {(one.p_corrected, one.verdict) for one in guards} == {(None, None)}
        assert all(one.guardrail is not None for one in guards)
        tests = divided.heterogeneity
        assert [(one.metric, one.variant) for one in tests] == [
            (metric, "treatment") for metric in ("paid", "slow", "guard")
        ]
        expected = multipletests([one.p_value for one in tests], method=method)[1]
        assert [one.p_corrected for one in tests] == close(expected.tolist())


@pytest.mark.parametrize("sequential", [True, False])
def test_a_treatment_that_helps_one_segment_and_hurts_another_is_found(client: Client, *, sequential: bool) -> None:
    query = "select id as unit, id % 2 = 1 as odd, id % 2 = 1 as segment from people"
    found = client.experiments.report("mixed", sequential=sequential, segments={"odd": query})
    even, odd = division(found, "odd").segments
    assert (even.value, odd.value) == ("false", "true")
    assert finding(odd, "paid", "treatment").verdict == "better"
    assert finding(even, "paid", "treatment").verdict == "worse"
    # on the whole it does neither
    assert next(one for one in found.findings or () if one.metric == "paid").verdict == "undecided"
    by_metric = {one.metric: one for one in division(found, "odd").heterogeneity}
    both = [finding(part, "paid", "treatment").comparison for part in (even, odd)]
    d = np.array([one.difference for one in both])
    w = 1 / np.array([one.standard_error for one in both], dtype=float) ** 2
    q = float((w * (d - (w * d).sum() / w.sum()) ** 2).sum())
    assert by_metric["paid"].statistic == close(q)
    assert by_metric["paid"].degrees_of_freedom == 1
    assert by_metric["paid"].p_value == close(stats.chi2.sf(q, 1))
    assert (by_metric["paid"].p_corrected or 0) < 1e-6
    assert (by_metric["slow"].p_corrected or 0) > 0.05


@pytest.mark.parametrize("sequential", [True, False])
def test_where_nothing_differs_no_segment_is_said_to(client: Client, *, sequential: bool) -> None:
    found = client.experiments.report(
        "test", sequential=sequential, segments={"party": None, "b": None, "half": ONE_PERIOD}
    )
    parts = [part for divided in found.segmentations for part in divided.segments]
    goals = [one for part in parts for one in part.findings or ()]
    assert len(goals) == len(parts) * len(METRICS) * 2
    assert {one.verdict for one in goals} == {"undecided"}
    assert all((one.p_corrected or 1) > 0.05 for divided in found.segmentations for one in divided.heterogeneity)
    # always-valid intervals in the segments too
    assert {one.always_valid is not None for one in goals} == {sequential}
    assert all(one.p_value == (one.always_valid or one.comparison).p_value for one in goals)


# --- what divides ---


def test_a_feature_is_that_of_the_first_prediction(client: Client, db: Connection) -> None:
    # units up to 100 were asked for again, with 7 as the party
    asked = (
        "select count(*) from dbscore.experiment_predictions where experiment = 'test' and features ->> 'party' = '7'"
    )
    assert db.execute(asked).fetchall() == [(100,)]
    for asked_for in ("party", ["party"], {"party": None}):
        (found,) = client.experiments.report("test", segments=asked_for).segmentations
        assert [one.value for one in found.segments] == ["1", "2", "3", "4"]
    assert "p.predicted_at" in found.statement
    assert "'party'" in found.statement


def test_of_two_values_of_one_time_the_lesser_is_taken(client: Client) -> None:
    (found,) = client.experiments.report("twice", segments="party").segmentations
    assert [(one.value, one.units, one.findings) for one in found.segments] == [("3", 80, ())]
    assert found.heterogeneity == ()


def test_numbers_of_many_values_are_cut_into_four_and_what_is_none_is_apart(client: Client, rows: pd.DataFrame) -> None:
    (found,) = client.experiments.report("test", segments=["b"]).segmentations
    *ranges, none = found.segments
    # NaN, which JSON has as a text, and NULL
    missing = [unit for unit in rows["unit"] if int(unit) % 50 == 0 or int(unit) % 75 == 0]
    assert (none.value, none.units) == (None, len(missing))
    numbers = {unit: round(math.cos(int(unit)), 3) for unit in rows["unit"] if unit not in missing}
    assert len(ranges) == 4
    assert sum(one.units for one in ranges) == len(numbers)
    for one in ranges:
        lower, upper = map(float, (one.value or "").split(" to "))
        mine = [unit for unit, value in numbers.items() if lower <= value <= upper]
        assert one.units == len(mine) == pytest.approx(len(numbers) / 4, abs=5)
        assert finding(one, "paid", "hot").n == sum(rows.set_index("unit")["variant"][mine] == "hot")
    assert all(a < b for a, b in itertools.pairwise(float((one.value or "").split(" to ")[0]) for one in ranges))


def test_what_a_query_says_of_units_elsewhere_has_no_part(client: Client) -> None:
    # units beyond those of the experiment have other numbers and other texts, and are there twice
    by = {
        "number": f"select id as unit, case when id <= {UNITS} then id else 1e6 + id end as segment from people",
        "word": f"select id as unit, case when id <= {UNITS} then 'w' || id % 3 else 'x' || id end as segment from people"
        f" union all select id, 'again' from people where id > {UNITS}",
    }
    number, word = client.experiments.report("mixed", segments=by).segmentations
    # a quarter of 1 to 1600 ends at 400.75, and 401 is the next number
    assert [one.value for one in number.segments] == ["1 to 401", "402 to 801", "802 to 1201", "1202 to 1600"]
    assert [one.value for one in word.segments] == ["w0", "w1", "w2"]


def test_units_without_a_segment_and_many_texts(client: Client) -> None:
    by = {
        "some": "select id as unit, 'first' as segment from people where id <= 400",
        "many": "select id as unit, case when id % 2 = 0 then 't' || id % 20 else 'u' || id % 51 end as segment from people",
    }
    some, many = client.experiments.report("mixed", segments=by).segmentations
    assert [(one.value, one.units) for one in some.segments] == [("first", 400), (None, UNITS - 400)]
    assert len(many.segments) == 20
    assert many.segments[-1].value == "42 others"
    assert sum(one.units for one in many.segments) == UNITS


def test_a_treatment_that_changes_who_is_in_a_segment_shows(client: Client, dbscore: Run) -> None:
    # half of the treated who would be at home are abroad
    moved = (
        "select unit, case when variant = 'treatment' and unit::integer % 4 = 0 or unit::integer % 4 = 1"
        " then 'abroad' when unit::integer % 4 < 3 then 'home' else 'sea' end as segment"
        " from dbscore.experiment_assignments where experiment = 'mixed'"
    )
    found = client.experiments.report("mixed", segments={"place": moved})
    abroad, home, sea = division(found, "place").segments
    for one in (abroad, home):
        assert one.sample_ratio is not None
        assert one.sample_ratio.is_suspicious
        assert one.findings is None
    assert sea.findings is not None
    assert {(one.degrees_of_freedom, one.p_value) for one in division(found, "place").heterogeneity} == {(0, None)}
    assert found.findings is not None
    ended = dbscore("report", "mixed", "--segment", f"place={moved}")
    assert ended.returncode == 0
    assert "place abroad: the results are withheld, sample ratio p = " in ended.stderr
    assert "\nsea\tpaid" in ended.stdout
    assert "\nhome\tpaid" not in ended.stdout


def test_where_the_whole_is_withheld_so_are_the_segments(client: Client) -> None:
    found = client.experiments.report("lost", segments=["party"])
    assert found.withheld is not None
    assert (found.findings, found.segmentations) == (None, ())
    assert client.experiments.report("mixed").segmentations == ()


# --- what is refused ---


@pytest.mark.parametrize(
    ("name", "asked", "error", "said", "remedy"),
    [
        ("test", ["colour"], FeatureError, "no feature 'colour'", "Features: a, b, party"),
        ("mixed", ["party"], ExperimentError, "records no features", "record_features"),
        ("test", [""], ExperimentError, "called ''", "a feature, or a name and a query"),
        ("test", {" ": "select 1"}, ExperimentError, "called ' '", "a feature, or a name and a query"),
        ("test", ["party", "a", "party"], ExperimentError, "'party' are asked for twice", "name of its own"),
        ("test", {"x": " ; "}, ExperimentError, "the query of the segments 'x' is empty", "unit, segment"),
        ("test", {"x": "select id as unit from people"}, ExperimentError, "segment", "columns unit and segment"),
        ("test", {"x": "select id, 1 as segment from people"}, ExperimentError, "unit", "columns unit and segment"),
        ("test", {"x": "selec 1"}, ExperimentError, "syntax error", "columns unit and segment"),
        (
            "test",
            {"x": "delete from people returning id as unit, 1 as segment"},
            ExperimentError,
            "syntax error",
            "SELECT",
        ),
        ("test", {"x": "select 1; select 2"}, ExperimentError, "syntax error", "SELECT"),
        (
            "test",
            {"x": "select id as unit, id as segment from people union all select 17, 18"},
            ExperimentError,
            "segments 'x': unit '17' is in two of them, 17 and 18",
            "each unit once",
        ),
    ],
)
def test_what_divides_nothing_is_refused(
    client: Client, name: str, asked: Any, error: type[Exception], said: str, remedy: str
) -> None:
    with pytest.raises(error, match=said) as caught:
        client.experiments.report(name, segments=asked)
    assert remedy in getattr(caught.value, "remedy", "")


def test_a_unit_may_be_twice_in_the_same_segment(client: Client) -> None:
    twice = "select id as unit, id % 2 as segment from people union all select id, id % 2 from people where id < 50"
    (found,) = client.experiments.report("mixed", segments={"x": twice}).segmentations
    assert [(one.value, one.units) for one in found.segments] == [("0", HALF), ("1", HALF)]


def test_a_query_is_run_with_the_rights_of_the_role(
    client: Client, db: Connection, url: str, role: Callable[[], str]
) -> None:
    member, other = role(), role()
    db.execute(
        f"do $$ begin execute format('grant %s to {member}', (select nspowner::regrole from pg_namespace where nspname = 'dbscore')); end $$"
    )
    db.execute("create table secret as select id as unit, 1 as segment from people")
    db.execute(f"alter table secret owner to {other}")
    with Client(at(url, user=member, password=member)) as mine:
        assert (
            len(mine.experiments.report("mixed", segments={"x": "select 1 as unit, 1 as segment"}).segmentations) == 1
        )
        with pytest.raises(PrivilegeError, match="secret"):
            mine.experiments.report("mixed", segments={"x": "select * from secret"})
    assert client.experiments.report("mixed", segments={"x": "select * from secret"}).segmentations


# --- the command line ---


@dataclasses.dataclass(frozen=True)
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


def test_segments_are_tables_or_json(client: Client, dbscore: Run) -> None:
    odd = "select id as unit, id % 2 = 1 as segment from people where id > 8"
    asked = ("report", "mixed", "--segment", f"odd={odd}", "--segment", "x=select 1 as unit, 'a=b' as segment")
    ended = dbscore(*asked)
    assert ended.returncode == 0
    lines = [line.split("\t") for line in ended.stdout.splitlines()]
    first, second = (place for place, line in enumerate(lines) if line[0] in ("odd", "x"))
    assert [line[:3] for line in lines[first + 1 : second]] == [
        [value, metric, "treatment"] for value in ("false", "true", "(none)") for metric in ("paid", "slow", "guard")
    ]
    assert lines[first][3:7] == ["n", "control n", "value", "control"]
    assert {line[0] for line in lines[second + 1 :]} == {"a=b", "(none)"}
    assert "paid, treatment: homogeneity of the segments p = " in ended.stderr
    given = json.loads(dbscore(*asked, "--json").stdout)
    found = client.experiments.report("mixed", segments={"odd": odd, "x": "select 1 as unit, 'a=b' as segment"})
    assert given["segmentations"] == json.loads(json.dumps(found.to_json()["segmentations"]))
    assert [one["value"] for one in given["segmentations"][0]["segments"]] == ["false", "true", None]


@pytest.mark.parametrize(
    ("asked", "code", "said"),
    [
        (("--segment", "party"), 1, "records no features"),
        (("--segment", "=select 1"), 1, "called ''"),
        (("--segment", "x="), 1, "is empty"),
        (("--segment", "x=select 1", "--segment", "x=select 2"), 2, "asked for twice"),
    ],
)
def test_segments_that_cannot_be_end_the_command(dbscore: Run, asked: tuple[str, ...], code: int, said: str) -> None:
    ended = dbscore("report", "mixed", *asked)
    assert ended.returncode == code
    assert said in " ".join(ended.stderr.split())
