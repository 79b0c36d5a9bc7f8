"""A whole table scored, and its results written back: dbscore beside what one would do without it."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

from benchmarks import floor, own
from benchmarks.bench import say
from benchmarks.case import CannotError, Case, Measured
from benchmarks.peers import ALTERNATIVES, adbc, psycopg_rows
from benchmarks.report import Figure

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import psycopg

    from benchmarks.bench import Bench
    from benchmarks.case import Arm
    from benchmarks.workloads import Workload

__all__ = ["figures", "markdown", "measure"]

CHEAP = ("lr", "mlp")
TO_FLOOR = {"lr": 1.6, "mlp": 1.6, "gbm": 1.15, "forest": 1.15}
ADBC_TO_JOB = {"lr": 2.0, "mlp": 2.0, "gbm": 1.4}
ROWS_TO_JOB = {"lr": 6.0, "mlp": 6.0}


def measure(bench: Bench, workloads: Sequence[Workload], *, rounds: int) -> Iterator[Measured]:
    """Yield what each arm took for each model; in every round all arms have their turn."""
    for one in workloads:
        with ExitStack() as stack:
            case = Case.load(bench, one, stack)
            yield from _measure(case, rounds=rounds)


def _measure(case: Case, *, rounds: int) -> Iterator[Measured]:
    title = f"{case.table}, {case.workload.title}"
    say(f"{title}: preparing")
    parts = list(floor.arms(case))
    arms = [*parts, *own.arms(case)]
    cannot = {}
    for name, make in {own.CLIENT_JOB: own.client_arms, **ALTERNATIVES}.items():
        try:
            arms += make(case)
        except CannotError as error:
            say(f"{title}: {name}: cannot: {error}")
            cannot[name] = str(error)
    seconds: dict[str, list[float]] = {arm.name: [] for arm in arms}
    mismatches: dict[str, int] = {}
    with case.bench.connect() as connection:
        for number in range(rounds):
            say(f"{title}: round {number + 1} of {rounds}")
            # what earlier arms wrote is on the disk before this round begins
            connection.execute("checkpoint")
            for arm in arms:
                arm.before()
                begin = time.perf_counter()
                arm.run()
                seconds[arm.name].append((time.perf_counter() - begin) * case.rows / (arm.rows or case.rows))
                if arm.result is not None and number == 0:
                    mismatches[arm.name] = _mismatches(connection, case, arm)
            for arm in arms:
                if arm.result is not None:
                    connection.execute(f"drop table {arm.result}")
    measured = [
        Measured(
            table=case.table,
            model=case.workload.kind,
            title=case.workload.title,
            arm=arm.name,
            rows=arm.rows or case.rows,
            seconds=seconds[arm.name],
            writes=arm.result is not None,
            mismatches=mismatches.get(arm.name),
            note=arm.note,
        )
        for arm in arms
    ]
    yield from measured[: len(parts)]
    yield floor.floor(measured[: len(parts)])
    yield from measured[len(parts) :]
    for name, reason in cannot.items():
        yield Measured(
            table=case.table,
            model=case.workload.kind,
            title=case.workload.title,
            arm=name,
            rows=0,
            note=f"cannot: {reason}",
        )


def _mismatches(connection: psycopg.Connection, case: Case, arm: Arm) -> int:
    """Return how many labels of an arm differ from ONNX Runtime's; each row must be there once."""
    rows = arm.rows or case.rows
    reference = case.result(floor.REFERENCE).name
    (there, twice, differ) = connection.execute(
        f"""select count(a.id), (select count(*) from {arm.result}) - count(a.id),
                   count(*) filter (where a.prediction is distinct from r.prediction)
            from {reference} r left join {arm.result} a using (id) where r.id <= {rows}"""
    ).fetchone() or (0, 0, 0)
    if there != rows or twice:
        raise RuntimeError(f"{arm.name} wrote {there} of {rows} rows, and {twice} that are not wanted")
    return differ


def figures(measured: Sequence[Measured]) -> Iterator[Figure]:
    """Yield the ratios of medians that have bounds."""
    by_name = {(one.table, one.model, one.arm): one for one in measured}
    for table, model in dict.fromkeys((one.table, one.model) for one in measured):
        for name, above, below, at_most, at_least in (
            ("job with 2 workers, to the floor", own.LIKE, floor.FLOOR, TO_FLOOR.get(model), None),
            ("the same, and a primary key in the end", own.JOB, floor.FLOOR, None, None),
            ("ADBC and COPY, to the job", adbc.WHOLE, own.LIKE, None, ADBC_TO_JOB.get(model)),
            ("ADBC and COPY at the same time, to the job", adbc.STREAMED, own.LIKE, None, None),
            ("psycopg rows, to the job", psycopg_rows.TEXT, own.LIKE, None, ROWS_TO_JOB.get(model)),
            ("psycopg rows with a binary cursor, to the job", psycopg_rows.BINARY, own.LIKE, None, None),
        ):
            first, second = by_name[table, model, above], by_name[table, model, below]
            if first.median is None or second.median is None:
                continue
            yield Figure(
                arm="tables",
                name=f"{table}, {first.title}: {name}",
                value=first.median / second.median,
                at_most=at_most,
                at_least=at_least,
                detail=f"{first.median:.2f} s, {second.median:.2f} s",
                samples={first.arm: first.seconds, second.arm: second.seconds},
            )


def markdown(measured: Sequence[Measured]) -> str:
    """Return one table of the arms for each table of the database, and below it what there is to say of them."""
    pieces = []
    for table in dict.fromkeys(one.table for one in measured):
        own_rows = [one for one in measured if one.table == table]
        pieces.append(_table(table, own_rows))
    return "\n\n".join(pieces)


def _table(table: str, measured: Sequence[Measured]) -> str:
    titles = {one.model: one.title for one in measured}
    models = list(titles)
    names = list(dict.fromkeys(one.arm for one in measured))
    by_name = {(one.arm, one.model): one for one in measured}
    rows = max(one.rows for one in measured)
    lines = [
        f"**{table}**, {rows:,} rows: median seconds (times {own.LIKE}); * scaled from some of the rows",
        "",
        f"| arm | writes | {' | '.join(titles.values())} |",
        f"|---|---|{'---|' * len(models)}",
    ]
    notes = []
    for name in names:
        cells = [_cell(by_name.get((name, model)), by_name[own.LIKE, model], rows) for model in models]
        found = [by_name[name, model] for model in models if (name, model) in by_name]
        lines.append(f"| {name} | {'yes' if any(one.writes for one in found) else ''} | {' | '.join(cells)} |")
        notes += [f"- {_plain(name)}, {one.model}: {_told(one, rows)}" for one in found if _told(one, rows)]
    return "\n".join([*lines, "", *notes])


def _cell(one: Measured | None, job: Measured, rows: int) -> str:
    if one is None:
        return ""
    if one.median is None or job.median is None:
        return "cannot"
    scaled = "*" if one.rows < rows else ""
    ratio = one.median / job.median
    return f"{one.median:,.{3 if one.median < 1 else 2}f}{scaled} ({ratio:,.2f})"


def _told(one: Measured, rows: int) -> str:
    """Return what there is to say of an arm and a model."""
    told = [one.note] if one.note else []
    if one.seconds and one.rows < rows:
        told.append(f"measured on {one.rows:,} rows")
    if one.mismatches:
        told.append(f"{one.mismatches:,} of {one.rows:,} labels differ from ONNX Runtime's")
    return "; ".join(told)


def _plain(name: str) -> str:
    return name.replace("*", "")
