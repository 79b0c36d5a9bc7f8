"""ONNX graphs as SQL: exact, part of the query that uses them, on any PostgreSQL.

`graph` runs a graph on one row of expressions (`expression`, `affine`, `operators`); `emit` writes them as PostgreSQL
does; `compilation` does it all, and `program`
is what comes of it. Importing this package loads no library; compiling needs onnx.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dbscore.compiler.program import Program
    from dbscore.signature import Signature

__all__ = ["compile_model"]


def compile_model(content: bytes, signature: Signature) -> Program:
    """Write a model's graph as SQL.

    Raises:
        CompilationError: It has an operator that is not compiled; the message says which.
    """
    from dbscore.compiler.compilation import compile_model as compiled

    return compiled(content, signature)
