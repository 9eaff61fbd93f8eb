"""The command line with all its commands, which are added when their modules are imported."""

from voxlate.cli import cohorts, images, sharing, training  # noqa: F401
from voxlate.cli.app import app

__all__ = ["app"]
