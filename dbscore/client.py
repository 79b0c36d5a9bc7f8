"""Client: the Python face of dbscore, composing the parts."""

from __future__ import annotations

import json
import math
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from dbscore import functions, jobs, registry, schema
from dbscore.database import connect, run, scalar, transaction
from dbscore.errors import CompilationError, DbscoreError, FeatureError, PrivilegeError, ServerError
from dbscore.experiments import Experiments
from dbscore.settings import Settings
from dbscore.signature import SqlType

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import TracebackType

    import numpy as np
    import pandas as pd
    from sqlalchemy import Connection

    from dbscore.convert import Conversion, Tolerance
    from dbscore.functions import RowType
    from dbscore.jobs import Job, JobOptions, Progress
    from dbscore.registry import AliasMove, Model, Specialisation, Version
    from dbscore.schema import Status

__all__ = ["Client"]

SAMPLE_ROWS = 2_000


class Client:
    """One database with dbscore in it. Each method is one transaction: done, or not there; but for jobs.

    Args:
        url: The database, as a libpq or SQLAlchemy URL; by default `DBSCORE_URL`.
        settings: Defaults and the environment's say.

    Raises:
        ServerError: There is no URL, or it is not PostgreSQL's.
    """

    def __init__(self, url: str | None = None, *, settings: Settings | None = None) -> None:
        self.settings = settings or Settings.from_environment()
        target = url or self.settings.url
        if not target:
            raise ServerError(
                "no database was named",
                remedy="Set DBSCORE_URL or pass --url; `dbscore server start` prints the URL of a private server.",
            )
        self._engine = connect(target)

    def __enter__(self) -> Self:
        """Return the client."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close its connections."""
        self.close()

    def close(self) -> None:
        """Close the client's connections."""
        self._engine.dispose()

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        with transaction(self._engine) as connection:
            schema.refuse_superuser(connection)
            yield connection

    @property
    def experiments(self) -> Experiments:
        """The experiments of this database."""
        return Experiments(self._transaction)

    # --- the schema ---

    def install(self, *, models_schema: str | None = None) -> Status:
        """Create the schema, or bring it to this package's version, functions included.

        Raises:
            SchemaError: The server is too old, the schema newer than this package, or a schema's name is taken.
            PrivilegeError: A superuser must run something first, or the owner must run the rest; the remedy says what.
        """
        with transaction(self._engine) as connection:
            owner = schema.install_for_owner(connection)
        if owner is not None:
            raise PrivilegeError(
                f"what only a superuser may create is up to date; the rest belongs to {owner!r}, who is no superuser",
                remedy=f"Run `dbscore install` as {owner}.",
            )
        with transaction(self._engine) as connection:
            schema.install(connection, schema_for_models=models_schema)
            if not schema.functions_are_current(connection):
                registry.refresh(connection)
                schema.functions_were_made(connection)
        return self.status()

    def upgrade(self) -> Status:
        """Bring an installed schema to this package's version.

        Raises:
            SchemaError: dbscore is not installed, or is newer than this package.
        """
        with self._transaction() as connection:
            schema.models_schema(connection)
        return self.install()

    def uninstall(self, *, cascade: bool = False) -> None:
        """Drop the schemas with every model in them.

        Raises:
            InUseError: A view, table or function outside uses a model, and `cascade` is False.
        """
        with self._transaction() as connection:
            schema.uninstall(connection, cascade=cascade)

    def status(self) -> Status:
        """Say what is installed, what the server can compute, and what stands in the way."""
        with self._transaction() as connection:
            return schema.status(connection)

    # --- models ---

    def deploy(  # noqa: PLR0913 - what a deployment may say
        self,
        name: str,
        source: object,
        *,
        sample: pd.DataFrame | np.ndarray | None = None,
        table: str | Sequence[str] = (),
        alias: str | None = None,
        metrics: Mapping[str, float] | None = None,
        description: str | None = None,
        null_policy: Mapping[str, str] | str | None = None,
        embedding: str | None = None,
        tolerance: Tolerance | None = None,
        trust_pickle: bool = False,
        trusted_types: Sequence[str] = (),
        accept_mismatch: str | None = None,
        engine: registry.Engine = "auto",
    ) -> Version:
        """Convert a model, compare it with the native one, store it and make its SQL functions.

        Args:
            name: The model's name, which becomes its functions': a lower-case identifier of at most 48 characters.
            source: A fitted scikit-learn estimator or Pipeline; ONNX bytes; or a path to an .onnx, .skops or pickle
                file.
            sample: Rows as the estimator was fitted on, shape (n, features); by default rows of the first `table`.
            table: Tables or views whose rows the functions shall take: `models.tip(t)`.
            alias: An alias to move to the new version; the first version becomes the champion by itself.
            metrics: Numbers to keep with the version.
            description: What the model is.
            null_policy: `nan` or `null`, for all features or by name, where the probed one is not wanted.
            embedding: A name for all columns of the sample together, as one array feature.
            tolerance: How far numbers may be from the native ones.
            trust_pickle: Load a pickle or joblib file, which executes code from it.
            trusted_types: Types that a .skops file may hold besides skops' own.
            accept_mismatch: Why a version that the parity gate refuses is deployed all the same.
            engine: What computes it: `onnx` (ONNX Runtime in the server), `sql` (compiled to SQL), or `auto`: both are
                measured in the database, and the faster is taken, for single rows and for batches.

        Returns:
            The version; an earlier one, where it has the same bytes and signature.

        Raises:
            ConversionError: The estimator cannot be converted.
            CompilationError: Engine `sql` is asked for, and the model cannot be compiled.
            ArtifactError: The ONNX model is refused.
            FeatureError: The features, the sample and the table do not fit each other.
            NameRefusedError: The name, or a function's name, is refused.
            ParityError: The converted model disagrees with the native one.
            ServerError: The server cannot run it.
        """
        from dbscore.convert import convert

        names = [table] if isinstance(table, str) else list(table)
        numbers = {key: _finite(key, value) for key, value in (metrics or {}).items()}
        with self._transaction() as connection:
            schema.models_schema(connection)
            row_types = [functions.row_type(connection, t) for t in names]
            if sample is None and row_types:
                sample = _sampled(connection, row_types[0])
        conversion = convert(
            source,
            sample=sample,
            columns=_columns(row_types[0]) if row_types else None,
            null_policy=null_policy,
            embedding=embedding,
            tolerance=tolerance,
            trust_pickle=trust_pickle,
            trusted_types=trusted_types,
            max_bytes=self.settings.max_model_bytes,
        )
        compiled = registry.Compiled(program=None) if engine == "onnx" else _compiled(conversion)
        explained = _explained(conversion)
        try:
            with self._transaction() as connection:
                return registry.deploy(
                    connection,
                    name,
                    registry.Deployment(
                        conversion=conversion,
                        compiled=compiled,
                        explained=explained,
                        engine=engine,
                        alias=alias,
                        row_types=row_types,
                        metrics=numbers,
                        description=description,
                        accept_mismatch=accept_mismatch,
                    ),
                )
        except DbscoreError:
            with suppress(DbscoreError), self._transaction() as connection:
                registry.forget_unused(connection, conversion.onnx)
            raise

    def models(self) -> list[Model]:
        """Return all models, by name."""
        with self._transaction() as connection:
            return registry.models(connection)

    def versions(self, name: str | None = None) -> list[Version]:
        """Return the versions of one model, or of all.

        Raises:
            NotFoundError: There is no such model.
        """
        with self._transaction() as connection:
            return registry.versions(connection, name)

    def show(self, reference: str) -> Version:
        """Return one version: `churn`, `churn@challenger` or `churn:3`.

        Raises:
            NotFoundError: There is none; the message names those there are.
        """
        with self._transaction() as connection:
            return registry.find(connection, reference)

    def history(self, name: str) -> list[AliasMove]:
        """Return who moved which alias of a model, oldest first; also of a model that was dropped."""
        with self._transaction() as connection:
            return registry.history(connection, name)

    def export(self, reference: str, path: Path | str | None = None) -> bytes:
        """Return a version's ONNX bytes, as they were stored; with `path`, write them there too."""
        with self._transaction() as connection:
            content = registry.artifact(connection, registry.find(connection, reference).sha256)
        if path is not None:
            Path(path).write_bytes(content)
        return content

    def promote(self, reference: str, *, alias: str = registry.CHAMPION, reason: str = "") -> Version:
        """Point an alias to the version that a reference means.

        Raises:
            NotFoundError: There is no such version.
            InUseError: It is retired, or a view uses a function that it does not have.
        """
        with self._transaction() as connection:
            version = registry.find(connection, reference)
            return registry.promote(connection, version.model, version.number, alias=alias, reason=reason)

    def rollback(self, name: str, *, alias: str = registry.CHAMPION, reason: str = "") -> Version:
        """Point an alias back to where it stood before its last promotion.

        Raises:
            NotFoundError: There is nothing to go back to.
        """
        with self._transaction() as connection:
            return registry.rollback(connection, name, alias=alias, reason=reason)

    def unalias(self, name: str, alias: str, *, reason: str = "") -> None:
        """Remove an alias and its functions; the version stays."""
        with self._transaction() as connection:
            registry.remove_alias(connection, name, alias, reason=reason)

    def retire(self, reference: str) -> Version:
        """Take a version out of use: its functions go, its row and bytes stay.

        Raises:
            InUseError: An alias stands for it, or a view or a generated column uses it.
        """
        with self._transaction() as connection:
            return registry.retire(connection, reference)

    def drop(self, reference: str, *, with_aliases: bool = False) -> list[Version]:
        """Drop a version (`churn:3`) or a whole model (`churn`).

        Raises:
            InUseError: An alias stands for it and `with_aliases` is False, or a view uses it.
        """
        with self._transaction() as connection:
            return registry.drop(connection, reference, with_aliases=with_aliases)

    def grant(self, name: str, role: str) -> None:
        """Let a role score a model: every version and alias there is, and those to come."""
        with self._transaction() as connection:
            registry.grant(connection, name, role)

    def revoke(self, name: str, role: str) -> None:
        """Take from a role what `grant` gave for this model."""
        with self._transaction() as connection:
            registry.revoke(connection, name, role)

    def specialise(
        self,
        reference: str,
        *,
        where: str,
        table: str | None = None,
        view: str | None = None,
        replace: bool = False,
    ) -> Specialisation:
        """Create a view of the rows that fulfil a condition, with what is known there folded into the model.

        The view is the caller's, and of this version, whatever is promoted later. It is kept only where each of its
        rows is predicted as by the version's function.

        Args:
            reference: The version.
            where: The condition, as it stands after WHERE: `payment_type = 'CRD' and passenger_count between 1 and 2`.
            table: Whose rows; by default the only table that the model was deployed with.
            view: The view's name; by default of the model's name and the condition.
            replace: Replace a view that is there.

        Raises:
            NotFoundError: There is no such version.
            FeatureError: The table lacks a feature's column, the condition is none, or nothing can fulfil it.
            CompilationError: The model cannot be compiled.
            NameRefusedError: The view's name is no identifier.
            ParityError: In a row, the view answers otherwise than the version's function.
            PrivilegeError: The role may not change models, or may not create a view there.
        """
        with self._transaction() as connection:
            return registry.specialise(connection, reference, where=where, table=table, view=view, replace=replace)

    def predict(self, reference: str, features: Mapping[str, Any]) -> dict[str, Any]:
        """Score one row: model, version, prediction and, for classifiers, probabilities by class.

        Raises:
            NotFoundError: There is no such version.
            FeatureError: A feature is missing, unknown, of the wrong type, or has a value the model cannot take.
        """
        with self._transaction() as connection:
            try:
                row = json.dumps(dict(features), allow_nan=False, default=lambda value: value.item())
            except (AttributeError, TypeError, ValueError) as error:
                raise FeatureError(
                    f"the features {dict(features)!r} are no JSON: {error}",
                    remedy="Pass numbers, booleans, texts and None; a missing value is None, not NaN.",
                ) from error
            return dict(scalar(connection, "select dbscore.predict(%s, %s::jsonb)", [reference, row]))

    # --- jobs ---

    def score(
        self,
        reference: str,
        options: JobOptions,
        *,
        on_created: Callable[[Job], None] | None = None,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> Job:
        """Score a whole table in chunks, each one transaction, and return when it is done.

        Whatever dies on the way, the chunks that are done stay so, and `resume` goes on. Ctrl-C cancels the job.

        Args:
            reference: The version, whatever is promoted meanwhile.
            options: What is scored, and where the predictions go.
            on_created: Called once, with the job, before it begins.
            on_progress: Called at most five times a second.

        Raises:
            NotFoundError: There is no such version.
            JobError: The job is refused, failed or cancelled; the message says why, the remedy how to go on.
            ServerError: The server could not be reached for a minute.
        """
        with self._transaction() as connection:
            job = jobs.create(connection, reference, options)
        if on_created is not None:
            on_created(job)
        return jobs.run(self._engine, job, on_progress=on_progress)

    def jobs(self) -> list[Job]:
        """Return the role's jobs, oldest first; the owner of the schema sees all."""
        with self._transaction() as connection:
            return jobs.jobs(connection)

    def job(self, job_id: int) -> Job:
        """Return one job.

        Raises:
            NotFoundError: There is none of that number, or it is another role's.
        """
        with self._transaction() as connection:
            return jobs.show(connection, job_id)

    def resume(
        self, job_id: int, *, workers: int | None = None, on_progress: Callable[[Progress], None] | None = None
    ) -> Job:
        """Score what a job has not scored yet, wherever it stopped; return and raise as `score` does."""
        return jobs.run(self._engine, self.job(job_id), workers=workers, on_progress=on_progress)

    def retry(
        self, job_id: int, *, workers: int | None = None, on_progress: Callable[[Progress], None] | None = None
    ) -> Job:
        """Score the chunks that failed once more, and what is left; return and raise as `score` does."""
        with self._transaction() as connection:
            jobs.retry(connection, job_id)
        return self.resume(job_id, workers=workers, on_progress=on_progress)

    def cancel(self, job_id: int) -> Job:
        """Stop a job, whoever works on it; it can be resumed.

        Raises:
            JobError: It is done already.
        """
        self.job(job_id)
        jobs.cancel(self._engine, job_id)
        return self.job(job_id)


def _finite(name: str, value: float) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise DbscoreError(f"the metric {name} is {value!r}", remedy="Pass a finite number.")
    return number


_COLUMN_TYPES = {
    "boolean": SqlType.BOOLEAN,
    # an integer literal is no smallint, and would find no function
    "smallint": SqlType.INTEGER,
    "integer": SqlType.INTEGER,
    "bigint": SqlType.BIGINT,
    "real": SqlType.REAL,
    "double precision": SqlType.DOUBLE,
    "numeric": SqlType.DOUBLE,
    "text": SqlType.TEXT,
    "character varying": SqlType.TEXT,
    "character": SqlType.TEXT,
    "real[]": SqlType.REAL_ARRAY,
    "vector": SqlType.REAL_ARRAY,
    "double precision[]": SqlType.DOUBLE_ARRAY,
}


def _columns(table: RowType) -> dict[str, SqlType]:
    """Return the types of a table's columns that can be features."""
    return {c: _COLUMN_TYPES[t.split("(")[0]] for c, t in table.columns.items() if t.split("(")[0] in _COLUMN_TYPES}


def _sampled(connection: Connection, table: RowType) -> pd.DataFrame:
    """Return rows of a table, spread over it, as a frame: numbers as numpy's, NULL as NaN or None."""
    import pandas as pd
    from psycopg import sql

    columns = _columns(table)
    if not columns:
        raise FeatureError(f"{table.schema}.{table.name} has no column that could be a feature")
    chosen = sql.SQL(", ").join(
        sql.SQL("{}::{}").format(sql.Identifier(name), sql.SQL(kind)) for name, kind in columns.items()
    )
    # ordered by a hash of the row, so that the sample is spread and always the same
    statement = sql.SQL("select {} from {} as t order by hashtext((t.*)::text) limit {}").format(
        chosen, table.identifier, sql.Literal(SAMPLE_ROWS)
    )
    rows = run(connection, statement).fetchall()
    return pd.DataFrame(rows, columns=list(columns))


def _compiled(conversion: Conversion) -> registry.Compiled:
    """Return the model as SQL, or why it cannot be."""
    from dbscore.compiler import compile_model

    try:
        return registry.Compiled(program=compile_model(conversion.onnx, conversion.signature))
    except CompilationError as error:
        return registry.Compiled(program=None, refused=error.message)


def _explained(conversion: Conversion) -> registry.Explained:
    """Return how the model's predictions are explained, or why they are not."""
    from dbscore.compiler.explanation import explain_model

    try:
        return registry.Explained(explanation=explain_model(conversion.onnx, conversion.signature, conversion.sample))
    except CompilationError as error:
        return registry.Explained(refused=error.message)
