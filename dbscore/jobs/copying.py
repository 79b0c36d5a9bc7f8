"""Chunks that the worker writes by COPY: scored in its own process, or by a server that is near.

The chunk is read, scored and written in one transaction on one connection, so it promises what the server's scoring
promises. COPY logs a page's rows at once where INSERT logs each, so a server's answers that need not travel far are
written by it too. The rows come packed (sql/043_client.sql) and go back by COPY, both in binary form: keys pass through
as they are, numbers with every bit.
"""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import numpy as np
import psycopg

from dbscore.errors import ArtifactError, NotFoundError
from dbscore.jobs import binary
from dbscore.jobs.connection import is_lost, is_passing
from dbscore.jobs.records import ChunkResult, Job
from dbscore.jobs.target import Key, Target
from dbscore.runtime.answers import DTYPES, Answer
from dbscore.runtime.batch import NULL_BITS, Batch
from dbscore.runtime.model import Model
from dbscore.runtime.row import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = ["CopyScorer"]

# what is no fault of the chunk: a statement cancelled, a server that is a standby now
NOT_ITS_FAULT = ("57014", "25006")
# how many rows with errors a message names
NAMED_ERRORS = 5
REASON_CHARACTERS = 500

_PLAN = """
select j.key_types, array(select dbscore.has_binary_form(t) from pg_catalog.unnest(j.key_types) with ordinality as types (t, i) order by i),
       dbscore.written_table(j), dbscore.conflict_clause(j, case when s.signature @> '{"outputs": [{"kind": "probabilities"}]}' then 'probabilities' else '' end),
       v.sha256, s.signature::text, pg_catalog.set_config('search_path', j.search_path, false),
       -- a chunk is over before its expressions would be compiled
       pg_catalog.set_config('jit', 'off', false)
from dbscore.own_job(%s) as j
join dbscore.versions v on v.model = j.model and v.version = j.version
cross join lateral dbscore.version_signature(j.model, j.version) as s (signature)
"""  # noqa: E501
_WHOLE = "select c::text from dbscore.chunk c where c.job_id = %s and c.number = %s"
_PARTS = "select part::text, statement from dbscore.client_parts(%s::integer, %s::dbscore.chunk)"
_SET_ASIDE = "select dbscore.set_aside(dbscore.own_job(%s::integer), %s::dbscore.chunk, %s)"
_FAIL = "select dbscore.fail_chunk(%s::integer, %s::integer, %s, %s)"
_ERRORS = "update dbscore.chunk set errors = %s where job_id = %s and number = %s"

# loaded once in a process, however many workers use them; gone when none does
_models: WeakValueDictionary[tuple[str, str], Model] = WeakValueDictionary()
_loading = threading.Lock()


@dataclass(frozen=True, slots=True)
class _Tally:
    """What came of rows.

    Attributes:
        rows: Those with a prediction.
        errors: Those that the model cannot take.
        counted: Those that could not be read; the database has counted them.
        named: The first of `errors`, and why.
    """

    rows: int = 0
    errors: int = 0
    counted: int = 0
    named: tuple[str, ...] = ()

    def __add__(self, other: _Tally) -> _Tally:
        return _Tally(
            self.rows + other.rows,
            self.errors + other.errors,
            self.counted + other.counted,
            (self.named + other.named)[:NAMED_ERRORS],
        )


class _JobCancelledError(Exception):
    """Somebody cancelled the job while its rows were being scored."""


class CopyScorer:
    """Rows come from the server to this process, where the model runs, or their predictions do; COPY writes them.

    Args:
        connection: In autocommit, and attached to the job by `dbscore.start_job`; its search_path becomes the job's.
        job: What is scored.

    Raises:
        PrivilegeError: The role may not read the model's bytes.
        ArtifactError: The stored bytes are not those that were deployed.
    """

    def __init__(self, connection: psycopg.Connection[Any], job: Job) -> None:
        self._connection = connection
        self._job = job
        # the chunk that is being scored
        self._chunk: int | None = None
        row = connection.execute(_PLAN, [job.job_id]).fetchone()
        if row is None:
            raise NotFoundError(f"the version {job.reference} is not there any more")
        types, binary_forms, table, conflict, sha256, text, *_ = row
        signature = json.loads(text)
        outputs = {o["kind"]: o["type"] for o in signature["outputs"]}
        keys = [Key(n, t, is_binary=b) for n, t, b in zip(job.key, types, binary_forms, strict=True)]
        results = {"prediction": outputs["prediction"]}
        if "probabilities" in outputs:
            results["probabilities"] = "double precision[]"
        self._outputs = outputs
        self._batch = Batch(f"{job.model}_v{job.version}", signature)
        # None: the server scores, and its answers are read instead of the rows
        self._model = _model(connection, sha256, text) if job.runs_on == "client" else None
        self._keys = keys
        numbers = {"version": "integer", "job_id": "integer"}
        self._results = Target(connection, table, keys, results | numbers, conflict=conflict, name="dbscore_results")
        self._errors: Target | None = None
        if job.errors_table is not None:
            reasons = {"reason": "text"} | numbers
            self._errors = Target(connection, job.errors_table, keys, reasons, conflict="", name="dbscore_errors")

    @property
    def is_direct(self) -> bool:
        """Whether COPY writes into the result table itself."""
        return self._results.is_direct

    def next(self) -> ChunkResult | None:
        """Claim, score and write a planned chunk, in one transaction; a failure is recorded in another.

        Raises:
            psycopg.Error: As `ChunkScorer.next`.
        """
        self._chunk = None
        try:
            with self._connection.transaction():
                return self._claimed()
        except _JobCancelledError:
            return None
        except psycopg.Error as error:
            blameless = is_lost(error, self._connection) or is_passing(error) or error.sqlstate in NOT_ITS_FAULT
            if self._chunk is None or blameless:
                raise
            said = [error.diag.message_primary or str(error).strip(), error.diag.message_hint]
            sqlstate, message = error.sqlstate or "XX000", "\n".join(text for text in said if text)
        except Refusal as refusal:
            sqlstate, message = "ML002", f"{refusal.message}\n{refusal.hint}"
        except MemoryError:
            sqlstate, message = "53200", "the worker is out of memory\nScore again with fewer chunk_rows."
        self._connection.execute(_FAIL, [self._job.job_id, self._chunk, sqlstate, message])
        return ChunkResult(chunk=self._chunk or 0, rows=0, errors=0, failure=message)

    def _claimed(self) -> ChunkResult | None:
        """Claim a chunk and score it, within a transaction."""
        chunk, statement = self._one("select chunk, statement from dbscore.claim_chunk(%s::integer)")
        if chunk is None:
            return None
        if statement is None:
            # it is marked already, with what went wrong before a row was read
            why = self._one("select error from dbscore.chunk where job_id = %s and number = %s", chunk)[0]
            return ChunkResult(chunk=chunk, rows=0, errors=0, failure=why)
        self._chunk = chunk
        return self._score(chunk, statement)

    def _one(self, statement: str, *more: object) -> tuple[Any, ...]:
        row: tuple[Any, ...] | None = self._connection.execute(statement.encode(), [self._job.job_id, *more]).fetchone()
        return (None, None) if row is None else row

    def _score(self, chunk: int, statement: str) -> ChunkResult:
        total = self._piece(statement, lambda: self._one(_WHOLE, chunk)[0])
        self._connection.execute(
            "select dbscore.finish_chunk(%s::integer, %s::integer, %s::bigint, %s::bigint, %s)",
            [self._job.job_id, chunk, total.rows, total.errors, "; ".join(total.named) or None],
        )
        errors = total.errors + total.counted
        if total.counted:
            self._connection.execute(_ERRORS, [errors, self._job.job_id, chunk])
        return ChunkResult(chunk=chunk, rows=total.rows, errors=errors)

    def _piece(self, statement: str, piece: Callable[[], str], *, whole: bool = True) -> _Tally:
        """Score a piece of the source; where its rows cannot even be read, the halves of it, down to the row.

        Args:
            statement: What packs its rows.
            piece: Returns it, as the database writes it.
            whole: Whether it is a whole chunk.
        """
        try:
            with self._connection.transaction():
                return self._rows(statement, last=whole)
        except (psycopg.DataError, psycopg.errors.ProgramLimitExceeded) as error:
            reason = (error.diag.message_primary or str(error))[:REASON_CHARACTERS]
        text = piece()
        parts = self._connection.execute(_PARTS, [self._job.job_id, text]).fetchall()
        if not parts:
            self._connection.execute(_SET_ASIDE, [self._job.job_id, text, reason])
            return _Tally(counted=1)
        total = _Tally()
        for part, its_statement in parts:
            total += self._piece(its_statement, partial(str, part), whole=False)
            if total.errors > self._job.max_errors:
                break
        return total

    def _rows(self, statement: str, *, last: bool) -> _Tally:
        """Read, score and write rows, some thousand at a time."""
        total = _Tally()
        for packed in self._packed(statement):
            count = packed["n"]
            answer = self._answer(packed, count)
            keys = [binary.elements(packed[f"k{i}"], count) for i in range(1, len(self._keys) + 1)]
            wrong = np.zeros(count, bool)
            wrong[list(answer.errors)] = True
            if answer.errors:
                named = self._described(keys, answer.errors, NAMED_ERRORS - len(total.named))
                total += _Tally(errors=len(answer.errors), named=named)
                if total.errors > self._job.max_errors:
                    # to finish the chunk raises, and names them
                    return total
                self._quarantine(keys, answer.errors, wrong)
            self._write(keys, answer, wrong)
            total += _Tally(rows=count - len(answer.errors))
        for target in (self._results, self._errors):
            if target is not None:
                target.flush(last=last)
        return total

    def _packed(self, statement: str) -> Iterator[dict[str, Any]]:
        """Yield the chunk's rows, packed by the thousand, all of one snapshot."""
        declare = b"declare dbscore_chunk no scroll cursor for "
        self._connection.execute(declare + statement.encode(), prepare=False)
        fetch = "fetch forward 1 from dbscore_chunk"
        while row := (cursor := self._connection.execute(fetch, binary=True, prepare=False)).fetchone():
            packed = {column.name: value for column, value in zip(cursor.description or (), row, strict=True)}
            # an aggregate has a row also where there is none
            if packed["n"]:
                yield packed
        self._connection.execute("close dbscore_chunk")

    def _answer(self, packed: dict[str, Any], count: int) -> Answer:
        batch = self._batch
        if self._model is None:
            return answered(packed, count, self._outputs["prediction"])
        texts = packed["texts"] or []
        numbers = self._numbers(packed) if batch.width else None
        integers = binary.matrix(packed["integers"], "int64", 2 * len(batch.integers)) if batch.integers else None
        words = [texts[i * count : (i + 1) * count] for i in range(len(batch.texts))]
        # a double out of a float32's range is an infinity there, without a word
        with np.errstate(all="ignore"):
            return batch.score(self._model, numbers, integers, words, tick=self._tick)

    def _numbers(self, packed: dict[str, Any]) -> np.ndarray[Any, Any]:
        """Return the numbers as Batch has them: those of an array feature stand in front of its shape."""
        batch = self._batch
        scalars = binary.matrix(packed["numbers"], batch.dtype, len(batch.starts))
        if len(batch.starts) == batch.width:
            return scalars
        numbers = np.empty((len(scalars), batch.width), batch.dtype)
        arrays = 0
        for place, (index, start) in enumerate(batch.starts.items()):
            feature = batch.features[index]
            end = start
            if feature["type"].endswith("[]"):
                arrays += 1
                end = start + feature["width"]
                bits = NULL_BITS[numbers.itemsize]
                numbers[:, start:end] = binary.array_rows(
                    packed[f"a{arrays}"], batch.dtype, feature["width"], null_bits=bits
                )
            numbers[:, end] = scalars[:, place]
        return numbers

    def _tick(self) -> None:
        """Look whether the job was cancelled: no statement is running that could be."""
        if self._one("select status from dbscore.job where job_id = %s")[0] == "cancelled":
            raise _JobCancelledError

    # --- writing ---

    def _write(self, keys: list[binary.Field], answer: Answer, wrong: np.ndarray[Any, Any]) -> None:
        columns = [*keys, binary.field(answer.predictions, answer.nulls)]
        if answer.probabilities is not None:
            columns.append(binary.field(answer.probabilities, answer.nulls))
        if wrong.any():
            columns = [binary.without(column, wrong) for column in columns]
        self._send(self._results, columns)

    def _quarantine(self, keys: list[binary.Field], errors: dict[int, str], wrong: np.ndarray[Any, Any]) -> None:
        if self._errors is not None:
            reasons = binary.texts(errors[row] for row in sorted(errors))
            self._send(self._errors, [*(binary.without(key, ~wrong) for key in keys), reasons])

    def _send(self, target: Target, columns: list[binary.Field]) -> None:
        rows = len(columns[0])
        numbers = [binary.field(np.full(rows, n, np.int32)) for n in (self._job.version, self._job.job_id)]
        target.copy([*columns, *numbers], rows)

    def _described(self, keys: list[binary.Field], errors: dict[int, str], most: int) -> tuple[str, ...]:
        """Say of some rows which they are and why they cannot be scored, as the server says it."""
        names = ", ".join(self._job.key)
        said = []
        for row in sorted(errors)[: max(most, 0)]:
            values = [bytes(key[row])[4:] for key in keys]
            said.append(f"{names} = {self._results.shown(values)}: {errors[row]}")
        return tuple(said)


def answered(packed: Mapping[str, Any], count: int, sql_type: str) -> Answer:
    """Return what the server's engine answered to a frame: raw numbers, in its byte order.

    Args:
        packed: The columns of the version's frame function.
        count: How many rows were scored.
        sql_type: The prediction's type.
    """
    labels = packed["labels"]
    dtype = np.dtype(np.int32) if labels is not None else np.dtype(DTYPES[sql_type.removesuffix("[]")])
    predictions = np.frombuffer(packed["predictions"], dtype.newbyteorder("<"))
    if labels is not None:
        predictions = np.array(labels, object)[predictions - 1]
    if sql_type.endswith("[]"):
        predictions = predictions.reshape(count, -1)
    probabilities = packed["probabilities"]
    nulls = packed["nulls"]
    return Answer(
        predictions,
        None if probabilities is None else np.frombuffer(probabilities, "<f8").reshape(count, -1),
        np.zeros(count, bool) if nulls is None else np.frombuffer(nulls, np.uint8).astype(bool),
        {error["row"] - 1: error["reason"] for error in packed["errors"] or ()},
    )


def _model(connection: psycopg.Connection[Any], sha256: str, signature: str) -> Model:
    """Return the loaded model, from the registry where this process does not have it."""
    key = (sha256, signature)
    with _loading:
        found = _models.get(key)
        if found is None:
            content = _stored(connection, sha256)
            digest = hashlib.sha256(content).hexdigest()
            if digest != sha256:
                raise ArtifactError(
                    f"the bytes stored for model {sha256} have the hash {digest}",
                    remedy="The table dbscore.artifact was altered: restore it from a backup, or deploy it again.",
                )
            found = _models[key] = Model(content, json.loads(signature))
    return found


def _stored(connection: psycopg.Connection[Any], sha256: str) -> bytes:
    try:
        row = connection.execute(
            "select bytes from dbscore.artifact where sha256 = %s", [sha256], binary=True
        ).fetchone()
    except psycopg.errors.InsufficientPrivilege as error:
        from dbscore.jobs.scoring import outsider

        raise outsider() from error
    if row is None:
        raise NotFoundError(f"there is no artifact {sha256}")
    return bytes(row[0])
