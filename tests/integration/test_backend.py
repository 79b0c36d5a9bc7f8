"""What a backend becomes by scoring: its threads, its memory, what it sends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

if TYPE_CHECKING:
    import psycopg

    from dbscore import Client

INSPECT = """
    create function pg_temp.process(what text) returns bigint language plpython3u as $$
    for line in open("/proc/self/status"):
        if line.startswith(what + ":"):
            return int(line.split()[1])
    $$
"""


def test_scoring_starts_no_thread_and_turns_telemetry_off(client: Client, db: psycopg.Connection[Any]) -> None:
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(100, 2)), columns=["a", "b"])
    client.deploy("tip", LogisticRegression().fit(frame, (frame.a > 0).astype(int)), sample=frame, engine="onnx")
    db.execute(INSPECT)
    assert db.execute("select models.tip(1, 2), pg_temp.process('Threads')").fetchone() == (1, 1)
    db.execute(
        """create function pg_temp.variable(name text) returns text language plpython3u
           as 'import os; return os.environ.get(name)'"""
    )
    assert db.execute("select pg_temp.variable('ORT_DISABLE_TELEMETRY')").fetchone() == ("1",)


def test_memory_does_not_grow_with_the_rows_that_are_scored(client: Client, db: psycopg.Connection[Any]) -> None:
    frame = pd.DataFrame({"plan": ["basic", "gold", "o'neil", "x"] * 50, "a": np.linspace(-1, 1, 200)})
    model = make_pipeline(
        make_column_transformer((OneHotEncoder(), ["plan"]), remainder="passthrough"), LogisticRegression()
    )
    db.execute("create table t as select 'gold' as plan, i / 1e5 as a from generate_series(1, 100000) i")
    client.deploy("tip", model.fit(frame, [0, 1, 1, 0] * 50), sample=frame, table="t")
    db.execute(INSPECT)
    db.execute("set max_parallel_workers_per_gather = 0; set jit = off")

    def grown(rows: int) -> int:
        before = db.execute("select pg_temp.process('RssAnon')").fetchone()[0]
        db.execute(
            "select sum(models.tip(t)), max(models.tip_proba(t)), max(models.tip_score(t)) from (table t limit %s) t",
            [rows],
        )
        return db.execute("select pg_temp.process('RssAnon')").fetchone()[0] - before

    grown(5_000)
    # 300,000 calls: a leak of ten bytes in each would be three megabytes
    assert grown(100_000) < 2_000
