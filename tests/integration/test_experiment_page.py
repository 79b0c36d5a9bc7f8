"""The page of a report: what it shows is what the database has, and a browser without a network draws it."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import psycopg
import pytest
from selenium import webdriver
from sklearn.linear_model import LinearRegression, LogisticRegression
from statsmodels.stats.proportion import proportion_confint

from dbscore import Client
from dbscore.cli import main
from dbscore.database import run
from dbscore.experiments.analysis import analyse
from tests.conftest import database

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dbscore.experiments.page import Page

Connection = psycopg.Connection[Any]
UNITS = 900
HOSTILE = "</script><script>document.title = 'taken'</script><img src=x onerror=\"document.title='taken'\">"


def frame(rows: int = 300) -> pd.DataFrame:
    return pd.DataFrame(np.random.default_rng(0).normal(size=(rows, 2)), columns=["a", "b"])


def start(client: Client, db: Connection, name: str, models: list[Any], *, mode: str = "ab", **options: Any) -> None:
    for number, model in enumerate(models):
        client.deploy(name, model, sample=frame(), **({"alias": "challenger"} if number else {}))
    weight = "" if mode == "shadow" else ":50"
    variants = [f"control={name}:1{weight}", f"treatment={name}:2{weight}"]
    client.experiments.create(name, unit="id", variants=variants, mode=mode, **options)
    client.experiments.start(name)


def spread(db: Connection, name: str) -> None:
    """Let the units have come in ten days; the first of the periods ends after the fifth."""
    number = db.execute("select experiment_id from dbscore.experiment where name = %s", [name]).fetchall()[0][0]
    begin = "timestamptz '2026-03-01 00:30+00'"
    db.execute(
        f"update dbscore.assignment set assigned_at = {begin} + (unit::integer / {UNITS / 10}) * interval '1 day' where experiment_id = %s",
        [number],
    )
    db.execute(
        "update dbscore.prediction p set predicted_at = a.assigned_at from dbscore.assignment a"
        " where p.experiment_id = %s and a.experiment_id = p.experiment_id and a.unit = p.unit",
        [number],
    )
    db.execute(
        f"update dbscore.allocation set valid_from = {begin}, valid_to = {begin} + interval '5 days' where experiment_id = %s and number = 1",
        [number],
    )
    db.execute(
        f"update dbscore.allocation set valid_from = {begin} + interval '5 days' where experiment_id = %s and number = 2",
        [number],
    )


def record(db: Connection, name: str, metric: str, value: str, *, where: str = "true", as_text: bool = False) -> None:
    kind = "text" if as_text else "double precision"
    db.execute(
        f"select dbscore.record_outcome(%s, a.unit, %s, ({value})::{kind}, a.assigned_at + interval '1 hour')"
        " from dbscore.experiment_assignments a join people p on p.id = a.unit::integer"
        f" where a.experiment = %s and a.left_out is distinct from 'held out' and {where}",
        [name, metric, name],
    )


@pytest.fixture(scope="module")
def url(server_url: str, template: str) -> Iterator[str]:
    """A database with an experiment of each kind."""
    target = (frame()["a"] > 0).astype(int)
    with database(server_url, template) as made, Client(made) as client, psycopg.connect(made, autocommit=True) as db:
        db.execute(
            f"create table people as select i as id, sin(i * 1.7) as a, cos(i * 2.3) as b, abs(sin(i * 5.1)) as chance from generate_series(1, {UNITS}) i"
        )
        models = [LogisticRegression(C=strength).fit(frame(), target) for strength in (1.0, 0.01)]
        start(client, db, "tip", models, holdout=0.05, description=HOSTILE)
        add = client.experiments.add_metric
        add("tip", "bought", kind="conversion")
        add("tip", "paid", kind="mean", covariate="select id as unit, a * 3 as value from people")
        add("tip", "rate", kind="ratio")
        add("tip", "slow", kind="mean", role="guardrail", direction="lower", margin=0.3, window="3 days")
        add("tip", "half", kind="quantile", quantile=0.5)
        add("tip", "area", kind="auc")
        add("tip", "off", kind="brier")
        client.experiments.run("tip", f"select * from people where id <= {UNITS // 2}", key="id")
        client.experiments.ramp("tip", {"control": 30, "treatment": 70}, reason=HOSTILE)
        client.experiments.run("tip", f"select * from people where id > {UNITS // 2}", key="id")
        client.experiments.force("tip", "900", variant="treatment")
        spread(db, "tip")
        record(db, "tip", "bought", "1", where="p.chance < case variant when 'treatment' then 0.8 else 0.3 end")
        record(db, "tip", "paid", "p.a * 3 + p.b")
        record(db, "tip", "slow", "10 + p.b")
        record(db, "tip", "half", "p.a", where="p.id %% 2 = 0")
        for metric in ("area", "off"):
            record(db, "tip", metric, "(p.chance < 1 / (1 + exp(-p.a)))::integer", as_text=True)
        db.execute(
            "select dbscore.record_outcome('tip', a.unit, 'rate', mod(a.unit::integer, 7), a.assigned_at + interval '1 hour', 1 + mod(a.unit::integer, 3))"
            " from dbscore.experiment_assignments a where a.experiment = 'tip' and a.left_out is null"
        )
        numbers = [LinearRegression().fit(frame(), frame() @ weights) for weights in ([2.0, 1.0], [1.0, 2.0])]
        start(client, db, "fare", numbers, mode="shadow")
        add("fare", "error", kind="rmse")
        client.experiments.run("fare", "select * from people", key="id")
        spread(db, "fare")
        record(db, "fare", "error", "2 * p.a + p.b + p.chance", as_text=True)
        letters = np.where(frame()["a"] > 0.5, "c", np.where(frame()["a"] > -0.5, "b", "a"))
        start(client, db, "kind", [LogisticRegression(C=c).fit(frame(), letters) for c in (1.0, 0.1)])
        client.experiments.run("kind", "select * from people", key="id")
        start(client, db, "empty", models)
        db.execute("analyze")
        yield made


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    with Client(url) as made:
        yield made


@pytest.fixture
def db(url: str) -> Iterator[Connection]:
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    """Chromium, which finds no host."""
    found = shutil.which("chromium"), shutil.which("chromedriver")
    if None in found and "CI" not in os.environ:
        pytest.skip("chromium and chromedriver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = str(found[0])
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--window-size=1300,900",
        "--host-resolver-rules=MAP * ~NOTFOUND",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(found[1])))
    driver.set_page_load_timeout(60)
    yield driver
    driver.quit()


def opened(browser: webdriver.Chrome, page: Page, folder: Path) -> int:
    """Show a page; return how many charts were drawn."""
    path = folder / "page.html"
    path.write_text(page.to_html(), encoding="utf-8")
    browser.get_log("performance")
    browser.get(path.as_uri())
    wait = "const done = arguments[0]; const look = () => document.body.dataset.drawn ? done(document.body.dataset.drawn) : setTimeout(look, 20); look();"
    browser.set_script_timeout(15)
    return int(browser.execute_async_script(wait))


def asked(browser: webdriver.Chrome) -> set[str]:
    """Return what the browser loaded."""
    messages = [json.loads(line["message"])["message"] for line in browser.get_log("performance")]
    urls = {m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"}
    return {re.sub(r":.*", "", address) for address in urls}


# --- in a browser ---


def test_a_browser_draws_every_chart_and_loads_nothing(
    browser: webdriver.Chrome, client: Client, tmp_path: Path
) -> None:
    page = client.experiments.page("tip")
    # the intervals, the days, the scores, the calibration, and a curve for each metric but the quantile
    assert opened(browser, page, tmp_path) == 4 + 6
    assert browser.execute_script("return document.body.dataset.failed") is None
    assert browser.get_log("browser") == []
    assert asked(browser) <= {"file", "data"}
    empty = "return [...document.querySelectorAll('.chart')].filter(c => !c.querySelector('svg .mark-group path, svg .mark-line path, svg .mark-rect path')).map(c => c.id)"
    assert browser.execute_script(empty) == []
    # nothing is drawn that the eye cannot see: each chart is as wide as the page lets it
    widths = browser.execute_script(
        "return [...document.querySelectorAll('.chart svg')].map(s => s.getBoundingClientRect().width)"
    )
    assert min(widths) > 300


def test_what_was_written_by_users_is_shown_and_not_run(
    browser: webdriver.Chrome, client: Client, tmp_path: Path
) -> None:
    opened(browser, client.experiments.page("tip"), tmp_path)
    assert browser.title.startswith("tip: ")
    assert HOSTILE in browser.find_element("css selector", "header").text
    browser.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert HOSTILE in browser.find_element("id", "settings").text
    assert browser.find_elements("css selector", "img") == []


@pytest.mark.parametrize("width", [400, 1300])
def test_the_page_fits_the_window(browser: webdriver.Chrome, client: Client, tmp_path: Path, width: int) -> None:
    browser.set_window_size(max(width, 500), 900)
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    )
    opened(browser, client.experiments.page("tip"), tmp_path)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.parametrize(("name", "charts"), [("fare", 5), ("kind", 2), ("empty", 0)])
def test_other_experiments_have_pages_too(
    browser: webdriver.Chrome, client: Client, tmp_path: Path, name: str, charts: int
) -> None:
    page = client.experiments.page(name)
    if charts:
        assert opened(browser, page, tmp_path) == charts
    else:
        (tmp_path / "page.html").write_text(page.to_html())
        browser.get((tmp_path / "page.html").as_uri())
    assert browser.get_log("browser") == []
    assert "wait: nothing is sure yet" in browser.title or name == "fare"


# --- what it says ---


def test_the_statements_of_the_page_give_its_numbers(client: Client, db: Connection) -> None:
    page = client.experiments.page("tip")
    shown = [html.unescape(text) for text in re.findall(r"<pre>(.*?)</pre>", page.to_html(), flags=re.DOTALL)]
    assert set(page.evidence.statements.values()) <= set(shown)
    rows = {part: db.execute(text).fetchall() for part, text in page.evidence.statements.items()}
    assert page.report.sample_ratio is not None
    assert sum(units for _, _, units in rows["sample_ratio"]) == page.report.health.units
    assert dict(rows["left_out"]) == {"forced": 1, "held out": page.report.health.held_out}
    known = {(metric, variant): int(n) for metric, variant, _, n in rows["coverage"]}
    assert all(known[one.metric, one.variant] == one.with_outcome for one in page.report.health.coverage)
    assert page.report.findings is not None
    for one in page.report.findings:
        mine = rows[f"metric {one.metric}"]
        if "unit_values" in page.evidence.statements[f"metric {one.metric}"]:
            assert sum(row[1] == 2 for row in mine) == one.n, one.metric
        else:
            assert sum(row[2] for row in mine if row[0] == "treatment") == one.n


def test_the_curve_ends_where_the_scorecard_is(client: Client) -> None:
    page = client.experiments.page("tip")
    assert page.report.findings is not None
    curves = {one.metric: one for one in page.trends}
    assert set(curves) == {"bought", "paid", "rate", "slow", "half", "area", "off"}
    for one in page.report.findings:
        if one.kind == "quantile":
            assert curves[one.metric].points == ()
            assert "bootstrap" in curves[one.metric].note
            continue
        last = curves[one.metric].points[-1]
        assert one.always_valid is not None
        assert last.units == one.n + one.control_n
        for name in ("difference", "lower", "upper", "relative", "relative_lower", "relative_upper"):
            shown = getattr(one.always_valid, name)
            assert getattr(last, name) == (shown and pytest.approx(shown, rel=1e-9)), (one.metric, name)
        assert len(curves[one.metric].points) == 11


def test_a_point_of_the_curve_is_the_report_of_that_day(client: Client) -> None:
    whole = {one.metric: one.points[3] for one in client.experiments.page("tip").trends if one.points}
    report = None
    with suppress(ZeroDivisionError), client.experiments._begun() as connection:
        run(connection, "select dbscore.count_anew(experiment_id) from dbscore.experiment where name = 'tip'")
        run(connection, "delete from dbscore.assignment where assigned_at >= timestamptz '2026-03-05 00:00+00'")
        report = analyse(connection, "tip", alpha=0.05, correction=None, sequential=True).report
        # nothing of it stays
        raise ZeroDivisionError
    assert report is not None
    assert report.findings is not None
    for one in report.findings:
        if one.kind != "quantile":
            assert one.always_valid is not None
            assert whole[one.metric].units == one.n + one.control_n
            assert whole[one.metric].difference == pytest.approx(one.always_valid.difference, rel=1e-9), one.metric
            assert whole[one.metric].upper == pytest.approx(one.always_valid.upper, rel=1e-9), one.metric


def test_withheld_results_are_nowhere_on_the_page(client: Client, db: Connection) -> None:
    db.execute(
        "update dbscore.allocation set weights = '{9000,1000}' where experiment_id = (select experiment_id from dbscore.experiment where name = 'kind')"
    )
    client.experiments.add_metric("kind", "paid", kind="mean")
    page = client.experiments.page("kind")
    assert page.report.decision.action == "mend"
    assert page.trends == ()
    text = page.to_html()
    assert text.count("Withheld: the units are not divided as the weights say") == 2
    assert "Mend the assignment" in text


# --- scores and calibration, in SQL ---


def test_the_distribution_of_scores_is_numpys(client: Client, db: Connection) -> None:
    for variant in ("control", "treatment"):
        scores = [
            row[0]
            for row in db.execute(
                "select p.probabilities[2] from dbscore.experiment_predictions p join dbscore.experiment_assignments a using (experiment, unit)"
                " where p.experiment = 'tip' and p.variant = %s and a.left_out is null",
                [variant],
            ).fetchall()
        ]
        counts, edges = np.histogram(scores, bins=20, range=(0, 1))
        found = db.execute(
            "select lower, upper, predictions from dbscore.score_distribution('tip', 20) where variant = %s", [variant]
        ).fetchall()
        expected = [(edges[i], edges[i + 1], n) for i, n in enumerate(counts) if n]
        assert [row[2] for row in found] == [row[2] for row in expected]
        assert np.allclose([row[:2] for row in found], [row[:2] for row in expected])


def test_scores_of_regressions_are_between_their_quantiles_and_none_is_lost(db: Connection) -> None:
    found = db.execute(
        "select variant, sum(predictions), min(lower), max(upper) from dbscore.score_distribution('fare') group by variant order by 1"
    ).fetchall()
    assert [(row[0], int(row[1])) for row in found] == [("control", UNITS), ("treatment", UNITS)]
    scores = [
        row[0]
        for row in db.execute(
            "select prediction from dbscore.experiment_predictions where experiment = 'fare'"
        ).fetchall()
    ]
    assert min(scores) <= min(row[2] for row in found) <= np.quantile(scores, 0.01)
    assert np.quantile(scores, 0.99) <= max(row[3] for row in found) <= max(scores)


def test_classes_are_counted(db: Connection) -> None:
    found = db.execute("select variant, label, predictions from dbscore.score_distribution('kind')").fetchall()
    expected = db.execute(
        "select variant, label, count(*) from dbscore.experiment_predictions where experiment = 'kind' group by 1, 2 order by 1, 2"
    ).fetchall()
    assert found == expected


@pytest.mark.parametrize("metric", ["area", "off"])
def test_calibration_is_what_came_true_of_each_tenth(db: Connection, metric: str) -> None:
    rows = db.execute(
        "select a.variant, p.probabilities[2], o.label::float8 from dbscore.experiment_outcomes o join dbscore.experiment_assignments a using (experiment, unit)"
        " join dbscore.experiment_predictions p using (experiment, unit) where o.experiment = 'tip' and o.metric = %s and o.counts",
        [metric],
    ).fetchall()
    data = pd.DataFrame(rows, columns=["variant", "predicted", "observed"])
    found = db.execute(
        "select variant, bin, n, predicted, observed from dbscore.calibration('tip', %s)", [metric]
    ).fetchall()
    assert len(found) == 20
    for variant in ("control", "treatment"):
        mine = data[data.variant == variant].sort_values("predicted")
        parts = [mine.iloc[rows] for rows in np.array_split(np.arange(len(mine)), 10)]
        got = [row for row in found if row[0] == variant]
        assert [row[2] for row in got] == [len(part) for part in parts]
        assert [row[3] for row in got] == pytest.approx([part.predicted.mean() for part in parts], rel=1e-9)
        assert [row[4] for row in got] == pytest.approx([part.observed.mean() for part in parts], rel=1e-9)


def test_calibration_has_intervals(client: Client) -> None:
    for one in client.experiments.page("tip").evidence.calibration:
        assert (one.lower, one.upper) == pytest.approx(
            proportion_confint(round(one.n * one.observed), one.n, method="wilson")
        )


def test_log_loss_tells_the_same_calibration(client: Client, db: Connection) -> None:
    client.experiments.add_metric("tip", "surprise", kind="log_loss")
    record(db, "tip", "surprise", "(p.chance < 1 / (1 + exp(-p.a)))::integer", as_text=True)
    brier, surprise = (
        db.execute("select * from dbscore.calibration('tip', %s)", [metric]).fetchall()
        for metric in ("off", "surprise")
    )
    assert np.allclose([row[2:] for row in brier], [row[2:] for row in surprise])
    client.experiments.drop_metric("tip", "surprise")


def test_other_metrics_have_no_calibration(db: Connection) -> None:
    assert db.execute("select * from dbscore.calibration('tip', 'paid')").fetchall() == []


@pytest.mark.parametrize(
    "statement", ["select dbscore.score_distribution('tip', 0)", "select dbscore.calibration('tip', 'off', 1001)"]
)
def test_a_number_of_bins_that_cannot_be_is_refused(db: Connection, statement: str) -> None:
    with pytest.raises(psycopg.Error, match="the number of bins is") as caught:
        db.execute(statement)
    assert caught.value.sqlstate == "ML014"


# --- the command ---


def test_the_command_writes_the_page(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "tip.html"
    monkeypatch.setattr(
        "sys.argv", ["dbscore", "experiment", "report", "tip", "--html", str(path), "--url", url, "--json"]
    )
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    shown = json.loads(capsys.readouterr().out)
    text = path.read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>")
    assert shown["decision"]["action"] in ("promote", "keep", "wait", "mend")
    assert shown["decision"]["headline"].capitalize() in text


def test_a_page_that_cannot_be_written_is_refused_before_anything_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = "postgresql://nobody@127.0.0.1:1/none"
    monkeypatch.chdir(tmp_path)
    path = "nowhere/tip.html"
    monkeypatch.setattr("sys.argv", ["dbscore", "experiment", "report", "tip", "--html", path, "--url", nowhere])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "nowhere" in capsys.readouterr().err
