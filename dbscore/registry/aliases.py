"""Moving aliases: promote, roll back, remove."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import delete, insert

from dbscore import functions, schema, tables
from dbscore.database import run
from dbscore.errors import InUseError, NotFoundError
from dbscore.registry.lookup import CHAMPION, find, history, model_id, versions
from dbscore.registry.naming import alias_functions, refuse_alias, refuse_collision
from dbscore.registry.publishing import republish_version

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from dbscore.registry.records import Version

__all__ = ["promote", "remove_alias", "rollback"]


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
    model_id(connection, name, lock=True)
    find(connection, f"{name}@{alias}")
    alive = {v.number for v in versions(connection, name) if v.status == "active"}
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
    refuse_alias(alias)
    model_id(connection, name, lock=True)
    version = find(connection, f"{name}:{number}")
    if version.status != "active":
        raise InUseError(f"{version.reference} is retired", remedy="Promote an active version, or deploy it again.")
    existing = versions(connection, name)
    before = next((v.number for v in existing if alias in v.aliases), None)
    if before == number:
        return version
    own = alias_functions(schema.models_schema(connection), version, alias)
    refuse_collision(connection, name, existing, own.names())
    republish_version(connection, version)
    run(connection, "select dbscore.move_alias(%s, %s, %s, %s, %s)", [name, number, alias, action, reason])
    return find(connection, version.reference)


def remove_alias(connection: Connection, name: str, alias: str, *, reason: str = "") -> None:
    """Remove an alias and its functions; the version stays.

    Raises:
        NotFoundError: There is no such model or alias.
        InUseError: A view or another function uses its functions.
    """
    schema.become_owner(connection)
    key = model_id(connection, name, lock=True)
    version = find(connection, f"{name}@{alias}")
    own = alias_functions(schema.models_schema(connection), version, alias)
    functions.drop(connection, own.schema, own.names())
    connection.execute(delete(tables.alias).where(tables.alias.c.model_id == key, tables.alias.c.name == alias))
    connection.execute(
        insert(tables.alias_history).values(
            model=name, alias=alias, action="remove", from_number=version.number, reason=reason
        )
    )
