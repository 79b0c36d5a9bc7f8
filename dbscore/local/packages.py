"""The numpy and ONNX Runtime that a private server's own Python imports."""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from dbscore.errors import ServerError
from dbscore.local.account import Account, make_directory
from dbscore.local.files import locked
from dbscore.remedy import SERVER_PACKAGES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["client_versions", "fetch", "unusable"]

_TIMEOUT = 900.0
_NO_WHEEL = ("No matching distribution found", "ResolutionImpossible", "No solution found")


def client_versions() -> dict[str, str]:
    """Return the versions of numpy and onnxruntime in this process's Python, without importing them."""
    found = {}
    for name in SERVER_PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def unusable(present: Mapping[str, str], wanted: Mapping[str, str]) -> tuple[str, ...]:
    """Return which packages are absent, or of another version than `wanted` where it says one."""
    return tuple(
        name for name in SERVER_PACKAGES if name not in present or present[name] != wanted.get(name, present[name])
    )


def fetch(
    store: Path,
    python_version: str,
    *,
    wanted: Mapping[str, str],
    account: Account,
    notify: Callable[[str], None],
) -> Path:
    """Return a directory below `store` with the wheels for a server's Python, made now if need be.

    The client's versions are taken where a wheel exists for that Python, so that both sides run the same ONNX
    Runtime; else the same onnxruntime with any numpy; else the newest. An install that is cut off leaves
    nothing that a later call would take for whole.

    Args:
        store: Holds one directory per Python and set of versions; may be shared between clusters.
        python_version: The server's, such as "3.11".
        wanted: Versions by package name, as from `client_versions`.
        account: Who must be able to read the result.
        notify: Told what is about to be downloaded.

    Raises:
        ServerError: There is no pip or uv, the download failed, or no wheel suits that Python.
    """
    versions = "-".join(f"{name}-{wanted.get(name, 'any')}" for name in SERVER_PACKAGES)
    target = store / f"python{python_version}-{versions}"
    if target.is_dir():
        return target
    make_directory(store)
    with locked(store / "fetch.lock", notify=notify):
        if target.is_dir():
            return target
        for left in store.glob("unfinished-*"):
            shutil.rmtree(left)
        half = Path(tempfile.mkdtemp(prefix="unfinished-", dir=store))
        try:
            _install(half, python_version, wanted=wanted, notify=notify)
            half.chmod(0o755)
            # its owner writes the bytecode at the first import: half a second that every connection would pay
            account.give(half)
            half.rename(target)
        except BaseException:
            shutil.rmtree(half, ignore_errors=True)
            raise
    return target


def _install(target: Path, python_version: str, *, wanted: Mapping[str, str], notify: Callable[[str], None]) -> None:
    said = ""
    choices = _choices(wanted)
    for number, requirements in enumerate(choices):
        notify(f"fetching {' and '.join(requirements)} for the server's Python {python_version}")
        command = [*_installer(target, python_version), *requirements]
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
                timeout=_TIMEOUT,
                umask=0o022,
            )
        except subprocess.TimeoutExpired as error:
            raise ServerError(
                f"fetching {', '.join(requirements)} took longer than {_TIMEOUT:.0f} s",
                remedy=f"Check the network, then run: {shlex.join(command)}",
            ) from error
        if done.returncode == 0:
            return
        said = done.stderr.strip() or done.stdout.strip()
        if number + 1 == len(choices) or not any(words in said for words in _NO_WHEEL):
            break
    last = "\n".join(said.splitlines()[-5:])
    raise ServerError(
        f"fetching {', '.join(requirements)} for the server's Python {python_version} failed:\n{last}",
        remedy=f"To see it all, run: {shlex.join(command)}",
    )


def _choices(wanted: Mapping[str, str]) -> Sequence[tuple[str, ...]]:
    def pinned(*names: str) -> tuple[str, ...]:
        return tuple(
            f"{name}=={wanted[name]}" if name in names and name in wanted else name for name in SERVER_PACKAGES
        )

    return list(dict.fromkeys((pinned(*SERVER_PACKAGES), pinned("onnxruntime"), pinned())))


def _installer(target: Path, python_version: str) -> list[str]:
    options = ["--target", str(target), "--only-binary=:all:", "--python-version", python_version]
    if importlib.util.find_spec("pip"):
        quiet = ["--quiet", "--disable-pip-version-check", "--no-input"]
        root = ["--root-user-action=ignore"] if os.geteuid() == 0 else []
        return [sys.executable, "-m", "pip", "install", *quiet, *root, *options]
    # environments made by uv have no pip in them
    if uv := shutil.which("uv"):
        return [uv, "pip", "install", "--quiet", *options]
    raise ServerError(
        f"{sys.executable} has no pip, and uv is not in PATH",
        remedy=f"Run: {shlex.quote(sys.executable)} -m ensurepip",
    )
