"""Whether truths can be those of their images: the unit, the place, the values and the patient of each.

A truth is doubted by what its own fingerprint says, by the other truths, and by the pairs with its source and its image, never by the
error of its image alone: a bad model is no reason to doubt a truth. What the image says of itself, too, is no fault, as after a
training on such truths.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from voxlate.base.errors import first_of, plural
from voxlate.base.groups import grouped
from voxlate.base.messages import Message, codes, message
from voxlate.checks.check_table import exact_messages
from voxlate.checks.fingerprint import Fingerprint, fingerprint
from voxlate.checks.pairs import doubtful_pairs, fits, pictures_of
from voxlate.checks.reference import among
from voxlate.scans.cases.case import digest
from voxlate.scans.images.grid import Grid, Volume

# Of faults of truths.
Kind = Literal["spacing", "unit", "blank", "offset", "window", "slices", "mirrored", "patient"]
LEFT_OUT = "It is left out; --any-truth keeps it."
KEPT = "It counts all the same (--any-truth)."
# The codes for which a truth is left out, where their grade says that it is not to be trusted.
FAULTS: Mapping[str, Kind] = {
    "not-hu": "window",
    "shifted-hu": "offset",
    "slices": "slices",
    "turned-scan": "mirrored",
    "exchanged-scan": "patient",
    "foreign-scan": "patient",
}
# Times by which the field of view of a truth may be longer than that of its image, and where both have as many voxels.
OTHER_SIZE, OTHER_VOXELS = 20.0, 1.2


@dataclass(frozen=True, eq=False)
class Sketch:
    """A truth, its image and a source as fingerprints; without numbers where there is none.

    unit: of the truth; low, high: the ends of its values; other_size: see the function of this name; voxels: their digest.
    """

    patient: str
    unit: str
    image_unit: str
    truth: Fingerprint
    image: Fingerprint
    source: Fingerprint
    low: float
    high: float
    other_size: float
    voxels: str


@dataclass(frozen=True)
class Fault:
    """Why a truth cannot be that of its image; found: what was found, or nothing beyond the kind."""

    kind: Kind
    found: str


def sketch_of(
    truth: Volume,
    image: Volume | None,
    source: Volume | None,
    image_grid: Grid,
    patient: str,
    image_unit: str,
) -> Sketch:
    """The sketch of a truth; image_grid: the grid that the image has of its own."""
    of_image, of_source = (
        Fingerprint.none() if scan is None else fingerprint(scan) for scan in (image, source)
    )
    low, high = float(truth.data.min()), float(truth.data.max())
    size = other_size(truth.grid, image_grid)
    of_truth = fingerprint(truth)
    prints = of_truth, of_image, of_source
    return Sketch(patient, truth.unit, image_unit, *prints, low, high, size, digest(truth.data))


def other_size(truth: Grid, image: Grid) -> float:
    """How many times as long as that of its image the field of view of a truth is, where it cannot be so, as in micrometres; else 0.

    By the mean sides of slices.
    """
    side, usual = (
        np.sqrt(np.prod(np.multiply(grid.shape, grid.spacing_mm)[1:])) for grid in (truth, image)
    )
    times = float(side / usual)
    most = OTHER_VOXELS if truth.shape == image.shape else OTHER_SIZE
    return 0.0 if 1 / most < times < most else times


def judge(
    truths: Mapping[str, Sketch], name: str = "truth"
) -> tuple[dict[str, Fault], list[Message]]:
    """The truths of a modality that cannot be those of their images, with their faults; and messages on others."""
    faults = {label: fault for label, truth in truths.items() if (fault := _own_fault(truth))}
    compared = {label: truth for label, truth in truths.items() if label not in faults}
    said = [
        *_alone(compared, name),
        *among(
            {label: truth.truth for label, truth in compared.items()},
            {label: truth.patient for label, truth in compared.items()},
            name,
        ),
        *_in_pairs(compared, name),
        *_copied(compared, name),
    ]
    rest = []
    for one in said:
        if one.grade == "do not trust" and one.code in FAULTS:
            found = one.text.removesuffix(codes()[one.code].action).rstrip(" .")
            faults.setdefault(one.case, Fault(FAULTS[one.code], found))
        else:
            rest.append(one)
    return faults, [one for one in rest if one.case not in faults and one.grade != "note"]


def _own_fault(truth: Sketch) -> Fault | None:
    """The fault that a truth shows by its size, its image and its unit."""
    if truth.other_size:
        return Fault(
            "spacing", f"a field of view {truth.other_size:.3g} times as long as that of the image"
        )
    if truth.unit != truth.image_unit:
        return Fault("unit", f"{truth.unit} where its image is in {truth.image_unit}")
    if truth.low == truth.high:
        return Fault("blank", f"every voxel is {truth.low:.4g}")
    return None


def _alone(truths: Mapping[str, Sketch], name: str) -> list[Message]:
    """What the truths say of themselves, and their images do not."""
    said = []
    for label, truth in truths.items():
        of_image = {one.code for one in exact_messages(truth.image, truth.unit)}
        own = exact_messages(truth.truth, truth.unit, name)
        said += [one.on(label) for one in own if one.code not in of_image]
        if truth.image.numbers and truth.truth.numbers == truth.image.numbers:
            said.append(
                message("truth-image", f"{name} is its image.", grade="do not trust", case=label)
            )
    return said


def _copied(truths: Mapping[str, Sketch], name: str) -> Iterator[Message]:
    """The truths that are those of other patients, too."""
    for labels in grouped((truth.voxels, label) for label, truth in truths.items()).values():
        if len({truths[label].patient for label in labels}) > 1:
            text = f"{name} has the voxels of another patient's ({first_of(labels)})."
            yield from (message("same-voxels", text, case=label) for label in labels)


def _in_pairs(truths: Mapping[str, Sketch], name: str) -> list[Message]:
    """The truths that do not fit their source, or without one their image; none that its image fits as it lies."""
    patients = {label: truth.patient for label, truth in truths.items()}
    pictures = pictures_of({label: truth.truth for label, truth in truths.items()})
    images = pictures_of({label: truth.image for label, truth in truths.items()})
    sources = pictures_of({label: truth.source for label, truth in truths.items()})
    said = []
    for stated in doubtful_pairs(sources or images, pictures, patients, name):
        label = stated.case
        others = [pictures[other] for other in pictures if patients[other] != patients[label]]
        if label in images and sources and fits(images[label], pictures[label], others):
            continue
        # a bad model is no reason to doubt a truth
        said.append(stated if sources else replace(stated, grade="caution"))
    return said


def fault_messages(faults: Mapping[str, Fault], of: int, then: str) -> list[Message]:
    """A message for each kind of fault, with its images; of: the number of all; then: a sentence on what follows."""
    messages = []
    for kind, labels in grouped((fault.kind, label) for label, fault in faults.items()).items():
        code = f"truth-{kind}"
        said = (faults[label].found for label in labels)
        found = next((f" ({found})" for found in said if found), "")
        at_fault = "A HEADER" if kind == "spacing" else "THE TRUTH"
        stated = message(
            code,
            f"{at_fault} IS AT FAULT, not the model, in {len(labels)} of {plural(of, 'image')} ({first_of(labels)}): {codes()[code].meaning}{found}.",
            images=len(labels),
        )
        messages.append(replace(stated, text=f"{stated.text} {then}"))
    return messages
