"""The command line with all its commands, which are described where they are computed."""

from typer.main import get_command

from voxlate.commands.api import cohorts, demo, exports, images, scores, training  # noqa: F401
from voxlate.commands.api.entry import COMMANDS
from voxlate.commands.cli.app import app
from voxlate.commands.cli.options import add

# isort: split
from voxlate.commands import agents  # noqa: F401  # the last one in help

for command in COMMANDS.values():
    add(command)

command_line = get_command(app)

__all__ = ["app", "command_line"]
