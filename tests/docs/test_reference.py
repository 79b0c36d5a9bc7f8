"""The reference pages are those that docs/generate.py would write now."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import REPOSITORY

if TYPE_CHECKING:
    import psycopg

PAGES = ("command-line.md", "errors.md", "python-client.md", "settings.md", "sql.md")


@pytest.fixture(scope="module")
def generate() -> Any:
    spec = importlib.util.spec_from_file_location("generate", REPOSITORY / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", PAGES)
def test_a_reference_page_says_what_the_code_says(page: str, generate: Any, db: psycopg.Connection[Any]) -> None:
    made = generate.pages(db)[page]
    written = (REPOSITORY / "docs" / "reference" / page).read_text(encoding="utf-8")
    assert made == written, f"docs/reference/{page} is of other code: run `make docs`"


def test_every_reference_page_is_generated(generate: Any, db: psycopg.Connection[Any]) -> None:
    pages = {p.name for p in (REPOSITORY / "docs" / "reference").glob("*.md")}
    assert set(generate.pages(db)) == pages == set(PAGES)
