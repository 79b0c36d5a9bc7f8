"""A dump restored elsewhere scores as before; the files in the data directory are not part of it."""

from __future__ import annotations

import shlex
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from sklearn.linear_model import LogisticRegression

from tests.conftest import at, both_engines, database

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dbscore import Client


pytestmark = both_engines


def on_the_server(db: psycopg.Connection[Any], command: str) -> None:
    """Run a command where the server runs, with the server's own programs in the path."""
    bindir = db.execute("select setting from pg_config where name = 'BINDIR'").fetchone()[0]
    db.execute(sql.SQL("copy (select) to program {}").format(f"PATH={shlex.quote(bindir)}:$PATH; {command}"))


@contextmanager
def copy_of(url: str, server_url: str, db: psycopg.Connection[Any]) -> Iterator[str]:
    """Dump a database and restore it as another, whose server has no copy of the models' bytes."""
    with database(server_url) as copied:
        source, target = conninfo_to_dict(url), conninfo_to_dict(copied)
        files = " ".join(
            path for (path,) in db.execute("select 'dbscore/' || sha256 || '.onnx' from dbscore.versions").fetchall()
        )
        with psycopg.connect(at(url, dbname="postgres"), autocommit=True) as other:
            port = other.execute("show port").fetchone()[0]
            login = f"PGPASSWORD={shlex.quote(str(source['password']))} PGHOST=127.0.0.1 PGPORT={port} PGUSER={source['user']}"
            on_the_server(
                other,
                f"set -e; export {login}; pg_dump -d {source['dbname']} -f dump.sql; rm -f {files};"
                f" psql -q -X -v ON_ERROR_STOP=1 -d {target['dbname']} -f dump.sql >/dev/null; rm dump.sql",
            )
        yield copied


def test_a_dump_with_a_generated_column_restores_on_a_server_that_never_saw_the_model(
    client: Client, db: psycopg.Connection[Any], url: str, server_url: str
) -> None:
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(100, 2)), columns=["a", "b"])
    db.execute("create table raw (a float8, b float8)")
    client.deploy("tip", LogisticRegression().fit(frame, (frame.a > 0).astype(int)), sample=frame, table="raw")
    db.execute("create table t (a float8, b float8, p float8 generated always as (models.tip_v1_score(a, b)) stored)")
    db.execute("insert into t select i, -i from generate_series(-5, 5) i")
    db.execute("create index on t (models.tip_v1_score(b, a))")
    db.execute("create view v as select models.tip(raw) from raw")
    expected = db.execute("select * from t order by a").fetchall()
    with copy_of(url, server_url, db) as copied, psycopg.connect(copied) as restored:
        assert restored.execute("select * from t order by a").fetchall() == expected
        assert restored.execute("select reference, mismatches from dbscore.versions").fetchall() == [("tip:1", 0)]
        assert restored.execute("select models.tip(1, 0), models.tip(a => -1, b => 0)").fetchone() == (1, 0)


def test_a_dump_with_an_experiment_goes_on_with_it(
    client: Client, db: psycopg.Connection[Any], url: str, server_url: str
) -> None:
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(100, 2)), columns=["a", "b"])
    for number in range(2):
        model = LogisticRegression(C=10.0**-number).fit(frame, (frame.a > 0).astype(int))
        client.deploy("tip", model, sample=frame, **({"alias": "challenger"} if number else {}))
    created = "select dbscore.create_experiment('test', 'id', array['a=tip:1:50', 'b=tip:2:50'], eligible => 'a > 0', holdout => 0.1)"
    db.execute(created)
    db.execute("select dbscore.start_experiment('test')")
    db.execute("select dbscore.create_metric('test', 'paid', 'mean')")
    query = "select i as id, i - 10.0 as a, 1.0 as b from generate_series(1, 60) i"
    db.execute("call dbscore.run_experiment('test', %s, 'id')", [query])
    db.execute("select dbscore.record_outcome('test', '30', 'paid', 5)")
    db.execute("select dbscore.refresh_experiment('test')")
    told = "select experiment, variant, n, sum from dbscore.experiment_summary order by 2"
    logged = "select id, variant, version, prediction from experiments.test_log order by 1"
    asked = "select variant, version, prediction from experiments.test('30', 3.0, 1.0)"
    expected = [db.execute(statement).fetchall() for statement in (told, logged, asked)]
    with copy_of(url, server_url, db) as copied, psycopg.connect(copied, autocommit=True) as restored:
        restored.execute("select dbscore.refresh_experiment('test')")
        found = [
            restored.execute(told).fetchall(),
            restored.execute(logged).fetchall()[: len(expected[1])],
            restored.execute(asked).fetchall(),
        ]
        assert found[0] == expected[0]
        assert found[2] == expected[2]
        assert len(found[1]) == len(expected[1])
        restored.execute("select dbscore.record_outcome('test', '30', 'paid', 2)")
        assert restored.execute("select sum(sum) from dbscore.experiment_summary").fetchone() == (7,)
