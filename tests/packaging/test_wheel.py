"""The wheel, built and installed in an empty environment, brings its SQL and its migrations."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING

import pytest

from tests.conftest import REPOSITORY

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--outdir", str(out), str(REPOSITORY)],
        check=True,
        capture_output=True,
    )
    return next(out.glob("*.whl"))


def test_the_wheel_holds_the_sql_and_the_migrations_of_the_checkout(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder, pattern in (("sql", "*.sql"), ("migrations", "**/*.py")):
        for path in (REPOSITORY / folder).glob(pattern):
            assert f"dbscore/_{folder}/{path.relative_to(REPOSITORY / folder)}" in names
    assert not any(name.startswith("tests/") or "__pycache__" in name for name in names)


def test_the_schema_is_installed_from_the_wheel_in_an_empty_environment(
    wheel: Path, empty_url: str, tmp_path: Path
) -> None:
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    binaries = tmp_path / "venv" / "bin"
    subprocess.run([binaries / "python", "-m", "pip", "install", "--quiet", str(wheel)], check=True)
    clean = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    command = [binaries / "dbscore", "install", "--url", empty_url, "--json"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=tmp_path, env=clean)
    status = json.loads(done.stdout)
    assert status["installed"]
    assert status["problems"] == []
    printed = subprocess.run(
        [binaries / "dbscore", "sql"], check=True, capture_output=True, text=True, cwd=tmp_path, env=clean
    )
    assert "create_functions" in printed.stdout
    assert "CREATE TABLE dbscore.version" in printed.stdout
