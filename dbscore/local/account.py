"""The operating-system user a private server runs as: PostgreSQL refuses to run as root."""

from __future__ import annotations

import os
import pwd
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dbscore.errors import ServerError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Account", "make_directory"]

# `nobody` comes last: other services may run as it, and could then read the cluster
_CANDIDATES = ("postgres", "_postgres", "pgsql", "nobody")
_ROOT = Path("/")
_PATH = {"PATH": "/usr/bin:/bin"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """The user that owns a cluster's data and runs its server.

    Attributes:
        name: The user's name.
        uid: Its number.
        gid: Its group's number.
        switch: Whether programs must be started as somebody other than the caller.
    """

    name: str
    uid: int
    gid: int
    switch: bool

    @classmethod
    def choose(cls, data: Path) -> Account:
        """Return whom the server in `data` runs as: the caller, or for root an unprivileged user.

        Args:
            data: The data directory; where it exists already its owner is the user.

        Raises:
            ServerError: The data directory is somebody else's, or root has nobody to drop to.
        """
        caller = os.geteuid()
        try:
            owner = data.stat().st_uid
        except FileNotFoundError:
            owner = None
        except PermissionError as error:
            raise ServerError(
                f"{data} may not be read by the OS user {_name(caller)}",
                remedy="Use a home of your own: set DBSCORE_HOME, or pass --home.",
            ) from error
        if caller != 0:
            if owner not in (None, caller):
                raise ServerError(
                    f"{data} belongs to the OS user {_name(owner)}, not to {_name(caller)}",
                    remedy="Use a home of your own: set DBSCORE_HOME, or pass --home.",
                )
            return cls(name=_name(caller), uid=caller, gid=os.getegid(), switch=False)
        return cls._for_root(owner)

    @classmethod
    def _for_root(cls, owner: int | None) -> Account:
        if owner:
            try:
                entry = pwd.getpwuid(owner)
            except KeyError as error:
                raise ServerError(
                    f"the cluster belongs to the OS user {_name(owner)}, whom this machine does not know",
                    remedy="Use another home: set DBSCORE_HOME, or pass --home; or give it a user: chown -R.",
                ) from error
            return cls(name=entry.pw_name, uid=owner, gid=entry.pw_gid, switch=True)
        for name in _CANDIDATES:
            try:
                entry = pwd.getpwnam(name)
            except KeyError:
                continue
            return cls(name=name, uid=entry.pw_uid, gid=entry.pw_gid, switch=True)
        raise ServerError(
            f"PostgreSQL does not run as root, and there is none of the OS users {', '.join(_CANDIDATES)}",
            remedy="Run: useradd --system --user-group postgres; or run dbscore as an ordinary user.",
        )

    def run(
        self, command: Sequence[str | Path], *, cwd: Path, env: Mapping[str, str], timeout: float
    ) -> subprocess.CompletedProcess[str]:
        """Run a program as this user, with no more environment than `env`; the exit code is for the caller.

        Raises:
            ServerError: It could not be started, or did not end within `timeout` seconds.
        """
        try:
            return subprocess.run(
                list(command),
                cwd=cwd,
                env=dict(env),
                timeout=timeout,
                umask=0o077,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
                user=self.uid if self.switch else None,
                group=self.gid if self.switch else None,
                extra_groups=[] if self.switch else None,
            )
        except OSError as error:
            raise ServerError(
                f"{command[0]} cannot be run as the OS user {self.name}: {error.strerror}",
                remedy="Check that this user may enter every directory above it.",
            ) from error
        except subprocess.TimeoutExpired as error:
            raise ServerError(
                f"{command[0]} did not end within {timeout:.0f} s", remedy="Look at the server's log."
            ) from error

    def require_access(self, path: Path, *, remedy: str) -> None:
        """Check that this user may enter `path`, a directory, and every directory above it.

        Raises:
            ServerError: It may not; the message names the first directory that is closed to it.
        """
        if not self.switch:
            return
        for directory in (*reversed(path.parents), path):
            # asked of the kernel, as that user: modes alone do not tell (access lists, mounts)
            done = self.run(["test", "-x", directory], cwd=_ROOT, env=_PATH, timeout=30)
            if done.returncode != 0:
                raise ServerError(
                    f"the OS user {self.name}, whom the server runs as, may not enter {directory}",
                    remedy=remedy,
                )

    def give(self, path: Path) -> None:
        """Make this user the owner of `path` and of all it contains; symbolic links are not followed."""
        if not self.switch:
            return
        os.chown(path, self.uid, self.gid, follow_symlinks=False)
        for parent, directories, files in os.walk(path):
            for name in (*directories, *files):
                os.chown(os.path.join(parent, name), self.uid, self.gid, follow_symlinks=False)  # noqa: PTH118


def make_directory(path: Path, *, mode: int = 0o755) -> None:
    """Create `path` and what is missing above it, with `mode` whatever the umask; what exists is left alone.

    Raises:
        ServerError: It cannot be created.
    """
    missing = [one for one in (path, *path.parents) if not one.exists()]
    try:
        for directory in reversed(missing):
            directory.mkdir(exist_ok=True)
            directory.chmod(mode)
        if not path.is_dir():
            raise NotADirectoryError(20, "it is a file")
    except OSError as error:
        raise ServerError(
            f"cannot create the directory {path}: {error.strerror}",
            remedy="Use another home: set DBSCORE_HOME, or pass --home.",
        ) from error


def _name(uid: int | None) -> str:
    try:
        return pwd.getpwuid(-1 if uid is None else uid).pw_name
    except (KeyError, OverflowError):
        return f"number {uid}"
