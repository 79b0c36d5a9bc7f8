"""What the registry tells of: models, versions, moves of aliases."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datetime import datetime

    from dbscore.signature import Signature

__all__ = ["AliasMove", "Model", "Version"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One version of a model, without its bytes.

    Attributes:
        model: The model's name.
        number: Its number, from 1.
        sha256: The artifact's hash.
        bytes: The artifact's size.
        signature: What it takes and gives.
        engine: What computes single rows: `onnx` or `sql`.
        batch_engine: What computes the rows of a table or a query.
        choice: Why these engines (`reason`), what was measured (`microseconds` a row, by engine), why it is not
            compiled (`refused`), and the features that no result depends on (`unused`).
        status: `active` or `retired`.
        aliases: The aliases that stand for it.
        provenance: Where the bytes came from.
        parity: How it compared with the native model; None where there was nothing to compare with.
        metrics: What its maker said of it.
        mismatch_accepted_by: Who deployed it although the parity gate refused it.
        mismatch_reason: Why.
        created_by: Who deployed it.
        created_at: When.
    """

    model: str
    number: int
    sha256: str
    bytes: int
    signature: Signature
    engine: str
    batch_engine: str
    choice: dict[str, Any] | None
    status: str
    aliases: tuple[str, ...]
    provenance: dict[str, Any]
    parity: dict[str, Any] | None
    metrics: dict[str, float]
    mismatch_accepted_by: str | None
    mismatch_reason: str | None
    created_by: str
    created_at: datetime

    @property
    def reference(self) -> str:
        """How it is named: `tip:3`."""
        return f"{self.model}:{self.number}"

    def to_json(self) -> dict[str, Any]:
        """Return the version as JSON values."""
        return {
            "reference": self.reference,
            "model": self.model,
            "version": self.number,
            "aliases": list(self.aliases),
            "status": self.status,
            "engine": self.engine,
            "batch_engine": self.batch_engine,
            "choice": self.choice,
            "sha256": self.sha256,
            "bytes": self.bytes,
            "signature": self.signature.to_json(),
            "provenance": self.provenance,
            "parity": self.parity,
            "metrics": self.metrics,
            "mismatch_accepted_by": self.mismatch_accepted_by,
            "mismatch_reason": self.mismatch_reason,
            "created_by": self.created_by,
            "created_at": self.created_at.isoformat(),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """One model: its name, what it is, its aliases' version numbers, how many versions there are."""

    name: str
    description: str
    aliases: dict[str, int]
    versions: int
    created_by: str
    created_at: datetime

    def to_json(self) -> dict[str, Any]:
        """Return the model as JSON values."""
        return {
            "model": self.name,
            "description": self.description,
            "aliases": self.aliases,
            "versions": self.versions,
            "created_by": self.created_by,
            "created_at": self.created_at.isoformat(),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class AliasMove:
    """One line of an alias's history: who moved it, when, from where to where, and why."""

    model: str
    alias: str
    action: str
    from_number: int | None
    to_number: int | None
    reason: str
    moved_by: str
    moved_at: datetime

    def to_json(self) -> dict[str, Any]:
        """Return the move as JSON values."""
        return {
            "model": self.model,
            "alias": self.alias,
            "action": self.action,
            "from": self.from_number,
            "to": self.to_number,
            "reason": self.reason,
            "moved_by": self.moved_by,
            "moved_at": self.moved_at.isoformat(),
        }
