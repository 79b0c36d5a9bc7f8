"""A server made from the image, started through testcontainers."""

from __future__ import annotations

import os
import secrets
import time
from typing import TYPE_CHECKING, Any, Self

import psycopg
from testcontainers.core.container import DockerContainer
from testcontainers.core.docker_client import DockerClient

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from docker.models.containers import Container

DATA = "/var/lib/postgresql/data"


def until(what: Callable[[], Any], *, seconds: float = 60, every: float = 0.05) -> Any:
    """Return the first true answer; fail where there is none in time."""
    deadline = time.monotonic() + seconds
    while not (answer := what()):
        if time.monotonic() > deadline:
            message = f"not so after {seconds} s: {getattr(what, '__name__', what)}"
            raise TimeoutError(message)
        time.sleep(every)
    return answer


class Server:
    """A container of the image that DBSCORE_TEST_IMAGE names; removed with its anonymous volumes on leaving the block.

    Args:
        volume: A named volume for the data; by default an anonymous one.
        command: Arguments of `docker run` after the image.
        environment: Settings besides the password; a value of None leaves POSTGRES_PASSWORD out.
        wait: Whether to wait until it is healthy.
    """

    def __init__(
        self,
        *,
        volume: str | None = None,
        command: Sequence[str] = (),
        environment: dict[str, str | None] | None = None,
        wait: bool = True,
    ) -> None:
        settings = {"POSTGRES_PASSWORD": secrets.token_hex(8), **(environment or {})}
        self.settings = {name: value for name, value in settings.items() if value is not None}
        self.wait = wait
        self.testcontainer = DockerContainer(
            os.environ["DBSCORE_TEST_IMAGE"],
            command=list(command),
            env=self.settings,
            ports=[5432],
            volumes=[(volume, DATA, "rw")] if volume else None,
            shm_size="256m",
        )

    def __enter__(self) -> Self:
        try:
            self.testcontainer.start()
            if self.wait:
                self.wait_until_healthy()
        except BaseException:
            self.testcontainer.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.testcontainer.stop()

    @property
    def container(self) -> Container:
        return self.testcontainer.get_wrapped_container()

    @property
    def logs(self) -> str:
        return self.container.logs().decode()

    @property
    def health(self) -> str:
        """`starting`, `healthy` or `unhealthy`, or that it ended."""
        self.container.reload()
        state = self.container.attrs["State"]
        return str(state["Health"]["Status"]) if state["Running"] else f"ended with {state['ExitCode']}"

    @property
    def url(self) -> str:
        """The superuser's URL; another port after each start."""
        # the port first: asking for it waits until the engine has one
        until(self._published)
        host, port = self.testcontainer.get_container_host_ip(), self._published()
        user = self.settings.get("POSTGRES_USER", "postgres")
        database = self.settings.get("POSTGRES_DB", user)
        return f"postgresql://{user}:{self.settings['POSTGRES_PASSWORD']}@{host}:{port}/{database}"

    def _published(self) -> str | None:
        self.container.reload()
        bindings = self.container.ports.get("5432/tcp")
        return bindings[0]["HostPort"] if bindings else None

    def wait_until_healthy(self) -> None:
        """Wait until what the engine calls as its health check, once in five seconds, succeeds."""
        until(lambda: self.health.startswith("ended") or self.container.exec_run(["healthcheck"])[0] == 0, every=0.2)
        if self.health.startswith("ended"):
            message = f"the server {self.health}:\n{self.logs}"
            raise RuntimeError(message)

    def exit_code(self) -> int:
        """Wait for the container to end by itself."""
        return int(self.container.wait(timeout=60)["StatusCode"])

    def start_again(self) -> None:
        self.container.start()
        self.wait_until_healthy()

    def connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self.url, autocommit=True)

    def run(self, *command: str, user: str = "") -> str:
        """Run a command in the container and return what it says; fail where it fails."""
        code, output = self.container.exec_run(list(command), user=user)
        text = str(output.decode())
        if code != 0:
            message = f"{command[0]} ended with {code}: {text}"
            raise RuntimeError(message)
        return text


class Volume:
    """A named volume, removed on leaving the block."""

    def __enter__(self) -> str:
        self._client = DockerClient().client
        self._volume = self._client.volumes.create(f"dbscore-test-{secrets.token_hex(6)}")
        return str(self._volume.name)

    def __exit__(self, *_: object) -> None:
        self._volume.remove(force=True)
        self._client.close()
