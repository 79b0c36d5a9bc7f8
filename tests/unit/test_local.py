"""The private server's parts that need no server: discovery, wheels, apt, remedies."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from dbscore import remedy
from dbscore.errors import ServerError
from dbscore.local import apt, installation, packages
from dbscore.local.account import Account, make_directory
from dbscore.local.control import _quoted
from dbscore.local.facts import Facts, _without_password
from dbscore.local.files import last_lines, locked, write_link, write_whole
from dbscore.local.installation import Installation, find_installations
from dbscore.local.layout import Layout
from dbscore.local.packages import fetch, unusable
from dbscore.local.postmaster import free_port, running_pid
from dbscore.remedy import install_remedy, server_packages_remedy

ME = Account(name="me", uid=os.geteuid(), gid=os.getegid(), switch=False)


def _program(path: Path, script: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def _binaries(prefix: Path, version: str, *, plpython: bool = False) -> Path:
    """Write programs that say of themselves what a PostgreSQL `version` below `prefix` says."""
    bindir = prefix / "bin"
    _program(bindir / "postgres", f"echo 'postgres (PostgreSQL) {version}'")
    _program(bindir / "initdb", "exit 1")
    _program(bindir / "pg_ctl", "exit 1")
    answers = f"case $1 in --bindir) echo {bindir};; --pkglibdir) echo {prefix}/lib;; *) echo {prefix}/share;; esac"
    _program(bindir / "pg_config", answers)
    if plpython:
        for file in ("lib/plpython3.so", "share/extension/plpython3u.control"):
            prefix.joinpath(file).parent.mkdir(parents=True, exist_ok=True)
            prefix.joinpath(file).touch()
    return bindir


# -- which binaries --------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "version", "major"),
    [
        ("14.0", "14.0", 14),
        ("15.20 (Debian 15.20-0+deb12u1)", "15.20", 15),
        ("18beta1", "18beta1", 18),
    ],
)
def test_an_installation_knows_its_version(tmp_path: Path, said: str, version: str, major: int) -> None:
    found = Installation.at(_binaries(tmp_path, said))
    assert (found.version, found.major, found.plpython) == (version, major, False)


def test_plpython_takes_its_library_and_its_control_file(tmp_path: Path) -> None:
    bindir = _binaries(tmp_path, "15.20", plpython=True)
    assert Installation.at(bindir).plpython
    (tmp_path / "share" / "extension" / "plpython3u.control").unlink()
    assert not Installation.at(bindir).plpython


def test_plpython_is_found_without_pg_config(tmp_path: Path) -> None:
    bindir = _binaries(tmp_path, "15.20", plpython=True)
    (bindir / "pg_config").unlink()
    assert Installation.at(bindir).plpython


def test_a_client_only_bindir_is_no_installation(tmp_path: Path) -> None:
    bindir = _binaries(tmp_path, "15.20")
    (bindir / "initdb").unlink()
    with pytest.raises(ServerError, match="lacks initdb"):
        Installation.at(bindir)


def test_postgresql_13_is_too_old(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match=r"is PostgreSQL 13\.21") as caught:
        Installation.at(_binaries(tmp_path, "13.21"))
    assert "14 or later" in caught.value.remedy


def test_the_one_in_path_comes_first_then_the_newest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for version in ("9.6", "14.1", "16.4", "18.0"):
        _binaries(tmp_path / version.split(".")[0], version)
    monkeypatch.setenv("PATH", f"{tmp_path}/14/bin:/usr/bin:/bin")
    monkeypatch.setattr(installation, "_PATTERNS", (f"{tmp_path}/*/bin",))
    found = [one.major for one in find_installations() if one.bindir.is_relative_to(tmp_path)]
    assert found == [14, 18, 16]


# -- where it keeps what ---------------------------------------------------------


@pytest.mark.parametrize("name", ["", "../up", ".hidden", "a b", "x" * 64])
def test_a_name_that_is_no_directorys_is_refused(name: str) -> None:
    with pytest.raises(ServerError, match=re.escape(repr(name))):
        Layout(home=Path("/home"), name=name)


def test_a_home_that_pythonpath_cannot_carry_is_refused() -> None:
    with pytest.raises(ServerError, match="colon"):
        Layout(home=Path("/a:b"), name="main")


def test_the_url_has_password_port_and_database_quoted(tmp_path: Path) -> None:
    layout = Layout(home=tmp_path, name="main")
    layout.directory.mkdir()
    layout.port.write_text("15432\n")
    layout.password.write_text("p/w@\n")
    assert layout.url("sales 1") == "postgresql://postgres:p%2Fw%40@127.0.0.1:15432/sales%201"


def test_a_lost_password_is_told_from_a_server_never_made(tmp_path: Path) -> None:
    layout = Layout(home=tmp_path, name="main")
    with pytest.raises(ServerError, match="no server 'main'"):
        layout.url("postgres")
    layout.data.mkdir(parents=True)
    layout.port.write_text("15432\n")
    with pytest.raises(ServerError, match="password is lost"):
        layout.url("postgres")


def test_directories_are_open_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        make_directory(tmp_path / "a" / "b")
    finally:
        os.umask(before)
    assert [(tmp_path / one).stat().st_mode & 0o777 for one in ("a", "a/b")] == [0o755, 0o755]


def test_a_home_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ServerError, match="cannot create the directory"):
        make_directory(tmp_path / "file")


# -- files -----------------------------------------------------------------------


def test_a_write_replaces_a_link_and_spares_what_it_points_to(tmp_path: Path) -> None:
    victim, link = tmp_path / "victim", tmp_path / "link"
    victim.write_text("untouched")
    link.symlink_to(victim)
    write_whole(link, "new", mode=0o640)
    assert (victim.read_text(), link.read_text(), link.is_symlink()) == ("untouched", "new", False)
    assert link.stat().st_mode & 0o777 == 0o640
    assert sorted(one.name for one in tmp_path.iterdir()) == ["link", "victim"]


def test_a_link_is_moved_in_one_step(tmp_path: Path) -> None:
    write_link(tmp_path / "python", tmp_path / "one")
    write_link(tmp_path / "python", tmp_path / "two")
    assert (tmp_path / "python").readlink() == tmp_path / "two"
    assert [one.name for one in tmp_path.iterdir()] == ["python"]


def test_the_last_lines_of_a_log_leave_out_what_was_there_before(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("old\n")
    offset = log.stat().st_size
    log.write_text("old\n" + "".join(f"line {number}\n" for number in range(30)))
    assert last_lines(log, count=2, start=offset) == "line 28\nline 29"
    assert "old" not in last_lines(log, count=100, start=offset)
    assert last_lines(tmp_path / "absent") == ""


def test_a_lock_keeps_a_second_holder_out_until_its_time_is_up(tmp_path: Path) -> None:
    said: list[str] = []
    with (
        locked(tmp_path / "lock", notify=said.append),
        pytest.raises(ServerError, match="another process has held"),
        locked(tmp_path / "lock", notify=said.append, timeout=0.1),
    ):
        pass
    assert said == [f"waiting for another process that holds {tmp_path / 'lock'}"]


def test_a_lock_is_handed_on(tmp_path: Path) -> None:
    order: list[str] = []

    def second() -> None:
        with locked(tmp_path / "lock", notify=lambda _: order.append("waits")):
            order.append("second")

    with locked(tmp_path / "lock", notify=order.append):
        thread = threading.Thread(target=second)
        thread.start()
        while "waits" not in order:
            pass
        order.append("first")
    thread.join()
    assert order == ["waits", "first", "second"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs servers as somebody else")
def test_a_cluster_of_a_user_who_is_gone_is_refused(tmp_path: Path) -> None:
    os.chown(tmp_path, 61234, 61234)
    with pytest.raises(ServerError, match="number 61234"):
        Account.choose(tmp_path)


# -- processes and ports ---------------------------------------------------------


@pytest.mark.parametrize("pid", ["mine", "-mine", "2147483647", "0", "x"])
def test_a_pid_that_is_no_postgres_of_this_directory_is_not_running(tmp_path: Path, pid: str) -> None:
    (tmp_path / "postmaster.pid").write_text(f"{pid.replace('mine', str(os.getpid()))}\n{tmp_path}\n")
    assert running_pid(tmp_path) is None


def test_ports_are_looked_for_from_the_seeds_place_on() -> None:
    assert free_port(7) in range(15439, 15439 + 100)
    assert 15432 <= free_port(999) < 16432


@pytest.mark.parametrize(
    ("value", "written"), [("off", "'off'"), ("it's", "'it''s'"), ("a\\b", "'a\\\\b'"), ("", "''")]
)
def test_settings_are_quoted(value: str, written: str) -> None:
    assert _quoted("some.setting", value) == written


@pytest.mark.parametrize(("name", "value"), [("fsync = off #", "on"), ("", "x"), ("a.b.c", "x"), ("a", "x\ny")])
def test_a_setting_that_would_write_another_line_is_refused(name: str, value: str) -> None:
    with pytest.raises(ServerError, match="no PostgreSQL setting"):
        _quoted(name, value)


# -- what it says ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:secret@host:1/db", "postgresql://me:***@host:1/db"),
        ("postgresql://host/db", "postgresql://host/db"),
        ("postgresql://host/db?user=me&password=secret&x=1", "postgresql://host/db?user=me&password=***&x=1"),
        ("host=h password=secret dbname=d", "host=h password=*** dbname=d"),
        ("host=h password = 'se cret' dbname=d", "host=h password = *** dbname=d"),
    ],
)
def test_a_password_is_never_shown(url: str, shown: str) -> None:
    assert _without_password(url) == shown


@pytest.mark.parametrize(
    ("found", "engines"),
    [
        ({}, ("sql",)),
        ({"numpy": "2.4.6"}, ("sql",)),
        ({"numpy": "2.4.6", "onnxruntime": "1.32.0"}, ("onnx", "sql")),
    ],
)
def test_the_engine_onnx_takes_both_packages(found: dict[str, str], engines: tuple[str, ...]) -> None:
    assert Facts(version="15.20", data_directory="", packages=found).engines == engines


def test_the_remedy_for_a_servers_python_is_what_to_type() -> None:
    assert server_packages_remedy("3.13", server_major=17) == (
        "On the server's machine, run:\n"
        "  python3 -m pip install --target /opt/dbscore/python --only-binary=:all: --python-version 3.13 "
        "numpy onnxruntime\n"
        "  chmod -R a+rX /opt/dbscore/python\n"
        "and set PYTHONPATH for the server. On Debian and Ubuntu:\n"
        "  echo \"PYTHONPATH = '/opt/dbscore/python'\" >> /etc/postgresql/17/main/environment\n"
        "  systemctl restart postgresql@17-main\n"
        "Elsewhere, put PYTHONPATH in the environment that starts postgres (systemctl edit: "
        'Environment="PYTHONPATH=/opt/dbscore/python") and restart it.'
    )


@pytest.mark.parametrize(
    ("family", "command"),
    [
        ({"ubuntu", "debian"}, "sudo apt-get install postgresql postgresql-plpython3-16"),
        ({"rocky", "rhel"}, "sudo dnf install postgresql-server postgresql-plpython3"),
        ({"darwin"}, "EDB's installer"),
        (set(), "PostgreSQL 14 or later with PL/Python"),
    ],
)
def test_the_remedy_for_no_postgresql_is_this_systems_command(
    monkeypatch: pytest.MonkeyPatch, family: set[str], command: str
) -> None:
    monkeypatch.setattr(remedy, "_family", lambda: family)
    said = install_remedy(plpython_package="postgresql-plpython3-16")
    assert command in said
    assert "DBSCORE_URL" in said
    assert "pip install 'dbscore[embedded]'" in said


# -- wheels ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("present", "wanted", "lacking"),
    [
        ({"numpy": "2.0", "onnxruntime": "1.20"}, {"numpy": "2.0", "onnxruntime": "1.20"}, ()),
        ({"numpy": "2.0", "onnxruntime": "1.20"}, {}, ()),
        ({"numpy": "2.0", "onnxruntime": "1.20"}, {"onnxruntime": "1.32.0"}, ("onnxruntime",)),
        ({}, {}, ("numpy", "onnxruntime")),
    ],
)
def test_packages_are_lacking_where_absent_or_of_another_version(
    present: dict[str, str], wanted: dict[str, str], lacking: tuple[str, ...]
) -> None:
    assert unusable(present, wanted) == lacking


@pytest.fixture
def pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installer that notes its requirements, and has no wheel for what the file `refused` names."""
    log = tmp_path / "pip.log"
    log.touch()
    program = _program(
        tmp_path / "pip",
        f'target=$1; shift; echo "$*" >> {log}\n'
        f"if [ -e {tmp_path}/offline ]; then echo 'Network is unreachable' >&2; exit 1; fi\n"
        f'for one in "$@"; do if grep -qx "$one" {tmp_path}/refused 2>/dev/null; then\n'
        '  echo "ERROR: No matching distribution found for $one" >&2; exit 1; fi; done\n'
        'touch "$target/module"',
    )
    monkeypatch.setattr(packages, "_installer", lambda target, _: [str(program), str(target)])
    return log


def _fetch(store: Path) -> Path:
    wanted = {"numpy": "2.4.6", "onnxruntime": "1.32.0"}
    return fetch(store, "3.13", wanted=wanted, account=ME, notify=lambda _: None)


def test_the_clients_own_versions_are_fetched_once(tmp_path: Path, pip: Path) -> None:
    target = _fetch(tmp_path / "store")
    assert target == tmp_path / "store" / "python3.13-numpy-2.4.6-onnxruntime-1.32.0"
    assert (target / "module").exists()
    assert target.stat().st_mode & 0o777 == 0o755
    assert _fetch(tmp_path / "store") == target
    assert pip.read_text() == "numpy==2.4.6 onnxruntime==1.32.0\n"


def test_an_older_python_keeps_onnxruntime_and_gives_up_numpys_version(tmp_path: Path, pip: Path) -> None:
    (tmp_path / "refused").write_text("numpy==2.4.6\n")
    _fetch(tmp_path / "store")
    assert pip.read_text() == "numpy==2.4.6 onnxruntime==1.32.0\nnumpy onnxruntime==1.32.0\n"


def test_a_python_without_that_onnxruntime_takes_what_there_is(tmp_path: Path, pip: Path) -> None:
    (tmp_path / "refused").write_text("onnxruntime==1.32.0\n")
    _fetch(tmp_path / "store")
    assert pip.read_text().splitlines()[-1] == "numpy onnxruntime"


def test_a_failed_download_is_not_tried_with_other_versions_and_leaves_nothing(tmp_path: Path, pip: Path) -> None:
    (tmp_path / "offline").touch()
    with pytest.raises(ServerError, match="Network is unreachable") as caught:
        _fetch(tmp_path / "store")
    assert "numpy==2.4.6 onnxruntime==1.32.0" in caught.value.remedy
    assert len(pip.read_text().splitlines()) == 1
    assert [one.name for one in (tmp_path / "store").iterdir()] == ["fetch.lock"]


@pytest.mark.usefixtures("pip")
def test_a_download_that_was_cut_off_is_cleared_away(tmp_path: Path) -> None:
    left = tmp_path / "store" / "unfinished-abc"
    left.mkdir(parents=True)
    (left / "half").touch()
    target = _fetch(tmp_path / "store")
    assert sorted(one.name for one in (tmp_path / "store").iterdir()) == ["fetch.lock", target.name]


# -- apt -------------------------------------------------------------------------


@pytest.fixture
def debian(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An apt that knows two PL/Pythons and notes what it is asked, and what keeps `main` from being made."""
    log = tmp_path / "apt.log"
    drop_in = tmp_path / "etc" / "createcluster.d" / "dbscore.conf"
    monkeypatch.setattr(apt, "_DROP_IN", drop_in)
    _program(tmp_path / "bin" / "apt-get", f'echo "$*" >> {log}; cat {drop_in} >> {log} 2>/dev/null; exit 0')
    _program(
        tmp_path / "bin" / "apt-cache",
        "echo 'postgresql-plpython3-9 - old'; echo 'postgresql-plpython3-15 - PL/Python'; "
        "echo 'postgresql-plpython3-15-dbgsym - no'",
    )
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    return log


def test_apt_installs_the_newest_plpython_and_makes_no_system_cluster(tmp_path: Path, debian: Path) -> None:
    said: list[str] = []
    apt.install(notify=said.append)
    assert debian.read_text() == (
        "update --quiet=2\n"
        "install --yes --quiet=2 --no-install-recommends postgresql-15 postgresql-plpython3-15\n"
        "create_main_cluster = false\n"
    )
    assert said[-1].startswith("installing postgresql-15 and postgresql-plpython3-15")
    assert not (tmp_path / "etc").exists()


def test_a_failed_apt_shows_its_last_words_and_leaves_the_configuration_as_it_was(tmp_path: Path, debian: Path) -> None:
    _program(tmp_path / "bin" / "apt-get", "[ $1 = update ] || { echo 'E: no space left' >&2; exit 100; }")
    (tmp_path / "etc" / "createcluster.d").mkdir(parents=True)
    with pytest.raises(ServerError, match="no space left"):
        apt.install(notify=lambda _: None)
    assert list((tmp_path / "etc").rglob("*")) == [tmp_path / "etc" / "createcluster.d"]
    assert not debian.exists()


# -- what importing it costs -----------------------------------------------------


def test_importing_it_loads_no_machine_learning() -> None:
    heavy = {"sklearn", "onnx", "onnxruntime", "numpy", "pandas"}
    check = f"import sys, dbscore.local; print({heavy} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
