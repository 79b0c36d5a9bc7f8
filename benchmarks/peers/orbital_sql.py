"""orbital: the scikit-learn model as one SQL statement."""

from __future__ import annotations

import json
import os
import pickle
import platform
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

from benchmarks.bench import say
from benchmarks.case import Arm, CannotError, sampled
from benchmarks.peers.packages import fetch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.case import Case

__all__ = ["ORBITAL", "SQL", "arms"]

SQL = "orbital's SQL"
# fetched beside dbscore, not with it: it wants an older onnx
ORBITAL = "orbital==0.6.0"
TRANSLATE = Path(__file__).resolve().parent / "translate.py"
TRANSLATION_SECONDS = 180
FIRST_SECONDS = 60
FIRST_ROWS = 100
SAMPLE_SECONDS = 15.0


def arms(case: Case) -> Iterator[Arm]:
    """Yield the statement, written to a table; PostgreSQL may run it in parallel.

    Raises:
        CannotError: orbital does not translate the model in time, or PostgreSQL does not run what it made.
    """
    begin = time.perf_counter()
    statement, source = _translated(case), f"orbital_{case.name}"
    translating = time.perf_counter() - begin
    classes = case.workload.version.signature.classes or ()
    shares = ", ".join(f'"output_probability.{i}"' for i in range(len(classes)))
    connection = case.connect()
    # compiling takes longer than it saves
    connection.execute("set jit = off")
    target = case.result("orbital_scores")

    def run(rows: int) -> None:
        target.drop(connection)
        connection.execute(f"create or replace view {source} as {case.select} where id <= {rows}")
        connection.execute(
            f"""create table {target.name} as
                select id, output_label as prediction, array[{shares}]::double precision[] as probabilities,
                       1 as version, 0 as job_id
                from ({statement}) as scored"""
        )

    try:
        connection.execute(f"set statement_timeout = '{FIRST_SECONDS} s'")
        run(1)
        begin = time.perf_counter()
        run(FIRST_ROWS)
        hours = (time.perf_counter() - begin) / FIRST_ROWS * case.rows / 3600
        connection.execute("set statement_timeout = 0")
    except psycopg.Error as error:
        say(f"orbital: {len(statement):,} characters of SQL: {error}")
        raise CannotError(
            f"{len(statement) / 1e3:,.0f} kB of SQL; PostgreSQL: {error.diag.message_primary or error}"
        ) from error
    if hours > 1:
        raise CannotError(f"{len(statement) / 1e3:,.0f} kB of SQL, which would take {hours:,.1f} hours")
    rows = sampled(run, case.rows, seconds=SAMPLE_SECONDS)
    note = f"{len(statement) / 1e3:,.0f} kB of SQL, translated in {translating:.0f} s"
    yield Arm(name=SQL, run=lambda: run(rows), rows=rows, result=target.name, note=note)


def _translated(case: Case) -> str:
    """Return the SQL of orbital, run in a process of its own, where its packages come first."""
    python_version = ".".join(platform.python_version_tuple()[:2])
    packages = fetch(ORBITAL, f"scikit-learn=={version('scikit-learn')}", python_version=python_version)
    task = {"columns": case.columns, "table": f"orbital_{case.name}"}
    model = case.bench.directory / f"{case.name}.pickle"
    model.write_bytes(pickle.dumps(case.workload.estimator))
    try:
        done = subprocess.run(
            [sys.executable, str(TRANSLATE), str(model)],
            input=json.dumps(task),
            env={**os.environ, "PYTHONPATH": str(packages)},
            capture_output=True,
            text=True,
            check=False,
            timeout=TRANSLATION_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise CannotError(f"no SQL within {TRANSLATION_SECONDS} s") from error
    if done.returncode:
        raise CannotError(done.stderr.strip().rpartition("\n")[2][:200])
    return done.stdout
