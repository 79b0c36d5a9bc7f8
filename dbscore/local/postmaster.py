"""Whether a data directory's server runs, and what a dead one left behind."""

from __future__ import annotations

import os
import socket
import subprocess
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from dbscore.errors import ServerError
from dbscore.local.files import write_whole

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dbscore.local.account import Account

__all__ = ["clear_remains", "free_port", "port_is_free", "running_pid"]

# below the ports that systems hand out by themselves (32768 and up), beside PostgreSQL's own 5432
_FIRST_PORT, _PORTS = 15432, 1000

# no system gives this number to a process
_NOBODYS_PID = 2**31 - 1


def running_pid(data: Path) -> int | None:
    """Return the process of the server in `data`, or None when it does not run.

    A number in `postmaster.pid` proves nothing: after a crash or a reboot it may be another process's.
    """
    pid = _written_pid(data)
    return pid if pid is not None and _serves(pid, data) else None


def clear_remains(data: Path, sockets: Path, *, account: Account) -> None:
    """Make way for a server in `data` where none runs.

    PostgreSQL clears up after itself unless the number it finds is that of another live process of the same
    user; it then refuses to start. `postmaster.pid` is therefore given a number that is nobody's, and kept:
    it also says which shared memory PostgreSQL must find abandoned, so that no orphaned backend still writes.

    Raises:
        ServerError: The file cannot be replaced.
    """
    if running_pid(data) is not None:
        return
    pid_file = data / "postmaster.pid"
    if _written_pid(data) is None:
        pid_file.unlink(missing_ok=True)  # cut off while it was written
    else:
        rest = pid_file.read_text(encoding="utf-8", errors="surrogateescape").splitlines()[1:]
        text = "".join(f"{line}\n" for line in (str(_NOBODYS_PID), *rest))
        owner = (account.uid, account.gid) if account.switch else None
        write_whole(pid_file, text, mode=0o600, owner=owner)
    for left in sockets.glob(".s.PGSQL.*"):
        left.unlink(missing_ok=True)


def port_is_free(port: int) -> bool:
    """Return whether a server could listen on `port` of the loopback interface now."""
    with closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as PostgreSQL does
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_port(seed: int) -> int:
    """Return a free port from 15432 on, the search starting at a place that `seed` decides.

    Raises:
        ServerError: All thousand are taken.
    """
    for port in _ports(seed):
        if port_is_free(port):
            return port
    raise ServerError(
        f"the ports {_FIRST_PORT} to {_FIRST_PORT + _PORTS - 1} of 127.0.0.1 are all taken",
        remedy="Stop some of the servers that listen on them.",
    )


def _ports(seed: int) -> Iterator[int]:
    for step in range(_PORTS):
        yield _FIRST_PORT + (seed + step) % _PORTS


def _written_pid(data: Path) -> int | None:
    pid_file = data / "postmaster.pid"
    if pid_file.is_symlink():
        return None
    try:
        first = pid_file.read_text(encoding="utf-8", errors="replace").partition("\n")[0]
        pid = abs(int(first))  # negative: a server in single-user mode
    except (FileNotFoundError, ValueError):
        return None
    return pid or None


def _serves(pid: int, data: Path) -> bool:
    """Return whether the live process `pid` is the server of `data`."""
    process = Path(f"/proc/{pid}")
    if Path("/proc/self/cmdline").exists():
        try:
            program, *arguments = process.joinpath("cmdline").read_bytes().split(b"\0")
        except OSError:
            return False
        if os.path.basename(program) != b"postgres":  # noqa: PTH119 - bytes
            return False
        if os.fsencode(data) in arguments:
            return True
        try:
            # started by hand, under another name of the same directory; PostgreSQL always works in it
            return process.joinpath("cwd").samefile(data)
        except OSError:
            return False
    said = subprocess.run(
        ["ps", "-o", "command=", "-p", str(pid)],  # noqa: S607 - wherever the system keeps it
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    command, _, directory = said.strip().partition(" -D ")
    return command.endswith("postgres") and directory == str(data)
