"""Models compiled to SQL: beside a plain scan, beside orbital's SQL, and whether the faster engine was chosen."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from functools import partial
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from benchmarks.bench import say
from benchmarks.case import CannotError, Case, sampled
from benchmarks.peers import orbital_sql
from benchmarks.report import Figure, ratio
from benchmarks.workloads import CLASSIFIERS, TRAINING_ROWS, Workload, unfitted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import psycopg
    from sklearn.base import BaseEstimator

    from benchmarks.bench import Bench

__all__ = ["measure"]

WORKERS = 2
SECONDS = 5.0
PER = 100_000
# an engine may be measured a little slower than it is
MOST_REGRET = 1.1


def measure(bench: Bench, *, rows: int, rounds: int) -> Iterator[Figure]:
    """Yield the figures of the compiled models, all on the table `numbers`."""
    models = {
        **{name: unfitted(name) for name in CLASSIFIERS},
        "scaled": ("scaler + logistic regression", make_pipeline(StandardScaler(), LogisticRegression())),
        "tree": ("decision tree, depth 8", DecisionTreeClassifier(max_depth=8, random_state=0)),
    }
    with bench.connect() as connection:
        # compiling an expression takes longer than it saves, for all alike
        connection.execute("set jit = off")
        for name, (title, model) in models.items():
            workloads = {e: _deployed(bench, name, title, model, e) for e in ("sql", "onnx", "auto")}
            if name in ("lr", "scaled"):
                yield from _beside_scan(connection, workloads["sql"], rounds=rounds)
            yield from _beside_orbital(bench, workloads["sql"], rows=rows, rounds=rounds)
            yield from _chosen(connection, workloads, rows=rows, rounds=rounds)


def _deployed(bench: Bench, name: str, title: str, model: BaseEstimator, engine: str) -> Workload:
    random = np.random.default_rng(0)
    sample = pd.DataFrame(random.uniform(-2, 2, size=(TRAINING_ROWS, 10)), columns=[f"x{i}" for i in range(10)])
    label = (sample.to_numpy() @ random.normal(size=10) + random.normal(size=TRAINING_ROWS) > 0).astype(int)
    fitted = model.fit(sample, label)
    deployed = f"{name}_{engine}"
    version = bench.client.deploy(deployed, fitted, sample=sample, table="numbers", engine=engine)
    return Workload(name=deployed, kind=name, title=title, table="numbers", version=version, estimator=fitted)


def _beside_scan(connection: psycopg.Connection, one: Workload, *, rounds: int) -> Iterator[Figure]:
    say(f"compiled: {one.title}: scans")
    columns = " + ".join(f"x{i}" for i in range(10))
    scan, scoring = f"select sum({columns}) from {one.table}", f"select count(models.{one.name}(t)) from {one.table} t"
    samples: dict[str, list[float]] = {"scan": [], "serial": [], "parallel": []}
    connection.execute(f"set max_parallel_workers_per_gather = {WORKERS}; set min_parallel_table_scan_size = 0")
    (plan,) = connection.execute(f"explain (analyze, format json) {scoring}").fetchone() or ("",)
    if f'"Workers Launched": {WORKERS}' not in json.dumps(plan):
        raise RuntimeError(f"the query did not run with {WORKERS} workers: {plan}")
    for _ in range(max(rounds, 5)):
        for name, workers, statement in (("scan", 0, scan), ("serial", 0, scoring), ("parallel", WORKERS, scoring)):
            connection.execute(f"set max_parallel_workers_per_gather = {workers}")
            samples[name].append(_seconds(connection, statement))
    connection.execute("reset max_parallel_workers_per_gather")
    middle = {name: median(values) for name, values in samples.items()}
    yield Figure(
        arm="compiled",
        name=f"{one.title}: predictions, to the scan that sums the ten columns",
        value=ratio(samples["serial"], samples["scan"]),
        at_most=2,
        detail=f"{middle['serial']:.3f} s, {middle['scan']:.3f} s",
        samples=samples,
    )
    yield Figure(
        arm="compiled",
        name=f"{one.title}: serial, to two workers",
        value=ratio(samples["serial"], samples["parallel"]),
        at_least=1.6,
        detail=f"{middle['serial']:.3f} s, {middle['parallel']:.3f} s",
    )


def _beside_orbital(bench: Bench, one: Workload, *, rows: int, rounds: int) -> Iterator[Figure]:
    """Yield both engines' time for labels and probabilities written to a table, and both's wrong labels."""
    say(f"compiled: {one.title}: orbital")
    with ExitStack() as stack:
        case = Case.load(bench, one, stack)
        connection = case.connect()
        connection.execute("set jit = off")
        target = case.result("compiled_scores")

        def ours(count: int) -> None:
            target.drop(connection)
            connection.execute(
                f"""create table {target.name} as
                    select id, models.{one.name}(t) as prediction, models.{one.name}_proba(t) as probabilities,
                           1 as version, 0 as job_id
                    from {one.table} t where id <= {count}"""
            )

        count, seconds = sampled(ours, rows, seconds=SECONDS), {"ours": [], "theirs": []}
        theirs = None
        try:
            (theirs,) = orbital_sql.arms(case)
        except CannotError as error:
            say(f"compiled: {one.title}: orbital cannot: {error}")
        for _ in range(rounds):
            seconds["ours"].append(_timed(lambda: ours(count)) / count)
            if theirs is not None:
                seconds["theirs"].append(_timed(theirs.run) / (theirs.rows or rows))
        labels = case.scorer(threads=2).score(case.values).labels
        detail = f"{median(seconds['ours']) * 1e6:.2f} us a row"
        if theirs is not None and theirs.result is not None:
            yield Figure(
                arm="compiled",
                name=f"{one.title}: compiled, to orbital's SQL",
                value=ratio(seconds["ours"], seconds["theirs"]),
                at_most=1,
                detail=f"{detail}, {median(seconds['theirs']) * 1e6:.2f} us a row",
                samples=seconds,
            )
            yield _wrong(connection, case, labels, theirs.result, f"{one.title}: orbital's SQL", None)
        yield _wrong(connection, case, labels, target.name, f"{one.title}: compiled", 0)


def _wrong(
    connection: psycopg.Connection, case: Case, labels: np.ndarray, table: str, name: str, at_most: float | None
) -> Figure:
    """Return how many labels in a table differ from ONNX Runtime's."""
    found = dict(connection.execute(f"select id, prediction::text from {table}").fetchall())
    expected = {int(key): str(label) for key, label in zip(case.keys.tolist(), labels.tolist(), strict=True)}
    wrong = sum(label != expected[key] for key, label in found.items())
    return Figure(
        arm="compiled",
        name=f"{name}: labels that differ from ONNX Runtime's",
        value=wrong * PER / max(len(found), 1),
        unit=f"of {PER:,}",
        at_most=at_most,
        detail=f"{wrong:,} of {len(found):,}",
    )


def _chosen(
    connection: psycopg.Connection, workloads: dict[str, Workload], *, rows: int, rounds: int
) -> Iterator[Figure]:
    """Yield what the chosen engine costs, to the better one."""
    title = workloads["auto"].title
    say(f"compiled: {title}: both engines")
    chosen = workloads["auto"].version
    # one worker: what is compared is the engines
    connection.execute("set max_parallel_workers_per_gather = 0")
    for kind, engine in (("row", chosen.engine), ("batch", chosen.batch_engine)):
        costs: dict[str, list[float]] = {"sql": [], "onnx": []}
        runs = {e: _scoring(connection, workloads[e].name, kind) for e in costs}
        counts = {e: sampled(run, rows, seconds=SECONDS / 2) for e, run in runs.items()}
        for _ in range(rounds):
            for one, count in counts.items():
                costs[one].append(_timed(partial(runs[one], count)) / count * 1e6)
        middle = {one: median(values) for one, values in costs.items()}
        yield Figure(
            arm="compiled",
            name=f"{title}, {kind}: the chosen engine ({engine}), to the better one",
            value=middle[engine] / min(middle.values()),
            at_most=MOST_REGRET,
            detail=", ".join(f"{one} {cost:.2f} us" for one, cost in middle.items()),
            samples=costs,
        )
    connection.execute("reset max_parallel_workers_per_gather")


def _scoring(connection: psycopg.Connection, name: str, kind: str) -> Callable[[int], object]:
    def run(count: int) -> None:
        if kind == "row":
            statement = f"select count(models.{name}(t)) from numbers t where id <= {count}"
        else:
            query = f"select * from numbers where id <= {count}"
            statement = f"select count(prediction) from models.{name}_batch('{query}', 'id')"
        connection.execute(statement).fetchall()

    return run


def _seconds(connection: psycopg.Connection, statement: str) -> float:
    return _timed(lambda: connection.execute(statement).fetchall())


def _timed(run: Callable[[], object]) -> float:
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin
