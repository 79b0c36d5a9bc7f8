"""A server without PL/Python, as managed ones are: PostgreSQL 18 from the wheel."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import joblib
import numpy as np
import pandas as pd
import psycopg
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC
from typer.testing import CliRunner

from dbscore import Client
from dbscore.cli import app
from dbscore.errors import DbscoreError, InUseError, NotFoundError, ServerError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def plain(plain_url: str) -> Iterator[Client]:
    with Client(plain_url) as client:
        client.install()
        yield client
        client.uninstall()


def frame() -> pd.DataFrame:
    return pd.DataFrame(np.random.default_rng(0).normal(size=(50, 2)), columns=["a", "b"])


def model(column: str = "a") -> LogisticRegression:
    return LogisticRegression().fit(frame(), (frame()[column] > 0).astype(int))


def nothing_for_sql() -> SVC:
    """What only ONNX Runtime computes."""
    return SVC().fit(frame(), (frame()["a"] > 0).astype(int))


def test_the_registry_installs_and_status_notes_what_is_missing(plain: Client, plain_url: str) -> None:
    status = plain.install()
    assert status.server_version.startswith("18")
    assert status.engines == ("sql",)
    assert status.problems == ()
    assert len(status.notes) == 1
    assert "apt-get install postgresql-plpython3-18" in status.notes[0]
    assert "`dbscore score` scores it in its own process" in status.notes[0]
    assert plain.upgrade() == status
    result = CliRunner().invoke(app, ["status", "--url", plain_url])
    assert result.exit_code == 0
    assert "note: this server has no PL/Python" in result.stderr


def test_a_version_that_is_not_compiled_is_stored_without_functions(plain: Client, plain_url: str) -> None:
    version = plain.deploy("tip", nothing_for_sql(), sample=frame(), metrics={"auc": 0.9})
    assert version.aliases == ("champion",)
    assert (version.engine, version.batch_engine) == ("onnx", "onnx")
    assert version.parity is not None
    assert version.parity["rows"]["sample"] == 50
    assert not {"database", "compiled"} & set(version.parity["rows"])
    assert plain.deploy("tip", nothing_for_sql(), sample=frame()) == version
    with psycopg.connect(plain_url) as db:
        assert db.execute("select reference, aliases, features from dbscore.versions").fetchall() == [
            ("tip:1", ["champion"], ["a", "b"])
        ]
        assert db.execute("select * from dbscore.resolve('tip')").fetchone() == ("tip", 1)
        in_models = "select count(*) from pg_proc where pronamespace = 'models'::regnamespace"
        assert db.execute(in_models).fetchone() == (0,)
    with pytest.raises(ServerError, match="not compiled to SQL") as caught:
        plain.predict("tip", {"a": 1, "b": 2})
    assert caught.value.sqlstate == "ML009"


def test_the_registry_s_moves_work_as_elsewhere(plain: Client, tmp_path: Path) -> None:
    plain.deploy("tip", model(), sample=frame())
    plain.deploy("tip", model("b"), sample=frame(), alias="challenger")
    assert plain.promote("tip@challenger").aliases == ("challenger", "champion")
    assert plain.rollback("tip").reference == "tip:1"
    assert plain.export("tip", tmp_path / "tip.onnx") == (tmp_path / "tip.onnx").read_bytes()
    with pytest.raises(InUseError):
        plain.retire("tip:2")
    plain.unalias("tip", "challenger")
    assert plain.retire("tip:2").status == "retired"
    assert [move.action for move in plain.history("tip")] == ["promote", "promote", "promote", "rollback", "remove"]
    plain.drop("tip", with_aliases=True)
    assert plain.models() == []


def test_a_refused_deployment_leaves_nothing(plain: Client) -> None:
    with pytest.raises(DbscoreError):
        plain.deploy("tip", model(), sample=frame(), alias="v1")
    assert plain.models() == []


def test_a_grant_of_what_has_no_functions_is_refused_and_says_who_scores(plain: Client, plain_url: str) -> None:
    plain.deploy("tip", nothing_for_sql(), sample=frame())
    with psycopg.connect(plain_url, autocommit=True) as db:
        db.execute("create role analyst")
        try:
            with pytest.raises(ServerError, match="no functions that analyst") as caught:
                plain.grant("tip", "analyst")
            plain.revoke("tip", "analyst")
        finally:
            db.execute("drop role analyst")
    assert "only members of the schema's owner" in caught.value.remedy
    with pytest.raises(NotFoundError, match="nobody"):
        plain.grant("tip", "nobody")


def test_the_command_line_warns_on_stderr(plain: Client, plain_url: str, tmp_path: Path) -> None:
    joblib.dump(nothing_for_sql(), tmp_path / "tip.joblib")
    frame().to_csv(tmp_path / "rows.csv", index=False)
    arguments = ["deploy", "tip", str(tmp_path / "tip.joblib"), "--sample", str(tmp_path / "rows.csv")]
    result = CliRunner().invoke(app, [*arguments, "--trust-pickle", "--json", "--url", plain_url])
    assert result.exit_code == 0
    assert json.loads(result.stdout)["reference"] == "tip:1"
    assert "tip:1 has no SQL functions" in result.stderr
    assert "`dbscore score` scores it all the same, whose workers run the model" in result.stderr


def test_experiments_run_and_are_analysed_as_elsewhere(plain: Client, plain_url: str) -> None:
    plain.deploy("tip", model(), sample=frame())
    plain.deploy("tip", model("b"), sample=frame(), alias="challenger")
    experiments = plain.experiments
    experiments.create(
        "tips", unit="id", variants=["control=tip:50", "treatment=tip@challenger:50"], record_features=True
    )
    experiments.start("tips")
    experiments.add_metric("tips", "paid", kind="mean")
    experiments.add_metric("tips", "off", kind="brier")
    with psycopg.connect(plain_url, autocommit=True) as db:
        db.execute("create table people as select i as id, sin(i) as a, cos(i) as b from generate_series(1, 400) i")
        try:
            assert experiments.run("tips", source="people", key="id") == 400
            # one by one, as an application asks
            asked = db.execute(
                "select variant, version from experiments.tips('x', 0.5::float8, 0.5::float8)"
            ).fetchall()
            assert asked in ([("control", 1)], [("treatment", 2)])
            recorded = (
                "select count(dbscore.record_outcome('tips', unit, 'paid', length(variant))),"
                " count(dbscore.record_outcome('tips', unit, 'off', (hashtext(unit) % 2 = 0)::int::text))"
                " from dbscore.experiment_assignments"
            )
            assert db.execute(recorded).fetchall() == [(401, 401)]
            experiments.refresh("tips")
            found = db.execute(
                "select metric, n + control_n from dbscore.experiment_results order by metric"
            ).fetchall()
            assert found == [("off", 401), ("paid", 401)]
            assert experiments.audit("tips").differing == ()
            report = experiments.report("tips", segments={"half": "select id as unit, id > 200 as segment from people"})
            assert report.decision.action == "wait"
            assert [part.units for part in report.segmentations[0].segments] == [200, 200, 1]
            assert "Calibration" in experiments.page("tips").to_html()
            experiments.conclude("tips", "treatment")
            champions = [one.number for one in plain.versions("tip") if "champion" in one.aliases]
            assert champions == [2]
            experiments.drop("tips")
        finally:
            db.execute("drop table people")


def test_functions_are_made_when_pl_python_appears(url: str) -> None:
    """The server lost dbscore's part of PL/Python, as if it had never been there, and gets it back."""
    with psycopg.connect(url, autocommit=True) as db, Client(url) as client:
        db.execute("drop schema dbscore_engine cascade")
        db.execute("update dbscore.installation set functions_sha256 = null")
        client.deploy("tip", model(), sample=frame(), engine="onnx")
        client.deploy("tip", model("b"), sample=frame(), engine="onnx", alias="challenger")
        assert client.status().engines == ("sql",)
        assert db.execute("select to_regproc('models.tip')").fetchone() == (None,)
        assert client.install().problems == ()
        assert client.status().engines == ("onnx", "sql")
        row = db.execute("select models.tip(1, 0), models.tip_challenger_score(1, 0), models.tip_v1(1, 0)").fetchone()
        assert row is not None
        assert row[0] == 1
        assert client.predict("tip:2", {"a": 0, "b": 1})["prediction"] == 1
