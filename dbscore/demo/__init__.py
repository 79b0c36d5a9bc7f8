"""The demonstration: real data, a linear and a tree model, the SQL that analysts type and the rows they get."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from dbscore.client import Client

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from dbscore.registry import Version

__all__ = ["DemoResult", "run_demo"]

TRAINING_ROWS = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoResult:
    """What the demonstration did.

    Attributes:
        rows_scored: Rows scored in the database, by both versions.
        seconds: How long the whole took, training included.
        versions: What was deployed.
        metric: The held-out rows' AUC (two classes), accuracy (more) or R², by version.
        parity_mismatches: Rows on which SQL and scikit-learn answered differently.
    """

    rows_scored: int
    seconds: float
    versions: tuple[str, ...]
    metric: dict[str, float]
    parity_mismatches: int

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON values."""
        return asdict(self)


def run_demo(
    url: str, *, data: Path | None = None, target: str | None = None, say: Callable[[str], None]
) -> DemoResult:
    """Train, convert, deploy, SELECT, promote, roll back; say each step.

    Args:
        url: A database in which the schema `dbscore_demo` and the model of the table's name are made anew.
        data: A parquet or csv file; by default scikit-learn's breast-cancer measurements (569 biopsies).
        target: Its column to predict.
        say: Told each step, statement and row.

    Raises:
        FeatureError: The file has no such column, or nothing to learn from.
        DbscoreError: Whatever stops a deployment.
    """
    # pandas and scikit-learn, which the command line must not load for its other commands
    from dbscore.demo.data import SCHEMA, bundled, from_file, load
    from dbscore.demo.models import estimators, score
    from dbscore.demo.scenes import Scenes, quoted

    begin = time.perf_counter()
    chosen = bundled() if data is None else from_file(data, target)
    with Client(url) as client, psycopg.connect(url, autocommit=True) as connection:
        installed = client.install()
        models = quoted(connection, installed.models_schema or "models")
        if any(m.name == chosen.name for m in client.models()):
            client.drop(chosen.name, with_aliases=True)
        connection.execute(sql.SQL("drop schema if exists {} cascade").format(sql.Identifier(SCHEMA)))
        table = load(connection, chosen)
        say(f"{len(chosen.features):,} rows are in {table}; {chosen.held_out.sum():,} are left out of training.")
        train = chosen.features[~chosen.held_out].iloc[:TRAINING_ROWS]
        metric: dict[str, float] = {}
        versions: list[Version] = []
        mismatches = 0
        for kind, estimator in estimators(chosen).items():
            estimator.fit(train, chosen.target.loc[train.index])
            name, value = score(estimator, chosen)
            version = client.deploy(
                chosen.name,
                estimator,
                sample=train,
                table=table,
                alias="challenger" if versions else None,
                metrics={name: value},
                description=f"Predicts {chosen.target.name}; made by dbscore demo.",
            )
            function = sql.Identifier(installed.models_schema or "models", f"{version.model}_v{version.number}")
            wrong = _mismatches(connection, function, table, estimator.predict(chosen.features))
            metric[f"{version.reference} {name}"] = round(value, 4)
            versions.append(version)
            mismatches += wrong
            say(
                f"{version.reference} is the {kind} model, {type(estimator[-1]).__name__}: {name} {value:.3f} on the "
                f"rows left out; {wrong} of {len(chosen.features):,} rows differ between SQL and scikit-learn."
            )
        Scenes(client, connection, data=chosen, table=table, models=models, say=say).play(versions)
    say(_farewell(f"{models}.{chosen.name}", chosen.name, table, url, engines=installed.engines))
    return DemoResult(
        rows_scored=len(chosen.features) * len(versions),
        seconds=round(time.perf_counter() - begin, 2),
        versions=tuple(v.reference for v in versions),
        metric=metric,
        parity_mismatches=mismatches,
    )


def _mismatches(
    connection: psycopg.Connection[Any], function: sql.Identifier, table: str, native: Sequence[Any]
) -> int:
    """Return on how many rows SQL and the estimator differ, joined on the key."""
    query = sql.SQL("select row_id, {}(t) from {} as t").format(function, sql.Identifier(*table.split(".")))
    answers = dict(connection.execute(query).fetchall())
    return sum(not _same(answers[i], expected) for i, expected in enumerate(native))


def _same(found: Any, expected: Any) -> bool:  # noqa: ANN401 - any label, any number
    if isinstance(found, float):
        return abs(found - float(expected)) <= 1e-9 * max(1.0, abs(float(expected)))
    return bool(found == expected)


def _farewell(function: str, model: str, table: str, url: str, *, engines: Sequence[str]) -> str:
    schema = function.rsplit(".", 1)[0]
    statements = {
        f"\\df+ {schema}.*": "the catalogue, with a comment on each function",
        f"explain verbose select {function}(t) from {table} t;": "inlined: no more than is needed for each row",
        f"set search_path = {schema}, public;": "",
        f"select t.row_id, t.{model} from {table} t limit 5;": "the prediction as a virtual column",
        "select * from dbscore.versions;": "what is deployed, and how it compared",
    }
    if "onnx" in engines:
        statements["select * from dbscore.sessions();"] = "the models that this connection has loaded"
    width = max(map(len, statements))
    lines = [
        f"  {statement:<{width}}  {'-- ' + said if said else ''}".rstrip() for statement, said in statements.items()
    ]
    shell = ["", "And in the shell:", "", f"  export DBSCORE_URL='{url}'", "  dbscore list; dbscore show " + model]
    return "\n".join(["", "Try next, in psql:", "", f"  psql '{url}'", "", *lines, *shell])
