"""Measure dbscore on a private server: `python -m benchmarks`.

Prints one Markdown table to standard output and saves results/<date and time>.json. The machine may be shared: what is
compared is run by turns, and a figure is the median of the rounds' ratios. The server does not wait for the disk
(fsync is off).
"""

from __future__ import annotations

import argparse
import sys

from benchmarks import connections, memory, promotions, report, rows
from benchmarks.bench import bench, say
from benchmarks.workloads import create_tables, deploy

ARMS = ("rows", "connections", "promotions", "memory")


def main() -> int:
    """Run the arms; return 1 where a bound is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows in the tables that are scanned")
    parser.add_argument("--rounds", type=int, default=3, help="how often each scan is measured")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS)
    options = parser.parse_args()
    figures: list[report.Figure] = []
    with bench() as one:
        about = {"machine": report.machine(), "versions": one.versions(), "fsync": "off", "rows": options.rows}
        say("making the tables and the models")
        create_tables(one, options.rows)
        workloads = deploy(one)
        by_name = {w.name: w for w in workloads}
        if "connections" in options.arms:
            few = [by_name["lr"], by_name["forest"]]
            figures += connections.measure(one, few, rounds=3 * options.rounds)
        if "promotions" in options.arms:
            figures += promotions.measure(one, rounds=10 * options.rounds)
        if "rows" in options.arms:
            figures += rows.measure(one, workloads, rows=options.rows, rounds=options.rounds)
        if "memory" in options.arms:
            few = [by_name["lr"], by_name["mixed"]]
            figures += memory.measure(one, few, rows=options.rows)
    print(report.table(figures))
    say(f"saved {report.save(figures, about=about)}")
    return 0 if all(one.met is not False for one in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
