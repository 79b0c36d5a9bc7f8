"""`dbscore score` and `dbscore jobs`: exit codes, what goes where, and processes that are stopped or killed."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import psycopg
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from dbscore import Client

    Begin = Callable[..., subprocess.Popen[str]]

Connection = psycopg.Connection[Any]
ROWS = 3000
# a shell may have started the tests with SIGINT ignored
MAIN = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from dbscore.cli import main; main()"
COMMAND = [sys.executable, "-c", MAIN]
SCORE = ("score", "tip", "--from", "trips", "--key", "trip_id", "--into", "scores", "--chunk-rows", "150")
# some tenths of a second a chunk, of which there are twenty
SLOW = ("--where", "trip_id % 50 <> 0 or pg_sleep(0.1) is not null")


def dbscore(*arguments: str, url: str | None = None, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, *arguments, *(["--url", url] if url else [])]
    return subprocess.run(command, capture_output=True, text=True, check=False, input=stdin, timeout=120)


@pytest.fixture
def begin(url: str) -> Iterator[Begin]:
    """Begin a command, which is killed when the test ends before it does."""
    processes: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        command = [*COMMAND, *arguments, "--url", url]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        processes.append(process)
        return process

    yield start
    for process in processes:
        with process:
            process.kill()


@pytest.fixture
def trips(client: Client, db: Connection) -> Connection:
    """3000 rows in `trips`, and a classifier `tip`."""
    db.execute("create table trips (trip_id bigint primary key, a float8, b float8)")
    db.execute(f"insert into trips select i, sin(i), cos(i * 3) from generate_series(1, {ROWS}) i; analyze trips")
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(300, 2)), columns=["a", "b"])
    client.deploy("tip", LogisticRegression().fit(frame, frame.sum(axis=1) > 0), sample=frame, table="trips")
    return db


def until(condition: Callable[[], Any], *, seconds: float = 20) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)
    return found


@pytest.fixture
def slow(trips: Connection, begin: Begin) -> Begin:
    """Begin job 1, slow, and return when some of its chunks are done."""

    def start(*arguments: str) -> subprocess.Popen[str]:
        process = begin(*SCORE, *SLOW, *arguments)
        until(lambda: trips.execute("select 1 from dbscore.job_progress where chunks_done > 2").fetchone())
        return process

    return start


def exactly_once(db: Connection) -> bool:
    row = db.execute(
        """select count(*) = %s and count(distinct trip_id) = %s and bool_and(s.prediction = models.tip_v1(t.a, t.b))
           from scores s join trips t using (trip_id)""",
        [ROWS, ROWS],
    ).fetchone()
    assert row is not None
    return bool(row[0])


# --- what goes where ---


def test_a_job_that_is_done_is_exit_code_0_and_one_line_of_json(trips: Connection, url: str) -> None:
    done = dbscore(*SCORE, "--workers", "3", "--json", url=url)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    job = json.loads(line)
    assert (job["job"], job["status"], job["reference"], job["rows_done"]) == (1, "done", "tip:1", ROWS)
    assert (job["errors"], job["error"], job["workers"], job["mode"]) == (0, None, 3, "create")
    assert job["seconds"] > 0
    assert exactly_once(trips)


def test_without_a_terminal_progress_is_plain_lines_on_stderr(trips: Connection, url: str) -> None:
    done = dbscore(*SCORE, url=url)
    assert done.returncode == 0
    assert done.stdout == ""
    first, last = done.stderr.splitlines()
    assert re.fullmatch(
        r"job 1: tip:1, public\.trips into public\.scores; \d+ chunks, about [\d,]+ rows, on the server", first
    )
    assert re.fullmatch(r"job 1 is done: 3,000 rows into public\.scores in \d+\.\d s", last)
    assert "\x1b" not in done.stderr


def test_a_terminal_shows_a_bar(trips: Connection, url: str) -> None:
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": "150"}
    process = subprocess.Popen(
        [*COMMAND, *SCORE, *SLOW, "--url", url], stderr=theirs, stdout=subprocess.PIPE, env=environment
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            shown += os.read(ours, 65536)
        except OSError:
            # Linux: whoever wrote has closed
            break
    os.close(ours)
    said = process.communicate()[0]
    assert process.returncode == 0
    assert said == b""
    text = shown.decode()
    for part in ("job 1", "rows of about", "rows/s", "left", "%", "job 1 is done"):
        assert part in text


def test_a_query_comes_from_a_file_or_from_the_standard_input(trips: Connection, url: str, tmp_path: Path) -> None:
    query = "select * from trips where trip_id <= 10 -- few\n;\n"
    (tmp_path / "few.sql").write_text(query)
    rest = ("--key", "trip_id", "--json")
    filed = dbscore("score", "tip", "--query", str(tmp_path / "few.sql"), "--into", "filed", *rest, url=url)
    piped = dbscore("score", "tip", "--query", "-", "--into", "piped", *rest, url=url, stdin=query)
    for done in (filed, piped):
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["rows_done"] == 10


def test_a_key_of_several_columns_is_written_with_commas_or_repeated(trips: Connection, url: str) -> None:
    for into, key in (("one", ["--key", "trip_id, a"]), ("two", ["--key", "trip_id", "--key", "a"])):
        done = dbscore("score", "tip", "--from", "trips", *key, "--into", into, "--json", url=url)
        assert json.loads(done.stdout)["key"] == ["trip_id", "a"], done.stderr


def test_jobs_are_listed_and_shown(trips: Connection, url: str) -> None:
    assert json.loads(dbscore("jobs", "list", "--json", url=url).stdout) == []
    dbscore(*SCORE, url=url)
    listed = dbscore("jobs", "list", url=url).stdout.splitlines()
    assert listed[0].split("\t")[:3] == ["job", "status", "version"]
    assert listed[1].split("\t")[:5] == ["1", "done", "tip:1", "public.trips", "public.scores"]
    (one,) = json.loads(dbscore("jobs", "list", "--json", url=url).stdout)
    assert one == json.loads(dbscore("jobs", "show", "1", "--json", url=url).stdout)
    assert "rows\t3,000 rows of about 3,000" in dbscore("jobs", "show", "1", url=url).stdout
    missing = dbscore("jobs", "show", "2", url=url)
    assert missing.returncode == 1
    assert missing.stderr.splitlines()[0] == "error ML001: there is no job 2 of yours"


# --- exit codes ---


@pytest.mark.parametrize(
    "arguments",
    [
        ("score", "tip", "--key", "trip_id", "--into", "scores"),
        (*SCORE, "--query", "-"),
        ("score", "tip", "--from", "trips", "--into", "scores"),
        ("score", "tip", "--from", "trips", "--key", "trip_id,", "--into", "scores"),
        ("score", "tip", "--from", "trips", "--key", "trip_id"),
        ("score", "tip", "--query", "/no/such/file.sql", "--key", "trip_id", "--into", "scores"),
        (*SCORE, "--workers", "0"),
        (*SCORE, "--workers", "many"),
        (*SCORE, "--max-errors", "-1"),
        (*SCORE, "--mode", "merge"),
        (*SCORE, "--where-to-run", "cloud"),
        ("jobs", "resume", "none"),
        ("jobs", "resume", "0"),
    ],
)
def test_wrong_usage_is_exit_code_2(arguments: tuple[str, ...]) -> None:
    done = dbscore(*arguments, url="postgresql://nobody@127.0.0.1:1/none", stdin="select 1")
    assert done.returncode == 2, done.stderr


def test_a_refusal_is_exit_code_1_and_makes_no_job(trips: Connection, url: str) -> None:
    trips.execute("create table scores ()")
    done = dbscore(*SCORE, "--json", url=url)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.splitlines()[0] == "error ML012: the result table public.scores is there already"
    assert trips.execute("select count(*) from dbscore.jobs").fetchone() == (0,)


def test_a_failed_job_is_exit_code_1_and_retry_goes_on(trips: Connection, url: str) -> None:
    trips.execute("update trips set a = 'NaN' where trip_id = 1234")
    failed = dbscore(*SCORE, "--json", url=url)
    assert failed.returncode == 1
    job = json.loads(failed.stdout)
    assert (job["status"], job["chunks_failed"]) == ("failed", 1)
    assert "1234" in job["error"]
    assert "dbscore jobs retry 1" in failed.stderr
    trips.execute("update trips set a = 0 where trip_id = 1234")
    retried = dbscore("jobs", "retry", "1", "--json", url=url)
    assert retried.returncode == 0, retried.stderr
    assert json.loads(retried.stdout)["status"] == "done"
    assert exactly_once(trips)


def test_rows_set_aside_are_exit_code_3(trips: Connection, url: str) -> None:
    trips.execute("update trips set a = 'Infinity' where trip_id = 1234")
    done = dbscore(*SCORE, "--max-errors", "5", "--json", url=url)
    assert done.returncode == 3, done.stderr
    job = json.loads(done.stdout)
    assert (job["status"], job["errors"], job["errors_table"]) == ("done", 1, "public.scores_errors")
    assert "1 set aside in public.scores_errors" in done.stderr


# --- processes that are stopped and killed ---


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_cancels_the_job_at_once_and_resume_goes_on(
    trips: Connection, slow: Begin, url: str, number: signal.Signals
) -> None:
    process = slow("--json")
    process.send_signal(number)
    sent = time.monotonic()
    said, told = process.communicate(timeout=20)
    assert time.monotonic() - sent < 2
    assert process.returncode == 1
    job = json.loads(said)
    assert (job["job"], job["status"]) == (1, "cancelled")
    assert told.splitlines()[1:] == [
        "error ML012: job 1 is cancelled: interrupted",
        "  What is scored is kept. To go on, run: dbscore jobs resume 1",
    ]
    assert trips.execute("select status from dbscore.job_progress").fetchone() == ("cancelled",)
    assert until(lambda: trips.execute("select workers = 0 from dbscore.job_progress").fetchone() == (True,))
    resumed = dbscore("jobs", "resume", "1", "--json", url=url)
    assert resumed.returncode == 0, resumed.stderr
    assert json.loads(resumed.stdout)["rows_done"] == ROWS
    assert exactly_once(trips)


def test_a_signal_takes_effect_within_a_model_that_takes_long(client: Client, db: Connection, begin: Begin) -> None:
    db.execute("create table trips (trip_id bigint primary key, a float8, b float8)")
    db.execute("insert into trips select i, sin(i), cos(i * 3) from generate_series(1, 400000) i; analyze trips")
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(2000, 2)), columns=["a", "b"])
    forest = RandomForestClassifier(n_estimators=200, max_depth=12, random_state=0).fit(
        frame, frame["a"] * frame["b"] > 0
    )
    client.deploy("tip", forest, sample=frame, table="trips")
    process = begin("score", "tip", "--from", "trips", "--key", "trip_id", "--into", "scores", "--json")
    until(lambda: db.execute("select 1 from dbscore.job_progress where workers = 2").fetchone())
    time.sleep(1.5)
    process.send_signal(signal.SIGINT)
    sent = time.monotonic()
    said, _ = process.communicate(timeout=60)
    assert time.monotonic() - sent < 2
    assert process.returncode == 1
    assert json.loads(said)["status"] == "cancelled"
    until(lambda: db.execute("select workers = 0 from dbscore.job_progress").fetchone() == (True,), seconds=5)


def test_a_client_that_is_killed_leaves_an_interrupted_job_and_resume_goes_on(
    trips: Connection, slow: Begin, url: str
) -> None:
    process = slow()
    process.kill()
    _, told = process.communicate()
    # its number was said before anything was scored
    assert told.startswith("job 1: ")
    until(lambda: trips.execute("select status from dbscore.job_progress").fetchone() == ("interrupted",), seconds=10)
    listed = json.loads(dbscore("jobs", "list", "--json", url=url).stdout)
    assert [(one["job"], one["status"]) for one in listed] == [(1, "interrupted")]
    resumed = dbscore("jobs", "resume", "1", url=url)
    assert resumed.returncode == 0, resumed.stderr
    assert resumed.stderr.startswith("job 1: tip:1, public.trips into public.scores; ")
    assert "chunks done" in resumed.stderr.splitlines()[0]
    assert exactly_once(trips)


def test_a_job_is_resumed_while_its_killed_clients_backends_still_end(trips: Connection, slow: Begin, url: str) -> None:
    process = slow()
    process.kill()
    process.communicate()
    assert dbscore("jobs", "resume", "1", "--workers", "3", url=url).returncode == 0
    assert exactly_once(trips)


def test_cancel_stops_the_client_that_works_on_it(trips: Connection, slow: Begin, url: str) -> None:
    process = slow()
    cancelled = dbscore("jobs", "cancel", "1", "--json", url=url)
    assert cancelled.returncode == 0, cancelled.stderr
    assert json.loads(cancelled.stdout)["status"] == "cancelled"
    assert "dbscore jobs resume 1" in cancelled.stderr
    _, told = process.communicate(timeout=10)
    assert process.returncode == 1
    assert "job 1 is cancelled" in told
    assert dbscore("jobs", "resume", "1", url=url).returncode == 0
    assert exactly_once(trips)
    assert dbscore("jobs", "cancel", "1", url=url).returncode == 1


def test_two_clients_that_resume_the_same_job_at_once_both_end_well(
    trips: Connection, slow: Begin, begin: Begin
) -> None:
    process = slow()
    process.kill()
    process.communicate()
    both = [begin("jobs", "resume", "1", "--json") for _ in range(2)]
    ended = [one.communicate(timeout=60) for one in both]
    assert [one.returncode for one in both] == [0, 0], ended
    assert [json.loads(said)["rows_done"] for said, _ in ended] == [ROWS, ROWS]
    assert exactly_once(trips)
