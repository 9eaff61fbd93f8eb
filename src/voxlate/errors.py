"""The one error that a user can mend."""


class BadInput(ValueError):
    """One sentence: what was expected, what was found, where, and what to do (exit code 2)."""
