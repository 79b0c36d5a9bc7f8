"""What the command line prints of texts that other roles chose."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbscore.cli.common import printable, show_table

if TYPE_CHECKING:
    import pytest


def test_control_characters_are_spelled_out_and_line_ends_stay() -> None:
    assert printable("a\x1b]0;title\x07b\n\tc\x9b31m") == "a\\x1b]0;title\\x07b\n\tc\\x9b31m"


def test_nothing_is_printed_for_none() -> None:
    assert printable(None) == ""


def test_brackets_on_a_terminal_are_text_and_not_markup(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    show_table(["where"], [("tags[1] = '[bold]' and \x1b[2J",)])
    assert "tags[1] = '[bold]' and \\x1b[2J" in capsys.readouterr().out
