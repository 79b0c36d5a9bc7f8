"""Measure dbscore on a private server: `python -m benchmarks`.

Prints Markdown tables to standard output and saves results/<date and time>.json, with the tables in the .md beside it.
The machine may be shared: what is compared is run by turns; a figure of the whole-table arms is a ratio of medians,
of the others the median of the rounds' ratios. The server does not wait for the disk (fsync is off).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import compiled, connections, experiments, growth, memory, promotions, report, rows, tables, trips
from benchmarks.bench import bench, say
from benchmarks.workloads import CLASSIFIERS, MODELS, create_tables, deploy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

ARMS = ("tables", "growth", "compiled", "experiments", "rows", "connections", "promotions", "memory")
# what an arm measures unless --models says otherwise; all models a row at a time take over ten minutes
BY_DEFAULT = {
    "tables": CLASSIFIERS,
    "growth": ("lr", "gbm"),
    "experiments": ("lr", "gbm"),
    "rows": ("lr", "gbm"),
    "connections": ("lr", "forest"),
    "memory": ("lr", "mixed"),
}
# what an arm can measure
POSSIBLE = {"tables": CLASSIFIERS, "growth": CLASSIFIERS, "experiments": CLASSIFIERS, "rows": MODELS}


def main() -> int:
    """Run the arms; return 1 where a bound is missed."""
    options = _options()
    figures: list[report.Figure] = []
    measured: list[tables.Measured] = []
    models = {arm: _models(arm, options.models) for arm in options.arms}
    with bench() as one:
        about = {"machine": report.machine(), "versions": one.versions(), "fsync": "off", "rows": options.rows}
        about["rounds"] = options.rounds
        say("making the tables and the models")
        create_tables(one, options.rows)
        chosen = {}
        for engine, arms in (
            ("auto", ("tables", "growth", "experiments")),
            ("onnx", ("rows", "connections", "memory")),
        ):
            asked = [arm for arm in arms if arm in options.arms]
            by_kind = {w.kind: w for w in deploy(one, {n for a in asked for n in models[a]}, engine=engine)}
            chosen |= {arm: [by_kind[name] for name in models[arm]] for arm in asked}
        if "tables" in options.arms:
            wanted = chosen["tables"]
            if options.trips.exists():
                trips.create_table(one, options.trips)
                wanted = wanted + trips.deploy(one, options.trips, models["tables"])
            else:
                say(f"without the trips: there is no {options.trips}")
            measured += tables.measure(one, wanted, rounds=options.rounds)
            figures += tables.figures(measured)
        size, rounds = {"rows": options.rows}, {"rounds": options.rounds}
        measures: dict[str, Callable[[], Iterable[report.Figure]]] = {
            "growth": lambda: growth.measure(one, chosen["growth"], **size, **rounds),
            "compiled": lambda: compiled.measure(one, **size, **rounds),
            "experiments": lambda: experiments.measure(one, chosen["experiments"], **size, **rounds),
            "connections": lambda: connections.measure(one, chosen["connections"], rounds=3 * options.rounds),
            "promotions": lambda: promotions.measure(one, rounds=10 * options.rounds),
            "rows": lambda: rows.measure(one, chosen["rows"], **size, **rounds),
            "memory": lambda: memory.measure(one, chosen["memory"], **size),
        }
        for arm, measure in measures.items():
            if arm in options.arms:
                figures += measure()
    text = "\n\n".join(
        part for part in (report.described(about), tables.markdown(measured), report.table(figures)) if part
    )
    print(text)
    say(f"saved {report.save(figures, about=about, arms=measured, markdown=text)}")
    return 0 if all(one.met is not False for one in figures) else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows in the tables that are scanned")
    parser.add_argument("--rounds", type=int, default=3, help="how often each scan is measured")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS)
    parser.add_argument(
        "--models",
        nargs="+",
        choices=(*MODELS, "all"),
        help="models of the arms tables, growth and rows; by default tables takes "
        f"{', '.join(BY_DEFAULT['tables'])}, growth and rows take {', '.join(BY_DEFAULT['rows'])}",
    )
    parser.add_argument("--trips", type=Path, default=trips.TRIPS, help="the taxi trips, left out where they are not")
    return parser.parse_args()


def _models(arm: str, asked: list[str] | None) -> tuple[str, ...]:
    """Return the models that an arm measures."""
    if asked is None or arm not in POSSIBLE:
        return BY_DEFAULT.get(arm, ())
    return tuple(name for name in POSSIBLE[arm] if name in asked or "all" in asked)


if __name__ == "__main__":
    sys.exit(main())
