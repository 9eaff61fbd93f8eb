"""Errors that users can fix, and the stop that they asked for."""


class BadInput(ValueError):
    """One sentence: what was expected, what was found, where, and what to do (exit code 2)."""


class CannotWrite(BadInput):
    """The place for results takes none: other cases would fare no better."""


class Stopped(Exception):
    """A long run was asked to stop and has saved its state (exit code 130)."""
