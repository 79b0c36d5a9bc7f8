"""The models that a backend has loaded, and their files in the data directory."""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from dbscore.runtime.model import Model

if TYPE_CHECKING:
    from collections.abc import Iterator

    import plpy

# relative to the data directory, which is every backend's working directory
DIRECTORY = "dbscore"
# what may stay loaded where the setting dbscore.session_cache says nothing, and in parallel workers
CACHE_BYTES = 1 << 30
# a bytea is read from its table in slices, so that a large model is never in memory three times
SLICE_BYTES = 1 << 24


def path_of(sha256: str) -> str:
    """Return the file that holds a model, named by its content; refuse what is no hash, and so might be a path."""
    if not re.fullmatch("[0-9a-f]{64}", sha256 or ""):
        plpy.error(f"{sha256!r} is not a model's hash", hint="Pass 64 hexadecimal digits.", sqlstate="ML005")
    return os.path.join(DIRECTORY, sha256 + ".onnx")


def sha256_of(path: str) -> str:
    """Return the hash of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(SLICE_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def bytes_of(size: str) -> int:
    """Return how many bytes a setting such as `512MB` means; what cannot be read is the default, with a warning."""
    found = re.fullmatch(r" *([0-9]+) *(B|kB|MB|GB|TB)? *", size)
    if found is None:
        plpy.warning(f"dbscore.session_cache is {size!r}, which is no size; taking {CACHE_BYTES >> 20}MB")
        return CACHE_BYTES
    # no machine has more, and no number has so many digits that Python would not read it
    return int(found[1][:15]) << {"B": 0, "kB": 10, "MB": 20, "GB": 30, "TB": 40}[found[2] or "B"]


class Sessions:
    """The models that this backend has loaded, least recently used first.

    Attributes:
        models: By hash and signature.
        verified: Size, modification time and inode of the files this backend has compared with their hash.
        limit: How many bytes of models may stay loaded.
        setting: What `dbscore.session_cache` said when that was read.
    """

    def __init__(self) -> None:
        self.models: OrderedDict[tuple[str, str], Model] = OrderedDict()
        self.verified: dict[str, tuple[int, int, int]] = {}
        self.limit = CACHE_BYTES
        self.setting: str | None = None

    def get(self, key: tuple[str, str], signature: dict[str, Any]) -> Model:
        """Return the model, loading it if this backend does not have it.

        Args:
            key: Its hash, and its signature's text: the same bytes may be deployed with other types.
            signature: What it takes and gives.
        """
        if key in self.models:
            self.models.move_to_end(key)
            return self.models[key]
        sha256 = key[0]
        content = self._read(sha256)
        try:
            model = Model(content, signature)
        except ImportError as error:
            plpy.error(
                f"the server's Python cannot import what scoring needs: {error}",
                hint="Run `dbscore status`: it names the command that installs it for this server's Python.",
                sqlstate="ML009",
            )
        total = model.bytes + sum(other.bytes for other in self.models.values())
        while self.models and total > self.limit:
            total -= self.models.popitem(last=False)[1].bytes
        self.models[key] = model
        return model

    def _read(self, sha256: str) -> bytes:
        path = path_of(sha256)
        try:
            with open(path, "rb") as file:
                content = file.read()
        except FileNotFoundError:
            content = b""
        if hashlib.sha256(content).hexdigest() != sha256:
            # a parallel worker cannot read the table, so the next query's leader writes the file anew
            self.forget(sha256)
            plpy.error(
                f"the server's copy of model {sha256} is missing or damaged",
                hint="Run the query again, in a new connection if it was prepared: the copy is written anew from"
                " dbscore.artifact. If the version was dropped, or dbscore is not restored yet, it is not there.",
                sqlstate="ML005",
            )
        return content

    def forget(self, sha256: str) -> None:
        """Drop the session and the file; both come back when they are needed."""
        for key in [key for key in self.models if key[0] == sha256]:
            del self.models[key]
        self.verified.pop(sha256, None)
        if os.path.exists(path_of(sha256)):
            os.unlink(path_of(sha256))


SESSIONS = Sessions()


def pin(sha256: str, session_cache: str | None) -> str:
    """Make sure that the model's file is there and is what its name says; return the hash.

    The planner calls it, in the leader, before any parallel worker starts. Where the file is there it runs no SQL, so
    that a worker may call it too.

    Args:
        sha256: The model.
        session_cache: The setting `dbscore.session_cache`: how many bytes of models may stay loaded.
    """
    if session_cache != SESSIONS.setting:
        SESSIONS.setting = session_cache
        SESSIONS.limit = bytes_of(session_cache) if session_cache else CACHE_BYTES
    path = path_of(sha256)
    try:
        if SESSIONS.verified.get(sha256) == _identity(path):
            return sha256
        intact = sha256_of(path) == sha256
    except FileNotFoundError:
        intact = False
    if not intact and not _write(sha256, path):
        # a dump is being restored, and the table is not there yet: what needs the model now says so by itself
        return sha256
    SESSIONS.verified[sha256] = _identity(path)
    return sha256


def _identity(path: str) -> tuple[int, int, int]:
    stat = os.stat(path)
    return stat.st_size, stat.st_mtime_ns, stat.st_ino


def _write(sha256: str, path: str) -> bool:
    """Write the model's file from its table, whole or not at all; return False where the table has no such model."""
    there = plpy.execute("select pg_catalog.to_regclass('dbscore.artifact') is not null as there")[0]["there"]
    if not there:
        return False
    digest = hashlib.sha256()
    partial = f"{path}.{os.getpid()}"
    try:
        if os.path.lexists(partial):
            # a backend of the same number was killed while it wrote
            os.unlink(partial)
        os.makedirs(DIRECTORY, mode=0o700, exist_ok=True)
        with open(partial, "xb") as file:
            for piece in _stored(sha256):
                file.write(piece)
                digest.update(piece)
            file.flush()
            os.fsync(file.fileno())
            size = file.tell()
        if size and digest.hexdigest() != sha256:
            plpy.error(
                f"the bytes stored for model {sha256} have the hash {digest.hexdigest()}",
                hint="The table dbscore.artifact was altered: restore it from a backup, or deploy the model again.",
                sqlstate="ML005",
            )
        if size:
            os.replace(partial, path)
    except OSError as error:
        plpy.error(
            f"cannot write the model's file {path} in the data directory: {error}",
            hint=f"Make room, or mend the rights of the directory {DIRECTORY!r} in the data directory.",
            sqlstate="ML009",
        )
    finally:
        if os.path.exists(partial):
            os.unlink(partial)
    return size > 0


def _stored(sha256: str) -> Iterator[bytes]:
    """Yield the model's bytes from the table, a slice at a time; nothing where it is not there."""
    plan = plpy.prepare(
        "select pg_catalog.substring(bytes, $2, $3) as slice from dbscore.artifact where sha256 = $1",
        ["text", "integer", "integer"],
    )
    start = 1
    while True:
        rows = plpy.execute(plan, [sha256, start, SLICE_BYTES])
        if not rows or not rows[0]["slice"]:
            return
        yield rows[0]["slice"]
        start += SLICE_BYTES


def sessions() -> list[tuple[str, int, int, float, str]]:
    """Return what this backend has loaded: sha256, bytes, calls, seconds to load, when (ISO 8601, UTC)."""
    return [
        (key[0], m.bytes, m.calls, m.seconds, time.strftime("%Y-%m-%dT%H:%M:%S+00", time.gmtime(m.loaded)))
        for key, m in SESSIONS.models.items()
    ]
