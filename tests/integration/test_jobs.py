"""Whole tables scored by jobs: the same answers as row by row, once each, whatever happens on the way."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
import pandas as pd
import psycopg
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression

from dbscore import Client, JobOptions
from dbscore.errors import JobError, NotFoundError, PrivilegeError, ServerError
from tests.conftest import Once, at, both_engines

if TYPE_CHECKING:
    from collections.abc import Callable

    from dbscore.jobs import Job, Progress

pytestmark = both_engines

Connection = psycopg.Connection[Any]
ROWS = 3000
# twenty chunks, each of which takes some tenths of a second
SLOW = "trip_id % 50 <> 0 or pg_sleep({}) is not null"


def options(**changed: Any) -> JobOptions:
    return JobOptions(**({"key": "trip_id", "into": "scores", "source": "trips", "chunk_rows": 150} | changed))


@pytest.fixture
def trips(client: Client, db: Connection) -> Client:
    """3000 rows in `trips`, and a classifier `tip` of two versions, the first of which is the champion."""
    db.execute("create table trips (trip_id bigint primary key, a float8, b float8)")
    db.execute("select setseed(0.5)")
    db.execute(
        f"insert into trips select i, random() - 0.5, random() - 0.5 from generate_series(1, {ROWS}) i; analyze trips"
    )
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(300, 2)), columns=["a", "b"])
    client.deploy("tip", LogisticRegression().fit(frame, frame.sum(axis=1) > 0), sample=frame, table="trips")
    client.deploy("tip", LogisticRegression().fit(frame, frame["a"] > 0), sample=frame, table="trips")
    return client


def wrong(db: Connection, *, version: int = 1, into: str = "scores", source: str = "trips") -> tuple[int, ...]:
    """Count keys without exactly one prediction, predictions without a row, and predictions unlike direct scoring."""
    row = db.execute(
        f"""select count(*) filter (where n is distinct from 1),
                   count(*) filter (where t.trip_id is null),
                   count(*) filter (where s.prediction is distinct from models.tip_v{version}(t.a, t.b)
                                      or s.version <> {version}
                                      or abs(s.probabilities[2] - models.tip_v{version}_score(t.a, t.b)) > 1e-9)
            from {source} t
            full join (select trip_id, min(prediction::integer)::boolean as prediction, min(probabilities) as probabilities,
                              min(version) as version, count(*) as n
                       from {into} group by trip_id) s using (trip_id)"""
    ).fetchone()
    assert row is not None
    return row


RIGHT = (0, 0, 0)


def interrupted(client: Client, *, seconds: float = 0.05) -> Job:
    """Begin a slow job and leave it as Ctrl-C does, with some chunks done."""

    def interrupt(_: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(JobError, match="is cancelled"):
        client.score("tip", options(where=SLOW.format(seconds)), on_progress=Once(interrupt))
    return client.jobs()[-1]


# --- what a job gives ---


def test_a_finished_job_equals_direct_scoring(trips: Client, db: Connection) -> None:
    told: list[Progress] = []
    created: list[Job] = []
    job = trips.score("tip", options(), on_created=created.append, on_progress=told.append)
    assert wrong(db) == RIGHT
    assert (job.status, job.reference, job.rows_done, job.errors) == ("done", "tip:1", ROWS, 0)
    assert (job.chunks_done, job.chunks_failed, job.workers_attached) == (job.chunks, 0, 0)
    assert job.chunks > 10
    assert [j.job_id for j in created] == [job.job_id]
    assert [j.status for j in created] == ["planned"]
    assert told[-1].job_id == job.job_id
    # the key and the version are the result's primary key
    with pytest.raises(psycopg.errors.UniqueViolation):
        db.execute("insert into scores select * from scores limit 1")


@pytest.mark.parametrize("rows", [0, 1])
def test_a_table_of_no_row_or_one_is_a_job_like_any_other(trips: Client, db: Connection, rows: int) -> None:
    db.execute("delete from trips where trip_id > %s", [rows])
    assert trips.score("tip", options(workers=4)).rows_done == rows
    assert wrong(db) == RIGHT


def test_a_view_a_query_and_a_partitioned_table_are_scored_by_ranges_of_keys(trips: Client, db: Connection) -> None:
    db.execute("create view near as select * from trips where trip_id <= 1000")
    db.execute("create table parts (like trips) partition by range (trip_id)")
    db.execute("create table parts_1 partition of parts for values from (0) to (2000)")
    db.execute("create table parts_2 partition of parts default; insert into parts select * from trips")
    assert trips.score("tip", options(source="near", into="near_scores")).chunks > 5
    assert wrong(db, into="near_scores", source="near") == RIGHT
    job = trips.score("tip", options(source=None, query="select * from trips -- all of it", into="query_scores"))
    assert (job.source_kind, job.rows_done) == ("query", ROWS)
    assert wrong(db, into="query_scores") == RIGHT
    assert trips.score("tip", options(source="parts", into="part_scores")).rows_done == ROWS
    assert wrong(db, into="part_scores") == RIGHT


def test_a_condition_leaves_rows_out(trips: Client, db: Connection) -> None:
    assert trips.score("tip", options(where="trip_id <= 100 or trip_id > 2990 -- few")).rows_done == 110


def test_a_key_of_two_columns_of_any_type_tells_rows_apart(trips: Client, db: Connection) -> None:
    db.execute("create table visits as select trip_id % 10 as day, 'x''\"\\' || trip_id as who, a, b from trips")
    job = trips.score("tip", options(source="visits", key=["day", "who"], into="visit_scores"))
    assert (job.rows_done, job.key) == (ROWS, ("day", "who"))
    assert db.execute("select count(*) from visits join visit_scores using (day, who)").fetchone() == (ROWS,)


def test_a_regression_has_no_probabilities(trips: Client, db: Connection) -> None:
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(300, 2)), columns=["a", "b"])
    trips.deploy("price", LinearRegression().fit(frame, frame["a"] * 3), sample=frame, table="trips")
    trips.score("price", options())
    assert db.execute(
        "select count(*) from trips t join scores s using (trip_id) where abs(s.prediction - 3 * t.a) > 1e-9"
    ).fetchone() == (0,)


def test_the_version_stays_when_another_is_promoted_midway(trips: Client, db: Connection) -> None:
    promote = Once(lambda _: trips.promote("tip:2"))
    job = trips.score("tip", options(where=SLOW.format(0.03)), on_progress=promote)
    assert promote.called
    assert job.version == 1
    assert wrong(db, version=1) == RIGHT


# --- the result table ---


def test_a_table_that_exists_is_left_alone_without_a_mode(trips: Client, db: Connection) -> None:
    db.execute("create table scores (mine integer)")
    with pytest.raises(JobError, match=r"scores is there already") as caught:
        trips.score("tip", options())
    assert "append, replace or upsert" in caught.value.remedy
    assert db.execute("select count(*) from scores").fetchone() == (0,)
    assert trips.jobs() == []


def test_append_keeps_what_is_there_and_replace_does_not(trips: Client, db: Connection) -> None:
    trips.score("tip:1", options())
    trips.score("tip:2", options(mode="append"))
    assert db.execute("select version, count(*) from scores group by 1 order by 1").fetchall() == [(1, ROWS), (2, ROWS)]
    trips.score("tip:2", options(mode="replace"))
    assert wrong(db, version=2) == RIGHT


def test_upsert_writes_over_earlier_predictions(trips: Client, db: Connection) -> None:
    db.execute(
        "create table scores (trip_id bigint primary key, prediction boolean, probabilities float8[], version int, job_id int)"
    )
    trips.score("tip:1", options(mode="upsert"))
    trips.score("tip:2", options(mode="upsert"))
    assert wrong(db, version=2) == RIGHT


def test_an_incremental_job_scores_what_is_new(trips: Client, db: Connection) -> None:
    trips.score("tip", options())
    db.execute("insert into trips select i, 0.1, 0.2 from generate_series(5001, 5010) i")
    assert trips.score("tip", options(mode="append", incremental=True)).rows_done == 10
    assert wrong(db) == RIGHT


# --- what is refused before anything is scored ---


@pytest.mark.parametrize("kind", ["table", "view"])
@pytest.mark.parametrize(("fault", "said"), [("null", "NULL"), ("7", "not unique")])
def test_a_key_that_is_null_or_not_unique_is_refused(
    trips: Client, db: Connection, kind: str, fault: str, said: str
) -> None:
    db.execute("create table loose as select * from trips")
    db.execute(f"insert into loose values ({fault}, 0, 0)")
    db.execute("create view loose_view as select * from loose")
    with pytest.raises(JobError, match=said) as caught:
        trips.score("tip", options(source="loose" if kind == "table" else "loose_view"))
    assert "trip_id" in caught.value.message
    assert trips.jobs() == []
    assert db.execute("select to_regclass('scores')").fetchone() == (None,)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"key": "nope"}, "nope"),
        ({"workers": 0}, "workers is 0"),
        ({"chunk_rows": 0}, "chunk_rows is 0"),
        ({"max_errors": -1}, "max_errors is -1"),
        ({"query": "select 1"}, "a table or view, or a query"),
        ({"mode": "merge"}, "merge"),
        ({"into": "trips", "mode": "append"}, "trips"),
    ],
)
def test_what_makes_no_sense_is_refused(trips: Client, changed: dict[str, Any], said: str) -> None:
    with pytest.raises(JobError, match=said):
        trips.score("tip", options(**changed))
    assert trips.jobs() == []


def test_a_version_a_source_or_a_job_that_is_not_there_is_named(trips: Client) -> None:
    with pytest.raises(NotFoundError, match="canary"):
        trips.score("tip@canary", options())
    with pytest.raises(NotFoundError, match="no_such_table"):
        trips.score("tip", options(source="no_such_table"))
    for call in (trips.job, trips.resume, trips.retry, trips.cancel):
        with pytest.raises(NotFoundError, match="there is no job 77 of yours"):
            call(77)


# --- rows that cannot be scored ---


def test_a_row_that_cannot_be_scored_fails_the_job_and_is_named(trips: Client, db: Connection) -> None:
    db.execute("update trips set a = 'NaN' where trip_id = 1234")
    with pytest.raises(JobError, match="1234") as caught:
        trips.score("tip", options())
    job = trips.jobs()[-1]
    assert (job.status, job.chunks_failed) == ("failed", 1)
    assert f"dbscore jobs retry {job.job_id}" in caught.value.remedy
    # as it stands it fails again; mended, it goes on where it stopped
    with pytest.raises(JobError, match="1234"):
        trips.retry(job.job_id)
    db.execute("update trips set a = 0 where trip_id = 1234")
    assert trips.retry(job.job_id).status == "done"
    assert wrong(db) == RIGHT


def test_rows_that_cannot_be_scored_are_set_aside_up_to_max_errors(trips: Client, db: Connection) -> None:
    db.execute("update trips set a = 'NaN' where trip_id in (7, 1234)")
    job = trips.score("tip", options(max_errors=2))
    assert (job.status, job.errors, job.rows_done) == ("done", 2, ROWS - 2)
    aside = db.execute("select trip_id, version, job_id, reason from scores_errors order by 1").fetchall()
    assert [row[:3] for row in aside] == [(7, 1, job.job_id), (1234, 1, job.job_id)]
    assert all("NaN" in row[3] for row in aside)
    assert db.execute("select count(*) from scores where trip_id in (7, 1234)").fetchone() == (0,)


# --- whatever happens on the way ---


def test_an_interrupted_job_goes_on_where_it_stopped(trips: Client, db: Connection) -> None:
    job = interrupted(trips)
    assert job.status == "cancelled"
    assert 3 <= job.chunks_done < job.chunks
    before = db.execute("select count(*) from scores").fetchone()
    assert before == (job.rows_done,)
    done = trips.resume(job.job_id, workers=3)
    assert (done.status, done.rows_done) == ("done", ROWS)
    assert wrong(db) == RIGHT
    with pytest.raises(JobError, match="is done"):
        trips.resume(job.job_id)


def test_lost_connections_are_made_again(trips: Client, db: Connection) -> None:
    def kill(progress: Progress) -> None:
        killed = db.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where application_name = %s",
            [f"dbscore job {progress.job_id}"],
        ).fetchall()
        assert killed

    for into in ("scores", "again"):
        terminate = Once(kill)
        assert trips.score("tip", options(where=SLOW.format(0.05), into=into), on_progress=terminate).status == "done"
        assert terminate.called
        assert wrong(db, into=into) == RIGHT


def test_a_crash_of_the_server_is_survived(trips: Client, url: str) -> None:
    def crash(progress: Progress) -> None:
        with psycopg.connect(url, autocommit=True) as one:
            # a backend that is killed takes all others along, and the server recovers
            row = one.execute(
                "select pid from pg_stat_activity where application_name = %s limit 1",
                [f"dbscore job {progress.job_id}"],
            ).fetchone()
            assert row is not None
            with suppress(psycopg.OperationalError):
                one.execute(f"copy (select 1) to program 'cat > /dev/null; kill -9 {row[0]}'")

    kill = Once(crash)
    assert trips.score("tip", options(where=SLOW.format(0.05)), on_progress=kill).status == "done"
    assert kill.called
    with psycopg.connect(url, autocommit=True) as fresh:
        assert wrong(fresh) == RIGHT


def test_a_server_that_stays_away_is_given_up_with_a_way_to_go_on(
    trips: Client, url: str, db: Connection, server_url: str
) -> None:
    from dbscore import jobs
    from dbscore.database import connect

    job = interrupted(trips)
    name = url.rpartition("/")[2].partition("?")[0]

    def close(_: Progress) -> None:
        with psycopg.connect(server_url, autocommit=True) as other:
            other.execute(f"alter database {name} allow_connections false")
            other.execute("select pg_terminate_backend(pid) from pg_stat_activity where datname = %s", [name])

    gone = Once(close, chunks=job.chunks_done + 2)
    with pytest.raises(ServerError, match="got no connection") as caught:
        jobs.run(connect(url), job, retry_seconds=1, on_progress=gone)
    assert f"dbscore jobs resume {job.job_id}" in caught.value.remedy
    with psycopg.connect(server_url, autocommit=True) as other:
        other.execute(f"alter database {name} allow_connections true")
    assert trips.job(job.job_id).status == "interrupted"
    assert trips.resume(job.job_id).status == "done"
    with psycopg.connect(url, autocommit=True) as fresh:
        assert wrong(fresh) == RIGHT


def test_pg_cancel_backend_stops_the_job_and_leaves_it_resumable(trips: Client, db: Connection) -> None:
    def cancel(progress: Progress) -> None:
        db.execute(
            "select pg_cancel_backend(pid) from pg_stat_activity where application_name = %s and state = 'active' limit 1",
            [f"dbscore job {progress.job_id}"],
        )

    with pytest.raises(JobError, match="canceling statement due to user request") as caught:
        trips.score("tip", options(where=SLOW.format(0.2)), on_progress=Once(cancel, chunks=1))
    job = trips.jobs()[-1]
    assert job.status == "cancelled"
    assert caught.value.remedy.endswith(f"dbscore jobs resume {job.job_id}")
    assert trips.resume(job.job_id).status == "done"
    assert wrong(db) == RIGHT


def test_statement_timeout_stops_the_job_and_leaves_it_resumable(trips: Client, db: Connection, url: str) -> None:
    job = interrupted(trips, seconds=0.1)
    hasty = f"{url}{'&' if '?' in url else '?'}options={quote('-c statement_timeout=200')}"
    with Client(hasty) as one, pytest.raises(JobError, match="statement timeout"):
        one.resume(job.job_id)
    assert trips.job(job.job_id).status == "cancelled"
    assert trips.resume(job.job_id).status == "done"
    assert wrong(db) == RIGHT


def test_cancel_stops_the_workers_of_another_client(trips: Client, db: Connection, url: str) -> None:
    def cancel(progress: Progress) -> None:
        with Client(url) as other:
            assert other.cancel(progress.job_id).status == "cancelled"

    with pytest.raises(JobError, match="is cancelled"):
        trips.score("tip", options(where=SLOW.format(0.2)), on_progress=Once(cancel, chunks=1))
    job = trips.jobs()[-1]
    assert job.status == "cancelled"
    assert trips.resume(job.job_id).status == "done"
    assert wrong(db) == RIGHT
    with pytest.raises(JobError, match="is done"):
        trips.cancel(job.job_id)


def test_two_clients_share_a_job(trips: Client, db: Connection, url: str) -> None:
    job = interrupted(trips)
    ended: list[Any] = []

    def resume() -> None:
        with Client(url) as one:
            ended.append(one.resume(job.job_id))

    threads = [threading.Thread(target=resume) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [(one.status, one.rows_done) for one in ended] == [("done", ROWS)] * 2
    assert wrong(db) == RIGHT


# --- other roles ---


def test_a_role_that_may_score_runs_jobs_with_its_own_rights_and_sees_only_its_own(
    trips: Client, db: Connection, role: Callable[[], str], url: str
) -> None:
    analyst = role()
    trips.score("tip", options())
    with Client(at(url, user=analyst, password=analyst)) as other:
        with pytest.raises(PrivilegeError):
            other.score("tip", options(into="work.scores"))
        trips.grant("tip", analyst)
        db.execute(f"create schema work authorization {analyst}")
        with pytest.raises(PrivilegeError, match="trips"):
            other.score("tip", options(into="work.scores"))
        db.execute(f"grant select on trips to {analyst}")
        job = other.score("tip", options(into="work.scores"))
        assert job.run_by == analyst
        assert [one.job_id for one in other.jobs()] == [job.job_id]
    assert wrong(db, into="work.scores") == RIGHT
    assert [one.run_by == analyst for one in trips.jobs()] == [False, True]
