"""Making, starting and stopping a private cluster with PostgreSQL's own programs."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import sys
import time
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dbscore.errors import ServerError
from dbscore.local.files import last_lines, write_whole
from dbscore.local.layout import SUPERUSER
from dbscore.local.postmaster import clear_remains, free_port, port_is_free, running_pid

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from subprocess import CompletedProcess

    from dbscore.local.account import Account
    from dbscore.local.installation import Installation
    from dbscore.local.layout import Layout

__all__ = ["Control"]

_START_SECONDS = 60
_STOP_SECONDS = 60
_ORPHAN_SECONDS = 20.0
_INITDB_SECONDS = 300.0
_ATTEMPTS = 20
_LONGEST_SOCKET = 100  # bytes; a socket's address has room for 104 on macOS, 108 on Linux
_BUILTIN_LOCALES = 17  # the first major version with a locale provider of its own

# what every cluster gets; jit keeps PostgreSQL's default, though it slows compiled ensembles down
_CONFIG = {"shared_buffers": "256MB", "max_connections": "100"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """One cluster, the binaries it runs on and the user it runs as.

    Attributes:
        layout: Its files.
        installation: Its binaries.
        account: Its OS user.
        config: PostgreSQL settings by name, besides dbscore's own.
        notify: Told what takes long or changes something.
    """

    layout: Layout
    installation: Installation
    account: Account
    config: Mapping[str, str]
    notify: Callable[[str], None]

    def initialise(self) -> None:
        """Make the data directory: whole, or not at all.

        Raises:
            ServerError: initdb failed; its words are in the message.
        """
        self.notify(f"making a PostgreSQL {self.installation.major} cluster in {self.layout.directory}")
        half = self.layout.directory / "data.unfinished"
        for left in (half, self.layout.log.parent, self.layout.sockets):
            shutil.rmtree(left, ignore_errors=True)
            left.mkdir(mode=0o700)
            self.account.give(left)
        password = secrets.token_urlsafe(24)
        write_whole(self.layout.password, password + "\n", mode=0o600)
        secret = self.layout.directory / "password.initdb"
        owner = (self.account.uid, self.account.gid) if self.account.switch else None
        write_whole(secret, password + "\n", mode=0o600, owner=owner)
        try:
            self._initdb(half, secret)
        finally:
            secret.unlink(missing_ok=True)
        (half / "postgresql.conf").rename(half / "postgresql.initdb.conf")
        half.rename(self.layout.data)

    def _initdb(self, target: Path, secret: Path) -> None:
        options = [
            f"--pgdata={target}",
            f"--username={SUPERUSER}",
            f"--pwfile={secret}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--lc-messages=C",
            "--data-checksums",
            "--no-instructions",
            *(["--no-sync"] if self.config.get("fsync") == "off" else []),
        ]
        said = ""
        for locale in self._locales():
            done = self._run("initdb", *options, *locale, timeout=_INITDB_SECONDS)
            if done.returncode == 0:
                return
            said = f"{done.stdout}\n{done.stderr}".strip()
            if "locale" not in said:
                break
        last = "\n".join(said.splitlines()[-8:])
        raise ServerError(
            f"initdb of PostgreSQL {self.installation.version} failed in {target}:\n{last}",
            remedy="Check the space left on the disk, and that its file system has owners and modes.",
        )

    def _locales(self) -> list[list[str]]:
        if self.installation.major >= _BUILTIN_LOCALES:
            return [["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]]
        return [["--locale=C.UTF-8"], ["--locale=C"]]

    def launch(self) -> None:
        """Start the server, on another port if its own is taken, and wait until it takes connections.

        Raises:
            ServerError: It did not start; the last lines of its log are in the message.
        """
        clear_remains(self.layout.data, self.layout.sockets, account=self.account)
        port = self._port()
        orphans_until = time.monotonic() + _ORPHAN_SECONDS
        tail = ""
        for _ in range(_ATTEMPTS):
            self._configure(port)
            offset = self.layout.log.stat().st_size if self.layout.log.exists() else 0
            done = self._run(
                "pg_ctl",
                "start",
                "--silent",
                "--wait",
                f"--timeout={_START_SECONDS}",
                f"--pgdata={self.layout.data}",
                f"--log={self.layout.log}",
                timeout=_START_SECONDS + 30,
            )
            if done.returncode == 0:
                return
            tail = last_lines(self.layout.log, start=offset) or done.stderr.strip()
            if "Address already in use" in tail or "could not bind" in tail:
                # between looking and listening somebody else took it
                port = self._port(avoid=port)
            elif "still in use" in tail and time.monotonic() < orphans_until:
                # the server was killed, and backends of it are only now noticing
                time.sleep(0.2)
            else:
                break
        raise ServerError(
            f"PostgreSQL {self.installation.version} did not start in {self.layout.data}:\n{tail}",
            remedy=f"The whole log is {self.layout.log}.",
        )

    def halt(self) -> None:
        """Stop the server: end its sessions, roll their transactions back.

        Raises:
            ServerError: It still runs after a minute.
        """
        if running_pid(self.layout.data) is None:
            return
        done = self._run(
            "pg_ctl",
            "stop",
            "--silent",
            "--wait",
            "--mode=fast",
            f"--timeout={_STOP_SECONDS}",
            f"--pgdata={self.layout.data}",
            timeout=_STOP_SECONDS + 30,
        )
        if done.returncode != 0 and (pid := running_pid(self.layout.data)) is not None:
            raise ServerError(
                f"the server in {self.layout.data} (process {pid}) did not stop: {done.stderr.strip()}\n"
                f"{last_lines(self.layout.log)}",
                remedy=f"Try again; or, as the OS user {self.account.name}: "
                f"{self.installation.program('pg_ctl')} stop --mode=immediate --pgdata={self.layout.data}",
            )

    def _port(self, *, avoid: int | None = None) -> int:
        before = self.layout.read_port()
        if before is not None and before != avoid and port_is_free(before):
            return before
        # from a place of its own for each directory, so that clusters made at the same time seldom meet
        port = free_port(zlib.crc32(os.fsencode(self.layout.directory)))
        if before is not None:
            self.notify(f"port {before} is taken; the server {self.layout.name!r} moves to {port}")
        write_whole(self.layout.port, f"{port}\n", mode=0o644)
        return port

    def _configure(self, port: int) -> None:
        socket = self.layout.sockets / f".s.PGSQL.{port}"
        fits = len(os.fsencode(socket)) <= _LONGEST_SOCKET
        settings = {
            **_CONFIG,
            **self.config,
            "listen_addresses": "127.0.0.1",
            "port": str(port),
            "unix_socket_directories": f'"{self.layout.sockets}"' if fits else "",
        }
        text = "".join(
            (
                "# Written by dbscore at every start; to keep a setting, use: alter system set ...\n",
                "include 'postgresql.initdb.conf'\n",
                *(f"{name} = {_quoted(name, value)}\n" for name, value in settings.items()),
            )
        )
        owner = (self.account.uid, self.account.gid) if self.account.switch else None
        write_whole(self.layout.data / "postgresql.conf", text, mode=0o600, owner=owner)

    def _run(self, program: str, *options: str, timeout: float) -> CompletedProcess[str]:
        env = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(self.layout.directory),
            "LANG": "C.UTF-8",
            "LC_MESSAGES": "C",
            "PYTHONPATH": str(self.layout.python),
            "PYTHONNOUSERSITE": "1",
        }
        if sys.platform == "darwin":
            env["LC_ALL"] = "C"  # with an unknown locale the server starts threads there, and stops
        return self.account.run(
            [self.installation.program(program), *options],
            cwd=self.layout.directory,
            env=env,
            timeout=timeout,
        )


def _quoted(name: str, value: str) -> str:
    if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)?", name) is None or "\n" in value:
        raise ServerError(
            f"{name!r} = {value!r} is no PostgreSQL setting",
            remedy="Give names and values as `show all` does.",
        )
    escaped = value.replace("\\", "\\\\").replace("'", "''")
    return f"'{escaped}'"
