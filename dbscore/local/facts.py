"""What a running server says of itself: its version, its data directory, its Python."""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import psycopg

from dbscore.errors import ServerError
from dbscore.remedy import SERVER_PACKAGES

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Engine", "Facts", "ask"]

Engine = Literal["onnx", "sql"]

# everything happens in one transaction that is rolled back: asking leaves no extension and no function behind
_CREATE_PROBE = """
create or replace function pg_temp.dbscore_probe(names text[]) returns text language plpython3u as $probe$
import importlib, json, sys

packages, failures = {}, {}
for name in names:
    try:
        packages[name] = importlib.import_module(name).__version__
    except Exception as error:
        failures[name] = "%s: %s" % (type(error).__name__, error)
return json.dumps({
    "python_version": "%d.%d" % sys.version_info[:2],
    "packages": packages,
    "failures": failures,
})
$probe$
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a server said.

    Attributes:
        version: PostgreSQL's, such as "15.20".
        data_directory: The data directory, or "" where the role may not know it.
        python_version: PL/Python's, such as "3.11"; None without PL/Python.
        packages: Versions by name of what PL/Python can import, of numpy and onnxruntime.
        failures: Why the others could not be imported, by name.
    """

    version: str
    data_directory: str
    python_version: str | None = None
    packages: Mapping[str, str] = field(default_factory=dict)
    failures: Mapping[str, str] = field(default_factory=dict)

    @property
    def engines(self) -> tuple[Engine, ...]:
        """What can compute a version on this server."""
        return ("onnx", "sql") if all(name in self.packages for name in SERVER_PACKAGES) else ("sql",)


def ask(url: str, *, timeout: float = 30.0) -> Facts:
    """Connect to `url` and return what the server says of itself.

    A server that is starting up or shutting down is asked again until `timeout` seconds have passed.

    Raises:
        ServerError: No connection, or the server lost it; the message has no password in it.
    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            with psycopg.connect(url, connect_timeout=10, autocommit=False, application_name="dbscore") as connection:
                try:
                    return _ask(connection)
                finally:
                    if not connection.closed:
                        connection.rollback()
        except psycopg.OperationalError as error:
            if "the database system is" in str(error) and time.monotonic() < deadline:
                time.sleep(0.1)
                continue
            raise ServerError(
                f"cannot ask the server at {_without_password(url)}: {str(error).strip()}",
                remedy="Check that it runs and takes this role and password.",
            ) from error
        except psycopg.Error as error:
            raise ServerError(
                f"the server at {_without_password(url)} says: {str(error).strip()}",
                remedy="Look at the server's log.",
            ) from error


def _ask(connection: psycopg.Connection) -> Facts:
    one = connection.execute(
        """
        select current_setting('server_version'),
               coalesce((select setting from pg_catalog.pg_settings where name = 'data_directory'), ''),
               exists (select from pg_catalog.pg_available_extensions where name = 'plpython3u'),
               exists (select from pg_catalog.pg_extension where extname = 'plpython3u'),
               (select rolsuper from pg_catalog.pg_roles where rolname = current_user)
        """
    ).fetchone()
    if one is None:  # pragma: no cover - a select without a table has one row
        raise ServerError("the server answered nothing", remedy="Look at the server's log.")
    version, directory, available, created, superuser = one
    version = str(version).split()[0]
    if not (available or created) or not superuser:
        return Facts(version=version, data_directory=directory)
    if not created:
        connection.execute("create extension plpython3u")
    connection.execute(_CREATE_PROBE)
    said = connection.execute("select pg_temp.dbscore_probe(%s)", [list(SERVER_PACKAGES)]).fetchone()
    return Facts(version=version, data_directory=directory, **json.loads(said[0] if said else "{}"))


def _without_password(url: str) -> str:
    hidden = re.sub(r"(://[^:/@]*):[^@]*@", r"\1:***@", url)
    return re.sub(r"(password\s*=\s*)('[^']*'|[^\s&]+)", r"\1***", hidden)
