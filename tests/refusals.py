"""The refusal that a test expects."""

import pytest

from voxlate.base.errors import BadInput


def refuses(said=None):
    """A block that must raise BadInput, with a sentence in which a pattern is found."""
    return pytest.raises(BadInput, match=said)
