"""Messages on prepared cases without their voxels: guesses, failed registrations, exchanged axes, scans that lie apart."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np

from voxlate.base.array_types import Bool, Float64
from voxlate.base.errors import BadInput
from voxlate.base.groups import grouped
from voxlate.base.messages import Message, message
from voxlate.checks.check_table import ask
from voxlate.scans.cases.align import Preparation
from voxlate.scans.cases.case import CaseHeader, PreparedCase, misalignments
from voxlate.scans.images.grid import Grid, Volume, share_inside
from voxlate.scans.images.misalignment import Misalignment, is_resolved

LEAST_SLICES = 4  # along each axis, as registration asks for
COARSER = 1.2  # times: a smaller difference of voxels is not reported
LEAST_KEPT = 0.5  # of a scan's box inside the case's grid: less is reported


def check_together(case: PreparedCase) -> Iterator[Message]:
    """A message on scans of a case that are one, and on each that lies far from the first, moved or of another patient."""
    for one, other in combinations(case.header.statistics, 2):
        if np.array_equal(case.arrays[one], case.arrays[other]):
            yield one_scan([one, other])
    for name, found in misalignments(case).items():
        yield from check_apart(case.header, name, found, of_input=1.0)


def one_scan(names: Sequence[str]) -> Message:
    """The message on scans of a case that have the same voxels."""
    text = f"{' and '.join(names)} have the same voxels."
    return message("same-voxels", text, grade="do not trust")


def check_apart(
    header: CaseHeader, name: str, found: Misalignment, advice: str = "", of_input: float = 0.0
) -> list[Message]:
    """A message where a scan is far from the scan that it was compared with, or how far is not known.

    advice: what to do, beside looking at it; of_input: 1 for scans that are given to a model.
    """
    apart_mm = found.median_mm or 0.0
    seen = np.array(header.spacing_mm)[is_resolved(header.shape, header.spacing_mm)]
    numbers = {
        "apart_mm": apart_mm,
        "voxels": apart_mm / seen.max() if apart_mm else 0.0,
        "unmeasured": found.median_mm is None,
        "reason": found.reason,
        "to": found.to,
        "advice": advice,
        "of_input": of_input,
    }
    return [*ask("apart", numbers, name), *ask("unmeasured", numbers, name)]


def check_alignment(headers: Sequence[CaseHeader], preparation: Preparation) -> Iterator[Message]:
    """A message on each misaligned pair, the worst first, and on what cannot be measured."""
    pairs = [(header, *scan) for header in headers for scan in header.misaligned.items()]
    for header, name, found in sorted(pairs, key=lambda pair: -(pair[-1].median_mm or 0.0)):
        may_register = preparation.register is None and min(header.shape) >= LEAST_SLICES
        advice = " Register (--register rigid)." if may_register else ""
        yield from (said.on(header.case) for said in check_apart(header, name, found, advice))


def check_origins(headers: Sequence[CaseHeader]) -> Iterator[Message]:
    """Messages on what was assumed of scans, and on registrations that failed."""
    for header in headers:
        for name, origin in header.origins.items():
            yield from check_guesses(name, origin.guesses, header.case)
        for name, scan in header.registered.items():
            if scan.kept != scan.asked:
                gain = f"{scan.before:.4f} before, {scan.after:.4f} after"
                left = "resampled by its header" if scan.kept == "none" else f"kept {scan.kept}"
                yield message(
                    "not-registered",
                    f"{name}: {scan.asked} registration did not make it more similar to {scan.to}, {left} (mutual information {gain}).",
                    case=header.case,
                )


def check_guesses(name: str, guesses: Sequence[Message], case: str = "") -> Iterator[Message]:
    """The messages on guesses about a scan, with its name."""
    return (replace(guess, text=f"{name}: {guess.text}", case=case) for guess in guesses)


def mask_numbers(mask: Volume, inside: Bool, bodies: Sequence[Bool]) -> dict[str, float]:
    """Numbers of a mask as whole numbers, and of its voxels on the grid of a case with the bodies in its scans: see `mask` in limits.toml.

    A body that fills the image is none.
    """
    labels = np.rint(mask.data[0])
    steps = np.diff(labels)[np.minimum(labels[..., 1:], labels[..., :-1]) > 0]
    numbers = {"uneven": np.count_nonzero(steps) / max(1, steps.size)}
    shown = [body for body in bodies if body.any() and not body.all()]
    if not shown or not inside.any():
        return numbers
    body = max(shown, key=lambda body: inside[body].mean())
    of_body, of_rest = float(inside[body].mean()), float(inside[~body].mean())
    whole = np.logical_or.reduce(shown)
    planes, of_mask = (np.asarray(voxels.any((1, 2))) for voxels in (whole, inside))
    middles = [np.argwhere(voxels)[:, 0].mean() for voxels in (inside, whole)]
    return numbers | {
        "of_body": of_body,
        "of_rest": of_rest,
        "more_outside": of_rest - of_body,
        "in_air": 1 - float(whole[inside].mean()),
        "mask_slices": float(of_mask[planes].mean()),
        "mask_up": float(middles[0] - middles[1]) / int(planes.sum()),
    }


def refuse_misplaced(path: Path, numbers: Mapping[str, float], is_of_body: bool) -> None:
    """Raise BadInput where a mask is a scan, or holds the background; is_of_body: whether it is that of a whole body or brain."""
    for said in ask("mask", numbers):
        if is_of_body or said.code != "part-mask":
            raise BadInput(
                f"{path}: expected a mask on the body of this truth, found another one. {said.text} Take that of the same scan, or choose another --mask."
            )


def check_resampling(headers: Sequence[CaseHeader], preparation: Preparation) -> Iterator[Message]:
    """A message on each modality that resampling cuts or makes coarser, unless the user chose the voxels."""
    if preparation.changes_voxels or not (preparation.resample or preparation.register):
        return
    scans = grouped((name, header) for header in headers for name in header.origins)
    for name, having in scans.items():
        kept = {one.case: share_inside(one.origins[name].grid, one.grid) for one in having}
        cut = [case for case in kept if kept[case] < LEAST_KEPT and not preparation.register]
        if cut:
            yield message(
                "is-cut",
                f"{name} IS CUT to the case's grid in {len(cut)} of {len(headers)} cases: in {cut[0]} {kept[cut[0]]:.0%} of its volume lies on it.",
                cases=len(cut),
                kept=kept[cut[0]],
            )
        coarser = [
            one
            for one in having
            if (_along_the_body(one.grid) > COARSER * _along_the_body(one.origins[name].grid)).any()
        ]
        if coarser:
            first = coarser[0]
            yield message(
                "loses-detail",
                f"{name} LOSES DETAIL on the case's grid in {len(coarser)} of {len(headers)} cases: in {first.case} from {first.origins[name].grid} to {first.grid}.",
                cases=len(coarser),
            )


def _along_the_body(grid: Grid) -> Float64:
    """Distance of voxels to the left, the front and the top, whichever axes of the array have these directions."""
    steps = np.abs(grid.affine[:3, :3])
    spacing = np.zeros(3)
    spacing[steps.argmax(0)] = np.linalg.norm(steps, axis=0)
    return spacing
