"""The command line. Heavy imports wait until a command needs them, so that --help is instant."""

from voxlate.cli import cohort, model, result
from voxlate.cli.app import app, main

__all__ = ["app", "cohort", "main", "model", "result"]
