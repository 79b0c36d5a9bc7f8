"""A real server for every test that needs one: a private cluster, or the one that DBSCORE_TEST_URL names.

Each test gets a database of its own, cloned from a template in which dbscore is installed. A missing server fails
the run; it does not skip.
"""

from __future__ import annotations

import itertools
import os
import secrets
import shutil
import signal
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from dbscore import Client, LocalServer, Settings
from dbscore.errors import CompilationError
from dbscore.local.installation import find_embedded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dbscore.jobs import Progress
    from dbscore.registry import Version

QUICK = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "max_connections": "60"}
REPOSITORY = Path(__file__).resolve().parent.parent
DATA = REPOSITORY.parent / "shared" / "data"

# a shell starts what is in the background with interrupts ignored, and so would be the commands that tests interrupt
signal.signal(signal.SIGINT, signal.default_int_handler)

_numbers = itertools.count()

# what must be the same whichever engine computes: `pytestmark = both_engines`, or above a test
both_engines = pytest.mark.engines("onnx", "sql")
onnx_only = pytest.mark.engines("onnx")


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line("markers", "engines(*names): what computes the models that `client` deploys, one at a time")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test once for each engine that it is for; a test's own mark goes before its module's."""
    marker = metafunc.definition.get_closest_marker("engines")
    if marker is not None and "client" in metafunc.fixturenames:
        metafunc.parametrize("engine", marker.args, indirect=True)


class Once:
    """Calls something with the progress, once, when some chunks are done."""

    def __init__(self, action: Callable[[Progress], object], *, chunks: int = 3) -> None:
        self.action, self.chunks, self.called = action, chunks, False

    def __call__(self, progress: Progress) -> None:
        if not self.called and progress.chunks_done >= self.chunks:
            self.called = True
            self.action(progress)


@contextmanager
def local_server(**options: Any) -> Iterator[LocalServer]:
    """Make a private server, which is not started yet; remove it."""
    # not pytest's tmp_path: root's is closed to the user that the server runs as
    home = Path(tempfile.mkdtemp(prefix="dbscore-tests-", dir="/var/tmp"))
    home.chmod(0o755)
    server = LocalServer(home, config=QUICK, **options)
    try:
        yield server
    finally:
        server.remove()
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="session")
def server_url() -> Iterator[str]:
    """A superuser's URL of a server with PL/Python and onnxruntime."""
    given = os.environ.get("DBSCORE_TEST_URL")
    if given:
        yield given
        return
    with local_server(packages=Settings.from_environment().home / ".packages") as server:
        yield server.start()


@pytest.fixture(scope="session")
def plain_url() -> Iterator[str]:
    """A superuser's URL of a server without PL/Python: PostgreSQL 18 from the wheel."""
    with local_server(installation=find_embedded()[0]) as server:
        yield server.start()


def at(url: str, **parts: str) -> str:
    """Return the URL with another database, user or password."""
    info = psycopg.conninfo.conninfo_to_dict(url)
    info.update(parts)
    query = f"?host={info['host']}" if str(info["host"]).startswith("/") else ""
    host = "" if query else info["host"]
    return f"postgresql://{info['user']}:{info.get('password', '')}@{host}:{info['port']}/{info['dbname']}{query}"


@contextmanager
def database(server_url: str, template: str | None = None) -> Iterator[str]:
    """Make a database, yield its URL, drop it."""
    name = f"t{next(_numbers)}_{secrets.token_hex(4)}"
    with psycopg.connect(server_url, autocommit=True) as connection:
        statement = sql.SQL("create database {}").format(sql.Identifier(name))
        if template is not None:
            statement += sql.SQL(" template {}").format(sql.Identifier(template))
        connection.execute(statement)
    try:
        yield at(server_url, dbname=name)
    finally:
        with psycopg.connect(server_url, autocommit=True) as connection:
            connection.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


@pytest.fixture(scope="session")
def template(server_url: str) -> Iterator[str]:
    """The name of a database in which dbscore is installed."""
    with database(server_url) as url:
        with Client(url) as client:
            client.install()
        yield str(psycopg.conninfo.conninfo_to_dict(url)["dbname"])


@pytest.fixture
def empty_url(server_url: str) -> Iterator[str]:
    """A database without dbscore."""
    with database(server_url) as url:
        yield url


@pytest.fixture
def url(server_url: str, template: str) -> Iterator[str]:
    """A database with dbscore, of this test's own."""
    with database(server_url, template) as cloned:
        yield cloned


class EngineClient(Client):
    """A client whose deployments have one engine, where the model can be compiled."""

    def __init__(self, url: str, engine: str) -> None:
        super().__init__(url)
        self.engine = engine

    def deploy(self, name: str, source: object, **options: Any) -> Version:
        """Deploy with the client's engine, unless another is said."""
        if "engine" in options:
            return super().deploy(name, source, **options)
        try:
            return super().deploy(name, source, engine=self.engine, **options)
        except CompilationError:
            return super().deploy(name, source, engine="onnx", **options)


@pytest.fixture(autouse=True)
def engine(request: pytest.FixtureRequest) -> str:
    """What computes the test's models: the faster, unless the test is for one or for both."""
    return str(getattr(request, "param", "auto"))


@pytest.fixture
def client(url: str, engine: str) -> Iterator[Client]:
    """A client of this test's database."""
    with EngineClient(url, engine) as one:
        yield one


@pytest.fixture
def db(url: str) -> Iterator[psycopg.Connection[Any]]:
    """A superuser's connection to this test's database; each statement commits by itself."""
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def role(server_url: str) -> Iterator[Callable[[], str]]:
    """Make login roles without any privilege, dropped afterwards; their password is their name."""
    made: list[str] = []

    def make() -> str:
        name = f"role_{secrets.token_hex(4)}"
        with psycopg.connect(server_url, autocommit=True) as connection:
            connection.execute(
                sql.SQL("create role {} login password {}").format(sql.Identifier(name), sql.Literal(name))
            )
        made.append(name)
        return name

    yield make
    with psycopg.connect(server_url, autocommit=True) as connection:
        for name in made:
            databases = connection.execute("select datname from pg_database where datallowconn").fetchall()
            for (dbname,) in databases:
                with psycopg.connect(at(server_url, dbname=dbname), autocommit=True) as other:
                    other.execute(sql.SQL("drop owned by {} cascade").format(sql.Identifier(name)))
            connection.execute(sql.SQL("drop role {}").format(sql.Identifier(name)))


@pytest.fixture
def as_role(url: str) -> Iterator[Callable[[str], psycopg.Connection[Any]]]:
    """Connect to this test's database as a role made by `role`."""
    made: list[psycopg.Connection[Any]] = []

    def connect(name: str) -> psycopg.Connection[Any]:
        connection = psycopg.connect(make_conninfo(at(url, user=name, password=name)), autocommit=True)
        made.append(connection)
        return connection

    yield connect
    for connection in made:
        connection.close()


@pytest.fixture
def data() -> Callable[[str], Path]:
    """Find a file of real data; skip, saying so, where the folder is absent."""

    def find(name: str) -> Path:
        path = DATA / name
        if not path.exists():
            pytest.skip(f"real data is not at hand: {path.name}")
        return path

    return find
