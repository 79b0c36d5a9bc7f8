"""A private PostgreSQL cluster: what callers start, ask and stop."""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dbscore.errors import ServerError
from dbscore.local.account import Account, make_directory
from dbscore.local.control import Control
from dbscore.local.facts import Engine, Facts, ask
from dbscore.local.files import locked, write_link
from dbscore.local.installation import Installation, find_embedded, find_installations
from dbscore.local.layout import SUPERUSER, Layout
from dbscore.local.packages import client_versions, fetch, unusable
from dbscore.local.postmaster import running_pid
from dbscore.remedy import install_remedy, server_packages_remedy
from dbscore.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

__all__ = ["LocalServer", "ServerStatus"]

_CLOSED = "Use a home that every user may enter, such as /var/lib/dbscore: set DBSCORE_HOME, or pass --home."

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerStatus:
    """What there is to say of a local server.

    Attributes:
        name: The cluster's name.
        running: Whether it runs.
        url: Where it listens, without the password; None before the first start.
        port: Its port on 127.0.0.1; None before the first start.
        version: PostgreSQL's, such as "15.20"; None unless it runs.
        data_directory: Its data directory, whether or not it exists yet.
        log: The server's log.
        os_user: Whom the server runs as.
        python_version: PL/Python's, such as "3.11"; None unless it runs and has it.
        packages: Versions by name of numpy and onnxruntime in the server; empty unless it runs.
        engines: What can compute a version on it; empty unless it runs.
    """

    name: str
    running: bool
    url: str | None
    port: int | None
    version: str | None
    data_directory: Path
    log: Path
    os_user: str
    python_version: str | None = None
    packages: Mapping[str, str] = field(default_factory=dict)
    engines: tuple[Engine, ...] = ()


class LocalServer:
    """A PostgreSQL cluster of dbscore's own, for the demo, tests and notebooks; never the system's.

    It listens on 127.0.0.1 and on a unix socket in its directory, and takes nobody without the generated
    password: with PL/Python, a superuser's connection runs code as the server's OS user.

    Args:
        home: Where clusters are kept; by default `DBSCORE_HOME`, and without that the user's own place.
        name: The cluster's name; several may live in one home.
        config: PostgreSQL settings of this object's starts, by name, such as {"fsync": "off"}.
        packages: Where wheels for the server's Python are kept; by default in the cluster's own directory.
            Clusters may share one.
        with_packages: Whether to give the server's Python numpy and onnxruntime at all.
        installation: The binaries; by default those found, with PL/Python before without.
        notify: Told what takes long or changes something; by default it is logged at level INFO.

    Raises:
        ServerError: The name, or the home, is not fit for one.
    """

    def __init__(
        self,
        home: Path | None = None,
        *,
        name: str = "main",
        config: Mapping[str, str] | None = None,
        packages: Path | None = None,
        with_packages: bool = True,
        installation: Installation | None = None,
        notify: Callable[[str], None] = _logger.info,
    ) -> None:
        chosen = Settings.from_environment().home if home is None else home
        self.layout = Layout(home=chosen.expanduser().resolve(), name=name)
        self._config = dict(config or {})
        self._packages = None if packages is None else packages.expanduser().resolve()
        self._with_packages = with_packages
        self._installation = installation
        self._notify = notify

    def start(self) -> str:
        """Start the server unless it runs, making the cluster first if need be, and return its URL.

        Raises:
            ServerError: There are no binaries; the cluster is another user's or another major version's; the
                server did not start (the last lines of its log are in the message); or its Python lacks numpy
                and onnxruntime and they cannot be had.
        """
        Account.choose(self.layout.data)
        make_directory(self.layout.home)
        with self._lock():
            control = self._control()
            account, installation = control.account, control.installation
            account.require_access(self.layout.home, remedy=_CLOSED)
            account.require_access(
                installation.bindir,
                remedy="Install PostgreSQL where every user may run it, or run dbscore as an ordinary user.",
            )
            make_directory(self.layout.directory)
            if not self.layout.data.exists():
                control.initialise()
            started = not self.is_running()
            if started:
                control.launch()
            try:
                self._equip(control, started=started)
            except BaseException:
                if started:
                    control.halt()
                raise
        return self.url()

    def stop(self) -> bool:
        """Stop the server: sessions are ended, their transactions rolled back. Return whether it was running.

        Raises:
            ServerError: It did not stop within a minute, or it is another user's.
        """
        Account.choose(self.layout.data)
        if not self.layout.data.exists():
            return False
        with self._lock():
            running = self.is_running()
            if running:
                self._control().halt()
            return running

    def remove(self) -> None:
        """Stop the server and delete the cluster, its data and its log; shared packages stay.

        Raises:
            ServerError: It did not stop, or it is another user's.
        """
        self.stop()
        if self.layout.directory.exists():
            with self._lock():
                shutil.rmtree(self.layout.directory)

    def status(self) -> ServerStatus:
        """Return what there is to say of the server, asking it if it runs.

        Raises:
            ServerError: It runs and does not answer, or it is another user's.
        """
        account = Account.choose(self.layout.data)
        port = self.layout.read_port()
        running = port is not None and self.is_running()
        facts = ask(self.url()) if running else None
        return ServerStatus(
            name=self.layout.name,
            running=running,
            url=None if port is None else f"postgresql://{SUPERUSER}@127.0.0.1:{port}/postgres",
            port=port,
            version=facts.version if facts else None,
            data_directory=self.layout.data,
            log=self.layout.log,
            os_user=account.name,
            python_version=facts.python_version if facts else None,
            packages=facts.packages if facts else {},
            engines=facts.engines if facts else (),
        )

    def is_running(self) -> bool:
        """Return whether the server runs.

        Raises:
            ServerError: It is another user's.
        """
        Account.choose(self.layout.data)
        return running_pid(self.layout.data) is not None

    def url(self, database: str = "postgres") -> str:
        """Return the URL of a database, with the password, as psql and libpq take it.

        Raises:
            ServerError: The cluster has not been made yet, has lost a file, or is another user's.
        """
        return self.layout.url(database)

    def installation(self) -> Installation:
        """Return the binaries: those given; or of those found and fit, the first with PL/Python.

        Raises:
            ServerError: There are none, or none of the major version that made the cluster.
        """
        given = self._installation
        found = (given,) if given else (*find_installations(), *find_embedded())
        made_by = _major(self.layout.data)
        fit = [one for one in found if made_by in (None, one.major)]
        if fit:
            return next((one for one in fit if one.plpython), fit[0])
        if made_by is not None:
            have = ", ".join(f"{one.version} in {one.bindir}" for one in found) or "none"
            raise ServerError(
                f"{self.layout.data} was made by PostgreSQL {made_by}; the servers found here are: {have}",
                remedy=f"Install PostgreSQL {made_by}; or delete {self.layout.directory}, with all its data, "
                "and start again.",
            )
        raise ServerError("no PostgreSQL server is installed here", remedy=install_remedy())

    def _lock(self) -> AbstractContextManager[None]:
        return locked(self.layout.lock, notify=self._notify)

    def _control(self) -> Control:
        return Control(
            layout=self.layout,
            installation=self.installation(),
            account=Account.choose(self.layout.data),
            config=self._config,
            notify=self._notify,
        )

    def _equip(self, control: Control, *, started: bool) -> None:
        """Give the server's Python the packages it lacks."""
        facts = self._ask()
        if facts.python_version is None:
            self._notify(
                f"PostgreSQL {facts.version} in {control.installation.bindir} has no PL/Python: "
                "the engine onnx is not there, only sql"
            )
            return
        wanted = client_versions()
        if not self._with_packages or not unusable(facts.packages, wanted):
            return
        if not started and not unusable(facts.packages, {}):
            # not under the feet of sessions that have loaded part of them
            have = ", ".join(f"{name} {version}" for name, version in facts.packages.items())
            self._notify(f"the server runs {have}; a stop and a start bring it to this environment's versions")
            return
        store = self._packages or self.layout.packages
        target = fetch(store, facts.python_version, wanted=wanted, account=control.account, notify=self._notify)
        control.account.require_access(target, remedy=_CLOSED)
        write_link(self.layout.python, target)
        facts = self._ask()
        self._require_packages(facts, target)
        for name in unusable(facts.packages, wanted):
            self._notify(f"the server runs {name} {facts.packages[name]}, this environment {wanted[name]}")
        if started and self._packages is None:
            for other in store.glob("python*"):
                if other != target:
                    shutil.rmtree(other)

    def _require_packages(self, facts: Facts, target: Path) -> None:
        if lacking := unusable(facts.packages, {}):
            why = "\n".join(f"{name}: {facts.failures.get(name, 'not imported')}" for name in lacking)
            raise ServerError(
                f"the server's Python {facts.python_version} cannot import from {target}\n{why}",
                remedy=f"Delete {target} and start again. By hand it would be:\n"
                + server_packages_remedy(facts.python_version or "3", directory=str(target)),
            )

    def _ask(self) -> Facts:
        facts = ask(self.url())
        if facts.data_directory != str(self.layout.data):
            raise ServerError(
                f"on the port of {self.layout.data} answers the server of {facts.data_directory}",
                remedy="Stop that one, then start this one again.",
            )
        return facts


def _major(data: Path) -> int | None:
    try:
        return int((data / "PG_VERSION").read_text(encoding="ascii"))
    except (FileNotFoundError, ValueError):
        return None
