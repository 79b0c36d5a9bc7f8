"""Every error dbscore raises: one tree, a SQLSTATE of class ML for each, and what to do next."""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "ArtifactError",
    "CompilationError",
    "ConversionError",
    "DbscoreError",
    "ExperimentError",
    "FeatureError",
    "InUseError",
    "JobError",
    "NameRefusedError",
    "NotFoundError",
    "ParityError",
    "PrivilegeError",
    "SchemaError",
    "ServerError",
    "UntrustedSourceError",
]


class DbscoreError(Exception):
    """Something dbscore refuses to do, said so that the reader can act on it.

    Args:
        message: What was wrong, with the offending value.
        remedy: What to do next; shown on a line of its own, and as HINT when raised in SQL.
    """

    sqlstate: ClassVar[str] = "ML000"

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message}\n{self.remedy}" if self.remedy else self.message


class NotFoundError(DbscoreError):
    """There is no such model, version or alias; the message names those there are."""

    sqlstate = "ML001"


class FeatureError(DbscoreError):
    """A feature is missing, unknown, of the wrong type, or has a value the model cannot take."""

    sqlstate = "ML002"


class NameRefusedError(DbscoreError):
    """A name is no identifier, too long, reserved, or taken by something else."""

    sqlstate = "ML003"


class ConversionError(DbscoreError):
    """The estimator cannot be converted to ONNX."""

    sqlstate = "ML004"


class ArtifactError(DbscoreError):
    """The bytes are no ONNX model that dbscore accepts, or are not those that were stored."""

    sqlstate = "ML005"


class ParityError(DbscoreError):
    """The converted model disagrees with the native one, so the deployment is refused."""

    sqlstate = "ML006"


class InUseError(DbscoreError):
    """Something still depends on what was to be dropped, retired or replaced."""

    sqlstate = "ML007"


class SchemaError(DbscoreError):
    """The dbscore schema is absent, newer than this package, or cannot be put there."""

    sqlstate = "ML008"


class ServerError(DbscoreError):
    """The PostgreSQL server lacks something: PL/Python, onnxruntime, its own binaries, or it is not reachable."""

    sqlstate = "ML009"


class PrivilegeError(DbscoreError):
    """The role may not do this; the remedy says what its superuser or owner must run."""

    sqlstate = "ML010"


class UntrustedSourceError(DbscoreError):
    """Loading this file would execute code from it, and nobody said that it is trusted."""

    sqlstate = "ML011"


class JobError(DbscoreError):
    """A job cannot be made, went wrong, or was cancelled; the message says what is kept and how to go on."""

    sqlstate = "ML012"


class CompilationError(DbscoreError):
    """The model cannot be written as a SQL expression; the message names the operator and why."""

    sqlstate = "ML013"


class ExperimentError(DbscoreError):
    """An experiment cannot be made, moved on or recorded so; the message says what stands in the way."""

    sqlstate = "ML014"
