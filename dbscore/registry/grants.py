"""Who may score a model: PostgreSQL's own grants are the only record of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbscore import functions, schema
from dbscore.errors import ServerError
from dbscore.functions import COMPILED_SCHEMA, ENGINE_SCHEMA
from dbscore.registry.lookup import has_functions, model_id, versions
from dbscore.registry.naming import function_sets, version_function

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from dbscore.registry.records import Version

__all__ = ["grant", "grant_all", "grantees", "revoke"]


def grant(connection: Connection, name: str, role: str) -> None:
    """Let a role score a model: every version and alias there is, and those to come.

    Raises:
        NotFoundError: There is no such model or role.
        ServerError: The server has no PL/Python, so that there are no functions to grant.
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
    # two grants would write the same rows of the catalogue, whatever their models
    schema.take_turns(connection)
    model_id(connection, name, lock=True)
    functions.refuse_unknown_role(connection, role)
    active = [v for v in versions(connection, name) if v.status == "active"]
    if give and not any(has_functions(connection, v) for v in active):
        raise ServerError(
            f"{name} has no functions that {role} could be let execute: dbscore has no PL/Python here",
            remedy="Here only members of the schema's owner score, since the workers of `dbscore score` read the "
            "model's bytes. `dbscore status` says what the server lacks.",
        )
    change = functions.grant if give else functions.revoke
    for in_schema, names in _names(connection, versions(connection, name)):
        change(connection, in_schema, names, [role])
    if give:
        functions.grant_usage(connection, schema.models_schema(connection), role)


def grant_all(connection: Connection, version: Version, roles: Sequence[str]) -> None:
    """Let the roles execute a version's functions and those of its aliases."""
    for in_schema, names in _names(connection, [version]):
        functions.grant(connection, in_schema, names, roles)


def grantees(connection: Connection, name: str) -> list[str]:
    """Return the roles, the owner left out, that may score every version of a model; who may score one only may not."""
    found: set[str] | None = None
    for version in versions(connection, name):
        if version.status == "active":
            own = version_function(version)
            roles = set(functions.grantees(connection, ENGINE_SCHEMA, [own + "_pin"]))
            roles |= set(functions.grantees(connection, COMPILED_SCHEMA, [own + "_check"]))
            found = roles if found is None else found & roles
    return sorted(found or ())


def _names(connection: Connection, of: Sequence[Version]) -> list[tuple[str, list[str]]]:
    """Return the names of the versions' functions and their aliases', by schema."""
    active = [v for v in of if v.status == "active"]
    models_schema = schema.models_schema(connection)
    return [
        (models_schema, [n for v in active for f in function_sets(models_schema, v) for n in f.names()]),
        (ENGINE_SCHEMA, [n for v in active for n in functions.engine_names(version_function(v))]),
        (COMPILED_SCHEMA, [n for v in active for n in functions.compiled_names(version_function(v))]),
    ]
