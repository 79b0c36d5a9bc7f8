"""`dbscore deploy|promote|rollback|…`: models, versions, aliases, grants."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from dbscore.cli.common import AsJson, Url, client, notify, show_json, show_table
from dbscore.convert.conversion import Tolerance
from dbscore.errors import DbscoreError
from dbscore.registry import CHAMPION, Version

__all__ = ["commands"]

commands = typer.Typer()

Reference = Annotated[str, typer.Argument(help="churn (its champion), churn@challenger or churn:3.")]
Name = Annotated[str, typer.Argument(help="The model's name.")]
Alias = Annotated[str, typer.Option(help="The alias to move.")]
Reason = Annotated[str, typer.Option(help="Why; kept in the alias's history.")]


@commands.command()
def deploy(  # noqa: PLR0913 - one option each
    name: Name,
    source: Annotated[
        Path, typer.Argument(help="An .onnx or .skops file; a pickle or joblib file with --trust-pickle.")
    ],
    *,
    sample: Annotated[Path | None, typer.Option(help="Rows as the model was fitted on: a parquet or csv file.")] = None,
    table: Annotated[
        list[str] | None, typer.Option(help="A table whose rows the functions take; may be repeated.")
    ] = None,
    alias: Annotated[str | None, typer.Option(help="An alias to point to the new version.")] = None,
    metric: Annotated[list[str] | None, typer.Option(help="A number to keep: auc=0.91; may be repeated.")] = None,
    description: Annotated[str | None, typer.Option(help="What the model is.")] = None,
    nulls: Annotated[
        list[str] | None,
        typer.Option(help="nan or null, for all features; or feature=nan; where the probed policy is not wanted."),
    ] = None,
    embedding: Annotated[
        str | None, typer.Option(help="A name for all columns of the sample as one array feature.")
    ] = None,
    trust_pickle: Annotated[
        bool, typer.Option("--trust-pickle", help="Load a pickle, which executes code from it.")
    ] = False,
    trust_type: Annotated[list[str] | None, typer.Option(help="A type that a .skops file may hold.")] = None,
    tolerance: Annotated[
        float | None, typer.Option(help="How far a number may be from the native one, as a fraction of it: 1e-6.")
    ] = None,
    accept_mismatch: Annotated[
        str | None, typer.Option(help="Why a version that the parity gate refuses is deployed all the same.")
    ] = None,
    engine: Annotated[
        Literal["auto", "onnx", "sql"],
        typer.Option(help="What computes it: ONNX Runtime, or the model compiled to SQL; auto: the faster, measured."),
    ] = "auto",
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Convert a model, compare it with the native one, store it and make its SQL functions."""
    if not source.exists():
        raise typer.BadParameter(f"there is no file {source}")
    with client(url) as c:
        version = c.deploy(
            name,
            source,
            sample=None if sample is None else _read(sample),
            table=table or (),
            alias=alias,
            metrics=dict(map(_metric, metric or [])),
            description=description,
            null_policy=_policies(nulls or []),
            embedding=embedding,
            tolerance=None if tolerance is None else Tolerance(relative=tolerance, absolute=tolerance * 1e-3),
            trust_pickle=trust_pickle,
            trusted_types=trust_type or (),
            accept_mismatch=accept_mismatch,
            engine=engine,
        )
        engines = c.status().engines
    if version.engine not in engines:
        notify(
            f"warning: {version.reference} has no SQL functions: it is not compiled, and this server has no PL/Python. "
            "`dbscore score` scores it all the same, whose workers run the model"
        )
    _show(version, as_json=as_json)


@commands.command()
def promote(
    reference: Reference,
    *,
    alias: Alias = CHAMPION,
    reason: Reason = "",
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Point an alias to a version: `dbscore promote tip:3`, `dbscore promote tip@challenger`."""
    with client(url) as c:
        _show_move(c.promote(reference, alias=alias, reason=reason), alias, as_json=as_json)


@commands.command()
def rollback(
    name: Name, *, alias: Alias = CHAMPION, reason: Reason = "", url: Url = None, as_json: AsJson = False
) -> None:
    """Point an alias back to where it stood before its last promotion."""
    with client(url) as c:
        _show_move(c.rollback(name, alias=alias, reason=reason), alias, as_json=as_json)


@commands.command()
def unalias(
    reference: Annotated[str, typer.Argument(help="name@alias.")], *, reason: Reason = "", url: Url = None
) -> None:
    """Remove an alias and its functions; the version stays."""
    name, _, alias = reference.partition("@")
    if not alias:
        raise typer.BadParameter(f"write name@alias, such as {name}@challenger or {name}@{CHAMPION}")
    with client(url) as c:
        c.unalias(name, alias, reason=reason)
    notify(f"removed the alias {alias} of {name}")


@commands.command()
def retire(reference: Reference, *, url: Url = None, as_json: AsJson = False) -> None:
    """Take a version out of use: its functions go, its row and its bytes stay."""
    with client(url) as c:
        _show(c.retire(reference), as_json=as_json)


@commands.command()
def drop(
    reference: Annotated[str, typer.Argument(help="churn:3, or churn for the whole model.")],
    *,
    with_aliases: Annotated[bool, typer.Option("--with-aliases", help="Remove the aliases that stand for it.")] = False,
    url: Url = None,
) -> None:
    """Drop a version or a whole model; refused while an alias stands for it."""
    with client(url) as c:
        for version in c.drop(reference, with_aliases=with_aliases):
            notify(f"dropped {version.reference}")


@commands.command(name="list")
def list_models(
    name: Annotated[str | None, typer.Argument(help="A model, to list its versions.")] = None,
    *,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """List the models, or the versions of one."""
    with client(url) as c:
        if name is None:
            models = c.models()
            if as_json:
                show_json([m.to_json() for m in models])
            else:
                show_table(
                    ["model", "versions", "aliases", "description"],
                    [(m.name, m.versions, _aliases(m.aliases), m.description) for m in models],
                )
            return
        versions = c.versions(name)
    if as_json:
        show_json([v.to_json() for v in versions])
    else:
        show_table(
            ["version", "aliases", "status", "estimator", "precision", "metrics", "deployed", "by"],
            [
                (
                    v.reference,
                    ", ".join(v.aliases),
                    v.status,
                    v.provenance.get("estimator"),
                    v.provenance["precision"],
                    _metrics(v.metrics),
                    f"{v.created_at:%Y-%m-%d %H:%M}",
                    v.created_by,
                )
                for v in versions
            ],
        )


@commands.command()
def show(reference: Reference, *, url: Url = None, as_json: AsJson = False) -> None:
    """Show one version: features, outputs, where it came from, how it compared."""
    with client(url) as c:
        _show(c.show(reference), as_json=as_json)


@commands.command()
def history(name: Name, *, url: Url = None, as_json: AsJson = False) -> None:
    """Show who moved which alias of a model, when, from where to where, and why."""
    with client(url) as c:
        moves = c.history(name)
    if as_json:
        show_json([m.to_json() for m in moves])
    else:
        show_table(
            ["when", "who", "action", "alias", "from", "to", "reason"],
            [
                (
                    f"{m.moved_at:%Y-%m-%d %H:%M:%S}",
                    m.moved_by,
                    m.action,
                    m.alias,
                    m.from_number,
                    m.to_number,
                    m.reason,
                )
                for m in moves
            ],
        )


@commands.command()
def export(
    reference: Reference,
    path: Annotated[Path, typer.Argument(help="The .onnx file to write.")],
    *,
    url: Url = None,
) -> None:
    """Write a version's ONNX bytes, as they were stored, to a file."""
    with client(url) as c:
        content = c.export(reference, path)
    notify(f"wrote {len(content)} bytes to {path}")


@commands.command()
def grant(name: Name, role: Annotated[str, typer.Argument(help="Who may score it.")], *, url: Url = None) -> None:
    """Let a role score a model: every version and alias there is, and those to come."""
    with client(url) as c:
        c.grant(name, role)
    notify(f"{role} may score {name}")


@commands.command()
def revoke(
    name: Name, role: Annotated[str, typer.Argument(help="Who may no longer score it.")], *, url: Url = None
) -> None:
    """Take from a role what `grant` gave for this model."""
    with client(url) as c:
        c.revoke(name, role)
    notify(f"{role} may no longer score {name}")


@commands.command()
def predict(
    reference: Reference,
    features: Annotated[str, typer.Argument(help='The features as JSON: {"age": 41, "plan": "basic"}.')],
    *,
    url: Url = None,
) -> None:
    """Score one row, and print the answer as JSON."""
    try:
        row = json.loads(features)
    except ValueError as error:
        raise typer.BadParameter(f"the features are not JSON: {error}") from error
    if not isinstance(row, dict):
        raise typer.BadParameter("the features are not a JSON object")
    with client(url) as c:
        show_json(c.predict(reference, row))


def _show(version: Version, *, as_json: bool) -> None:
    if as_json:
        show_json(version.to_json())
        return
    signature, provenance, parity = version.signature, version.provenance, version.parity
    rows: list[tuple[str, object]] = [
        ("version", version.reference),
        ("aliases", ", ".join(version.aliases)),
        ("status", version.status),
        ("estimator", provenance.get("estimator") or provenance["producer"]),
        ("engine", f"{version.engine} for single rows, {version.batch_engine} for batches, {provenance['precision']}"),
        ("chosen", None if version.choice is None else version.choice["reason"]),
        ("not compiled", None if version.choice is None else version.choice["refused"]),
        ("explained", None if version.choice is None else version.choice.get("explained")),
        ("not explained", None if version.choice is None else version.choice.get("unexplained")),
        ("unused features", None if version.choice is None else ", ".join(version.choice.get("unused", ()))),
        ("artifact", f"{version.sha256} ({version.bytes:,} bytes)"),
        ("metrics", _metrics(version.metrics)),
        ("answer", f"{signature.task}: {signature.prediction.type}"),
        ("classes", None if signature.classes is None else ", ".join(map(repr, signature.classes))),
        ("parity", "nothing to compare with" if parity is None else _parity(parity)),
        (
            "accepted",
            version.mismatch_accepted_by and f"{version.mismatch_accepted_by}: {version.mismatch_reason}",
        ),
        ("deployed", f"{version.created_at:%Y-%m-%d %H:%M:%S %Z} by {version.created_by}"),
    ]
    rows += [(f"feature {f.name}", f"{f.type}, NULL is {_null(f.null_policy)}") for f in signature.features]
    rows += [("correction", text) for text in provenance["corrections"]]
    rows += [("note", text) for text in provenance["notes"]]
    show_table(["what", "value"], [row for row in rows if row[1]])


def _show_move(version: Version, alias: str, *, as_json: bool) -> None:
    if as_json:
        show_json(version.to_json())
    else:
        notify(f"{version.model}@{alias} is version {version.number}")


def _null(policy: str) -> str:
    return "a missing value" if policy == "nan" else "a NULL prediction"


def _parity(parity: dict[str, Any]) -> str:
    rows = ", ".join(f"{n} {origin}" for origin, n in parity["rows"].items())
    wrong = sum(parity["mismatches"].values())
    return f"{wrong} mismatches in rows: {rows}; largest difference {parity['max_absolute']:.3g}"


def _metrics(metrics: dict[str, float]) -> str:
    return ", ".join(f"{k} {v:.4g}" for k, v in metrics.items())


def _aliases(aliases: dict[str, int]) -> str:
    return ", ".join(f"{alias}: {number}" for alias, number in sorted(aliases.items()))


def _metric(text: str) -> tuple[str, float]:
    name, equals, value = text.partition("=")
    try:
        if name and equals:
            return name, float(value)
    except ValueError:
        pass
    raise typer.BadParameter(f"a metric is name=number, not {text!r}")


def _policies(texts: list[str]) -> dict[str, str] | str | None:
    if len(texts) == 1 and "=" not in texts[0]:
        return texts[0]
    pairs = [text.rpartition("=") for text in texts]
    if any(not equals for _, equals, _ in pairs):
        raise typer.BadParameter("--nulls is nan or null alone, or feature=nan for each feature")
    return {name: policy for name, _, policy in pairs} or None


def _read(path: Path) -> Any:  # noqa: ANN401 - a frame; pandas is optional
    """Return a parquet or csv file as a frame."""
    import pandas as pd

    if not path.exists():
        raise typer.BadParameter(f"there is no file {path}")
    readers = {".parquet": pd.read_parquet, ".csv": pd.read_csv}
    if path.suffix not in readers:
        raise DbscoreError(f"{path} is neither .parquet nor .csv", remedy="Save the sample as one of these.")
    return readers[path.suffix](path)
