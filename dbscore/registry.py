"""Models, versions, aliases, artifacts: what is stored, and the moves that are allowed."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.dialects import postgresql

from dbscore import functions, schema, tables
from dbscore.errors import (
    InUseError,
    NameRefusedError,
    NotFoundError,
    ParityError,
    ServerError,
)
from dbscore.functions import ENGINE_SCHEMA, FunctionSet
from dbscore.signature import Signature
from dbscore.verification import verify

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Connection

    from dbscore.convert.conversion import Conversion, Parity
    from dbscore.functions import RowType

__all__ = [
    "CHAMPION",
    "AliasMove",
    "Model",
    "Version",
    "artifact",
    "deploy",
    "drop",
    "find",
    "grant",
    "history",
    "models",
    "promote",
    "refresh",
    "remove_alias",
    "retire",
    "revoke",
    "rollback",
    "versions",
]

CHAMPION = "champion"
MODEL_NAME_CHARACTERS = 48
_IDENTIFIER = re.compile(r"[a-z_][a-z0-9_]*")
_REFERENCE = re.compile(r"(?P<model>[^@:]+)(?:@(?P<alias>[^@:]+)|:(?P<number>[0-9]{1,9}))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One version of a model, without its bytes.

    Attributes:
        model: The model's name.
        number: Its number, from 1.
        sha256: The artifact's hash.
        bytes: The artifact's size.
        signature: What it takes and gives.
        engine: `onnx` or `sql`.
        status: `active` or `retired`.
        aliases: The aliases that stand for it.
        provenance: Where the bytes came from.
        parity: How it compared with the native model; None where there was nothing to compare with.
        metrics: What its maker said of it.
        mismatch_accepted_by: Who deployed it although the parity gate refused it.
        mismatch_reason: Why.
        created_by: Who deployed it.
        created_at: When.
    """

    model: str
    number: int
    sha256: str
    bytes: int
    signature: Signature
    engine: str
    status: str
    aliases: tuple[str, ...]
    provenance: dict[str, Any]
    parity: dict[str, Any] | None
    metrics: dict[str, float]
    mismatch_accepted_by: str | None
    mismatch_reason: str | None
    created_by: str
    created_at: datetime

    @property
    def reference(self) -> str:
        """How it is named: `tip:3`."""
        return f"{self.model}:{self.number}"

    def to_json(self) -> dict[str, Any]:
        """Return the version as JSON values."""
        return {
            "reference": self.reference,
            "model": self.model,
            "version": self.number,
            "aliases": list(self.aliases),
            "status": self.status,
            "engine": self.engine,
            "sha256": self.sha256,
            "bytes": self.bytes,
            "signature": self.signature.to_json(),
            "provenance": self.provenance,
            "parity": self.parity,
            "metrics": self.metrics,
            "mismatch_accepted_by": self.mismatch_accepted_by,
            "mismatch_reason": self.mismatch_reason,
            "created_by": self.created_by,
            "created_at": self.created_at.isoformat(),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """One model: its name, what it is, its aliases' version numbers, how many versions there are."""

    name: str
    description: str
    aliases: dict[str, int]
    versions: int
    created_by: str
    created_at: datetime

    def to_json(self) -> dict[str, Any]:
        """Return the model as JSON values."""
        return {
            "model": self.name,
            "description": self.description,
            "aliases": self.aliases,
            "versions": self.versions,
            "created_by": self.created_by,
            "created_at": self.created_at.isoformat(),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class AliasMove:
    """One line of an alias's history: who moved it, when, from where to where, and why."""

    model: str
    alias: str
    action: str
    from_number: int | None
    to_number: int | None
    reason: str
    moved_by: str
    moved_at: datetime

    def to_json(self) -> dict[str, Any]:
        """Return the move as JSON values."""
        return {
            "model": self.model,
            "alias": self.alias,
            "action": self.action,
            "from": self.from_number,
            "to": self.to_number,
            "reason": self.reason,
            "moved_by": self.moved_by,
            "moved_at": self.moved_at.isoformat(),
        }


# --- reading ---------------------------------------------------------------------------------------------------------


def models(connection: Connection) -> list[Model]:
    """Return all models, by name."""
    m, v, a = tables.model, tables.version, tables.alias
    counted = select(func.count()).where(v.c.model_id == m.c.model_id).scalar_subquery()
    pointed = (
        select(func.jsonb_object_agg(a.c.name, v.c.number))
        .select_from(a.join(v, v.c.version_id == a.c.version_id))
        .where(a.c.model_id == m.c.model_id)
        .scalar_subquery()
    )
    rows = connection.execute(select(m, counted.label("versions"), pointed.label("aliases")).order_by(m.c.name))
    return [
        Model(
            name=r.name,
            description=r.description,
            aliases=r.aliases or {},
            versions=r.versions,
            created_by=r.created_by,
            created_at=r.created_at,
        )
        for r in rows
    ]


def versions(connection: Connection, name: str | None = None) -> list[Version]:
    """Return the versions of one model, or of all, by name and number.

    Raises:
        NotFoundError: There is no such model.
    """
    if name is not None:
        _model_id(connection, name)
    return _versions(connection, name)


def find(connection: Connection, reference: str) -> Version:
    """Return the version that a reference means: `churn`, `churn@challenger` or `churn:3`.

    Raises:
        NotFoundError: There is no such model, version or alias; the message names those there are.
    """
    parts = _REFERENCE.fullmatch(reference)
    if parts is None:
        raise NotFoundError(
            f"{reference!r} is not a reference to a model", remedy="Write churn, churn@challenger or churn:3."
        )
    found = versions(connection, parts["model"])
    if parts["number"] is not None:
        number = int(parts["number"])
        known = ", ".join(str(v.number) for v in found)
        match = [v for v in found if v.number == number]
        problem = f"model {parts['model']!r} has no version {number}"
        remedy = f"Its versions: {known}." if known else "It has no versions."
    else:
        alias = parts["alias"] or CHAMPION
        known = ", ".join(sorted(a for v in found for a in v.aliases))
        match = [v for v in found if alias in v.aliases]
        problem = f"model {parts['model']!r} has no alias {alias!r}"
        remedy = f"Its aliases: {known}." if known else "It has no aliases."
    if not match:
        raise NotFoundError(problem, remedy=remedy)
    return match[0]


def artifact(connection: Connection, sha256: str) -> bytes:
    """Return a model's bytes.

    Raises:
        NotFoundError: There are none of that hash.
    """
    found = connection.scalar(select(tables.artifact.c.bytes).where(tables.artifact.c.sha256 == sha256))
    if found is None:
        raise NotFoundError(f"there is no artifact {sha256}")
    return bytes(found)


def history(connection: Connection, name: str, *, alias: str | None = None) -> list[AliasMove]:
    """Return the moves of a model's aliases, oldest first; also of a model that was dropped."""
    h = tables.alias_history
    query = select(h).where(h.c.model == name).order_by(h.c.alias_history_id)
    if alias is not None:
        query = query.where(h.c.alias == alias)
    return [
        AliasMove(
            model=r.model,
            alias=r.alias,
            action=r.action,
            from_number=r.from_number,
            to_number=r.to_number,
            reason=r.reason,
            moved_by=r.moved_by,
            moved_at=r.moved_at,
        )
        for r in connection.execute(query)
    ]


def _versions(connection: Connection, name: str | None) -> list[Version]:
    m, v, a = tables.model, tables.version, tables.alias
    aliases = (
        select(func.array_agg(postgresql.aggregate_order_by(a.c.name, a.c.name)))
        .where(a.c.version_id == v.c.version_id)
        .scalar_subquery()
    )
    query = (
        select(v, m.c.name.label("model"), tables.artifact.c.size, aliases.label("aliases"))
        .join(m, m.c.model_id == v.c.model_id)
        .join(tables.artifact, tables.artifact.c.sha256 == v.c.sha256)
        .order_by(m.c.name, v.c.number)
    )
    if name is not None:
        query = query.where(m.c.name == name)
    return [
        Version(
            model=r.model,
            number=r.number,
            sha256=r.sha256,
            bytes=r.size,
            signature=Signature.from_json(r.signature),
            engine=r.engine,
            status=r.status,
            aliases=tuple(r.aliases or ()),
            provenance=r.provenance,
            parity=r.parity,
            metrics=r.metrics,
            mismatch_accepted_by=r.mismatch_accepted_by,
            mismatch_reason=r.mismatch_reason,
            created_by=r.created_by,
            created_at=r.created_at,
        )
        for r in connection.execute(query)
    ]


def _model_id(connection: Connection, name: str, *, lock: bool = False) -> int:
    """Return a model's key; with `lock`, after whoever else moves that model has ended."""
    query = select(tables.model.c.model_id).where(tables.model.c.name == name)
    found = connection.scalar(query.with_for_update() if lock else query)
    if found is None:
        known = ", ".join(connection.scalars(select(tables.model.c.name).order_by(tables.model.c.name)))
        raise NotFoundError(
            f"there is no model {name!r}", remedy=f"Models there are: {known}." if known else "There is no model yet."
        )
    return int(found)


# --- deploying -------------------------------------------------------------------------------------------------------


def deploy(  # noqa: PLR0913 - what a deployment is made of
    connection: Connection,
    name: str,
    conversion: Conversion,
    *,
    alias: str | None = None,
    row_types: Sequence[RowType] = (),
    metrics: Mapping[str, float] | None = None,
    description: str | None = None,
    accept_mismatch: str | None = None,
) -> Version:
    """Store a converted model as the next version, make its functions, compare what they answer.

    The first version becomes the champion. The same bytes with the same signature are the same version: it is
    returned, and nothing is stored.

    Args:
        connection: In a transaction, which the caller commits.
        name: The model, made if it is not there.
        conversion: What `dbscore.convert.convert` made.
        alias: An alias to point to the new version, in the same transaction.
        row_types: Tables whose rows the functions take, besides those of earlier versions.
        metrics: Numbers to keep with the version and to show in its comment.
        description: What the model is, kept with the model.
        accept_mismatch: Why a version that the parity gate refuses is deployed all the same; None refuses it.

    Raises:
        NameRefusedError: The name is no identifier, too long, or something else has it.
        ParityError: The converted model disagrees with the native one, there or in the database.
        FeatureError: A table lacks a feature's column.
        ServerError: The server cannot run the model.
    """
    _refuse_name(name)
    if conversion.parity is not None and conversion.parity.total_mismatches and accept_mismatch is None:
        raise parity_error(name, conversion.parity)
    schema.become_owner(connection)
    _refuse_server(connection)
    models_schema = schema.models_schema(connection)
    model_id = _ensure_model(connection, name, description)
    sha256 = hashlib.sha256(conversion.onnx).hexdigest()
    existing = _versions(connection, name)
    for version in existing:
        same = version.sha256 == sha256 and version.signature == conversion.signature
        if same and version.status == "active" and not _new_tables(connection, model_id, row_types):
            if alias is not None:
                promote(connection, name, version.number, alias=alias, reason="deployed again")
            return find(connection, version.reference)
    number = connection.scalar(
        update(tables.model)
        .where(tables.model.c.model_id == model_id)
        .values(last_number=tables.model.c.last_number + 1)
        .returning(tables.model.c.last_number)
    )
    function_set = FunctionSet(schema=models_schema, name=f"{name}_v{number}", signature=conversion.signature)
    _refuse_collision(connection, name, existing, function_set.names())
    connection.execute(
        postgresql.insert(tables.artifact)
        .values(sha256=sha256, bytes=conversion.onnx, size=len(conversion.onnx))
        .on_conflict_do_nothing()
    )
    roles = _grantees(connection, models_schema, name, existing)
    accepted = conversion.parity is not None and conversion.parity.total_mismatches > 0
    connection.execute(
        insert(tables.version).values(
            model_id=model_id,
            number=number,
            sha256=sha256,
            signature=conversion.signature.to_json(),
            engine="onnx",
            provenance=conversion.provenance.to_json(),
            parity=None if conversion.parity is None else conversion.parity.to_json(),
            metrics=dict(metrics or {}),
            mismatch_accepted_by=func.session_user() if accepted else None,
            mismatch_reason=accept_mismatch if accepted else None,
        )
    )
    _remember_tables(connection, model_id, row_types)
    version = find(connection, f"{name}:{number}")
    _create_functions(connection, function_set, version, row_types=row_types)
    if roles:
        _grant(connection, models_schema, name, [version], roles)
    if conversion.checks is not None and conversion.parity is not None:
        wrong = verify(connection, function_set, conversion.checks, conversion.parity.tolerance)
        if wrong and accept_mismatch is None:
            raise ParityError(
                f"{name}: the functions in the database disagree with the native model on {len(wrong)} of "
                f"{len(conversion.checks.rows)} rows: {'; '.join(wrong[:5])}",
                remedy="Compare the server's onnxruntime with the client's (`dbscore status`), or deploy with --accept-mismatch.",
            )
    if not existing and alias != CHAMPION:
        promote(connection, name, version.number, alias=CHAMPION, reason="first version")
    if alias is not None:
        promote(connection, name, version.number, alias=alias, reason="deployed")
    return find(connection, version.reference)


def parity_error(name: str, parity: Parity) -> ParityError:
    """Return the refusal of a model that was converted wrongly, with the rows that show it."""
    rows = "\n".join(
        f"    {m.origin} row {m.row}: native {m.native!r}, converted {m.converted!r}" for m in parity.examples[:5]
    )
    return ParityError(
        f"{name}: the converted model disagrees with the native one on {parity.total_mismatches} of "
        f"{sum(parity.rows.values())} rows (largest difference {parity.max_absolute:.3g}, relative {parity.max_relative:.3g}, "
        f"allowed {parity.tolerance.absolute:g} + {parity.tolerance.relative:g} of the value):\n{rows}",
        remedy="Change the estimator, or deploy it all the same with --accept-mismatch REASON, which is recorded.",
    )


def _refuse_name(name: str) -> None:
    if not _IDENTIFIER.fullmatch(name):
        raise NameRefusedError(
            f"{name!r} is not a name for a model",
            remedy="Use lower-case letters, digits and _, not beginning with a digit: it becomes a function's name.",
        )
    if len(name) > MODEL_NAME_CHARACTERS:
        raise NameRefusedError(
            f"the model name {name!r} has {len(name)} characters", remedy=f"Use at most {MODEL_NAME_CHARACTERS}."
        )
    if re.search(r"_v[0-9]+$", name):
        raise NameRefusedError(
            f"the model name {name!r} ends like a version's function", remedy="Choose a name without _v and a number."
        )


def _refuse_server(connection: Connection) -> None:
    problem = schema.python_problem(connection, schema.server_python(connection))
    if problem:
        raise ServerError(f"engine onnx cannot run here: {problem}")


def _refuse_collision(connection: Connection, name: str, existing: Sequence[Version], names: Sequence[str]) -> None:
    """Refuse names that functions of others have already."""
    models_schema = schema.models_schema(connection)
    ours = {n for v in existing for f in _function_sets(models_schema, v) for n in f.names()}
    taken = sorted(set(names) & (functions.existing_names(connection, models_schema) - ours))
    if taken:
        raise NameRefusedError(
            f"{name}: the function {models_schema}.{taken[0]} is there already, and is not this model's",
            remedy="Choose another name for the model or the alias, or drop that function.",
        )


def _ensure_model(connection: Connection, name: str, description: str | None) -> int:
    connection.execute(
        postgresql.insert(tables.model).values(name=name, description=description or "").on_conflict_do_nothing()
    )
    model_id = _model_id(connection, name, lock=True)
    if description is not None:
        connection.execute(
            update(tables.model).where(tables.model.c.model_id == model_id).values(description=description)
        )
    return model_id


def _known_tables(connection: Connection, model_id: int) -> list[list[str]]:
    return list(connection.scalar(select(tables.model.c.tables).where(tables.model.c.model_id == model_id)) or [])


def _new_tables(connection: Connection, model_id: int, row_types: Sequence[RowType]) -> list[list[str]]:
    known = _known_tables(connection, model_id)
    return [[t.schema, t.name] for t in row_types if [t.schema, t.name] not in known]


def _remember_tables(connection: Connection, model_id: int, row_types: Sequence[RowType]) -> None:
    known = _known_tables(connection, model_id) + _new_tables(connection, model_id, row_types)
    connection.execute(update(tables.model).where(tables.model.c.model_id == model_id).values(tables=known))


def _row_types(connection: Connection, version: Version) -> list[RowType]:
    """Return the model's tables that still are there and have a column for each of the version's features."""
    model_id = _model_id(connection, version.model)
    found = [functions.row_type_of(connection, schema, name) for schema, name in _known_tables(connection, model_id)]
    return [t for t in found if t is not None and not functions.missing_columns(version.signature, t)]


def _create_functions(
    connection: Connection, function_set: FunctionSet, version: Version, *, row_types: Sequence[RowType] = ()
) -> None:
    known = _row_types(connection, version)
    functions.create_version(
        connection,
        function_set,
        sha256=version.sha256,
        # tables that were named now come too, so that what they lack is said
        tables=known + [t for t in row_types if t not in known],
        comment=_comment(version, f"{version.model} version {version.number}"),
    )


def _comment(version: Version, subject: str) -> str:
    provenance = version.provenance
    parts = [f"{subject}: {(provenance.get('estimator') or 'ONNX model').rsplit('.', 1)[-1]}, {provenance['precision']}"]
    parts += [f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in version.metrics.items()]
    if version.signature.classes is not None:
        parts.append("classes " + ", ".join(repr(c) for c in version.signature.classes))
    return "; ".join(parts) + "."


def _function_sets(models_schema: str, version: Version) -> list[FunctionSet]:
    """Return the functions of a version and of the aliases that stand for it."""
    names = [f"{version.model}_v{version.number}"] + [_alias_function(version.model, a) for a in version.aliases]
    return [FunctionSet(schema=models_schema, name=n, signature=version.signature) for n in names]


def _alias_function(model: str, alias: str) -> str:
    return model if alias == CHAMPION else f"{model}_{alias}"


def refresh(connection: Connection) -> int:
    """Make the functions of every active version anew, as after an upgrade; return how many versions there are."""
    schema.become_owner(connection)
    models_schema = schema.models_schema(connection)
    active = [v for v in _versions(connection, None) if v.status == "active"]
    for version in active:
        function_set = FunctionSet(
            schema=models_schema, name=f"{version.model}_v{version.number}", signature=version.signature
        )
        _create_functions(connection, function_set, version)
        for alias in version.aliases:
            _point(connection, version, alias)
    return len(active)


# --- moving ----------------------------------------------------------------------------------------------------------


def promote(connection: Connection, name: str, number: int, *, alias: str = CHAMPION, reason: str = "") -> Version:
    """Point an alias to a version. A second promotion of the same model waits for the first to end.

    Raises:
        NotFoundError: There is no such model or version.
        InUseError: The version is retired, or something uses a function that the version does not have.
        NameRefusedError: The alias is no identifier, or its functions would take a name that is there already.
    """
    return _move(connection, name, number, alias=alias, reason=reason, action="promote")


def rollback(connection: Connection, name: str, *, alias: str = CHAMPION, reason: str = "") -> Version:
    """Point an alias back to the version it stood for before its last promotion; again, to the one before that.

    Raises:
        NotFoundError: There is no such model or alias, or nothing to go back to.
    """
    schema.become_owner(connection)
    _model_id(connection, name, lock=True)
    find(connection, f"{name}@{alias}")
    alive = {v.number for v in _versions(connection, name) if v.status == "active"}
    stack: list[int] = []
    for move in history(connection, name, alias=alias):
        if move.action == "remove":
            stack.clear()
        elif move.action == "rollback":
            # what the rollback left behind is gone, down to where it went
            while stack and stack[-1] != move.to_number:
                stack.pop()
        elif move.to_number is not None:
            stack.append(move.to_number)
    earlier = [n for n in stack[:-1] if n in alive and n != stack[-1]]
    if not earlier:
        raise NotFoundError(
            f"{name}@{alias} has no earlier version to go back to",
            remedy=f"Promote one: dbscore promote {name}:N --alias {alias}.",
        )
    return _move(connection, name, earlier[-1], alias=alias, reason=reason, action="rollback")


def _move(connection: Connection, name: str, number: int, *, alias: str, reason: str, action: str) -> Version:
    schema.become_owner(connection)
    _refuse_alias(alias)
    model_id = _model_id(connection, name, lock=True)
    version = find(connection, f"{name}:{number}")
    if version.status != "active":
        raise InUseError(f"{version.reference} is retired", remedy="Promote an active version, or deploy it again.")
    existing = _versions(connection, name)
    before = next((v.number for v in existing if alias in v.aliases), None)
    if before == number:
        return version
    models_schema = schema.models_schema(connection)
    roles = _grantees(connection, models_schema, name, existing)
    alias_functions = FunctionSet(
        schema=models_schema, name=_alias_function(name, alias), signature=version.signature
    )
    _refuse_collision(connection, name, existing, alias_functions.names())
    version_id = connection.scalar(
        select(tables.version.c.version_id).where(
            tables.version.c.model_id == model_id, tables.version.c.number == number
        )
    )
    connection.execute(
        postgresql.insert(tables.alias)
        .values(model_id=model_id, name=alias, version_id=version_id)
        .on_conflict_do_update(index_elements=["model_id", "name"], set_={"version_id": version_id})
    )
    connection.execute(
        insert(tables.alias_history).values(
            model=name, alias=alias, action=action, from_number=before, to_number=number, reason=reason
        )
    )
    _point(connection, version, alias)
    moved = find(connection, version.reference)
    if roles:
        _grant(connection, models_schema, name, [moved], roles)
    return moved


def _point(connection: Connection, version: Version, alias: str) -> None:
    """Make the alias's functions call the version's."""
    models_schema = schema.models_schema(connection)
    functions.create_alias(
        connection,
        FunctionSet(schema=models_schema, name=_alias_function(version.model, alias), signature=version.signature),
        target=FunctionSet(
            schema=models_schema, name=f"{version.model}_v{version.number}", signature=version.signature
        ),
        tables=_row_types(connection, version),
        comment=_comment(version, f"{version.model} ({alias}) is version {version.number}"),
    )


def _refuse_alias(alias: str) -> None:
    reserved = {suffix.removeprefix("_") for suffix in functions.SUFFIXES}
    if not _IDENTIFIER.fullmatch(alias) or re.fullmatch(r"v[0-9]+", alias) or alias in reserved:
        raise NameRefusedError(
            f"{alias!r} is not a name for an alias",
            remedy="Use lower-case letters, digits and _; not v and a number, proba, score, batch or explain.",
        )


def remove_alias(connection: Connection, name: str, alias: str, *, reason: str = "") -> None:
    """Remove an alias and its functions; the version stays.

    Raises:
        NotFoundError: There is no such model or alias.
        InUseError: A view or another function uses its functions.
    """
    schema.become_owner(connection)
    model_id = _model_id(connection, name, lock=True)
    version = find(connection, f"{name}@{alias}")
    models_schema = schema.models_schema(connection)
    function_set = FunctionSet(
        schema=models_schema, name=_alias_function(name, alias), signature=version.signature
    )
    functions.drop(connection, models_schema, function_set.names())
    connection.execute(
        delete(tables.alias).where(tables.alias.c.model_id == model_id, tables.alias.c.name == alias)
    )
    connection.execute(
        insert(tables.alias_history).values(
            model=name, alias=alias, action="remove", from_number=version.number, reason=reason
        )
    )


def retire(connection: Connection, reference: str) -> Version:
    """Take a version out of use: its functions go, its row and its bytes stay.

    Raises:
        NotFoundError: There is no such version.
        InUseError: An alias stands for it, or a view or a generated column uses its functions.
    """
    version = _free(connection, reference, "retired")
    if version.status == "active":
        _drop_functions(connection, version)
        connection.execute(_where_version(update(tables.version), connection, version).values(status="retired"))
    return find(connection, version.reference)


def drop(connection: Connection, reference: str, *, with_aliases: bool = False) -> list[Version]:
    """Drop one version (`churn:3`) or a whole model (`churn`); bytes that no version uses any more go too.

    Args:
        connection: In a transaction.
        reference: `name:number` or a name; an alias is refused, since it may move meanwhile.
        with_aliases: Remove the aliases that stand for what is dropped.

    Raises:
        NotFoundError: There is no such model or version.
        InUseError: An alias stands for it, or a view or a generated column uses its functions.
    """
    schema.become_owner(connection)
    parts = _REFERENCE.fullmatch(reference)
    if parts is None or parts["alias"] is not None:
        raise NotFoundError(
            f"{reference!r} names no version to drop", remedy="Write name:number, or the name for the whole model."
        )
    name = parts["model"]
    _model_id(connection, name, lock=True)
    doomed = versions(connection, name) if parts["number"] is None else [find(connection, reference)]
    for version in doomed:
        for alias in version.aliases if with_aliases else ():
            remove_alias(connection, name, alias, reason=f"{reference} dropped")
    for version in doomed:
        freed = _free(connection, version.reference, "dropped")
        if freed.status == "active":
            _drop_functions(connection, freed)
        connection.execute(_where_version(delete(tables.version), connection, freed))
        _drop_artifact(connection, freed.sha256)
    if parts["number"] is None:
        connection.execute(delete(tables.model).where(tables.model.c.name == name))
    return doomed


def _free(connection: Connection, reference: str, what: str) -> Version:
    """Return the version, locked, if no alias stands for it."""
    schema.become_owner(connection)
    name = find(connection, reference).model
    _model_id(connection, name, lock=True)
    version = find(connection, reference)
    if version.aliases:
        raise InUseError(
            f"{version.reference} cannot be {what}: the alias{'es' * (len(version.aliases) > 1)} "
            f"{', '.join(version.aliases)} stand{'s' * (len(version.aliases) == 1)} for it",
            remedy=f"Promote another version first, or remove the alias: dbscore unalias {name}@{version.aliases[0]}.",
        )
    return version


def _where_version(statement: Any, connection: Connection, version: Version) -> Any:  # noqa: ANN401 - update or delete
    return statement.where(
        tables.version.c.model_id == _model_id(connection, version.model),
        tables.version.c.number == version.number,
    )


def _drop_functions(connection: Connection, version: Version) -> None:
    name = f"{version.model}_v{version.number}"
    function_set = FunctionSet(
        schema=schema.models_schema(connection), name=name, signature=version.signature
    )
    functions.drop(connection, function_set.schema, function_set.names())
    functions.drop(connection, ENGINE_SCHEMA, functions.engine_names(name))


def _drop_artifact(connection: Connection, sha256: str) -> None:
    used = connection.scalar(select(tables.version.c.version_id).where(tables.version.c.sha256 == sha256).limit(1))
    if used is None:
        connection.execute(delete(tables.artifact).where(tables.artifact.c.sha256 == sha256))
        functions.forget(connection, sha256)


# --- privileges ------------------------------------------------------------------------------------------------------


def grant(connection: Connection, name: str, role: str) -> None:
    """Let a role score a model: every version and alias there is, and those to come.

    Raises:
        NotFoundError: There is no such model or role.
    """
    _change_grants(connection, name, role, give=True)


def revoke(connection: Connection, name: str, role: str) -> None:
    """Take from a role what `grant` gave for this model.

    Raises:
        NotFoundError: There is no such model or role.
    """
    _change_grants(connection, name, role, give=False)


def _change_grants(connection: Connection, name: str, role: str, *, give: bool) -> None:
    schema.become_owner(connection)
    _model_id(connection, name, lock=True)
    functions.refuse_unknown_role(connection, role)
    models_schema = schema.models_schema(connection)
    change = _grant if give else _revoke
    change(connection, models_schema, name, _versions(connection, name), [role])
    if give:
        functions.grant_usage(connection, models_schema, role)


def _grant(
    connection: Connection, models_schema: str, name: str, of: Sequence[Version], roles: Sequence[str]
) -> None:
    for in_schema, names in _granted_names(models_schema, name, of):
        functions.grant(connection, in_schema, names, roles)


def _revoke(
    connection: Connection, models_schema: str, name: str, of: Sequence[Version], roles: Sequence[str]
) -> None:
    for in_schema, names in _granted_names(models_schema, name, of):
        functions.revoke(connection, in_schema, names, roles)


def _granted_names(models_schema: str, name: str, of: Sequence[Version]) -> list[tuple[str, list[str]]]:
    active = [v for v in of if v.status == "active"]
    return [
        (models_schema, [n for v in active for f in _function_sets(models_schema, v) for n in f.names()]),
        (ENGINE_SCHEMA, [n for v in active for n in functions.engine_names(f"{name}_v{v.number}")]),
    ]


def _grantees(connection: Connection, models_schema: str, name: str, of: Sequence[Version]) -> list[str]:
    """Return the roles that may score the model: PostgreSQL's own grants are the only record of it."""
    found = {
        role
        for in_schema, names in _granted_names(models_schema, name, of)
        for role in functions.grantees(connection, in_schema, names)
    }
    return sorted(found)
