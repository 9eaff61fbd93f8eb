"""What tests expect of input that is refused."""

import pytest

from voxlate.base.errors import BadInput


def refused(words: str = ""):
    """A block that has to raise BadInput, whose message matches these words."""
    return pytest.raises(BadInput, match=words)
