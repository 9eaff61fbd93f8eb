"""What the headers of prepared cases show without their voxels: guesses, failed registrations, exchanged axes."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from voxlate.base.messages import Message, message
from voxlate.scans.cases.case_header import CaseHeader


def check_origins(headers: Sequence[CaseHeader]) -> Iterator[Message]:
    """Messages on what was assumed of scans, and on registrations that failed."""
    for header in headers:
        for name, origin in header.origins.items():
            yield from check_guesses(name, origin.guesses, header.case)
        for name, scan in header.registered.items():
            if scan.kept != scan.asked:
                gain = f"{scan.before.mutual_information:.4f} before, {scan.after.mutual_information:.4f} after"
                left = "resampled by its header" if scan.kept == "none" else f"kept {scan.kept}"
                yield message(
                    "not-registered",
                    f"{name}: {scan.asked} registration did not make it more similar to {scan.to}, {left} (mutual information {gain}).",
                    case=header.case,
                )


def check_guesses(name: str, guesses: Sequence[Message], case: str = "") -> Iterator[Message]:
    """The messages on guesses about a scan, with its name."""
    return (replace(guess, text=f"{name}: {guess.text}", case=case) for guess in guesses)


def check_widths(headers: Sequence[CaseHeader]) -> list[Message]:
    """A message where most masks are wider than deep, as no head is: rows and columns are likely exchanged."""
    sides = [np.ptp(header.mask_box, 1) * header.spacing_mm for header in headers]
    wide = sum(bool(width > depth) for _, depth, width in sides)
    if 2 * wide <= len(headers):
        return []
    return [
        message(
            "wide-heads",
            f"{wide} of {len(headers)} heads are wider than deep: rows and columns are likely exchanged.",
            heads=wide,
        )
    ]
