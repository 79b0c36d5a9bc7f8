"""`make test-docker`: build the image, start a server from it, and run the tests of the image and of dbscore on it.

usage: python tests/docker [arguments for pytest]

Exit codes: those of pytest; 4 where no engine runs or the image cannot be built. TESTCONTAINERS_RYUK_DISABLED is set to
true unless it is set already: the reaper is an image from a registry, and what is started here is stopped here.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")

REPOSITORY = Path(__file__).resolve().parent.parent.parent
TAG = "dbscore-postgres:test"
SUITES = ("docker", "integration", "privileges", "migration", "acceptance")
# these start servers on this machine
LOCAL = ("tests/integration/test_local_server.py",)


def note(text: str) -> None:
    sys.stderr.write(f"test-docker: {text}\n")


def engine_problem() -> str | None:
    """Return why no engine can be used; None where one answers."""
    try:
        from testcontainers.core.docker_client import DockerClient
    except ImportError as error:
        return f"{error}; install the tests' packages: pip install -e '.[dev]'"
    try:
        client = DockerClient().client
        client.ping()
    except Exception as error:  # noqa: BLE001 - the SDK lets errors of several libraries through; all mean the same
        address = os.environ.get("DOCKER_HOST", "the default socket")
        return f"no Docker engine answers at {address} ({error}); start one, or set DOCKER_HOST"
    client.close()
    return None


def built() -> str:
    """Build the image and return its tag."""
    from testcontainers.core.image import DockerImage

    began = time.monotonic()
    image = DockerImage(path=REPOSITORY, dockerfile_path="docker/Dockerfile", tag=TAG, clean_up=False).build()
    megabytes = image.get_wrapped_image().attrs["Size"] / 1e6
    note(f"built {TAG} in {time.monotonic() - began:.0f} s, {megabytes:.0f} MB")
    return TAG


def main(arguments: list[str]) -> int:
    problem = engine_problem()
    if problem:
        note(f"nothing was tested: {problem}")
        return 4
    import pytest

    note("building the image (minutes, the first time)")
    try:
        os.environ["DBSCORE_TEST_IMAGE"] = built()
    except Exception as error:  # noqa: BLE001 - Debian's mirror, PyPI, the disk: the engine's words say which
        sys.stderr.writelines(line.get("stream", "") for line in getattr(error, "build_log", ()))
        note(f"nothing was tested: the image cannot be built: {error}")
        return 4

    sys.path.insert(0, str(Path(__file__).parent))
    from image import Server

    # durability is the image's own tests' business
    with Server(command=["-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off"]) as server:
        os.environ["DBSCORE_TEST_URL"] = server.url
        suites = [str(path) for name in SUITES if (path := REPOSITORY / "tests" / name).is_dir()]
        ignored = [f"--ignore={REPOSITORY / path}" for path in LOCAL]
        return int(pytest.main([f"--rootdir={REPOSITORY}", *suites, *ignored, *arguments]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
