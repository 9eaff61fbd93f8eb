"""The refusal that a test expects."""

import pytest

from voxlate.base.errors import BadInput


def refuses(words: str | None = None):
    """A block that has to raise BadInput, whose message matches these words."""
    return pytest.raises(BadInput, match=words)
