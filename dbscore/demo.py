"""The demonstration: real data, a linear and a tree model, the SQL that analysts type and the rows they get."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from dbscore.client import Client
from dbscore.errors import FeatureError
from dbscore.signature import feature_identifiers

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import pandas as pd

    from dbscore.registry import Version

__all__ = ["DemoResult", "run_demo"]

SCHEMA = "dbscore_demo"
TRAINING_ROWS = 20_000
# a target with more values than this, or with fractions, is a number to predict, not a class
MOST_CLASSES = 20
WIDEST_ROW_SHOWN = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoResult:
    """What the demonstration did.

    Attributes:
        rows_scored: Rows scored in the database, by both versions.
        seconds: How long the whole took.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Data:
    """The rows, split: a name for the table and the model, features, target, which rows are held out."""

    name: str
    features: pd.DataFrame
    target: pd.Series
    held_out: pd.Series
    is_classification: bool


def run_demo(
    url: str, *, data: Path | None = None, target: str | None = None, say: Callable[[str], None]
) -> DemoResult:
    """Train, convert, deploy, SELECT, promote, roll back; say each step.

    Args:
        url: A database in which the schema `dbscore_demo` and the model of the table's name may be made anew.
        data: A parquet or csv file; by default scikit-learn's breast-cancer measurements (569 biopsies).
        target: Its column to predict.
        say: Told each step, statement and row.

    Raises:
        FeatureError: The file has no such column, or nothing to learn from.
        DbscoreError: Whatever stops a deployment.
    """
    begin = time.perf_counter()
    chosen = _bundled() if data is None else _from_file(data, target)
    with Client(url) as client, psycopg.connect(url, autocommit=True) as connection:
        client.install()
        _start_anew(client, connection, chosen.name)
        table = _load(connection, chosen)
        say(
            f"{len(chosen.features):,} rows are in the table {table}; {int(chosen.held_out.sum()):,} are held out of training."
        )
        metric, versions, mismatches = {}, [], 0
        for kind, estimator in _estimators(chosen).items():
            train = chosen.features[~chosen.held_out].iloc[:TRAINING_ROWS]
            estimator.fit(train, chosen.target.loc[train.index])
            score_name, value = _score(estimator, chosen)
            version = client.deploy(
                chosen.name,
                estimator,
                sample=train,
                table=table,
                alias=None if kind == "linear" else "challenger",
                metrics={score_name: value},
                description=f"Predicts {chosen.target.name}; made by dbscore demo.",
            )
            wrong = _mismatches(connection, version, table, estimator.predict(chosen.features))
            metric[f"{version.reference} {score_name}"] = round(value, 4)
            versions.append(version)
            mismatches += wrong
            say(
                f"{version.reference}: the {kind} model {type(estimator[-1]).__name__}, {score_name} {value:.3f} on held-out rows; "
                f"{wrong} of {len(chosen.features):,} rows differ between SQL and scikit-learn."
            )
        _show_queries(client, connection, chosen, versions, table, say)
    say(_farewell(chosen, table, url))
    return DemoResult(
        rows_scored=len(chosen.features) * len(versions),
        seconds=round(time.perf_counter() - begin, 2),
        versions=tuple(v.reference for v in versions),
        metric=metric,
        parity_mismatches=mismatches,
    )


# --- data ------------------------------------------------------------------------------------------------------------


def _bundled() -> _Data:
    from sklearn.datasets import load_breast_cancer

    bunch = load_breast_cancer(as_frame=True)
    target = bunch.target.map(dict(enumerate(bunch.target_names))).rename("diagnosis")
    return _split("tumour", bunch.data, target)


def _from_file(path: Path, target: str | None) -> _Data:
    import pandas as pd

    if path.suffix not in (".parquet", ".csv"):
        raise FeatureError(f"{path} is neither .parquet nor .csv", remedy="Save the data as one of these.")
    frame = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    if target is None or target not in frame.columns:
        raise FeatureError(
            f"{path.name} has no column {target!r} to predict"
            if target
            else f"no column of {path.name} was named as the target",
            remedy=f"Pass --target with one of {', '.join(map(str, frame.columns))}.",
        )
    frame = frame[frame[target].notna()].reset_index(drop=True)
    features = frame.drop(columns=target).select_dtypes(include=["number", "bool", "object", "string", "category"])
    if features.empty:
        raise FeatureError(f"{path.name} has no numbers or texts to learn from", remedy="Name another file.")
    # whatever pandas made of the texts, the encoders get text and NaN
    for column in features.select_dtypes(include=["object", "string", "category"]):
        features[column] = features[column].astype(object).where(features[column].notna(), float("nan"))
    return _split(feature_identifiers([path.stem])[0][:30].rstrip("_"), features, frame[target])


def _split(name: str, features: pd.DataFrame, target: pd.Series) -> _Data:
    import numpy as np
    import pandas as pd
    from pandas.api import types

    whole = types.is_float_dtype(target) and bool((target % 1 != 0).any())
    classes = not whole and target.nunique() <= MOST_CLASSES
    held_out = pd.Series(np.random.default_rng(0).random(len(features)) < 0.4, index=features.index)  # noqa: PLR2004
    return _Data(name=name, features=features, target=target, held_out=held_out, is_classification=classes)


def _start_anew(client: Client, connection: psycopg.Connection[Any], name: str) -> None:
    if any(m.name == name for m in client.models()):
        client.drop(name, with_aliases=True)
    connection.execute(sql.SQL("drop schema if exists {} cascade").format(sql.Identifier(SCHEMA)))


def _load(connection: psycopg.Connection[Any], data: _Data) -> str:
    """Copy the rows into a table, columns named as the features' identifiers, with a key of their own."""
    from pandas.api import types

    def kind(column: pd.Series) -> str:
        if types.is_bool_dtype(column):
            return "boolean"
        if types.is_integer_dtype(column):
            return "bigint"
        return "double precision" if types.is_numeric_dtype(column) else "text"

    names = feature_identifiers([str(c) for c in data.features.columns])
    columns = [data.features[c] for c in data.features.columns] + [data.target]
    names.append(feature_identifiers([str(data.target.name)])[0])
    table = sql.Identifier(SCHEMA, data.name)
    declared = [
        sql.SQL("{} {}").format(sql.Identifier(n), sql.SQL(kind(c))) for n, c in zip(names, columns, strict=True)
    ]  # type: ignore[arg-type]
    connection.execute(sql.SQL("create schema {}").format(sql.Identifier(SCHEMA)))
    connection.execute(
        sql.SQL("create table {} (row_id bigint primary key, {})").format(table, sql.SQL(", ").join(declared))
    )
    values = [c.astype(object).where(c.notna(), None) for c in columns]
    with connection.cursor() as cursor, cursor.copy(sql.SQL("copy {} from stdin").format(table)) as copy:
        for index, row in enumerate(zip(*values, strict=True)):
            copy.write_row((index, *row))
    connection.execute(sql.SQL("analyze {}").format(table))
    return f"{SCHEMA}.{data.name}"


# --- models ----------------------------------------------------------------------------------------------------------


def _estimators(data: _Data) -> dict[str, Any]:
    from sklearn.compose import make_column_selector, make_column_transformer
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    def columns(numbers: Any) -> Any:  # noqa: ANN401 - a transformer
        texts = make_pipeline(
            SimpleImputer(strategy="most_frequent"),
            OneHotEncoder(handle_unknown="ignore", sparse_output=False, max_categories=50),
        )
        return make_column_transformer(
            (numbers, make_column_selector(dtype_include=["number", "bool"])),
            (texts, make_column_selector(dtype_include=object)),
        )

    scaled = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    linear = LogisticRegression(max_iter=2000) if data.is_classification else Ridge()
    boosting = HistGradientBoostingClassifier if data.is_classification else HistGradientBoostingRegressor
    return {
        "linear": make_pipeline(columns(scaled), linear),
        "tree": make_pipeline(columns("passthrough"), boosting(random_state=0)),
    }


def _score(estimator: Any, data: _Data) -> tuple[str, float]:  # noqa: ANN401 - an estimator
    from sklearn import metrics

    features, target = data.features[data.held_out], data.target[data.held_out]
    if not data.is_classification:
        return "r2", float(metrics.r2_score(target, estimator.predict(features)))
    if len(estimator.classes_) == 2:  # noqa: PLR2004
        return "auc", float(metrics.roc_auc_score(target, estimator.predict_proba(features)[:, 1]))
    return "accuracy", float(metrics.accuracy_score(target, estimator.predict(features)))


def _mismatches(connection: psycopg.Connection[Any], version: Version, table: str, native: Sequence[Any]) -> int:
    """Return on how many rows SQL and the estimator differ, joined on the key."""
    function = sql.Identifier("models", f"{version.model}_v{version.number}")
    query = sql.SQL("select row_id, {}(t) from {} as t").format(function, sql.Identifier(*table.split(".")))
    answers = dict(connection.execute(query).fetchall())
    return sum(not _same(answers[i], expected) for i, expected in enumerate(native))


def _same(found: Any, expected: Any) -> bool:  # noqa: ANN401 - any label, any number
    if isinstance(found, float):
        return abs(found - float(expected)) <= 1e-9 * max(1.0, abs(float(expected)))
    return bool(found == expected)


# --- queries ---------------------------------------------------------------------------------------------------------


def _show_queries(  # noqa: PLR0913, PLR0917 - the parts of the scene
    client: Client,
    connection: psycopg.Connection[Any],
    data: _Data,
    versions: list[Version],
    table: str,
    say: Callable[[str], None],
) -> None:
    name = sql.Identifier(data.name).as_string()
    target = sql.Identifier(feature_identifiers([str(data.target.name)])[0]).as_string()

    def show(statement: str) -> None:
        say(f"\n{statement};")
        cursor = connection.execute(statement)  # type: ignore[call-overload]
        if cursor.description is not None:
            say(_grid([c.name for c in cursor.description], cursor.fetchall()))

    say("\nPredictions are columns:")
    score = f", round(models.{name}_score(t)::numeric, 4) as score" if "auc" in versions[0].metrics else ""
    show(f"select t.row_id, t.{target}, models.{name}(t) as predicted{score} from {table} t order by t.row_id limit 5")
    if data.is_classification:
        show(
            f"select t.{target}, models.{name}(t) as predicted, count(*) from {table} t group by 1, 2 order by 1, 2"  # noqa: S608
        )
    say("\nTwo versions side by side, in one statement:")
    differ = "is distinct from" if data.is_classification else "- "
    if data.is_classification:
        show(
            f"select count(*) as rows, count(*) filter (where models.{name}(t) {differ} models.{name}_challenger(t)) as differ from {table} t"  # noqa: S608
        )
    else:
        show(
            f"select count(*) as rows, avg(abs(models.{name}(t) {differ} models.{name}_challenger(t))) as mean_difference from {table} t"  # noqa: S608
        )
    say("\nOne row as JSON, from any version:")
    features = [f.name for f in versions[0].signature.features]
    keys = ", ".join(f"'{f}'" for f in features)
    show(
        f"select dbscore.predict('{data.name}@challenger', (select jsonb_object_agg(key, value) from jsonb_each(to_jsonb(t)) where key in ({keys})))"  # noqa: S608
        f" from {table} t where t.row_id = 0"
        if len(features) > WIDEST_ROW_SHOWN
        else f"select dbscore.predict('{data.name}@challenger', to_jsonb(t) - 'row_id' - {target!r}) from {table} t where t.row_id = 0".replace(
            '"', ""
        )
    )
    say(f"\nPromote version 2, in one transaction: client.promote('{data.name}:2')")
    client.promote(f"{data.name}:2", reason="demo: the tree model is next")
    show("select * from dbscore.aliases")
    say(f"\nAnd back again: client.rollback('{data.name}')")
    client.rollback(data.name, reason="demo: back to the first")
    show("select model, version, aliases, estimator, metrics, mismatches from dbscore.versions order by version")


def _grid(columns: list[str], rows: list[tuple[Any, ...]]) -> str:
    cells = [[str(c) for c in columns], *[["" if v is None else str(v) for v in row] for row in rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    lines = ["  " + "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in cells]
    return "\n".join([lines[0], "  " + "  ".join("-" * w for w in widths), *lines[1:]])


def _farewell(data: _Data, table: str, url: str) -> str:
    return f"""
Try next, in psql:

  psql '{url}'

  \\df models.*                                                   -- the catalogue; \\df+ shows the comments
  set search_path = models, public;
  select t.row_id, t.{data.name} from {table} t limit 5;          -- the prediction as a virtual column
  explain verbose select models.{data.name}(t) from {table} t;    -- inlined down to one call
  select * from dbscore.versions;
  select * from dbscore.sessions();
"""
