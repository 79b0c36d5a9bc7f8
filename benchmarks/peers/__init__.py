"""The alternatives: what else one would do with the same table, the same model and the same server."""

from __future__ import annotations

from benchmarks.peers import adbc, orbital_sql, plpython, psycopg_rows

__all__ = ["ALTERNATIVES"]

# by the name of the first arm: each yields its arms for a case, and raises CannotError where it cannot score the model
ALTERNATIVES = {
    adbc.WHOLE: adbc.arms,
    psycopg_rows.TEXT: psycopg_rows.arms,
    plpython.ROW: plpython.arms,
    orbital_sql.SQL: orbital_sql.arms,
}
