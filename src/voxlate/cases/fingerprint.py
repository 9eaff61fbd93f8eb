"""A cohort's fingerprint (shapes, spacings, intensities), and warnings about suspicious cases."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from voxlate.cases.case_header import CaseHeader
from voxlate.images.statistics import PERCENTILES
from voxlate.system.messages import Message, message


def fingerprint(headers: list[CaseHeader], training: list[CaseHeader]) -> dict[str, Any]:
    """Shapes, spacings and mask volumes of all cases; intensities of the training cases alone.

    Shapes and spacings are (D, H, W); intensity percentiles are the medians over cases of those inside the mask.
    """
    return {
        **geometry(headers),
        "modalities": {
            name: {
                "cases": sum(name in header.units for header in headers),
                "unit": next(header.units[name] for header in headers if name in header.units),
                **_intensities(name, [header for header in training if name in header.units]),
            }
            for name in sorted({name for header in headers for name in header.units})
        },
    }


def geometry(cases: Sequence[Any]) -> dict[str, dict[str, Any]]:
    """Shapes, spacings and mask volumes of cases: of their headers, or of the entries of a list of them."""
    return {
        name: _range([getattr(case, name) for case in cases])
        for name in ("shape", "spacing_mm", "mask_ml")
    }


def _range(values: list[Any]) -> dict[str, Any]:
    table = np.array(values, dtype=np.float64)
    stats = {
        "least": table.min(axis=0),
        "median": np.median(table, axis=0),
        "most": table.max(axis=0),
    }
    return {name: np.round(value, 4).tolist() for name, value in stats.items()}


def _intensities(name: str, training: list[CaseHeader]) -> dict[str, Any]:
    if not training:
        return {}
    inside = [header.statistics[name].foreground for header in training]
    table = np.array([values.percentiles for values in inside])
    return {
        "percentiles": {
            str(at): float(value) for at, value in zip(PERCENTILES, np.median(table, axis=0))
        },
        "mean": float(np.mean([values.mean for values in inside])),
        "sd": float(np.mean([values.sd for values in inside])),
    }


def check_origins(headers: list[CaseHeader]) -> Iterator[Message]:
    """Messages on what was assumed of scans, and on registrations that failed."""
    for header in headers:
        for name, origin in header.origins.items():
            for guess in origin.guesses:
                yield message("guess", f"{name}: {guess}", case=header.case)
        for name, one in header.registered.items():
            if one.kept != one.asked:
                gain = f"{one.before.mutual_information:.4f} before, {one.after.mutual_information:.4f} after"
                left = "resampled by its header" if one.kept == "none" else f"kept {one.kept}"
                text = f"{name}: {one.asked} registration did not make it more similar to {one.to}, {left} (mutual information {gain})."
                yield message("not-registered", text, case=header.case)


def check_widths(headers: list[CaseHeader]) -> list[Message]:
    """A message where most masks are wider than deep, as no head is: rows and columns are likely exchanged."""
    sizes = [_extents_mm(header) for header in headers]
    wide = sum(width > depth for _, depth, width in sizes)
    if 2 * wide <= len(headers):
        return []
    text = f"{wide} of {len(headers)} heads are wider than deep: rows and columns are likely exchanged."
    return [message("wide-heads", text, heads=wide)]


def _extents_mm(header: CaseHeader) -> list[float]:
    """The sides of the mask's box along D, H, W."""
    return [(end - first) * mm for (first, end), mm in zip(header.mask_box, header.spacing_mm)]
