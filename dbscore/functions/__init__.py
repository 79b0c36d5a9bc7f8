"""The generated SQL functions: what `models` holds, for versions and for aliases.

A version's function is `models.tip_v3`: it casts its arguments, adds the pin and calls the PL/Python function that
`dbscore_engine.create_functions` made for it. An alias's function passes its arguments on to a version's. All are
`language sql` with a parsed body, which PostgreSQL inlines.
"""

from __future__ import annotations

from dbscore.functions.compiled import COMPILED_SCHEMA, compiled_names, create_compiled
from dbscore.functions.explanations import create_explanation
from dbscore.functions.forms import ENGINE_SCHEMA, MAX_ARGUMENTS, SUFFIXES, FunctionSet, refusal
from dbscore.functions.grants import grant, grant_usage, grantees, refuse_unknown_role, revoke
from dbscore.functions.publishing import (
    create_engine,
    create_wrappers,
    drop,
    engine_names,
    existing_names,
    forget,
)
from dbscore.functions.rows import RowType, row_type, row_type_of, row_types_taken

__all__ = [
    "COMPILED_SCHEMA",
    "ENGINE_SCHEMA",
    "MAX_ARGUMENTS",
    "SUFFIXES",
    "FunctionSet",
    "RowType",
    "compiled_names",
    "create_compiled",
    "create_engine",
    "create_explanation",
    "create_wrappers",
    "drop",
    "engine_names",
    "existing_names",
    "forget",
    "grant",
    "grant_usage",
    "grantees",
    "refusal",
    "refuse_unknown_role",
    "revoke",
    "row_type",
    "row_type_of",
    "row_types_taken",
]
