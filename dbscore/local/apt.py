"""PostgreSQL with PL/Python from Debian's or Ubuntu's packages, without the system cluster they make."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from dbscore.errors import ServerError
from dbscore.local.files import write_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["can_install", "install", "newest_plpython"]

_TIMEOUT = 1800.0
_DROP_IN = Path("/etc/postgresql-common/createcluster.d/dbscore-no-main-cluster.conf")
_PLPYTHON = re.compile(r"^(postgresql-plpython3-(\d+)) ", re.MULTILINE)


def can_install() -> bool:
    """Return whether this process may install with apt-get: it is root, on Debian or what derives from it."""
    return os.geteuid() == 0 and bool(shutil.which("apt-get")) and Path("/etc/debian_version").exists()


def newest_plpython() -> tuple[str, int] | None:
    """Return the newest PL/Python package that apt knows and its PostgreSQL major version, or None."""
    if not shutil.which("apt-cache"):
        return None
    said = _run("apt-cache", "search", "--names-only", r"^postgresql-plpython3-[0-9]+$")
    found = [(name, int(major)) for name, major in _PLPYTHON.findall(said)]
    return max(found, key=lambda one: one[1], default=None)


def install(*, notify: Callable[[str], None]) -> None:
    """Install PostgreSQL and PL/Python; a system cluster that is there stays, none is made.

    Raises:
        ServerError: apt knows no PL/Python, or an apt command failed.
    """
    notify("reading the lists of packages: apt-get update")
    _run("apt-get", "update", "--quiet=2")
    newest = newest_plpython()
    if newest is None:
        raise ServerError(
            "apt knows no package postgresql-plpython3-VERSION",
            remedy="Add the PostgreSQL project's own repository: see apt.postgresql.org.",
        )
    plpython, major = newest
    packages = (f"postgresql-{major}", plpython)
    notify(f"installing {' and '.join(packages)} with apt-get; the system gets no cluster and no running server")
    with _no_main_cluster():
        _run("apt-get", "install", "--yes", "--quiet=2", "--no-install-recommends", *packages)


@contextmanager
def _no_main_cluster() -> Iterator[None]:
    """Keep the package postgresql-N from making and starting a cluster; the administrator's settings stay."""
    made = [one for one in (_DROP_IN.parent, _DROP_IN.parent.parent) if not one.exists()]
    _DROP_IN.parent.mkdir(parents=True, exist_ok=True)
    write_whole(_DROP_IN, "create_main_cluster = false\n", mode=0o644)
    try:
        yield
    finally:
        _DROP_IN.unlink(missing_ok=True)
        for directory in made:
            if not any(directory.iterdir()):
                directory.rmdir()


def _run(*command: str) -> str:
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"}
    try:
        done = subprocess.run(
            command,
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=_TIMEOUT,
        )
    except subprocess.TimeoutExpired as error:
        raise ServerError(
            f"{' '.join(command)} took longer than {_TIMEOUT:.0f} s",
            remedy="Run it by hand and see what it waits for.",
        ) from error
    if done.returncode != 0:
        last = "\n".join((done.stderr.strip() or done.stdout.strip()).splitlines()[-8:])
        raise ServerError(f"{' '.join(command)} failed:\n{last}", remedy="Run it by hand, then try again.")
    return done.stdout
