"""What tutorials teach: a pickled scikit-learn model, called by PL/Python."""

from __future__ import annotations

import pickle
from importlib.metadata import version
from typing import TYPE_CHECKING

from benchmarks.case import Arm, sampled
from benchmarks.peers.packages import fetch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.case import Case

__all__ = ["CURSOR", "ROW", "arms"]

ROW = "PL/Python, pickled model, a call a row"
CURSOR = "PL/Python, pickled model, cursor"
SAMPLE_ROWS = 20_000
FETCHED = 10_000

LOAD = """
if "model" not in SD:
    import pickle, sys, warnings
    if {packages!r} not in sys.path:
        # last: numpy stays the server's own
        sys.path.append({packages!r})
    import numpy
    # the model was fitted with names of columns, and warns of their absence
    warnings.filterwarnings("ignore")
    SD["numpy"] = numpy
    SD["model"] = pickle.loads(plpy.execute("select content from pickled where name = '{name}'")[0]["content"])
"""

CALL = """
return int(SD["model"].predict([[{columns}]])[0])
"""

SCAN = """
numpy, model = SD["numpy"], SD["model"]
cursor = plpy.cursor("select id, {columns} from {table} where id <= %d" % rows)
while True:
    fetched = cursor.fetch({fetched})
    if not fetched:
        break
    features = numpy.array([[{values}] for row in fetched])
    probabilities = model.predict_proba(features)
    labels = model.classes_[probabilities.argmax(axis=1)]
    for row, label, shares in zip(fetched, labels.tolist(), probabilities.tolist()):
        yield row["id"], label, shares
"""


def arms(case: Case) -> Iterator[Arm]:
    """Yield a call a row, on some of the rows, not written; and a cursor's rows at once, written to a table."""
    connection = case.connect()
    connection.execute("set max_parallel_workers_per_gather = 0")
    _create(case)

    def row(rows: int) -> None:
        call = f"pickled_{case.name}({', '.join(case.columns)})"
        connection.execute(f"select count({call}) from {case.table} where id <= {rows}").fetchall()

    rows = sampled(row, min(SAMPLE_ROWS, case.rows))
    yield Arm(name=ROW, run=lambda: row(rows), rows=rows)

    target = case.result("pickled_scores")

    def cursor(rows: int) -> None:
        connection.execute(f"insert into {target.name} select s.*, 1, 0 from pickled_{case.name}_table({rows}) s")

    target.create(connection)
    rows_at_once = sampled(cursor, case.rows, seconds=20.0)
    yield Arm(
        name=CURSOR,
        run=lambda: cursor(rows_at_once),
        before=lambda: target.create(connection),
        rows=rows_at_once,
        result=target.name,
    )


def _create(case: Case) -> None:
    """Store the pickle, and make the functions; scikit-learn is of the version that fitted the model."""
    with case.bench.connect() as connection:
        (found,) = connection.execute("select dbscore_engine.python()").fetchone() or ({},)
        packages = fetch(f"scikit-learn=={version('scikit-learn')}", python_version=found["python"])
        connection.execute("create table if not exists pickled (name text primary key, content bytea not null)")
        content = pickle.dumps(case.workload.estimator)
        connection.execute("insert into pickled values (%s, %s)", [case.name, content])
        load = LOAD.format(packages=str(packages), name=case.name)
        declared = ", ".join(f"{name} double precision" for name in case.columns)
        call = load + CALL.format(columns=", ".join(case.columns))
        connection.execute(
            f"""create function pickled_{case.name}({declared}) returns bigint
                language plpython3u as $python${call}$python$"""
        )
        values = ", ".join(f'row["{name}"]' for name in case.columns)
        scan = load + SCAN.format(columns=", ".join(case.columns), values=values, table=case.table, fetched=FETCHED)
        connection.execute(
            f"""create function pickled_{case.name}_table(rows integer)
                returns table (id {case.key_type}, prediction bigint, probabilities double precision[])
                language plpython3u as $python${scan}$python$"""
        )
