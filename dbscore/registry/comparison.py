"""Comparing what a version's functions answer, by each engine, with the native model; and choosing its engines."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, get_args

import psycopg

from dbscore import functions, schema
from dbscore.errors import CompilationError, DbscoreError, ParityError
from dbscore.registry.engines import FEW_SPLITS, Choice, choose, measured, unmeasured
from dbscore.registry.naming import version_functions
from dbscore.registry.publishing import publish_engines
from dbscore.registry.verification import verify

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from dbscore.compiler.program import Program
    from dbscore.convert.conversion import Checks, Conversion, Parity
    from dbscore.registry.records import Version

__all__ = ["Compiled", "Engine", "compare"]

Engine = Literal["auto", "onnx", "sql"]
# no fault of the functions
_INTERRUPTED = (psycopg.errors.QueryCanceled, psycopg.errors.AdminShutdown, psycopg.errors.CrashShutdown)


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    """What came of compiling a model.

    Attributes:
        program: The model as SQL; None where it cannot be compiled.
        refused: Why not; None where it can.
    """

    program: Program | None
    refused: str | None = None

    def considered(self, name: str, engine: str) -> Compiled:
        """Return what of it is looked at where an engine is asked for.

        Raises:
            CompilationError: Engine `sql` is asked for, and the model cannot be compiled.
            DbscoreError: There is no such engine.
        """
        if engine not in get_args(Engine):
            raise DbscoreError(f"there is no engine {engine!r}", remedy="Say auto, onnx or sql.")
        if engine == "onnx":
            return Compiled(program=None, refused="engine onnx was asked for")
        if engine == "sql" and self.program is None:
            raise CompilationError(f"{name} cannot be compiled: {self.refused}", remedy="Say --engine onnx, or auto.")
        return self


@dataclass(frozen=True, slots=True)
class _Trial:
    """What came of trying an engine: the rows on which it disagrees, and what a row costs where that was measured."""

    wrong: Sequence[str]
    cost: dict[str, float] | None = None


def compare(
    connection: Connection,
    version: Version,
    conversion: Conversion,
    *,
    compiled: Compiled,
    engine: str,
    accept_mismatch: bool,
) -> tuple[Parity | None, Choice]:
    """Try a version with each engine that may compute it; nothing of the trial stays in the database.

    Args:
        connection: In a transaction.
        version: Stored, and without functions.
        conversion: What it is, with the native model's answers where there is one.
        compiled: What may compute it besides ONNX Runtime.
        engine: The one that is asked for, or `auto`.
        accept_mismatch: Whether functions that disagree are taken all the same.

    Returns:
        The comparison, that of the functions added to it; and the engines.

    Raises:
        ParityError: The functions disagree with the native model, and no other engine is left.
    """
    parity, checks, program = conversion.parity, conversion.checks, compiled.program
    possible = ["onnx"] if schema.has_engine(connection) and engine != "sql" else []
    possible += ["sql"] if program is not None else []
    if parity is None or checks is None:
        # a conversion has both or neither
        return parity, _chosen(compiled, engine, possible, {})
    costs = {}
    for one in possible:
        # compiled SQL must be as exact as ONNX Runtime, or is left out
        left_out = one == "sql" and engine == "auto" and (len(possible) > 1 or not accept_mismatch)
        try:
            trial = _try(connection, version, program, one, checks, parity, measure=len(possible) > 1)
        except psycopg.Error as error:
            if not left_out or error.sqlstate is None or isinstance(error, _INTERRUPTED):
                raise
            compiled = Compiled(program=None, refused=f"the compiled SQL fails: {error.diag.message_primary}")
            continue
        if trial.wrong and left_out:
            said = f"the compiled SQL disagrees with the native model on {len(trial.wrong)} rows: {trial.wrong[0]}"
            compiled = Compiled(program=None, refused=said)
            continue
        if trial.wrong and not accept_mismatch:
            raise _disagreement(version, one, trial.wrong, len(checks.rows))
        origin = "database" if one == "onnx" else "compiled"
        parity = replace(
            parity,
            rows={**parity.rows, origin: len(checks.rows)},
            mismatches={**parity.mismatches, origin: len(trial.wrong)},
        )
        if trial.cost is not None:
            costs[one] = trial.cost
    return parity, _chosen(compiled, engine, possible, costs)


def _try(
    connection: Connection,
    version: Version,
    program: Program | None,
    engine: str,
    checks: Checks,
    parity: Parity,
    *,
    measure: bool,
) -> _Trial:
    """Make a version's functions, compare and measure what they answer, and take them back."""
    own = version_functions(schema.models_schema(connection), version)
    trial = connection.begin_nested()
    try:
        if engine == "onnx":
            functions.create_engine(connection, own, sha256=version.sha256)
        elif program is not None:
            functions.create_compiled(connection, own, program)
        publish_engines(connection, version, program, tables=[], rows=engine, batches=engine)
        wrong = verify(connection, own, checks, parity.tolerance)
        return _Trial(wrong, measured(connection, own, checks) if measure and not wrong else None)
    finally:
        if not connection.invalidated:
            trial.rollback()


def _chosen(compiled: Compiled, engine: str, possible: Sequence[str], costs: dict[str, dict[str, float]]) -> Choice:
    """Return the engines, and why these."""
    if engine == "sql":
        return unmeasured("sql", "engine sql was asked for")
    if compiled.program is None:
        reason = "engine onnx was asked for" if engine == "onnx" else "only ONNX Runtime computes it"
        return unmeasured("onnx", reason, refused=compiled.refused)
    if len(possible) == 1:
        return unmeasured("sql", "the server has no PL/Python")
    if len(costs) < len(possible):
        count = compiled.program.splits
        few = count <= FEW_SPLITS
        said = f"{count} splits of trees are {'few' if few else 'many'}; without a sample, nothing was measured"
        return unmeasured("sql" if few else "onnx", said)
    return choose(costs)


def _disagreement(version: Version, engine: str, wrong: Sequence[str], rows: int) -> ParityError:
    """Return the refusal of functions that answer otherwise than the native model."""
    remedy = "Compare the server's onnxruntime with the client's (`dbscore status`)."
    return ParityError(
        f"{version.reference}: the functions in the database, engine {engine}, disagree with the native model on "
        f"{len(wrong)} of {rows} rows: {'; '.join(wrong[:5])}",
        remedy=remedy if engine == "onnx" else "Say --engine onnx, or auto.",
    )
