"""What `import dbscore` costs, and that the layers hold."""

from __future__ import annotations

import subprocess
import sys

HEAVY = ("sklearn", "skl2onnx", "onnx", "onnxruntime", "pandas", "sqlalchemy", "alembic", "numpy")


def loaded(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return set(done.stdout.split())


def test_importing_dbscore_loads_nothing_heavy() -> None:
    assert loaded("import dbscore").isdisjoint(HEAVY)


def test_the_client_loads_neither_scikit_learn_nor_onnx_nor_pandas() -> None:
    assert loaded("import dbscore.client").isdisjoint({"sklearn", "skl2onnx", "onnx", "onnxruntime", "pandas"})


def test_the_command_line_loads_neither_scikit_learn_nor_onnx_nor_pandas() -> None:
    assert loaded("import dbscore.cli").isdisjoint({"sklearn", "skl2onnx", "onnx", "onnxruntime", "pandas"})


def test_the_runtime_imports_the_standard_library_alone_until_a_model_is_loaded() -> None:
    assert loaded("import dbscore.runtime.scorer").isdisjoint(HEAVY)
