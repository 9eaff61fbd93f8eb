"""--help fits on two screens."""

import re

import pytest

from rows import every_row

SCREENS, LINES, COLUMNS = 2, 50, 80


@pytest.fixture
def help_of(voxlate, monkeypatch):
    """Gives the lines of a command's --help on a terminal of 80 columns."""
    monkeypatch.setenv("COLUMNS", str(COLUMNS))
    monkeypatch.setenv("TERMINAL_WIDTH", str(COLUMNS))
    return lambda command: voxlate(command, "--help").out.splitlines()


@every_row("command", ["prepare", "train", "synth", "evaluate", "calibrate"])
def test_the_help_of_a_command_fits_on_two_screens(help_of, command):
    assert "Returns:" not in help_of("--help"), "nothing of Python"
    lines = help_of(command)
    assert len(lines) <= SCREENS * LINES
    assert max(map(len, lines)) == COLUMNS
    assert re.search(rf"^ voxlate {command} ", "\n".join(lines), flags=re.M), (
        "no example of one line"
    )
