"""`dbscore experiment` from the design to the winner: what goes where, exit codes, JSON."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import psycopg
import pytest
from sklearn.linear_model import LogisticRegression

from dbscore.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from dbscore import Client

    Run = Callable[..., "Ended"]

Connection = psycopg.Connection[Any]
PAIR = ("--unit", "id", "--variant", "control=tip:1:50", "--variant", "treatment=tip@challenger:50")


@pytest.fixture
def tip(client: Client, db: Connection) -> Client:
    """A model with two versions, and a table of 400 units."""
    db.execute("create table people as select i as id, sin(i) as a, cos(i) as b from generate_series(1, 400) i")
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(300, 2)), columns=["a", "b"])
    for strength, alias in ((1.0, None), (0.01, "challenger")):
        model = LogisticRegression(C=strength).fit(frame, (frame["a"] > 0).astype(int))
        client.deploy("tip", model, sample=frame, table="people", alias=alias)
    return client


@dataclass(frozen=True)
class Ended:
    """What a command left: its exit code and what it said."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def experiment(url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run `dbscore experiment ...` in this process."""
    monkeypatch.setenv("DBSCORE_URL", url)

    def run(*arguments: str, stdin: str = "") -> Ended:
        monkeypatch.setattr("sys.argv", ["dbscore", "experiment", *arguments])
        monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return Ended(ended.value.code if isinstance(ended.value.code, int) else 0, said.out, said.err)

    return run


@pytest.fixture
def done(experiment: Run) -> Callable[..., Any]:
    """Run a command that ends well, and return its JSON, or its standard error."""

    def run(*arguments: str, stdin: str = "") -> Any:
        ended = experiment(*arguments, stdin=stdin)
        assert ended.returncode == 0, ended.stderr
        return json.loads(ended.stdout) if "--json" in arguments else ended.stderr

    return run


@pytest.fixture
def refused(experiment: Run) -> Callable[..., str]:
    """Run a command that is refused with exit code 1, and return what it says."""

    def run(*arguments: str, stdin: str = "") -> str:
        ended = experiment(*arguments, stdin=stdin)
        assert (ended.returncode, ended.stdout) == (1, ""), ended.stderr
        return str(ended.stderr)

    return run


def test_an_experiment_goes_from_its_design_to_its_winner(
    tip: Client, db: Connection, experiment: Run, done: Callable[..., Any]
) -> None:
    made = done("create", "test", *PAIR, "--description", "which one pays", "--json")
    assert (made["status"], made["scheme"], made["salt"], made["holdout"]) == ("draft", "sha256", "test", 0.0)
    assert made["variants"] == [
        {"name": "control", "reference": "tip:1", "weight": 50.0},
        {"name": "treatment", "reference": "tip:2", "weight": 50.0},
    ]
    assert done("start", "test") == "experiment test is running: control tip:1 50 %, treatment tip:2 50 %\n"
    assert done("score", "test", "--from", "people", "--key", "id") == "recorded 400 predictions of test\n"
    assert db.execute("select count(*) from experiments.test_log").fetchone() == (400,)

    assert done("metric", "test", "paid", "--kind", "conversion", "--window", "7 days") == (
        "metric paid of test: goal, conversion, higher is better, within 7 days\n"
    )
    variants = dict(db.execute("select unit, variant from dbscore.experiment_assignments").fetchall())
    paying = [unit for unit, variant in variants.items() if variant == "treatment"][:3]
    for unit in paying:
        done("outcome", "test", unit, "paid", "1")
    (result,) = done("results", "test", "--json")
    n = sum(variant == "treatment" for variant in variants.values())
    assert (result["metric"], result["variant"], result["n"], result["control_n"]) == ("paid", "treatment", n, 400 - n)
    assert result["mean"] == pytest.approx(3 / n)
    assert (result["control_mean"], result["lift"], result["sample_ratio_suspicious"]) == (0, None, False)
    shown = experiment("results", "test").stdout.splitlines()
    assert shown[0].split("\t")[:4] == ["metric", "variant", "n", "control n"]
    assert shown[1].split("\t")[:4] == ["paid", "treatment", str(n), str(400 - n)]

    ramped = done("ramp", "test", "control=20", "treatment=80", "--reason", "it pays", "--json")
    assert [a["weights"] for a in ramped["allocations"]] == [
        {"control": 50.0, "treatment": 50.0},
        {"control": 20.0, "treatment": 80.0},
    ]
    assert done("conclude", "test", "--winner", "treatment", "--reason", "paid more") == (
        "experiment test is concluded: control tip:1 20 %, treatment tip:2 80 %; tip:2 is the champion\n"
    )
    assert tip.show("tip").number == 2
    assert [m.reason for m in tip.history("tip") if m.action == "promote"][-1:] == ["paid more"]
    lines = [line.split("\t") for line in experiment("history", "test").stdout.splitlines()]
    assert lines[0] == ["when", "who", "action", "detail", "reason"]
    assert [line[2] for line in lines[1:]] == ["create", "start", "metric", "ramp", "conclude"]
    assert lines[4][3:] == ["control=20 treatment=80", "it pays"]
    assert done("drop", "test") == "dropped the experiment test\n"
    assert done("list", "--json") == []
    assert [event["action"] for event in done("history", "test", "--json")][-1] == "drop"


def test_experiments_are_listed_and_shown(tip: Client, experiment: Run, done: Callable[..., Any]) -> None:
    assert done("list", "--json") == []
    done("create", "test", *PAIR, "--eligible", "a > 0", "--holdout", "0.05", "--record-features")
    done(
        *(
            "create",
            "dark",
            "--mode",
            "shadow",
            "--unit",
            "id",
            "--variant",
            "control=tip:1",
            "--variant",
            "other=tip:2",
        ),
        *("--layer", "pages", "--layer-share", "30", "--scheme", "growthbook2", "--salt", "pepper"),
    )
    listed = [line.split("\t") for line in experiment("list").stdout.splitlines()]
    assert [row[:6] for row in listed] == [
        ["experiment", "status", "mode", "unit", "variants", "layer"],
        ["test", "draft", "ab", "id", "control tip:1 50 %, treatment tip:2 50 %", ""],
        ["dark", "draft", "shadow", "id", "control tip:1, other tip:2", "pages"],
    ]
    assert [one["name"] for one in done("list", "--json")] == ["test", "dark"]
    done("metric", "test", "slow", "--kind", "mean", "--direction", "lower", "--role", "guardrail", "--margin", "0.02")
    shown = dict(line.split("\t") for line in experiment("show", "test").stdout.splitlines())
    assert shown["variant treatment"] == "tip:2, 50 %"
    assert (shown["eligible"], shown["holdout"], shown["features"]) == ("a > 0", "5.00%", "a, b, recorded")
    assert shown["metric slow"] == "guardrail with margin 2.00%, mean, lower is better"
    assert shown["weights 1"].startswith("control=50 treatment=50 from 20")
    dark = dict(line.split("\t") for line in experiment("show", "dark").stdout.splitlines())
    assert (dark["layer"], dark["drawn by"]) == ("pages, buckets 0 to 2999", "growthbook2, salt pepper")
    assert (dark["variant other"], "weights 1" in dark) == ("tip:2", False)


def test_what_is_scored_is_a_table_whose_name_is_quoted_or_a_query_of_a_file_or_of_the_standard_input(
    tip: Client, db: Connection, done: Callable[..., Any], refused: Callable[..., str], tmp_path: Path
) -> None:
    db.execute('create schema "My Data"; create table "My Data"."People; drop" as select * from people where id <= 7')
    done("create", "test", *PAIR)
    done("start", "test")
    named = done("score", "test", "--from", '"My Data"."People; drop"', "--key", "id", "--json")
    assert named == {"experiment": "test", "request_id": None, "recorded": 7}
    query = "select * from people where id between 8 and 10 -- few\n;\n"
    (tmp_path / "few.sql").write_text(query)
    assert done("score", "test", "--query", str(tmp_path / "few.sql"), "--key", "id", "--json")["recorded"] == 3
    again = ("score", "test", "--query", "-", "--key", "id", "--request-id", "nightly", "--json")
    assert [done(*again, stdin=query)["recorded"] for _ in range(2)] == [3, 0]
    assert "there is no table or view 'nothing'" in refused("score", "test", "--from", "nothing", "--key", "id")
    assert 'column "no" does not exist' in refused("score", "test", "--from", "people", "--key", "no")


def test_a_unit_is_assigned_without_a_record_and_forced_with_one(
    tip: Client, db: Connection, experiment: Run, done: Callable[..., Any]
) -> None:
    done("create", "test", *PAIR, "--layer", "pages", "--layer-share", "50")
    done("start", "test")
    drawn = {
        str(i): v for i, v in db.execute("select i, experiments.test_variant(i::text) from generate_series(1, 20) i")
    }
    inside = next(unit for unit, variant in drawn.items() if variant == "control")
    outside = next(unit for unit, variant in drawn.items() if variant is None)
    assert experiment("assign", "test", inside).stdout == "control\n"
    assert done("assign", "test", inside, "--json") == {"experiment": "test", "unit": inside, "variant": "control"}
    assert done("assign", "test", outside, "--json")["variant"] is None
    told = experiment("assign", "test", outside)
    assert (told.stdout, told.stderr) == (
        "",
        f"unit {outside} is in another part of the layer, and does not take part in test\n",
    )
    assert db.execute("select count(*) from dbscore.assignment").fetchone() == (0,)
    assert done("force", "test", inside, "treatment") == f"unit {inside} gets variant treatment of test\n"
    assert experiment("assign", "test", inside).stdout == "treatment\n"


def test_outcomes_are_negative_numbers_denominators_classes_and_the_rows_of_a_metrics_query(
    tip: Client, db: Connection, done: Callable[..., Any], tmp_path: Path
) -> None:
    done("create", "test", *PAIR)
    done("start", "test")
    done("score", "test", "--from", "people", "--key", "id")
    for metric in ("mean", "ratio", "auc"):
        done("metric", "test", metric, "--kind", metric)
    done("outcome", "test", "7", "mean", "-3.5")
    done("outcome", "test", "7", "ratio", "3", "--denominator", "4")
    done("outcome", "test", "7", "auc", "1")
    rows = db.execute("select metric, value, denominator, label from dbscore.experiment_outcomes order by 1").fetchall()
    assert rows == [("auc", 1.0, None, "1"), ("mean", -3.5, None, None), ("ratio", 3.0, 4.0, None)]
    done("outcome", "test", "8", "mean", "1", "--at", "2020-02-02 00:00+00")
    assert db.execute("select reason from dbscore.experiment_outcomes where unit = '8'").fetchone() == (
        "before the exposure",
    )
    query = "select id as unit, a as value, clock_timestamp() as at from people;\n"
    (tmp_path / "before.sql").write_text("select id as unit, b as value from people")
    made = done(
        *("metric", "test", "collected", "--kind", "mean", "--sql", "-", "--json"),
        *("--covariate-sql", str(tmp_path / "before.sql")),
        stdin=query,
    )
    assert made["source"] == query.rstrip(";\n")
    assert (made["covariate"], made["window"]) == ("select id as unit, b as value from people", None)
    assert done("collect", "test", "--json") == {"experiment": "test", "collected": 400}
    assert done("refresh", "test") == "refreshed test\n"
    assert done("refresh") == "refreshed all experiments\n"
    assert done("metric", "test", "collected", "--drop") == "dropped the metric collected of test\n"
    assert [m["name"] for m in done("show", "test", "--json")["metrics"]] == ["mean", "ratio", "auc"]


def test_units_that_were_lost_are_a_warning_beside_the_results(
    tip: Client, db: Connection, experiment: Run, done: Callable[..., Any]
) -> None:
    done("create", "test", *PAIR)
    done("start", "test")
    done("metric", "test", "paid", "--kind", "mean")
    done("score", "test", "--from", "people", "--key", "id")
    assert experiment("results", "test").stderr == ""
    db.execute("delete from dbscore.assignment where variant = 2 and unit::integer % 2 = 0")
    assert "warning: the units are not divided as the weights say" in experiment("results", "test").stderr


def test_a_role_is_granted_an_experiment_and_loses_it(
    tip: Client, done: Callable[..., Any], refused: Callable[..., str], role: Callable[[], str]
) -> None:
    analyst = role()
    done("create", "test", *PAIR)
    assert done("grant", "test", analyst) == f"{analyst} may use the experiment test\n"
    assert done("revoke", "test", analyst) == f"{analyst} may no longer use the experiment test\n"
    assert "there is no role 'nobody_there'" in refused("grant", "test", "nobody_there")


# --- exit codes ---


def test_a_refusal_is_exit_code_1_with_the_message_and_the_remedy_on_stderr(
    tip: Client, db: Connection, done: Callable[..., Any], refused: Callable[..., str]
) -> None:
    short = ("--unit", "id", "--variant", "control=tip:1:50", "--variant", "treatment=tip@challenger:40")
    assert refused("create", "test", *short, "--json").splitlines() == [
        "error ML014: the weights sum to 90, not to 100",
        "  Give each variant its percentage of the units.",
    ]
    assert db.execute("select count(*) from dbscore.experiment").fetchone() == (0,)
    done("create", "test", *PAIR)
    for command in (
        ("start", "nothing"),
        ("show", "nothing", "--json"),
        ("results", "nothing"),
        ("history", "nothing"),
        ("assign", "nothing", "1"),
        ("outcome", "nothing", "1", "paid", "1"),
        ("score", "nothing", "--from", "people", "--key", "id"),
    ):
        assert refused(*command).splitlines()[0] == "error ML001: there is no experiment 'nothing'"
    assert "Experiments: test." in refused("show", "nothing")
    score = ("score", "test", "--from", "people", "--key", "id", "--json")
    assert refused(*score).splitlines()[0] == "error ML014: experiment test is a draft"
    done("start", "test")
    assert "variant treatment has no weight" in refused("ramp", "test", "control=100")
    assert "experiment test has no variant 'third'" in refused("conclude", "test", "--winner", "third")
    done("metric", "test", "paid", "--kind", "mean")
    assert "experiment test has a metric 'paid' already" in refused("metric", "test", "paid", "--kind", "mean")
    assert "unit '1' was never exposed to experiment test" in refused("outcome", "test", "1", "paid", "1")
    done("pause", "test", "--reason", "a bug")
    assert refused(*score).splitlines()[0] == "error ML014: experiment test is paused"
    assert "experiment test is paused, and cannot be dropped" in refused("drop", "test")
    assert done("stop", "test", "--json")["status"] == "concluded"


@pytest.mark.parametrize(
    "arguments",
    [
        ("create", "test", "--unit", "id"),
        ("create", "test", "--variant", "a=tip:1:50"),
        ("create", "test", *PAIR, "--mode", "blind"),
        ("create", "test", *PAIR, "--scheme", "md5"),
        ("create", "test", *PAIR, "--holdout", "some"),
        ("ramp", "test"),
        ("conclude", "test"),
        ("score", "test", "--key", "id"),
        ("score", "test", "--key", "id", "--from", "people", "--query", "-"),
        ("score", "test", "--from", "people"),
        ("score", "test", "--query", "/no/such/file.sql", "--key", "id"),
        ("metric", "test", "paid"),
        ("metric", "test", "paid", "--kind", "median"),
        ("metric", "test", "paid", "--kind", "mean", "--drop"),
        ("metric", "test", "paid", "--kind", "mean", "--sql", "-", "--covariate-sql", "-"),
        ("outcome", "test", "1", "paid"),
        ("outcome", "test", "1", "paid", "1", "--when", "now"),
    ],
)
def test_wrong_usage_is_exit_code_2(arguments: tuple[str, ...], experiment: Run) -> None:
    ended = experiment(*arguments, "--url", "postgresql://nobody@127.0.0.1:1/none", stdin="select 1")
    assert (ended.returncode, ended.stdout) == (2, ""), ended.stderr
