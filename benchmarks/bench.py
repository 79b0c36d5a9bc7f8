"""The private server that is measured, and the server's own Python beside it."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

from dbscore import Client, LocalServer, Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dbscore.registry import Version

__all__ = ["Bench", "bench", "say"]

_MEMORY = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
# nothing here waits for a disk: what is measured is computing, and promotion's own work
CONFIG = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    # the largest table of the growth arm and its results stay in memory, where there is enough of it
    "shared_buffers": f"{min(4096, _MEMORY // 2**20 // 4)}MB",
    # no checkpoint falls into an arm by chance; the arms of whole tables ask for one before each round
    "max_wal_size": "8GB",
    "checkpoint_timeout": "1h",
}
BARE = Path(__file__).resolve().parent / "bare.py"
FEED_ROWS = 10_000


def say(text: str) -> None:
    """Tell how far it is."""
    print(text, file=sys.stderr, flush=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """A database with dbscore, and what runs the server's Python.

    Attributes:
        url: The database.
        client: Its client.
        python: The interpreter that PL/Python embeds, as a program.
        environment: The server's environment, PYTHONPATH with it.
        directory: Where files for the server's Python are put.
        data: The server's data directory.
    """

    url: str
    client: Client
    python: str
    environment: dict[str, str]
    directory: Path
    data: Path

    def connect(self) -> psycopg.Connection[Any]:
        """Open a new connection, so a new backend."""
        return psycopg.connect(self.url, autocommit=True)

    def timed(self, connection: psycopg.Connection[Any], statement: str) -> float:
        """Return how many seconds a statement takes, its result fetched."""
        begin = time.perf_counter()
        connection.execute(statement).fetchall()
        return time.perf_counter() - begin

    def prepare(self, model: Version, table: str, *, rows: int = FEED_ROWS) -> tuple[list[str], str]:
        """Write a version's bytes and rows of a table to files; return the arguments of bare.py, and the feeds."""
        path = self.directory / f"{model.sha256}.onnx"
        path.write_bytes(self.client.export(model.reference))
        features = model.signature.features
        columns = ", ".join(f'"{f.source}"' for f in features)
        with self.connect() as connection:
            query = f"select {columns} from {table} order by id limit {rows}"
            found = connection.execute(query).fetchall()
        inputs = []
        for tensor in model.signature.tensors:
            places = [
                (f.position, i, f.missing if f.missing is not None else float("nan"))
                for i, f in enumerate(features)
                if f.tensor == tensor.name
            ]
            places.sort()
            values = [[missing if row[i] is None else row[i] for _, i, missing in places] for row in found]
            inputs.append({"name": tensor.name, "dtype": tensor.dtype, "rank": tensor.rank, "rows": values})
        feeds = self.directory / f"{model.sha256}.{rows}.json"
        feeds.write_text(json.dumps(inputs), encoding="utf-8")
        return [str(path), model.signature.prediction.tensor], str(feeds)

    def bare(self, task: str, arguments: list[str], feeds: str, *more: str) -> dict[str, float]:
        """Run bare.py in a new process of the server's Python; `process` is the time from outside."""
        begin = time.perf_counter()
        with Path(feeds).open(encoding="utf-8") as file:
            done = subprocess.run(
                [self.python, str(BARE), task, *arguments, *more],
                stdin=file,
                env=self.environment,
                capture_output=True,
                text=True,
                check=False,
            )
        total = time.perf_counter() - begin
        if done.returncode:
            raise RuntimeError(done.stderr)
        return {**json.loads(done.stdout), "process": total}

    def versions(self) -> dict[str, Any]:
        """Return the versions of what took part."""
        query = "select current_setting('server_version'), dbscore_engine.python()"
        with self.connect() as connection:
            server, python = connection.execute(query).fetchone() or ("", {})
        packages = (
            "dbscore",
            "numpy",
            "onnxruntime",
            "scikit-learn",
            "skl2onnx",
            "psycopg",
            "adbc-driver-postgresql",
            "pyarrow",
        )
        client = {"python": platform.python_version(), **{name: version(name) for name in packages}}
        return {"postgresql": server, "server_python": python, "client": client}


@contextmanager
def bench() -> Iterator[Bench]:
    """Start a private server with dbscore installed; remove it afterwards."""
    home = Path(tempfile.mkdtemp(prefix="dbscore-bench-", dir="/var/tmp"))
    home.chmod(0o755)
    server = LocalServer(home, config=CONFIG, packages=Settings.from_environment().home / ".packages", notify=say)
    try:
        url = server.start()
        with Client(url) as client:
            client.install()
            program, environment = _python(url)
            yield Bench(
                url=url,
                client=client,
                python=program,
                environment=environment,
                directory=home,
                data=server.layout.data,
            )
    finally:
        server.remove()
        shutil.rmtree(home, ignore_errors=True)


def _python(url: str) -> tuple[str, dict[str, str]]:
    """Return the program of the Python that the server embeds, and the environment it has there."""
    body = (
        "import json, os, sys\n"
        "program = '%s/bin/python%d.%d' % (sys.base_prefix, *sys.version_info[:2])\n"
        "return json.dumps([program, dict(os.environ)])"
    )
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"create function pg_temp.python() returns text language plpython3u as $${body}$$")
        row = connection.execute("select pg_temp.python()").fetchone()
    program, environment = json.loads(row[0]) if row else ("", {})
    kept = {name: environment[name] for name in ("PATH", "LANG", "PYTHONPATH") if name in environment}
    return program, {**kept, "PYTHONNOUSERSITE": "1", "HOME": os.environ.get("HOME", "/")}
