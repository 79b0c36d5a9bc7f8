"""The private server on real binaries: started, stopped, killed, raced, and run by an ordinary user."""

from __future__ import annotations

import json
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from typer.testing import CliRunner

import dbscore
from dbscore.cli.server import NOT_RUNNING, app
from dbscore.errors import ServerError
from dbscore.local import LocalServer, ensure_server
from dbscore.local.account import Account
from dbscore.local.postmaster import running_pid
from dbscore.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

QUICK = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "shared_buffers": "16MB"}
ROOT = os.geteuid() == 0


@dataclass
class Place:
    """A home that the server's user can enter, and what the servers in it announced."""

    home: Path
    said: list[str] = field(default_factory=list)

    def server(self, name: str = "main", **options: object) -> LocalServer:
        given = {"config": QUICK, "with_packages": False, "notify": self.said.append, **options}
        return LocalServer(self.home, name=name, **given)  # type: ignore[arg-type]


@contextmanager
def _place() -> Iterator[Place]:
    # not pytest's tmp_path: root's is closed to everybody else
    home = Path(tempfile.mkdtemp(prefix="dbscore-", dir="/var/tmp"))
    home.chmod(0o755)
    try:
        yield Place(home)
    finally:
        for lock in home.glob("*.lock"):
            LocalServer(home, name=lock.stem).remove()
        shutil.rmtree(home)


@pytest.fixture
def place() -> Iterator[Place]:
    with _place() as one:
        yield one


@pytest.fixture(scope="module")
def wheels() -> Path:
    """Where wheels stay from run to run: fetching them takes longer than all the tests."""
    return Settings.from_environment().home / ".packages"


@pytest.fixture(scope="module")
def equipped(wheels: Path) -> Iterator[LocalServer]:
    """A started server with numpy and onnxruntime; tests leave it as it is."""
    with _place() as one:
        server = one.server(with_packages=True, packages=wheels)
        server.start()
        yield server


def _value(url: str, query: str) -> object:
    with psycopg.connect(url) as connection:
        row = connection.execute(query).fetchone()
    assert row is not None
    return row[0]


def _kill(server: LocalServer) -> None:
    pid = running_pid(server.layout.data)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while server.is_running() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not server.is_running()


# -- what it is for ------------------------------------------------------------


def test_a_started_server_imports_the_clients_own_onnxruntime(equipped: LocalServer) -> None:
    with psycopg.connect(equipped.url()) as connection:
        connection.execute("create extension plpython3u")
        connection.execute(
            "create function pg_temp.said() returns text language plpython3u as "
            "'import onnxruntime; return onnxruntime.__version__'"
        )
        row = connection.execute("select pg_temp.said()").fetchone()
        connection.rollback()
    assert row == (metadata.version("onnxruntime"),)


def test_asking_a_server_leaves_no_extension_behind(equipped: LocalServer) -> None:
    assert equipped.status().engines == ("onnx", "sql")
    assert _value(equipped.url(), "select count(*) from pg_extension where extname = 'plpython3u'") == 0


def test_a_second_start_leaves_the_running_server_alone(equipped: LocalServer) -> None:
    before = running_pid(equipped.layout.data)
    assert equipped.start() == equipped.url()
    assert running_pid(equipped.layout.data) == before


def test_a_server_with_shared_packages_keeps_no_copy_of_them(equipped: LocalServer, wheels: Path) -> None:
    assert equipped.layout.python.readlink().parent == wheels.resolve()
    assert not equipped.layout.packages.exists()


def test_ensure_server_starts_a_private_server_where_no_url_is_set(equipped: LocalServer) -> None:
    found = ensure_server(Settings(home=equipped.layout.home), need="onnx", allow_install=False)
    assert (found.url, found.source, found.engines) == (equipped.url(), "installed", ("onnx", "sql"))


def test_ensure_server_takes_the_environments_url_first(equipped: LocalServer) -> None:
    url = equipped.url().replace("postgresql://", "postgresql+psycopg://")
    found = ensure_server(Settings(url=url, home=Path("/nowhere")), need="onnx")
    assert (found.url, found.source, found.engines) == (url, "environment", ("onnx", "sql"))


def test_ensure_server_hides_the_password_of_an_url_that_does_not_answer() -> None:
    with pytest.raises(ServerError) as caught:
        ensure_server(Settings(url="postgresql://postgres:hunter2@127.0.0.1:1/postgres"))
    assert "127.0.0.1:1/postgres" in str(caught.value)
    assert "hunter2" not in str(caught.value)


# -- its life ------------------------------------------------------------------


def test_a_stopped_server_keeps_its_data_and_its_url(place: Place) -> None:
    server = place.server()
    url = server.start()
    with psycopg.connect(url) as connection:
        connection.execute("create table kept as select 42 as answer")
    assert server.stop()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(url)
    assert not server.stop()
    assert server.start() == url
    assert _value(url, "select answer from kept") == 42


def test_settings_given_are_the_servers(place: Place) -> None:
    url = place.server(config={**QUICK, "cluster_name": "it's \\ here"}).start()
    assert _value(url, "show fsync") == "off"
    assert _value(url, "show shared_buffers") == "16MB"
    assert _value(url, "show data_checksums") == "on"
    assert _value(url, "show server_encoding") == "UTF8"
    assert _value(url, "show listen_addresses") == "127.0.0.1"
    assert _value(url, "show cluster_name") == "it's \\ here"


def test_nobody_enters_without_the_password(place: Place) -> None:
    server = place.server()
    server.start()
    port = server.layout.read_port()
    for host in ("127.0.0.1", str(server.layout.sockets)):
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(host=host, port=port, user="postgres", password="wrong", dbname="postgres")  # noqa: S106
        with psycopg.connect(
            host=host, port=port, user="postgres", password=server.layout.read_password(), dbname="postgres"
        ):
            pass
    assert server.layout.password.stat().st_mode & 0o777 == 0o600
    assert server.layout.data.stat().st_mode & 0o777 == 0o700


def test_the_callers_environment_does_not_reach_the_server(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGDATA", "/nowhere")
    monkeypatch.setenv("PGPORT", "1")
    monkeypatch.setenv("PYTHONHOME", "/nowhere")
    url = place.server().start()
    monkeypatch.undo()
    with psycopg.connect(url) as connection:
        connection.execute("create extension plpython3u")
        connection.execute("do language plpython3u 'import os; assert \"PYTHONHOME\" not in os.environ'")


def test_a_server_that_was_killed_starts_again(place: Place) -> None:
    server = place.server(config={"shared_buffers": "16MB"})
    url = server.start()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("create table kept as select 42 as answer")
        _kill(server)
    assert server.start() == url
    assert _value(url, "select answer from kept") == 42


def test_a_start_waits_for_sessions_that_outlive_a_killed_server(place: Place) -> None:
    server = place.server()
    url = server.start()
    with closing(psycopg.connect(url, autocommit=True)) as connection:
        connection.execute("create extension plpython3u")
        # Python that does not look up, as a long scoring does not
        connection.pgconn.send_query(b"do language plpython3u 'import time; time.sleep(2)'")
        time.sleep(0.5)
        _kill(server)
        server.start()
    assert "pre-existing shared memory block" in server.layout.log.read_text()
    assert _value(url, "select 1") == 1


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="reads /proc")
def test_a_pid_that_is_now_another_process_of_the_same_user_is_not_taken_for_the_server(place: Place) -> None:
    server = place.server()
    url = server.start()
    _kill(server)
    account = Account.choose(server.layout.data)
    with subprocess.Popen(["sleep", "60"], user=account.uid) as other:  # noqa: S607
        pid_file = server.layout.data / "postmaster.pid"
        socket_lock = server.layout.sockets / f".s.PGSQL.{server.layout.read_port()}.lock"
        for file in (pid_file, socket_lock):
            _, _, rest = file.read_text().partition("\n")
            file.write_text(f"{other.pid}\n{rest}")
        assert not server.is_running()
        assert not server.stop()
        assert server.start() == url
        assert other.poll() is None
        other.kill()


def test_a_pid_file_that_was_cut_off_is_no_obstacle(place: Place) -> None:
    server = place.server()
    server.start()
    server.stop()
    (server.layout.data / "postmaster.pid").touch()
    assert not server.is_running()
    server.start()
    assert server.is_running()


def test_two_starts_at_once_make_one_cluster(place: Place) -> None:
    urls: list[str] = []
    threads = [threading.Thread(target=lambda: urls.append(place.server().start())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(urls) == 3
    assert len(set(urls)) == 1
    assert sum("making a PostgreSQL" in said for said in place.said) == 1
    assert _value(urls[0], "select 1") == 1


def test_an_initdb_that_was_cut_off_is_done_again(place: Place) -> None:
    server = place.server()
    half = server.layout.directory / "data.unfinished"
    (half / "base").mkdir(parents=True)
    (half / "PG_VERSION").write_text("15\n")
    server.layout.password.write_text("")
    (server.layout.directory / "password.initdb").write_text("old")
    assert _value(server.start(), "select 1") == 1
    assert not half.exists()
    assert not (server.layout.directory / "password.initdb").exists()


def test_a_server_whose_port_was_taken_meanwhile_moves_to_another(place: Place) -> None:
    server = place.server()
    server.start()
    before = server.layout.read_port()
    assert before is not None
    server.stop()
    with closing(socket.socket()) as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", before))
        taken.listen()
        url = server.start()
    after = server.layout.read_port()
    assert after != before
    assert place.said[-1].startswith(f"port {before} is taken; the server 'main' moves to {after}")
    assert _value(url, "show port") == str(after)


def test_two_servers_of_one_home_run_side_by_side(place: Place) -> None:
    one, two = place.server("one"), place.server("two")
    assert one.start() != two.start()
    one.remove()
    assert not one.layout.directory.exists()
    assert _value(two.url(), "select 1") == 1


# -- what it refuses -----------------------------------------------------------


def test_a_server_that_does_not_start_shows_the_end_of_its_log(place: Place) -> None:
    with pytest.raises(ServerError) as caught:
        place.server(config={**QUICK, "shared_preload_libraries": "no_such_library"}).start()
    assert 'could not access file "no_such_library"' in caught.value.message
    assert "server.log" in caught.value.remedy
    assert not place.server().is_running()


def test_a_cluster_of_another_major_version_is_left_alone(place: Place) -> None:
    server = place.server()
    server.start()
    server.stop()
    version = server.layout.data / "PG_VERSION"
    made_by = version.read_text()
    version.write_text("13\n")
    with pytest.raises(ServerError, match="was made by PostgreSQL 13; the servers found here are: 1"):
        server.start()
    version.write_text(made_by)


def test_packages_that_cannot_be_had_leave_no_server_running(place: Place) -> None:
    file = place.home / "file"
    file.touch()
    server = place.server(with_packages=True, packages=file / "below")
    with pytest.raises(ServerError, match="cannot create the directory"):
        server.start()
    assert not server.is_running()


def test_packages_that_do_not_import_are_named_with_what_to_run(place: Place) -> None:
    versions = "-".join(f"{name}-{metadata.version(name)}" for name in ("numpy", "onnxruntime"))
    server = place.server()
    python = place.server("ask")
    python.start()
    target = place.home / "wheels" / f"python{python.status().python_version}-{versions}"
    target.mkdir(parents=True)
    server = place.server(with_packages=True, packages=place.home / "wheels")
    with pytest.raises(ServerError) as caught:
        server.start()
    assert "onnxruntime: ModuleNotFoundError" in caught.value.message
    assert f"Delete {target}" in caught.value.remedy
    assert "--only-binary=:all: --python-version" in caught.value.remedy
    assert not server.is_running()


def test_a_server_never_made_has_no_url(place: Place) -> None:
    with pytest.raises(ServerError, match="no server 'main'") as caught:
        place.server().url()
    assert caught.value.remedy == "Run: dbscore server start"


@pytest.mark.skipif(not ROOT, reason="only root drops to another user")
def test_a_home_that_the_servers_user_cannot_enter_is_named(place: Place) -> None:
    closed = place.home / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(ServerError, match=f"may not enter {closed}") as caught:
        LocalServer(closed / "home").start()
    assert "/var/lib/dbscore" in caught.value.remedy


@pytest.mark.skipif(not ROOT, reason="only root drops to another user")
def test_root_writes_through_no_link_that_the_servers_user_put_there(place: Place) -> None:
    server = place.server()
    server.start()
    server.stop()
    victim = place.home / "victim"
    victim.write_text("12345\nuntouched\n")
    for name in ("postgresql.conf", "postmaster.pid"):
        link = server.layout.data / name
        link.unlink(missing_ok=True)
        link.symlink_to(victim)
    server.start()
    assert victim.read_text() == "12345\nuntouched\n"
    assert victim.stat().st_uid == 0


# -- as an ordinary user -------------------------------------------------------


@pytest.fixture
def ordinary() -> Iterator[pwd.struct_passwd]:
    if not ROOT:
        pytest.skip("only root makes users; everything else here ran as an ordinary one")
    name = f"dbscore-{secrets.token_hex(4)}"
    subprocess.run(["useradd", "--no-create-home", "--shell", "/bin/false", name], check=True)  # noqa: S607
    try:
        yield pwd.getpwnam(name)
    finally:
        subprocess.run(["userdel", name], check=True)  # noqa: S607


def _as_user(user: pwd.struct_passwd, command: list[str]) -> subprocess.CompletedProcess[str]:
    paths = (Path(dbscore.__file__).parents[1], sysconfig.get_path("purelib"))
    return subprocess.run(
        command,
        user=user.pw_uid,
        group=user.pw_gid,
        extra_groups=[],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": ":".join(map(str, paths))},
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )


def _python_for(user: pwd.struct_passwd) -> str:
    """Return a Python of this one's version that `user` may run: this one may be in root's own home."""
    for python in (sys.executable, f"/usr/bin/python3.{sys.version_info.minor}"):
        try:
            if _as_user(user, [python, "-c", "import psycopg, dbscore.local"]).returncode == 0:
                return python
        except OSError:
            continue
    pytest.skip("every Python of this version here is closed to ordinary users")


def test_an_ordinary_user_runs_a_server_as_themselves(
    ordinary: pwd.struct_passwd, place: Place, equipped: LocalServer
) -> None:
    home = place.home / "theirs"
    home.mkdir(mode=0o700)
    os.chown(home, ordinary.pw_uid, ordinary.pw_gid)
    script = (
        "import sys; from pathlib import Path; from dbscore.local import LocalServer\n"
        "server = LocalServer(Path(sys.argv[1]), config={'fsync': 'off'}, packages=Path(sys.argv[2]))\n"
        "server.start(); status = server.status(); server.remove()\n"
        "print(status.os_user, *status.engines)"
    )
    packages = equipped.layout.python.readlink().parent
    done = _as_user(ordinary, [_python_for(ordinary), "-c", script, str(home), str(packages)])
    assert done.stdout == f"{ordinary.pw_name} onnx sql\n", done.stderr


def test_an_ordinary_user_is_told_whose_server_it_is(ordinary: pwd.struct_passwd, equipped: LocalServer) -> None:
    script = (
        "import sys; from pathlib import Path; from dbscore.local import LocalServer\n"
        "LocalServer(Path(sys.argv[1])).is_running()"
    )
    done = _as_user(ordinary, [_python_for(ordinary), "-c", script, str(equipped.layout.home)])
    owner = pwd.getpwuid(equipped.layout.data.stat().st_uid).pw_name
    assert f"belongs to the OS user {owner}, not to {ordinary.pw_name}" in done.stderr


# -- on the command line -------------------------------------------------------


def test_status_as_json_says_everything_but_the_password(equipped: LocalServer) -> None:
    done = CliRunner().invoke(app, ["status", "--json", "--home", str(equipped.layout.home)])
    assert done.exit_code == 0
    said = json.loads(done.stdout)
    assert said["running"] is True
    assert said["port"] == equipped.layout.read_port()
    assert said["data_directory"] == str(equipped.layout.data)
    assert said["packages"]["onnxruntime"] == metadata.version("onnxruntime")
    assert said["engines"] == ["onnx", "sql"]
    password = equipped.layout.read_password()
    assert password is not None
    assert password not in done.stdout


def test_status_of_a_server_that_does_not_run_exits_with_3(place: Place) -> None:
    done = CliRunner().invoke(app, ["status", "--home", str(place.home)])
    assert done.exit_code == NOT_RUNNING == 3
    assert "running         no\n" in done.stdout


def test_url_is_alone_on_stdout(equipped: LocalServer) -> None:
    done = CliRunner().invoke(app, ["url", "--home", str(equipped.layout.home), "--database", "a/b c"])
    assert done.stdout == equipped.url("postgres").removesuffix("postgres") + "a%2Fb%20c\n"


def test_url_of_a_server_that_does_not_run_is_refused(place: Place) -> None:
    done = CliRunner().invoke(app, ["url", "--home", str(place.home)])
    assert isinstance(done.exception, ServerError)
    assert done.stdout == ""
