"""Tables that say which tissue each value of a label map is, and a label map by them as the anatomy of phantoms."""

import re
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from scipy import ndimage

from voxlate.anatomy.phantom_options import LEAST_MM, MOST_MM, SHIPPED
from voxlate.anatomy.shapes import Triple
from voxlate.anatomy.tissue import BRAIN, FLUID, OTHER_BRAIN, Label, Rng, Tissue, patient
from voxlate.base.array_types import AnyArray
from voxlate.base.config import fill, setting, settings
from voxlate.base.errors import BadInput, first_of, known_name
from voxlate.base.items import stable_id
from voxlate.base.option import read_shipped
from voxlate.scans.formats.io import read_volume
from voxlate.scans.images.grid import canonical
from voxlate.scans.images.mask import (
    box_around,
    close_gaps,
    dilate,
    erode,
    fill_slices,
    largest,
)

# What a label map does not tell apart; variation.py draws the tissues of each.
DRAWN = (
    "soft",  # fat, muscle and, where the map has none, skin
    "cancellous",  # diploe of the skull, marrow elsewhere
    "whole_bone",  # a cortex of bone around marrow
    "fluid",  # around brain and cord, or in any organ
    "hollow",  # an organ whose wall encloses its content and gas
)
_NAMES = {label.name.lower(): int(label) for label in Label}
_FIRST_OWN = len(Label)
_FIRST_DRAWN = 250 - len(DRAWN)
CODES = {name: _FIRST_DRAWN + number for number, name in enumerate(DRAWN)}
_VALUES = re.compile(r"(\d{1,6})(?:-(\d{1,6}))?")  # such as 10 or 10-14
HU_SPREAD = 1.5  # standard deviation of own tissues between patients
Share = Annotated[float, setting("a share", ge=0, le=1)]
Time = Annotated[float, setting("a time in ms", ge=0.05, le=20000)]
PAD_MM = 6.0  # air around the hull
_GAP_MM = 8.0  # half the width of openings, such as the mouth, that the hull closes
_RIM_MM = 5.0  # depth below the closed hull from which air counts as internal
LEAST_BRAIN_ML = 200.0
_COARSE_MM = 2.0  # voxels of distances and noise
_SPECK_MM3 = 12.0  # smaller internal air is noise
_HOLE_MM = 3.0  # half the width of holes in the brain, its fluid and the eyes


@settings
class OwnTissue:
    """A tissue that a table adds: proton density relative to water, relaxation at 3 T, Hounsfield units.

    gadolinium_mm: some minutes after the usual dose; fat: fraction of its protons.
    """

    pd: Share
    t1_ms: Time
    t2_ms: Time
    t2star_ms: Time
    hu: Annotated[float, setting("Hounsfield units", ge=-1024, le=3071)]
    gadolinium_mm: Annotated[float, setting("concentration in mM", ge=0, le=10)] = 0.1
    chi_ppm: Annotated[float, setting("relative to water", ge=-1000, le=1000)] = 0.0
    fat: Share = 0.0

    def __post_init__(self) -> None:
        if not self.t2star_ms <= self.t2_ms <= self.t1_ms:
            raise BadInput(
                f"expected t2star_ms <= t2_ms <= t1_ms of a tissue, found {self.t2star_ms:g}, {self.t2_ms:g} and {self.t1_ms:g}. Correct them."
            )


@settings
class LabelTable:
    """Tissues of label values, as a TOML file states them.

    inside: what the label 0 is inside the closed hull of the labels: air, or soft tissue, which also lies around them to a
    depth of coat_mm; labels: values and ranges of them by tissue; tissues: those that the table adds.
    """

    title: str
    source: str = ""
    inside: Literal["air", "soft"] = "air"
    coat_mm: Annotated[float, setting("depth of fat around the labels", ge=0, le=100)] = 0.0
    labels: dict[str, list[Any]]
    tissues: dict[str, OwnTissue] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in self.tissues.keys() & (_NAMES | CODES).keys():
            raise BadInput(
                f"expected new names in [tissues], found {name}, which exists. Rename yours."
            )
        assert self.codes  # which refuses unknown tissues

    @cached_property
    def codes(self) -> dict[int, int]:
        """What each value is: a number of `Label`, of an own tissue (from len(Label) on), or of CODES."""
        codes = {0: int(Label.AIR)}
        # A label of air is internal where 0 is not air.
        air = int(Label.AIR if self.inside == "air" else Label.SINUS)
        known = self.names | CODES | {"air": air}
        for name, ranges in self.labels.items():
            known_name("[labels]", "known tissues, or a table [tissues.NAME]", name, known)
            for item in ranges:
                match = _VALUES.fullmatch(str(item))
                if match is None:
                    raise BadInput(
                        f'expected labels of {name} as numbers or ranges such as "10-14", found {item!r}. Change it.'
                    )
                ends = [int(end) for end in match.groups() if end]
                for value in range(min(ends), max(ends) + 1):
                    if value == 0 and name == "air":
                        continue
                    if codes.setdefault(value, known[name]) != known[name]:
                        raise BadInput(
                            f"expected each label in one tissue, and 0 in none, found {value} in {name} and in another one. Remove it from one."
                        )
        return codes

    def tissue(self, rng: Rng) -> Tissue:
        """The constants of one patient, the table's own tissues last, which vary as the others do."""
        known = patient(rng)
        spread = {"pd": 0.01, "t1_ms": 0.03, "t2_ms": 0.04, "t2star_ms": 0.05}
        columns = []
        for column in fields(Tissue):
            values = [getattr(tissue, column.name, 0.0) for tissue in self.tissues.values()]
            drawn = rng.standard_normal(len(values))
            more = np.array(values) * np.exp(spread.get(column.name, 0.0) * drawn)
            if column.name == "hu":
                more = more + HU_SPREAD * drawn
            more = more.astype(np.float32)
            columns.append(np.concatenate([getattr(known, column.name), more]))
        return Tissue(*columns)

    @property
    def digest(self) -> str:
        """A hash of all that the table states of labels and tissues."""
        tables = (sorted(table.items()) for table in (self.codes, self.tissues))
        return f"{stable_id(repr((self.inside, self.coat_mm, *tables))):016x}"

    @property
    def names(self) -> dict[str, int]:
        """The tissues by name, as `seg` numbers them."""
        return _NAMES | {name: _FIRST_OWN + k for k, name in enumerate(self.tissues)}

    def convert(self, labels: AnyArray, where: str) -> AnyArray:
        """The codes of a label map, uint8; raises BadInput for a value that the table does not have."""
        values = np.unique(labels).tolist()
        unknown = [value for value in values if value not in self.codes]
        if unknown:
            raise BadInput(
                f"{where}: expected labels of the table '{self.title}', found {first_of(unknown)}, which it does not have. Add each to a tissue of a table of your own, and name that one."
            )
        table = np.zeros(values[-1] + 1, np.uint8)
        table[values] = [self.codes[value] for value in values]
        return np.asarray(table[labels])


def read_table(table: str | Path) -> LabelTable:
    """A table by its name, or the path of a TOML file; raises BadInput for one that cannot be used."""
    stated = read_shipped(SHIPPED, table, "--tissues")
    return fill(LabelTable, stated, str(table), "Change KEY in the table.")


@dataclass(frozen=True)
class LabelMap:
    """A label map [D, H, W] (z, y, x; growing to superior, anterior, right) around its body.

    codes: uint8, see `LabelTable`; spacing_mm: along D, H, W.
    """

    name: str
    codes: AnyArray
    spacing_mm: Triple
    table: LabelTable

    @cached_property
    def depth_mm(self) -> AnyArray:
        """The distance of each voxel to the air around the body."""
        return self.distance_mm(self.codes == Label.AIR)

    def where(self, *names: str | Label) -> AnyArray:
        """The voxels of tissues, or of what is to be drawn."""
        wanted = [CODES[name] if isinstance(name, str) else int(name) for name in names]
        return np.isin(self.codes, wanted)

    def distance_mm(self, mask: AnyArray) -> AnyArray:
        """Distance of each voxel to a mask, exact to about 1 mm; float32 [D, H, W]."""
        steps = self.coarse_steps
        coarse = mask[tuple(slice(None, None, step) for step in steps)]
        if not coarse.any():
            return np.full(mask.shape, 1e3, np.float32)
        sampling = np.multiply(steps, self.spacing_mm)
        distances = ndimage.distance_transform_edt(~coarse, sampling=sampling).astype(np.float32)
        return enlarge(distances, mask.shape, steps)

    @cached_property
    def brain(self) -> AnyArray:
        """The brain, bool [D, H, W]; nothing where the map shows less than LEAST_BRAIN_ML."""
        brain = self.where(*BRAIN, *OTHER_BRAIN, Label.VENTRICLE)
        millilitres = brain.sum() * float(np.prod(self.spacing_mm)) / 1000
        return np.asarray(brain & (millilitres > LEAST_BRAIN_ML))

    def mirror(self) -> "LabelMap":
        """The map with left and right exchanged."""
        return replace(self, codes=self.codes[..., ::-1])

    @property
    def coarse_steps(self) -> tuple[int, ...]:
        """Voxels between those of coarse arrays, along D, H, W."""
        return tuple(max(1, round(_COARSE_MM / spacing)) for spacing in self.spacing_mm)


def enlarge(coarse: AnyArray, shape: tuple[int, ...], steps: tuple[int, ...]) -> AnyArray:
    """Linear interpolation of every `steps`-th voxel of an array to all of them."""
    for axis, (length, step) in enumerate(zip(shape, steps)):
        last = coarse.shape[axis] - 1
        at = np.minimum(np.arange(length) / step, last)
        low = np.minimum(at.astype(int), max(last - 1, 0))
        share = (at - low).astype(np.float32).reshape(-1, *[1] * (2 - axis))
        high = np.minimum(low + 1, last)
        coarse = coarse.take(low, axis) * (1 - share) + coarse.take(high, axis) * share
    return coarse


def read_label_map(path: Path, table: LabelTable, name: str) -> LabelMap:
    """Read a label map of any orientation; raises BadInput for what is none.

    name: of its cases, which decides their random numbers.
    """
    volume = canonical(read_volume(path, modality="seg"))
    spacing_mm = volume.grid.spacing_mm
    if not LEAST_MM <= min(spacing_mm) <= max(spacing_mm) <= MOST_MM:
        given = " x ".join(f"{step:g}" for step in spacing_mm[::-1])
        raise BadInput(
            f"{path}: expected voxels from {LEAST_MM:g} to {MOST_MM:g} mm, found {given}. Correct the unit in its header."
        )
    values = volume.data[0]
    labels = np.rint(values).astype(np.int64)
    if np.abs(labels - values).max() > 1e-3 or labels.min() < 0:
        raise BadInput(
            f"{path}: expected whole numbers from 0 for a label map, found {values.min():g} to {values.max():g} with fractions or signs. Give the label map, not an image of shares, and resample it with nearest neighbours."
        )
    return _of_codes(name, table.convert(labels, str(path)), spacing_mm, table)


def _of_codes(name: str, codes: AnyArray, spacing_mm: Triple, table: LabelTable) -> LabelMap:
    """The map around its largest component, with its hull."""
    room_mm = PAD_MM + _GAP_MM + table.coat_mm
    pad = [(int(np.ceil(room_mm / step)),) * 2 for step in spacing_mm]
    codes = np.pad(codes, pad)
    # Specks lie outside some heads; parts of a body that are labelled need not touch each other.
    body = largest(codes > 0) if table.inside == "air" else codes > 0
    codes = np.where(body, codes, np.uint8(Label.AIR))
    closed = fill_slices(close_gaps(body, _GAP_MM, spacing_mm))
    if table.inside == "soft":
        hull = dilate(closed, table.coat_mm, spacing_mm)
        codes[hull & (codes == Label.AIR)] = CODES["soft"]
    else:
        hull = fill_slices(body) | erode(closed, _RIM_MM, spacing_mm)
        codes[hull & (codes == Label.AIR)] = Label.SINUS
        _fill_specks(codes, spacing_mm)
    margin = [int(np.ceil(PAD_MM / step)) for step in spacing_mm]
    box = tuple(
        slice(max(first - room, 0), end + room)
        for (first, end), room in zip(box_around(hull), margin)
    )
    return LabelMap(name, codes[box].copy(), spacing_mm, table)


def _fill_specks(codes: AnyArray, spacing_mm: Triple) -> None:
    """Give internal air that is noise of the segmentation, specks and holes of soft organs, the nearest tissue."""
    air = codes == Label.SINUS
    pockets, _ = ndimage.label(air)
    least = _SPECK_MM3 / float(np.prod(spacing_mm))
    noise = air & (np.bincount(pockets.ravel()) < least)[pockets]
    inner = np.isin(codes, (*FLUID, *BRAIN, Label.CORD, CODES["fluid"]))
    noise |= air & close_gaps(inner, _HOLE_MM, spacing_mm)
    there = (codes > 0) & ~air
    nearest = ndimage.distance_transform_edt(
        ~there, sampling=spacing_mm, return_distances=False, return_indices=True
    )
    codes[noise] = codes[tuple(index[noise] for index in nearest)]
