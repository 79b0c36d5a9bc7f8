"""Jobs that are killed at random moments: the client, a backend, the whole server. Then resumed: nothing is lost or doubled."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import psycopg
import pytest
from sklearn.ensemble import RandomForestClassifier

from dbscore import Client, LocalServer, Settings
from tests.conftest import local_server

if TYPE_CHECKING:
    from collections.abc import Iterator

ROWS = 12_000
ROUNDS = 20
CHUNK_ROWS = 500
KILLED = ("client", "backend", "server")
# each chunk takes a little while, so that a random moment is often inside one
SLOW = "id % 500 <> 0 or pg_sleep(0.03) is not null"


@pytest.fixture(scope="module")
def server() -> Iterator[LocalServer]:
    """A server of its own, which may be killed."""
    with local_server(packages=Settings.from_environment().home / ".packages") as one:
        one.start()
        yield one


@pytest.fixture(scope="module")
def url(server: LocalServer) -> str:
    """A database with a table of 12,000 rows and a forest."""
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(500, 3)), columns=["a", "b", "c"])
    model = RandomForestClassifier(30, max_depth=6, random_state=0).fit(frame, frame.sum(axis=1) > 0)
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute("create table rows (id bigint primary key, a float8, b float8, c float8)")
        connection.execute(
            f"insert into rows select i, random() - 0.5, random() - 0.5, random() - 0.5 from generate_series(1, {ROWS}) i"
        )
        connection.execute("analyze rows")
    with Client(server.url()) as client:
        client.install()
        client.deploy("forest", model, sample=frame, table="rows")
    return server.url()


def run(url: str, *arguments: str) -> subprocess.Popen[str]:
    """Start the command line in a process of its own."""
    return subprocess.Popen(
        [str(Path(sys.executable).with_name("dbscore")), *arguments, "--url", url],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ask(url: str, statement: str) -> tuple[Any, ...]:
    """Return the first row of a query."""
    with psycopg.connect(url, autocommit=True) as connection:
        return connection.execute(statement).fetchone() or ()


def crash(server: LocalServer) -> None:
    """Stop the server as `pg_ctl stop -m immediate` does, and start it again."""
    pid = int((server.layout.data / "postmaster.pid").read_text().split()[0])
    os.kill(pid, signal.SIGQUIT)
    for _ in range(200):
        if not server.is_running():
            break
        time.sleep(0.05)
    server.start()


def reachable(url: str) -> None:
    """Wait until the server has recovered."""
    for _ in range(200):
        try:
            ask(url, "select 1")
        except psycopg.OperationalError:
            time.sleep(0.05)
        else:
            return
    pytest.fail("the server did not come back")


def strike(kind: str, server: LocalServer, url: str, process: subprocess.Popen[str]) -> None:
    """Kill one of the three."""
    if kind == "client":
        process.kill()
    elif kind == "server":
        crash(server)
    else:
        found = ask(
            url, "select pid from pg_stat_activity where application_name like 'dbscore job%' order by random() limit 1"
        )
        if found:
            os.kill(found[0], signal.SIGKILL)
            reachable(url)


def wait_for(url: str, into: str, chunks: int, process: subprocess.Popen[str]) -> None:
    """Wait until the job has done so many chunks: fewer than 0 is before it is planned."""
    query = f"select max(job_id), max(chunks_done) from dbscore.jobs where into_table = 'public.{into}'"
    while chunks >= 0 and process.poll() is None:
        job, done = ask(url, query)
        if job is not None and done >= chunks:
            return
        time.sleep(0.01)
    time.sleep(0.5)


@pytest.mark.parametrize("turn", range(ROUNDS))
def test_whatever_is_killed_at_a_random_moment_every_row_has_one_prediction_after_resuming(
    server: LocalServer, url: str, turn: int
) -> None:
    moment = random.Random(turn)  # noqa: S311 - a moment, no secret
    kind = KILLED[turn % len(KILLED)]
    into = f"scores_{turn}"
    score = [
        "score", "forest", "--from", "rows", "--key", "id", "--into", into, "--where", SLOW,
        "--chunk-rows", str(CHUNK_ROWS), "--workers", "2",
    ]  # fmt: skip
    process = run(url, *score)
    wait_for(url, into, moment.randrange(-2, ROWS // CHUNK_ROWS + 2), process)
    time.sleep(moment.uniform(0, 0.1))
    strike(kind, server, url, process)
    process.communicate(timeout=90)
    made = ask(url, f"select max(job_id) from dbscore.job where into_table = 'public.{into}'")[0]
    if made is None:
        process = run(url, *score)
        _, told = process.communicate(timeout=90)
        assert process.returncode == 0, told
        made = ask(url, f"select max(job_id) from dbscore.job where into_table = 'public.{into}'")[0]
    elif ask(url, f"select status from dbscore.job where job_id = {made}")[0] != "done":
        process = run(url, "jobs", "resume", str(made))
        _, told = process.communicate(timeout=90)
        assert process.returncode == 0, told
    assert ask(url, f"select status, rows_done, errors from dbscore.jobs where job_id = {made}") == ("done", ROWS, 0)
    assert ask(
        url,
        f"""select count(*), count(s.id), count(distinct s.id),
                   count(*) filter (where s.prediction is distinct from models.forest_v1(r.a, r.b, r.c)
                                       or s.probabilities <> models.forest_v1_proba(r.a, r.b, r.c))
            from rows r full join {into} s using (id)""",
    ) == (ROWS, ROWS, ROWS, 0)
