"""The names that models, aliases and their functions may have."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from dbscore import functions, schema
from dbscore.errors import NameRefusedError
from dbscore.functions import FunctionSet
from dbscore.registry.lookup import CHAMPION

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from dbscore.registry.records import Version

__all__ = [
    "alias_functions",
    "function_sets",
    "refuse_alias",
    "refuse_collision",
    "refuse_name",
    "version_function",
    "version_functions",
]

MODEL_NAME_CHARACTERS = 48
_IDENTIFIER = re.compile(r"[a-z_][a-z0-9_]*")


def refuse_name(name: str) -> None:
    """Raise NameRefusedError where a model cannot have this name."""
    if not _IDENTIFIER.fullmatch(name):
        raise NameRefusedError(
            f"{name!r} is not a name for a model",
            remedy="Use lower-case letters, digits and _, not beginning with a digit: it becomes a function's name.",
        )
    if len(name) > MODEL_NAME_CHARACTERS:
        raise NameRefusedError(
            f"the model name {name!r} has {len(name)} characters",
            remedy=f"Use at most {MODEL_NAME_CHARACTERS}.",
        )
    if re.search(r"_v[0-9]+$", name):
        raise NameRefusedError(
            f"the model name {name!r} ends like a version's function",
            remedy="Choose a name without _v and a number.",
        )


def refuse_alias(alias: str) -> None:
    """Raise NameRefusedError where an alias cannot have this name."""
    reserved = {suffix.removeprefix("_") for suffix in functions.SUFFIXES}
    if not _IDENTIFIER.fullmatch(alias) or re.fullmatch(r"v[0-9]+", alias) or alias in reserved:
        raise NameRefusedError(
            f"{alias!r} is not a name for an alias",
            remedy="Use lower-case letters, digits and _; not v and a number, proba, score, batch or explain.",
        )


def refuse_collision(connection: Connection, name: str, existing: Sequence[Version], names: Sequence[str]) -> None:
    """Refuse names that functions of others have already."""
    models_schema = schema.models_schema(connection)
    ours = {n for v in existing for f in function_sets(models_schema, v) for n in f.names()}
    taken = sorted(set(names) & (functions.existing_names(connection, models_schema) - ours))
    if taken:
        raise NameRefusedError(
            f"{name}: the function {models_schema}.{taken[0]} is there already, and is not this model's",
            remedy="Choose another name for the model or the alias, or drop that function.",
        )


def version_functions(models_schema: str, version: Version) -> FunctionSet:
    """Return a version's own functions."""
    return FunctionSet(schema=models_schema, name=version_function(version), signature=version.signature)


def alias_functions(models_schema: str, version: Version, alias: str) -> FunctionSet:
    """Return the functions of an alias that stands, or shall stand, for a version."""
    name = version.model if alias == CHAMPION else f"{version.model}_{alias}"
    return FunctionSet(schema=models_schema, name=name, signature=version.signature)


def function_sets(models_schema: str, version: Version) -> list[FunctionSet]:
    """Return the functions of a version and of the aliases that stand for it."""
    aliases = [alias_functions(models_schema, version, alias) for alias in version.aliases]
    return [version_functions(models_schema, version), *aliases]


def version_function(version: Version) -> str:
    """Return the name of a version's function: `tip_v3`."""
    return f"{version.model}_v{version.number}"
