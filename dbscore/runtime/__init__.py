"""What runs inside the server, and nowhere else.

The text of these modules is installed into the bodies of the PL/Python functions (sql/015_engine.sql), which run it
once in a backend and keep it in `GD`; so the server needs no copy of dbscore, and the two can never be of different
versions. They may import the standard library, numpy and onnxruntime only, the last two when a model is loaded.
Errors are raised through `plpy.error`, which takes a SQLSTATE and a hint.
"""

from __future__ import annotations

import hashlib
import re
from importlib.resources import files

from dbscore.errors import SchemaError

__all__ = ["sha256", "text"]

# each may import from those before it
_MODULES = ("model", "sessions", "row", "scorer", "answers", "batch", "frame")
# what would end the literals that the text stands in; PL/Python puts a tab in front of each line
_FORBIDDEN = ("'''", "$runtime$", "$body$", "$python$", "\t")


def text() -> str:
    """Return the modules as one text, without the imports of each other."""
    parts = ["from __future__ import annotations\n"]
    for name in _MODULES:
        module = (files(__name__) / f"{name}.py").read_text(encoding="utf-8")
        parts.append(re.sub(r"^ *from (dbscore\.runtime|__future__).* import .*\n", "", module, flags=re.MULTILINE))
    whole = "\n\n".join(parts)
    if not whole.isascii():
        raise SchemaError("the runtime contains characters that are not ASCII, which not every database stores")
    for forbidden in _FORBIDDEN:
        if forbidden in whole:
            raise SchemaError(f"the runtime contains {forbidden!r}, which cannot be embedded")
    return whole


def sha256() -> str:
    """Return the hash of the text, under which backends keep the runtime."""
    return hashlib.sha256(text().encode()).hexdigest()
