# ruff: noqa: INP001 - a script beside the pages that it makes
"""Makes the pages of docs/reference from the code and from a database in which dbscore is installed.

usage: python docs/generate.py     (`make docs`)

The database is a fresh one, made for this and dropped again, on the server of DBSCORE_URL or on the private one.
A test compares the pages with what this would write.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import secrets
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import typer
from psycopg import sql
from sqlalchemy import make_url
from typer.cli import get_docs_for_click

import dbscore
from dbscore import errors, experiments, jobs, registry, schema, tables
from dbscore.cli import app
from dbscore.convert import Tolerance
from dbscore.local import ensure_server

if TYPE_CHECKING:
    from collections.abc import Iterator

REFERENCE = Path(__file__).parent / "reference"
MADE = "<!-- Made by docs/generate.py from the code: change the code, then run `make docs`. -->\n\n"
Connection = psycopg.Connection[Any]
WIDEST = 90
RECORDS = (registry.Version, registry.Model, registry.AliasMove, jobs.Job, jobs.Progress, schema.Status, Tolerance)
# what is public of the package is what the reference describes; dbscore.Variant stands above
EXPERIMENT_RECORDS = tuple(
    thing
    for thing in (getattr(experiments, name) for name in experiments.__all__)
    if dataclasses.is_dataclass(thing) and thing is not experiments.Variant
)


def pages(connection: Connection) -> dict[str, str]:
    """Return the text of each page by its file's name.

    Args:
        connection: To a database in which this version of dbscore is installed, without models.
    """
    made = {
        "command-line.md": command_line(),
        "python-client.md": python_client(),
        "sql.md": sql_objects(connection),
        "errors.md": error_codes(),
        "settings.md": settings(),
    }
    return {name: MADE + text.strip() + "\n" for name, text in made.items()}


def command_line() -> str:
    """Return every command with its options, by typer's own writer."""
    command = typer.main.get_command(app)
    text = get_docs_for_click(obj=command, ctx=typer.Context(command), name="dbscore", title="The command line")
    # the lists of commands shorten their sentences, which stand below in full
    text = re.sub(r"\*\*Commands\*\*:\n\n(\* .*\n)+\n", "", text)
    # usage lines are no examples to be run
    text = text.replace("```console\n$ ", "```sh\n")
    about = inspect.getdoc(sys.modules["dbscore.cli"]) or ""
    exits = " ".join(about.partition("\n\n")[2].split())
    return text.replace("\n**Usage**", f"\n{exits}\n\n**Usage**", 1)


def python_client() -> str:
    """Return the public classes and functions with their signatures and docstrings."""
    parts = ["# The Python client\n\nThe public names of the package `dbscore`, and what its methods return."]
    for name in dbscore.__all__:
        thing = getattr(dbscore, name)
        # once it was imported, the package dbscore.convert hides the function of the same name
        parts += described(getattr(thing, name) if inspect.ismodule(thing) else thing, f"dbscore.{name}")
    parts.append("## What the methods return and take")
    for record in (*RECORDS, *EXPERIMENT_RECORDS):
        parts += described(record, record.__name__, level=3)
    return "\n\n".join(parts)


def described(thing: Any, name: str, *, level: int = 2) -> Iterator[str]:  # noqa: ANN401 - a class or a function
    """Yield the heading, signature and docstring of a class or function, then its methods'."""
    short = name.rpartition(".")[2]
    yield f"{'#' * level} `{name}`"
    fields = dataclasses.is_dataclass(thing)
    if fields:
        yield python("\n".join(f"{f.name}: {f.type}" for f in dataclasses.fields(thing)))
    elif not (inspect.isclass(thing) and issubclass(thing, Exception)):
        yield python(f"{short}{signature(thing)}")
    yield prose(inspect.getdoc(thing) or "")
    # Experiments is put together from classes that have its methods
    classes = (thing, *thing.__bases__) if inspect.isclass(thing) and not fields else ()
    for key, member in (item for one in classes for item in vars(one).items()):
        if not key.startswith("_") and inspect.isfunction(member):
            yield f"{'#' * (level + 1)} `{short}.{key}`"
            yield python(f"{key}{signature(member)}")
            yield prose(inspect.getdoc(member) or "")


def signature(thing: Any) -> str:  # noqa: ANN401 - a class or a function
    """Return a signature without `self`, one argument a line where it is long."""
    full = inspect.signature(thing)
    full = full.replace(parameters=[p for p in full.parameters.values() if p.name != "self"])
    # annotations are strings already: without the quotes
    text = re.sub(r": '([^']*)'", r": \1", str(full))
    text = re.sub(r"-> '([^']*)'", r"-> \1", text)
    if len(text) <= WIDEST:
        return text
    arguments, arrow, result = text.rpartition(") -> ")
    pieces = re.split(r", (?![^\[\]]*\])", arguments.removeprefix("(") if arrow else text[1:-1])
    return "(\n    " + ",\n    ".join(pieces) + ",\n)" + (f" -> {result}" if arrow else "")


def python(code: str) -> str:
    """Return a block of code that is shown and not run."""
    return f"```py\n{code}\n```"


def prose(docstring: str) -> str:
    """Return a docstring in Google's form as Markdown: sections become lists, quoted code becomes blocks."""
    lines: list[str] = []
    section = False
    for line in docstring.splitlines():
        if re.fullmatch(r"(Args|Attributes|Returns|Raises|Source):", line):
            lines += [f"**{line.removesuffix(':')}**", ""]
            section = True
        elif line and not line.startswith(" "):
            section = False
            lines.append(line)
        elif section and (item := re.fullmatch(r"    (\w+): (.*)", line)):
            lines.append(f"- `{item[1]}`: {item[2]}")
        elif section and line.strip():
            lines.append(("  " if lines[-1] else "") + line.strip())
        else:
            lines.append(line)
    return "\n".join(lines).strip()


def sql_objects(connection: Connection) -> str:
    """Return what is in the schemas of an installation: functions, views, tables, with their comments."""
    parts = [SQL_INTRODUCTION, "## Functions of the schema `dbscore`"]
    parts += [called(connection, SCORING), JOBS_INTRODUCTION, called(connection, JOBS)]
    parts += [EXPERIMENTS_INTRODUCTION, called(connection, EXPERIMENTS), UNITS, called(connection, OF_UNITS)]
    parts.append("## Views of the schema `dbscore`")
    for name, comment in rows(connection, RELATIONS, "v"):
        if name in INTERNAL:
            continue
        columns = [(*c[:2], c[4]) for c in rows(connection, COLUMNS, name)]
        # views that say what their columns are say it of each
        width = 3 if any(c[2] for c in columns) else 2
        head = ["column", "type", "what it is"][:width]
        parts.append(f"### `dbscore.{name}`\n\n{comment}\n\n" + table(head, [c[:width] for c in columns]))
    parts.append(
        "## Tables of the schema `dbscore`\n\nOnly the owner of the schema reads and writes them; but for `job` and"
        " `chunk`, of which each role that may score has the rows of its own jobs. Change them through the client or"
        " the command line, which keep the functions in step."
    )
    for name, comment in rows(connection, RELATIONS, "rp"):
        if name not in {t.name for t in tables.metadata.tables.values()}:
            continue
        columns = [c[:4] for c in rows(connection, COLUMNS, name)]
        parts.append(f"### `dbscore.{name}`\n\n{comment}\n\n" + table(["column", "type", "NULL", "default"], columns))
    parts.append(SQL_ENGINE)
    parts.append(table(["function", "returns", "what it does"], rows(connection, FUNCTIONS, "dbscore_engine")))
    return "\n\n".join(parts)


def called(connection: Connection, names: tuple[str, ...]) -> str:
    """Return a table of functions and procedures that users call, in this order; the schema has helpers besides."""
    found: dict[str, list[tuple[str, ...]]] = {}
    for row in rows(connection, FUNCTIONS, "dbscore"):
        found.setdefault(row[0].partition("(")[0].strip("`"), []).append(row)
    if missing := set(names) - found.keys():
        raise SystemExit(f"the schema dbscore has no {', '.join(sorted(missing))}")
    body = [(optional(form[0]), *form[1:]) for name in names for form in found[name]]
    return table(["function", "returns", "what it does"], body)


def optional(arguments: str) -> str:
    """Return arguments with their defaults as short as `= NULL`."""
    return re.sub(
        r" DEFAULT ('\w*'|now\(\)|\w+(\.\w+)?(\('\w+'::text\))?)(::[\w \[\]]+?)?(?=[,)])", r" = \1", arguments
    )


# what users call; what only workers and other functions call is described in sql/
SCORING = ("predict", "resolve", "sessions")
JOBS = ("score_table", "create_job", "resume_job", "retry_job", "cancel_job")
JOBS_INTRODUCTION = """### Jobs

What the command line does with [jobs](../how-to/score-whole-tables.md), for those who have SQL only. The procedures
commit: `call` each as a statement by itself, outside of a transaction."""

EXPERIMENTS = (
    "create_experiment", "start_experiment", "pause_experiment", "ramp_experiment", "stop_experiment",
    "conclude_experiment", "drop_experiment", "grant_experiment", "revoke_experiment", "create_metric", "drop_metric",
    "force_assignment", "collect_outcomes", "refresh_experiment", "refresh_experiments", "make_partitions",
    "unit_values", "audit_experiment", "score_distribution", "calibration", "promote",
)  # fmt: skip
OF_UNITS = (
    "assign", "run_experiment", "record_assignment", "record_outcome", "bucket", "layer_bucket", "boundaries",
    "variant_at",
)  # fmt: skip
# what the views of experiments are made of
INTERNAL = ("variant_details", "exposure_sums", "metric_sums")
EXPERIMENTS_INTRODUCTION = """### Experiments

What the owner of the schema, or a member of that role, does with [experiments](../how-to/run-an-experiment.md)."""
UNITS = """What a role that was granted an experiment may call too. They are for all experiments. Each has functions of
its own in the schema `experiments`, here those of an experiment `tip_test` whose units are customers:

| function or view | what it does |
|---|---|
| `experiments.tip_test(customer_id, ..., request_id)` | assigns the unit, predicts for it, records both |
| `experiments.tip_test(row, request_id)` | the same for a row of a table that the model was deployed with |
| `experiments.tip_test_assign(customer_id)` | the variant that the unit has, or would get; writes nothing |
| `experiments.tip_test_variant(customer_id)` | the variant that a new unit gets now; looks at no table |
| `experiments.tip_test_exposure(unit, variant, at)` | what `dbscore.record_assignment` calls |
| `experiments.tip_test_outcome(...)` | what `dbscore.record_outcome` calls |
| `experiments.tip_test_table(...)`, `experiments.tip_test_rows(...)` | what `dbscore.run_experiment` calls |
| `experiments.tip_test_log` | a view: a row for each prediction, in the model's own type |

The unit is a text or a `bigint`. `_variant` is `immutable`, and made anew when the weights change: do not index it."""


SQL_INTRODUCTION = """# SQL: functions, views, tables

## Functions that a deployment makes

They are in the schema `models`, or in the one that `dbscore install --models-schema` named. For a model `tip` whose
champion is version 3:

| function | what it answers |
|---|---|
| `models.tip(...)` | the champion's prediction: a class, a number, an array of numbers |
| `models.tip_proba(...)` | classifiers: one probability per class, in the order that the function's comment gives |
| `models.tip_score(...)` | classifiers of two classes: the probability of the second |
| `models.tip_batch(query, key)` | the rows of a query: `row_key bigint`, `prediction`, `probabilities` of classifiers |
| `models.tip_batch(query, key, key_type => null::text)` | the same with a key of another type |
| `models.tip_challenger(...)`, `_challenger_proba`, and so on | the same of the alias `challenger` |
| `models.tip_v3(...)`, `tip_v3_proba`, and so on | the same of version 3, whatever the aliases stand for |

Each but `_batch` has up to three forms of arguments:

| form | example | there is one where |
|---|---|---|
| one argument per feature | `models.tip(passengers => 1, distance => 2.5)` | the model has at most 100 features |
| an array of numbers, in the order of the features | `models.tip(array[1, 2.5])` | every feature is one number |
| a row | `select models.tip(t) from trips t` | the table or view was named at the deployment |

A version's functions are `immutable`. A row form is `stable` instead where the cast of a column is. An alias's
functions are `stable`, so no index and no generated column can be made of them. All are `parallel safe`, but for the
`_batch` functions: these are `volatile`, since nobody knows what their query does, and run in one process.

The comment of each function says which version it is, its metrics, its classes and what NULL means. In psql,
`\\df+ models.*` shows them."""

SQL_ENGINE = """## The schema `dbscore_engine`

It belongs to a superuser and holds what is in PL/Python or made of PostgreSQL's own C functions: the fixed functions
below, and those that the functions of `models` call. Nobody needs to call them by hand."""

FUNCTIONS = """
select format('`%%s(%%s)`', p.proname, regexp_replace(pg_get_function_arguments(p.oid), '\\m(IN|INOUT) ', '', 'g')),
       coalesce('`' || nullif(pg_get_function_result(p.oid), '') || '`', 'a procedure'),
       obj_description(p.oid, 'pg_proc')
from pg_proc p where p.pronamespace = %s::regnamespace and obj_description(p.oid, 'pg_proc') is not null
order by p.proname, pg_get_function_identity_arguments(p.oid)"""

RELATIONS = """
select c.relname, obj_description(c.oid, 'pg_class')
from pg_class c where c.relnamespace = 'dbscore'::regnamespace and strpos(%s, c.relkind::text) > 0 order by c.relname"""

COLUMNS = """
select '`' || a.attname || '`', '`' || format_type(a.atttypid, a.atttypmod) || '`',
       case when a.attnotnull then '' else 'may be' end,
       case when a.attidentity <> '' then '`generated as identity`' when d.adbin is null then ''
            else '`' || pg_get_expr(d.adbin, d.adrelid) || '`' end,
       col_description(a.attrelid, a.attnum)
from pg_attribute a left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
where a.attrelid = ('dbscore.' || quote_ident(%s))::regclass and a.attnum > 0 and not a.attisdropped
order by a.attnum"""


def rows(connection: Connection, query: str, argument: str) -> list[tuple[str, ...]]:
    """Return the rows of one of the queries above."""
    return connection.execute(query, [argument]).fetchall()  # type: ignore[call-overload,no-any-return]


def table(head: list[str], body: list[Any]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *([str(cell or "").replace("|", "\\|") for cell in row] for row in body)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def error_codes() -> str:
    """Return the tree of errors with their SQLSTATEs."""
    classes = [getattr(errors, name) for name in errors.__all__]
    body = sorted((f"`{c.sqlstate}`", f"`{c.__name__}`", (inspect.getdoc(c) or "").partition("\n")[0]) for c in classes)
    return ERRORS_INTRODUCTION + "\n\n" + table(["SQLSTATE", "Python class", "what it means"], body)


ERRORS_INTRODUCTION = """# Errors

Every error that dbscore raises has a SQLSTATE of the class `ML`, a message with the offending value, and a remedy. In
SQL the remedy is the HINT. In Python all classes are in `dbscore.errors` and derive from `dbscore.DbscoreError`, which
has the attributes `sqlstate`, `message` and `remedy`. The command line prints both and exits with code 1.

What PostgreSQL finds wrong by itself, such as a wrong type or a missing argument, is PostgreSQL's own error. A message
that comes out of PL/Python begins with `plpy.Error:` and carries a CONTEXT that is of use to us only."""


def settings() -> str:
    """Return the environment variables and the server's setting."""
    attributes = (inspect.getdoc(dbscore.Settings) or "").partition("Attributes:\n")[2]
    body = []
    for said in re.split(r"\n(?=    \w)", attributes):
        # url: `DBSCORE_URL`: the database ...
        _, variable, meaning = re.split(r"`", " ".join(said.split()), maxsplit=2)
        body.append((f"`{variable}`", meaning.lstrip(":, ").removeprefix("in bytes: ")))
    if len(body) != len(dataclasses.fields(dbscore.Settings)):
        raise SystemExit("the docstring of Settings does not describe each of its fields")
    return SETTINGS.replace("{{variables}}", table(["variable", "meaning"], body))


SETTINGS = """# Settings

## The client's environment

{{variables}}

The default of `DBSCORE_HOME` is `/var/lib/dbscore` for root, and `~/.local/share/dbscore` for everybody else (or
`dbscore` below `XDG_DATA_HOME`, where that is set). Without `DBSCORE_URL`, the command line takes the private server
where it runs; the Python client then needs a URL.

## The server's setting

`dbscore.session_cache` says how many bytes of models a connection keeps loaded, such as `256MB`; 1 GB where it is not
set. The least recently used go first. It can be set with `set`, `alter role ... set` or `alter database ... set`.
Parallel workers keep to 1 GB."""


def main() -> None:
    """Write the pages."""
    base = make_url(ensure_server(notify=lambda said: sys.stderr.write(f"{said}\n")).url).set(drivername="postgresql")
    name = f"dbscore_docs_{secrets.token_hex(4)}"

    def url(database: str | None) -> str:
        return base.set(database=database).render_as_string(hide_password=False)

    with psycopg.connect(url(base.database), autocommit=True) as server:
        server.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        try:
            with dbscore.Client(url(name)) as client:
                client.install()
            with psycopg.connect(url(name)) as connection:
                made = pages(connection)
        finally:
            server.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))
    REFERENCE.mkdir(exist_ok=True)
    for page, text in made.items():
        (REFERENCE / page).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
