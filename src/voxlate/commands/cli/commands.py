"""The command line with its commands, which are described where they are computed."""

from collections.abc import Sequence

from typer.core import TyperGroup
from typer.main import get_command

from voxlate.commands.api.entry import HOMES, commands
from voxlate.commands.cli.flags import add
from voxlate.commands.cli.typer_app import app


def command_line(words: Sequence[str] = ()) -> TyperGroup:
    """The command line with the command that these words name; with all where they name none, as --help does."""
    named = [word for word in words if not word.startswith("-")][:1]
    app.registered_commands.clear()
    for command in commands(named if {*named} & HOMES.keys() else HOMES).values():
        add(command)
    group = get_command(app)
    assert isinstance(group, TyperGroup)  # it has an option of its own
    return group
