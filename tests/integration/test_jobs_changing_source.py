"""What a job promises while others change its source: each row that its last chunk sees has one prediction of the job."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import psycopg
import pytest
from sklearn.linear_model import LinearRegression

from dbscore import Client, JobOptions
from dbscore.errors import InUseError, JobError
from tests.conftest import both_engines

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = both_engines

Connection = psycopg.Connection[Any]
ROWS = 4000


@pytest.fixture
def source(client: Client, db: Connection) -> Client:
    """4000 rows in `readings`, wide enough for many blocks, and a regression `sum2` of a and b."""
    db.execute(
        "create table readings (id bigint primary key, a float8, b float8, padding text default repeat('x', 100))"
    )
    db.execute(f"insert into readings (id, a, b) select i, i, 1 from generate_series(1, {ROWS}) i")
    db.execute("vacuum analyze readings")
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(50, 2)), columns=["a", "b"])
    client.deploy("sum2", LinearRegression().fit(frame, frame["a"] + frame["b"]), sample=frame, table="readings")
    return client


def planned(db: Connection, *, into: str = "scores", chunk_rows: int = 400, **more: Any) -> int:
    """Plan a job and let workers go on; return its number."""
    names = ", ".join(f"{name} => %({name})s" for name in more)
    row = db.execute(
        f"""select dbscore.create_job('sum2', '{{id}}', '{into}', source => 'readings', chunk_rows => {chunk_rows}
            {", " + names if names else ""})""",
        more,
    ).fetchone()
    assert row is not None
    db.execute("select dbscore.start_job(%s)", row)
    return int(row[0])


def scored(db: Connection, job: int, chunks: int | None = None) -> int:
    """Score some chunks of a job, by default all that are left; return how many."""
    done = 0
    while chunks is None or done < chunks:
        chunk, _, _, failure = db.execute("select * from dbscore.score_chunk(%s)", [job]).fetchone() or ()
        assert failure is None, failure
        if chunk is None:
            break
        done += 1
    return done


def finished(db: Connection, job: int) -> str:
    row = db.execute("select dbscore.finish_job(%s)", [job]).fetchone()
    assert row is not None
    return str(row[0])


def once_each(db: Connection, into: str = "scores") -> bool:
    """Whether each row that is there now has exactly one prediction."""
    row = db.execute(
        f"""select bool_and(n = 1) from (select r.id, count(s.id) as n from readings r left join {into} s using (id) group by r.id) counted"""
    ).fetchone()
    return bool(row and row[0])


def test_rows_updated_before_and_behind_the_workers_are_scored_once(source: Client, db: Connection) -> None:
    job = planned(db)
    scored(db, job, 4)
    # every new row version goes to the end of the table, or into room that an earlier update left
    db.execute("update readings set a = a + 10000")
    db.execute("vacuum readings")
    db.execute("update readings set a = a + 10000 where id % 3 = 0")
    scored(db, job)
    assert finished(db, job) == "done"
    assert once_each(db)
    # the first chunks saw the old values, the last one the newest
    rows = db.execute("select id, prediction from scores order by id").fetchall()
    assert {round(p) - i - 1 for i, p in rows} == {0, 10000, 20000}


def test_rows_inserted_meanwhile_are_scored_and_rows_deleted_before_their_chunk_are_not(
    source: Client, db: Connection
) -> None:
    job = planned(db)
    scored(db, job, 3)
    db.execute("delete from readings where id > 3000 or id <= 10")
    db.execute("vacuum readings")
    db.execute("insert into readings (id, a, b) select i, i, 1 from generate_series(5001, 6500) i")
    scored(db, job)
    assert finished(db, job) == "done"
    assert once_each(db)
    # a prediction for a row that was deleted later stays; none was made for those deleted before
    row = db.execute(
        "select count(*) filter (where id <= 10), count(*) filter (where id between 3001 and 4000) from scores"
    )
    assert row.fetchone() == (10, 0)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_storm_of_updates_inserts_and_vacuums_during_a_job_leaves_one_prediction_a_row(
    source: Client, db: Connection, url: str, workers: int
) -> None:
    stop = threading.Event()

    def storm() -> None:
        with psycopg.connect(url, autocommit=True) as other:
            turn = 0
            while not stop.is_set():
                turn += 1
                other.execute("update readings set b = b + 1 where id %% 17 = %s", [turn % 17])
                other.execute(
                    "insert into readings (id, a, b) select 10000 + %s * 10 + i, 1, 1 from generate_series(0, 9) i",
                    [turn],
                )
                other.execute("delete from readings where id = %s", [turn])
                if turn % 5 == 0:
                    other.execute("vacuum readings")

    thread = threading.Thread(target=storm)
    thread.start()
    try:
        options = JobOptions(
            key=("id",), into="scores", source="readings", chunk_rows=100, workers=workers,
            where="id % 100 <> 0 or pg_sleep(0.02) is not null",
        )  # fmt: skip
        job = source.score("sum2", options)
    finally:
        stop.set()
        thread.join()
    assert job.status == "done"
    row = db.execute("select count(*), count(distinct id) from scores").fetchone() or ()
    assert row[0] == row[1]
    missing = db.execute(
        "select count(*) from readings r where id <= 4000 and not exists (select from scores s where s.id = r.id)"
    )
    assert missing.fetchone() == (0,)
    # what came after the last chunk's snapshot: an incremental job scores it
    source.score("sum2", JobOptions(key=("id",), into="scores", source="readings", mode="append", incremental=True))
    assert once_each(db)


@pytest.mark.parametrize(
    "rewrite",
    ["vacuum full readings", "cluster readings using readings_pkey", "alter table readings alter a type numeric"],
)
def test_a_table_that_is_rewritten_stops_the_job_and_a_retry_scores_the_rest_once(
    source: Client, db: Connection, rewrite: str
) -> None:
    job = planned(db)
    scored(db, job, 3)
    db.execute("delete from readings where id % 2 = 0 and id < 3000")
    db.execute(rewrite)
    _, _, _, failure = db.execute("select * from dbscore.score_chunk(%s)", [job]).fetchone() or ()
    assert "was rewritten since" in failure
    assert f"dbscore jobs retry {job}" in failure
    assert finished(db, job) == "failed"
    db.execute("select dbscore.retry_job(%s)", [job])
    db.execute("select dbscore.start_job(%s)", [job])
    scored(db, job)
    assert finished(db, job) == "done"
    assert once_each(db)


def test_a_retry_after_a_rewrite_scores_what_an_earlier_job_had_scored_too(source: Client, db: Connection) -> None:
    source.score("sum2", JobOptions(key=("id",), into="scores", source="readings"))
    db.execute("update readings set a = a + 10000")
    job = planned(db, mode="upsert")
    scored(db, job, 2)
    db.execute("vacuum full readings")
    db.execute("select * from dbscore.score_chunk(%s)", [job])
    db.execute("select dbscore.retry_job(%s)", [job])
    db.execute("select dbscore.start_job(%s)", [job])
    scored(db, job)
    assert finished(db, job) == "done"
    row = db.execute("select count(*), min(prediction) > 10000, min(job_id) from scores").fetchone()
    assert row == (ROWS, True, job)


def test_two_jobs_of_two_versions_write_into_one_table_at_the_same_time(
    source: Client, db: Connection, url: str
) -> None:
    frame = pd.DataFrame(np.random.default_rng(1).normal(size=(50, 2)), columns=["a", "b"])
    source.deploy("sum2", LinearRegression().fit(frame, frame["a"] - frame["b"]), sample=frame, table="readings")
    source.score("sum2:1", JobOptions(key=("id",), into="scores", source="readings", where="id <= 10"))
    jobs = {}

    def score(reference: str) -> None:
        with Client(url) as other:
            options = JobOptions(
                key=("id",), into="scores", source="readings", mode="append", chunk_rows=200, incremental=True
            )
            jobs[reference] = other.score(reference, options)

    threads = [threading.Thread(target=score, args=(reference,)) for reference in ("sum2:1", "sum2:2")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [jobs[r].rows_done for r in ("sum2:1", "sum2:2")] == [ROWS - 10, ROWS]
    rows = db.execute("select version, count(*), count(distinct id) from scores group by version order by 1").fetchall()
    assert rows == [(1, ROWS, ROWS), (2, ROWS, ROWS)]


def test_a_result_table_that_is_dropped_and_made_again_meanwhile_fails_the_job(source: Client, db: Connection) -> None:
    job = planned(db)
    scored(db, job, 3)
    db.execute("create table kept as select * from scores; drop table scores; alter table kept rename to scores")
    row = db.execute("select failure from dbscore.score_chunk(%s)", [job]).fetchone()
    assert row is not None
    assert "public.scores is not the one that job" in row[0]
    with pytest.raises(JobError, match="that was dropped"):
        source.retry(job)


def test_a_source_that_others_come_to_inherit_from_is_still_scored_once(source: Client, db: Connection) -> None:
    job = planned(db)
    scored(db, job, 3)
    db.execute("create table more () inherits (readings)")
    db.execute("insert into more (id, a, b) select -i, i, 1 from generate_series(1, 1000) i")
    scored(db, job)
    assert finished(db, job) == "done"
    row = db.execute("select count(*), count(distinct id), min(id) from scores").fetchone()
    assert row == (ROWS, ROWS, 1)


@pytest.mark.parametrize("name", ["written", "dbscore_written"])
def test_a_source_may_have_any_name(source: Client, db: Connection, name: str) -> None:
    db.execute(f"alter table readings rename to {name}")
    options = JobOptions(key="id", into="scores", source=name)
    source.score("sum2", replace(options, where="id <= 100"))
    source.score("sum2", replace(options, mode="append", incremental=True))
    row = db.execute("select count(*), count(distinct id) from scores").fetchone()
    assert row == (ROWS, ROWS)


def test_a_second_job_into_a_table_that_a_first_has_still_to_finish_is_refused(source: Client, db: Connection) -> None:
    first = planned(db)
    scored(db, first, 1)
    for mode in ("append", "upsert", "replace"):
        with pytest.raises(InUseError, match=f"job {first} is not done") as caught:
            source.score("sum2", JobOptions(key=("id",), into="scores", source="readings", mode=mode))
        assert f"dbscore jobs resume {first}" in caught.value.remedy


def test_two_jobs_with_the_same_keys_and_version_fail_rather_than_write_twice(source: Client, db: Connection) -> None:
    options = JobOptions(key=("id",), into="scores", source="readings")
    source.score("sum2", options)
    with pytest.raises(JobError, match="duplicate key") as caught:
        source.score("sum2", JobOptions(key=("id",), into="scores", source="readings", mode="append"))
    assert "jobs retry" in caught.value.remedy
    assert once_each(db)


def test_replacing_shows_the_old_predictions_until_the_new_ones_are_complete(source: Client, db: Connection) -> None:
    source.score("sum2", JobOptions(key=("id",), into="scores", source="readings", where="id <= 100"))
    job = planned(db, mode="replace")
    scored(db, job)
    assert db.execute("select count(*) from scores").fetchone() == (100,)
    assert finished(db, job) == "done"
    assert db.execute("select count(*), min(job_id) from scores").fetchone() == (ROWS, job)
    assert once_each(db)
    assert db.execute("select count(*) from pg_class where relname like 'scores_job%'").fetchone() == (0,)


def test_an_error_in_the_result_table_fails_the_job_and_loses_nothing(source: Client, db: Connection) -> None:
    job = planned(db)
    scored(db, job, 2)
    db.execute("alter table scores add check (prediction < 2000)")
    failures = [db.execute("select * from dbscore.score_chunk(%s)", [job]).fetchone() for _ in range(5)]
    assert any(row and row[3] and "violates check constraint" in row[3] for row in failures)
    assert db.execute("select status from dbscore.job_progress where job_id = %s", [job]).fetchone() == ("failed",)
    db.execute("alter table scores drop constraint scores_prediction_check")
    assert db.execute("select dbscore.retry_job(%s)", [job]).fetchone() == (1,)
    db.execute("select dbscore.start_job(%s)", [job])
    scored(db, job)
    assert finished(db, job) == "done"
    assert once_each(db)


def test_a_full_disk_fails_the_job_which_goes_on_when_there_is_room(source: Client, db: Connection) -> None:
    # a trigger says what PostgreSQL says when no block can be added: a disk that is full is full for the whole server
    db.execute(
        "create function full_disk() returns trigger language plpgsql as"
        " $$ begin if new.id > 1500 then raise exception using errcode = '53100', message = 'could not extend file: No space left on device'; end if; return new; end $$"
    )
    job = planned(db)
    db.execute("create trigger full_disk before insert on scores for each row execute function full_disk()")
    failure = None
    while failure is None:
        _, _, _, failure = db.execute("select * from dbscore.score_chunk(%s)", [job]).fetchone() or ()
    assert "No space left on device" in failure
    db.execute("drop trigger full_disk on scores")
    db.execute("select dbscore.retry_job(%s)", [job])
    db.execute("select dbscore.start_job(%s)", [job])
    scored(db, job)
    assert finished(db, job) == "done"
    assert once_each(db)


def test_a_role_that_may_not_write_there_is_refused_before_anything_is_scored(
    source: Client, db: Connection, role: Callable[[], str], as_role: Callable[[str], Connection]
) -> None:
    name = role()
    source.grant("sum2", name)
    db.execute(f"grant select on readings to {name}")
    analyst = as_role(name)
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="permission denied for schema public"):
        analyst.execute("select dbscore.create_job('sum2', '{id}', 'scores', source => 'readings')")
    db.execute("create table scores (id bigint, prediction float8, version integer, job_id integer)")
    planning = (
        "select dbscore.create_job('sum2', '{id}', 'scores', source => 'readings', mode => 'append', chunk_rows => 400)"
    )
    with pytest.raises(psycopg.Error, match="lacks select, insert on the result table") as caught:
        analyst.execute(planning)
    assert caught.value.sqlstate == "ML010"
    db.execute(f"grant select, insert on scores to {name}")
    job = analyst.execute(planning).fetchone()
    assert job is not None
    db.execute(f"revoke insert on scores from {name}")
    analyst.execute("select dbscore.start_job(%s)", job)
    failed = analyst.execute("select failure from dbscore.score_chunk(%s)", job).fetchone()
    assert failed is not None
    assert "permission denied for table scores" in failed[0]
    db.execute(f"grant insert on scores to {name}")
    analyst.execute("select dbscore.retry_job(%s)", job)
    analyst.execute("select dbscore.start_job(%s)", job)
    scored(analyst, job[0])
    assert finished(analyst, job[0]) == "done"
    assert once_each(db)


def test_a_table_for_rows_set_aside_needs_no_right_to_create_where_it_is_there(
    source: Client, db: Connection, role: Callable[[], str], as_role: Callable[[str], Connection]
) -> None:
    name = role()
    source.grant("sum2", name)
    db.execute("create table scores (id bigint, prediction float8, version integer, job_id integer)")
    db.execute("create table scores_errors (id bigint, reason text, version integer, job_id integer)")
    db.execute(f"grant select on readings to {name}; grant select, insert on scores to {name}")
    db.execute("update readings set a = 'NaN' where id = 17")
    analyst = as_role(name)
    planning = (
        "select dbscore.create_job('sum2', '{id}', 'scores', source => 'readings', mode => 'append', max_errors => 1)"
    )
    with pytest.raises(psycopg.Error, match=r"lacks select or insert on the table public\.scores_errors"):
        analyst.execute(planning)
    db.execute(f"grant select, insert on scores_errors to {name}")
    job = analyst.execute(planning).fetchone()
    assert job is not None
    analyst.execute("select dbscore.start_job(%s)", job)
    scored(analyst, job[0])
    assert finished(analyst, job[0]) == "done"
    row = db.execute("select id, reason from scores_errors").fetchall()
    assert row == [(17, "sum2_v1: feature a is NaN, and the model was not trained with missing values")]
    assert db.execute("select count(*) from scores").fetchone() == (ROWS - 1,)


def test_rows_set_aside_are_counted_once_whatever_happens_to_them_later(source: Client, db: Connection) -> None:
    db.execute("update readings set a = 'NaN' where id in (5, 6, 7)")
    # in the order of the key again
    db.execute("cluster readings using readings_pkey")
    job = planned(db, max_errors=3)
    scored(db, job, 1)
    db.execute("update readings set b = b + 1 where id in (5, 6)")
    db.execute("update readings set a = 1 where id = 7")
    db.execute("vacuum full readings")
    db.execute("select * from dbscore.score_chunk(%s)", [job])
    db.execute("select dbscore.retry_job(%s)", [job])
    db.execute("select dbscore.start_job(%s)", [job])
    scored(db, job)
    assert finished(db, job) == "done"
    assert db.execute("select array_agg(id order by id) from scores_errors").fetchone() == ([5, 6, 7],)
    assert db.execute("select errors from dbscore.jobs where job_id = %s", [job]).fetchone() == (3,)
    assert db.execute("select count(*) from scores").fetchone() == (ROWS - 3,)


def test_rows_that_change_while_the_last_chunk_is_divided_are_not_lost(
    source: Client, db: Connection, url: str
) -> None:
    db.execute("alter table readings alter a type numeric")
    db.execute("analyze readings")
    job = planned(db, max_errors=1)
    db.execute("update readings set b = 2")
    db.execute("update readings set a = 1e400 where id = 17")
    db.execute("create function slow(integer) returns boolean language sql as 'select pg_sleep(0.001) is not null'")
    db.execute("update dbscore.job set where_clause = 'id %% 10 <> 0 or slow(id::integer)' where job_id = %s", [job])
    stop = threading.Event()

    def change() -> None:
        with psycopg.connect(url, autocommit=True) as other:
            while not stop.wait(0.05):
                other.execute("update readings set b = b + 1 where id between 2900 and 2950")

    thread = threading.Thread(target=change)
    thread.start()
    try:
        scored(db, job)
    finally:
        stop.set()
        thread.join()
    assert finished(db, job) == "done"
    row = db.execute(
        "select count(*) from readings r where not exists (select from scores s where s.id = r.id)"
    ).fetchone()
    # the one that no float8 can hold
    assert row == (1,)


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("create table refers (id bigint references scores)", r"foreign keys refer to it, of public\.refers"),
        ("alter table scores add owner text not null", "wants a value for owner"),
    ],
)
def test_a_table_that_cannot_be_replaced_is_refused_before_anything_is_scored(
    source: Client, db: Connection, statement: str, problem: str
) -> None:
    db.execute("create table scores (id bigint primary key, prediction float8, version integer, job_id integer)")
    db.execute(statement)
    with pytest.raises(JobError, match=problem):
        source.score("sum2", JobOptions(key=("id",), into="scores", source="readings", mode="replace"))


def test_a_key_of_a_type_that_has_no_order_is_refused(source: Client, db: Connection) -> None:
    db.execute("create view keyed as select array[id] as many, json_build_array(id) as doc, a, b from readings")
    for key in ("many", "doc"):
        with pytest.raises(JobError, match=f"the key cannot tell rows apart: {key} is of type"):
            source.score("sum2", JobOptions(key=(key,), into="scores", source="keyed"))
