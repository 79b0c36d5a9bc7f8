"""Where a private cluster keeps what, and how its URL comes of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

from dbscore.errors import ServerError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["SUPERUSER", "Layout"]

SUPERUSER = "postgres"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The files of one cluster.

    `home/NAME` belongs to whoever runs dbscore; only `data`, `run` and `log` in it to the server's OS user.
    What root writes is thus either in a directory of its own, or replaced whole: never through a link that
    code in the server could have put there.

    Attributes:
        home: Holds clusters, absolute.
        name: The cluster's name.
    """

    home: Path
    name: str

    def __post_init__(self) -> None:
        if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}", self.name) is None:
            raise ServerError(
                f"{self.name!r} is no name for a server", remedy="Use letters, digits, - and _; 63 at most."
            )
        if re.search(r"[:\"\n]", str(self.home)):
            raise ServerError(
                f"the home {str(self.home)!r} has a colon, a quote or a line break in it",
                remedy="Use another home: set DBSCORE_HOME, or pass --home.",
            )

    @property
    def lock(self) -> Path:
        """What `start` and `stop` hold."""
        return self.home / f"{self.name}.lock"

    @property
    def directory(self) -> Path:
        """All the rest."""
        return self.home / self.name

    @property
    def data(self) -> Path:
        """The data directory."""
        return self.directory / "data"

    @property
    def sockets(self) -> Path:
        """The unix socket."""
        return self.directory / "run"

    @property
    def log(self) -> Path:
        """The server's log."""
        return self.directory / "log" / "server.log"

    @property
    def password(self) -> Path:
        """The superuser's password."""
        return self.directory / "password"

    @property
    def port(self) -> Path:
        """The port, remembered from start to start."""
        return self.directory / "port"

    @property
    def python(self) -> Path:
        """A link to the packages of the server's Python; PYTHONPATH names it."""
        return self.directory / "python"

    @property
    def packages(self) -> Path:
        """The packages themselves, unless several clusters share them."""
        return self.directory / "packages"

    def read_port(self) -> int | None:
        """Return the remembered port, or None before the first start."""
        try:
            return int(self.port.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None

    def read_password(self) -> str | None:
        """Return the superuser's password, or None before the first start.

        Raises:
            ServerError: The caller may not read it.
        """
        try:
            return self.password.read_text(encoding="utf-8").strip() or None
        except FileNotFoundError:
            return None
        except PermissionError as error:
            raise ServerError(
                f"{self.password} may be read only by the user who made the server",
                remedy="Run as that user.",
            ) from error

    def url(self, database: str) -> str:
        """Return a database's URL, with the password.

        Raises:
            ServerError: The cluster has not been made yet, or has lost a file, or the caller may not read it.
        """
        port, password = self.read_port(), self.read_password()
        if port is not None and password is not None:
            login = f"{SUPERUSER}:{quote(password, safe='')}"
            return f"postgresql://{login}@127.0.0.1:{port}/{quote(database, safe='')}"
        if self.data.exists():
            lost = self.password if password is None else self.port
            raise ServerError(
                f"{lost} is lost or empty",
                remedy=f"Put it back; or delete {self.directory}, with all its data, and start again.",
            )
        raise ServerError(f"there is no server {self.name!r} in {self.home}", remedy="Run: dbscore server start")
