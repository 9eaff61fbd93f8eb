"""The stable ids of items, and the value of air in network units."""

import hashlib

BACKGROUND = -1.0  # network units: where the intensity maps put air


def stable_id(*parts: str | int) -> int:
    """A 63-bit id of an item that is equal on every machine and in every batch (the key of its noise stream)."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1
