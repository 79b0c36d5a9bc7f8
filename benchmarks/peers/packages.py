"""Packages that an alternative needs and dbscore does not: each set in a directory of its own, kept between runs."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.bench import say
from dbscore import Settings
from dbscore.local.account import make_directory

__all__ = ["fetch"]


def fetch(*requirements: str, python_version: str) -> Path:
    """Return a directory with these packages and what they need, for a Python such as "3.11"; fetched once."""
    store = Settings.from_environment().home / ".packages" / "benchmarks"
    target = store / "-".join((f"python{python_version}", *requirements)).replace("==", "-")
    if target.is_dir():
        return target
    say(f"fetching {' and '.join(requirements)} for Python {python_version}")
    make_directory(store)
    half = Path(tempfile.mkdtemp(prefix="unfinished-", dir=store))
    try:
        options = ["--quiet", "--disable-pip-version-check", "--only-binary=:all:", "--python-version", python_version]
        command = [sys.executable, "-m", "pip", "install", *options, "--target", str(half), *requirements]
        subprocess.run(command, check=True, umask=0o022)
        # the server's OS user reads it
        half.chmod(0o755)
        half.rename(target)
    finally:
        shutil.rmtree(half, ignore_errors=True)
    return target
