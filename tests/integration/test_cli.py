"""The command line: data on stdout, the rest on stderr, exit codes, JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import skops.io
from sklearn.linear_model import LogisticRegression

if TYPE_CHECKING:
    from pathlib import Path

    import psycopg


def dbscore(*arguments: str, url: str | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from dbscore.cli import main; main()", *arguments]
    return subprocess.run(command + (["--url", url] if url else []), capture_output=True, text=True, check=False)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """tip.skops, and the rows that it was fitted on in tip.csv."""
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(200, 2)), columns=["a", "b"])
    skops.io.dump(LogisticRegression().fit(frame, (frame.sum(axis=1) > 0).astype(int)), tmp_path / "tip.skops")
    frame.to_csv(tmp_path / "tip.csv", index=False)
    return tmp_path


def test_a_model_is_deployed_promoted_shown_exported_rolled_back_and_dropped(files: Path, url: str) -> None:
    done = dbscore(
        "deploy",
        "tip",
        str(files / "tip.skops"),
        "--sample",
        str(files / "tip.csv"),
        "--metric",
        "auc=0.9",
        "--json",
        url=url,
    )
    assert done.returncode == 0, done.stderr
    version = json.loads(done.stdout)
    assert (version["reference"], version["aliases"], version["metrics"]) == ("tip:1", ["champion"], {"auc": 0.9})
    assert sum(version["parity"]["mismatches"].values()) == 0
    assert dbscore("export", "tip", str(files / "tip.onnx"), url=url).returncode == 0
    # the bytes alone are another version: their features have no names
    assert (
        json.loads(
            dbscore("deploy", "tip", str(files / "tip.onnx"), "--alias", "challenger", "--json", url=url).stdout
        )["version"]
        == 2
    )
    assert json.loads(dbscore("promote", "tip@challenger", "--reason", "try", "--json", url=url).stdout)["aliases"] == [
        "challenger",
        "champion",
    ]
    assert json.loads(dbscore("rollback", "tip", "--json", url=url).stdout)["reference"] == "tip:1"
    assert [m["action"] for m in json.loads(dbscore("history", "tip", "--json", url=url).stdout)] == [
        "promote",
        "promote",
        "promote",
        "rollback",
    ]
    assert json.loads(dbscore("predict", "tip", '{"a": 1, "b": 1}', url=url).stdout)["prediction"] == 1
    assert "feature a\tdouble precision" in dbscore("show", "tip", url=url).stdout
    assert [m["model"] for m in json.loads(dbscore("list", "--json", url=url).stdout)] == ["tip"]
    assert dbscore("unalias", "tip@challenger", url=url).returncode == 0
    assert json.loads(dbscore("retire", "tip:2", "--json", url=url).stdout)["status"] == "retired"
    assert dbscore("drop", "tip", "--with-aliases", url=url).returncode == 0
    assert json.loads(dbscore("list", "--json", url=url).stdout) == []


def test_a_refusal_is_a_message_with_its_sqlstate_and_remedy_and_exit_code_1(url: str) -> None:
    done = dbscore("show", "nope", url=url)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.splitlines() == ["error ML001: there is no model 'nope'", "  There is no model yet."]


def test_wrong_usage_is_exit_code_2(url: str, files: Path) -> None:
    assert dbscore("deploy", "tip", "/no/such/file.onnx", url=url).returncode == 2
    assert dbscore("deploy", "tip", str(files / "tip.skops"), "--metric", "auc", url=url).returncode == 2
    assert dbscore("predict", "tip", "not json", url=url).returncode == 2
    assert dbscore("no-such-command").returncode == 2


def test_a_server_that_does_not_answer_is_named_without_its_password() -> None:
    done = dbscore("list", url="postgresql://postgres:secret@127.0.0.1:1/postgres")
    assert done.returncode == 1
    assert done.stderr.startswith("error ML009: the connection to the database failed")
    assert "secret" not in done.stderr
    assert "Traceback" not in done.stderr


def test_a_url_that_is_not_postgresqls_is_refused() -> None:
    done = dbscore("list", url="mysql://root:secret@localhost/x")
    assert done.returncode == 1
    assert "not a PostgreSQL URL" in done.stderr
    assert "secret" not in done.stderr


def test_a_pickle_is_not_opened_unless_it_is_trusted(url: str, tmp_path: Path) -> None:
    (tmp_path / "model.pkl").write_bytes(b"cos\nsystem\n(S'touch " + str(tmp_path / "pwned").encode() + b"'\ntR.")
    done = dbscore("deploy", "tip", str(tmp_path / "model.pkl"), url=url)
    assert done.returncode == 1
    assert "--trust-pickle" in done.stderr
    assert not (tmp_path / "pwned").exists()


def test_the_demo_reports_in_one_line_of_json(empty_url: str) -> None:
    done = dbscore("demo", "--json", url=empty_url)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["rows_scored"] == 2 * 569
    assert result["versions"] == ["tumour:1", "tumour:2"]
    assert result["parity_mismatches"] == 0
    assert result["metric"]["tumour:1 auc"] > 0.99
    assert "psql 'postgresql://" in done.stderr
    # it can be run again
    assert dbscore("demo", "--json", url=empty_url).returncode == 0


def test_the_demo_takes_a_csv_file_and_says_what_is_wrong_with_it(empty_url: str, files: Path) -> None:
    frame = pd.read_csv(files / "tip.csv").assign(price=lambda f: f.a * 2.5 + f.b, town=["x", None] * 100)
    frame.to_csv(files / "houses.csv", index=False)
    done = dbscore("demo", "--json", "--data", str(files / "houses.csv"), "--target", "price", url=empty_url)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["parity_mismatches"] == 0
    wrong = dbscore("demo", "--data", str(files / "houses.csv"), "--target", "cost", url=empty_url)
    assert wrong.returncode == 1
    assert "a, b, price, town" in wrong.stderr


def test_a_mismatch_is_refused_with_rows_and_accepted_with_a_reason(url: str, db: psycopg.Connection[Any]) -> None:
    from sklearn.calibration import CalibratedClassifierCV

    from dbscore import Client
    from dbscore.errors import ParityError

    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(300, 2)), columns=["a", "b"])
    labels = ((frame.a + np.random.default_rng(1).normal(size=300)) > 0).astype(int)
    model = CalibratedClassifierCV(LogisticRegression(), method="isotonic").fit(frame, labels)
    with Client(url) as client:
        with pytest.raises(ParityError, match="disagrees with the native one on") as caught:
            client.deploy("tip", model, sample=frame)
        assert "native" in str(caught.value)
        assert "--accept-mismatch" in caught.value.remedy
        assert client.models() == []
        version = client.deploy("tip", model, sample=frame, accept_mismatch="good enough for a test")
    assert version.mismatch_reason == "good enough for a test"
    assert version.mismatch_accepted_by == db.execute("select session_user").fetchone()[0]
    assert db.execute(
        "select mismatches > 0 and mismatch_accepted_by is not null from dbscore.versions"
    ).fetchone() == (True,)
