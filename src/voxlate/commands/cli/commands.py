"""The command line with all its commands, which are added when their modules are imported."""

from voxlate.commands.cli import cohorts, images, sharing, training  # noqa: F401
from voxlate.commands.cli.app import app

__all__ = ["app"]
