"""What the environment says, and the defaults where it says nothing."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dbscore.errors import DbscoreError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Settings"]

_MEBIBYTE = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Settings of one process.

    Attributes:
        url: `DBSCORE_URL`: the database, as a libpq or SQLAlchemy URL; None where nothing says.
        home: `DBSCORE_HOME`: where the local server keeps its clusters.
        max_model_bytes: `DBSCORE_MAX_MODEL_MB`, said in megabytes: the largest ONNX model accepted, here in bytes;
            512 MB by default.
    """

    url: str | None = None
    home: Path = Path("/var/lib/dbscore")
    max_model_bytes: int = 512 * _MEBIBYTE

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read the settings from `environ`, by default the process's own.

        Raises:
            DbscoreError: `DBSCORE_MAX_MODEL_MB` is not a positive number.
        """
        env = os.environ if environ is None else environ
        return cls(
            url=env.get("DBSCORE_URL") or None,
            home=Path(env["DBSCORE_HOME"]).expanduser() if env.get("DBSCORE_HOME") else _default_home(env),
            max_model_bytes=_megabytes(env.get("DBSCORE_MAX_MODEL_MB", "512")),
        )


def _default_home(env: Mapping[str, str]) -> Path:
    # root's own home is closed to the user the server is dropped to, so root keeps clusters in /var/lib
    if os.geteuid() == 0:
        return Path("/var/lib/dbscore")
    data = env.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(data).expanduser() / "dbscore"


def _megabytes(text: str) -> int:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise DbscoreError(
            f"DBSCORE_MAX_MODEL_MB is {text!r}, not a positive number",
            remedy="Set it to a size in megabytes, such as 512.",
        )
    return int(value * _MEBIBYTE)
