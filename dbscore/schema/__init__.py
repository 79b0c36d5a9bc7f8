"""The schema in the database: install, upgrade, status, uninstall, print the SQL."""

from __future__ import annotations

from dbscore.schema.installation import (
    become_owner,
    functions_are_current,
    functions_were_made,
    has_engine,
    install,
    install_for_owner,
    models_schema,
    refuse_superuser,
    take_turns,
    uninstall,
)
from dbscore.schema.source import COMPILED_SCHEMA, ENGINE_SCHEMA, printed_sql
from dbscore.schema.status import Status, python_problem, server_python, status

__all__ = [
    "COMPILED_SCHEMA",
    "ENGINE_SCHEMA",
    "Status",
    "become_owner",
    "functions_are_current",
    "functions_were_made",
    "has_engine",
    "install",
    "install_for_owner",
    "models_schema",
    "printed_sql",
    "python_problem",
    "refuse_superuser",
    "server_python",
    "status",
    "take_turns",
    "uninstall",
]
