"""The command line with all its commands, which are described where they are computed."""

from voxlate.commands.api import cohorts, demo, exports, images, scores, training  # noqa: F401
from voxlate.commands.api.entry import COMMANDS
from voxlate.commands.cli.app import app
from voxlate.commands.cli.options import add

# isort: split
from voxlate.commands import agents  # noqa: F401  # the last one in help

for command in COMMANDS.values():
    add(command)

__all__ = ["app"]
