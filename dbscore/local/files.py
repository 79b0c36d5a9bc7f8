"""Files of a private server: a lock between processes, writes that are whole or not at all, a log's end."""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from dbscore.errors import ServerError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["last_lines", "locked", "write_link", "write_whole"]

_BLOCK = 64 * 1024


@contextmanager
def locked(path: Path, *, notify: Callable[[str], None], timeout: float = 900.0) -> Iterator[None]:
    """Hold the lock `path` against other processes and threads; it goes with its holder, however that ends.

    Raises:
        ServerError: The file cannot be opened, or another holds it for longer than `timeout` seconds.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise ServerError(
            f"cannot open the lock {path}: {error.strerror}",
            remedy="Run as the user who made it, or use another home: set DBSCORE_HOME, or pass --home.",
        ) from error
    try:
        _wait_for(descriptor, path, notify=notify, timeout=timeout)
        yield
    finally:
        os.close(descriptor)


def _wait_for(descriptor: int, path: Path, *, notify: Callable[[str], None], timeout: float) -> None:
    deadline = time.monotonic() + timeout
    told = False
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() > deadline:
                raise ServerError(
                    f"another process has held {path} for {timeout:.0f} s",
                    remedy=f"See who it is with: fuser {path}; end it, then try again.",
                ) from error
            if not told:
                notify(f"waiting for another process that holds {path}")
                told = True
            time.sleep(0.05)
        else:
            return


def write_whole(path: Path, text: str, *, mode: int, owner: tuple[int, int] | None = None) -> None:
    """Replace `path` by `text` in one step, with `mode` from the start, owned by `owner` (uid, gid) if given.

    A link standing at `path` is replaced, never followed.

    Raises:
        ServerError: It cannot be written.
    """
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                os.fchmod(descriptor, mode)
                if owner is not None:
                    os.fchown(descriptor, *owner)
                file.write(text)
                file.flush()
                os.fsync(descriptor)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ServerError(
            f"cannot write {path}: {error.strerror}",
            remedy="Run as the user who made it, or use another home: set DBSCORE_HOME, or pass --home.",
        ) from error


def last_lines(path: Path, *, count: int = 12, start: int = 0) -> str:
    """Return the last `count` lines of a log after its byte `start`, or "" where it cannot be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return ""
    with os.fdopen(descriptor, "rb") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(start, end - _BLOCK, 0))
        return "\n".join(file.read().decode("utf-8", "replace").splitlines()[-count:])


def write_link(path: Path, target: Path) -> None:
    """Let `path` be a symbolic link to `target`, in one step where it is a link to something else.

    Raises:
        ServerError: It cannot be written.
    """
    if path.is_symlink() and path.readlink() == target:
        return
    half = path.with_name(f".{path.name}.unfinished")
    try:
        half.unlink(missing_ok=True)
        half.symlink_to(target)
        half.replace(path)
    except OSError as error:
        raise ServerError(
            f"cannot link {path} to {target}: {error.strerror}", remedy="Delete it and start again."
        ) from error
