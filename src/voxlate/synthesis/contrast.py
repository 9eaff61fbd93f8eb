"""The contrast of a site: levels of tissue of its own scans, to which those of synthesised MR are moved."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from voxlate.base.arrays import Bool
from voxlate.base.errors import BadInput, known_name
from voxlate.base.messages import Message, message
from voxlate.checks.head_checks import check_head
from voxlate.checks.intensity_checks import check_kind
from voxlate.checks.quality_checks import quality_numbers
from voxlate.checks.table import ask
from voxlate.scans.cohorts.path_roles import modality_by_name
from voxlate.scans.formats.io import is_there, read_volume
from voxlate.scans.images.curve import Curve
from voxlate.scans.images.grid import Volume, canonical
from voxlate.scans.images.intensity import Scale
from voxlate.scans.images.mask import background_value, find_tissue, foreground
from voxlate.scans.images.statistics import intensity_statistics
from voxlate.scans.images.tissue_levels import TissueLevels, find_levels, mean_levels

ARBITRARY = "a.u."
OPTION = "--contrast-of"


@dataclass(frozen=True)
class Contrast:
    """The move of an image's levels of tissue to those of scans of its contrast."""

    found: TissueLevels
    goal: TissueLevels
    key: ClassVar[str] = "contrast"

    @property
    def curve(self) -> Curve:
        """The map of the values, from the unit of the training's images to that of the scans."""
        return self.found.curve_to(self.goal)

    def scale_of(self, scale: Scale) -> Scale:
        """The scale of the image, whose ends moved with its values."""
        return Scale(*self.curve.map(np.array([scale.low, scale.high])).tolist())

    @property
    def entry(self) -> dict[str, Any]:
        """The entry of a provenance."""
        return {"from": asdict(self.found), "to": asdict(self.goal)}

    def check(self, name: str) -> list[Message]:
        """A message on what was moved."""
        return [
            message(
                "contrast",
                f"In the {name} image, fluid and both tissues were moved from {_list(self.found)} to {_list(self.goal)}, their levels in the scans of {OPTION} (synth.contrast). Only whether fluid is bright was compared: make sure that these scans are {name}.",
            )
        ]


def _list(levels: TissueLevels) -> str:
    return f"{levels.fluid:.4g}, {levels.middle:.4g} and {levels.far:.4g}"


def find_contrast(image: Volume, brain: Bool, goal: TissueLevels, case: str) -> Contrast:
    """The move of a synthesised image; raises BadInput where it has no levels, or in another order than the scans.

    image: in physical units, on the network's grid; brain: bool [D, H, W].
    """
    name = image.modality
    levels = find_levels(image.data[0], brain, image.grid.spacing_mm)
    if levels is None:
        raise BadInput(
            f"{case}: expected levels of fluid and both tissues in the synthesised {name} for {OPTION}, found none. Leave it out."
        )
    if levels.fluid_is_bright != goal.fluid_is_bright:
        raise BadInput(
            f"{case}: expected scans of {name} for {OPTION}, in which fluid is {levels.order} as in the synthesised image, found it {goal.order}: they are of another contrast. Give scans of {name}."
        )
    return Contrast(levels, goal)


def check_stripped(scan: Volume, where: object) -> None:
    """Raise BadInput unless a scan shows a brain without skull in a darker background of one value."""
    in_ras = replace(canonical(scan), modality="")  # its contrast is compared elsewhere
    if not find_tissue(in_ras)[1] or check_head(in_ras, "brain"):
        raise BadInput(
            f"{where}: expected a brain without skull, brighter than its background, for {OPTION}, whose levels are those of its tissue, found another scan of {scan.modality}. Give one that is stripped and not scaled to a mean of 0, or leave {OPTION} out."
        )


def read_contrasts(
    texts: Sequence[str | Path],
    targets: Sequence[str],
    names: Mapping[str, str],
    units: Mapping[str, str],
) -> dict[str, TissueLevels]:
    """The levels of tissue in the scans of --contrast-of, by target; of several scans their mean.

    texts: SCAN or TARGET=SCAN; names: the modality by each name that a scan of it may have; units: of modalities.
    Raises BadInput where a scan is of another contrast or has no levels, and for a target in units of its own.
    """
    levels = dict[str, list[TissueLevels]]()
    for text in map(str, texts):
        name, path = _name_scan(text, targets, names)
        if units[name] != ARBITRARY:
            raise BadInput(
                f"{OPTION}: expected a target in arbitrary units, as MR has, found {name} in {units[name]}, whose values mean the same at every site. Leave it out."
            )
        called = names.get(modality_by_name(path), name)
        if called != name:
            raise BadInput(
                f"{OPTION}: expected a scan of {name}, found {path}, whose name says {called}. Give the scan of {name}, or rename it."
            )
        levels.setdefault(name, []).append(_levels_of(read_volume(path, name), path))
    for name, several in levels.items():
        if len({found.fluid_is_bright for found in several}) > 1:
            raise BadInput(
                f"{OPTION}: expected scans of one contrast for {name}, found some in which fluid is bright and some in which it is dark. Leave some out."
            )
    return {name: mean_levels(several) for name, several in levels.items()}


def _name_scan(text: str, targets: Sequence[str], names: Mapping[str, str]) -> tuple[str, Path]:
    """The target and the path of a scan: the target that is stated, the only one, or the one that names the file."""
    stated, pair, rest = text.partition("=")
    if pair and not is_there(Path(text)):  # 't2.h5#slice=3' is a scan
        name = names.get(stated.lower(), "")
        if name not in targets:
            known_name(OPTION, "scans of what is synthesised", stated, targets)
        return name, Path(rest)
    name = targets[0] if len(targets) == 1 else names.get(modality_by_name(Path(text)), "")
    if name not in targets:
        raise BadInput(
            f"{OPTION} {text}: expected the name of its contrast ({', '.join(targets)}), found none. Give {targets[0]}={text}, for example."
        )
    return name, Path(text)


def _levels_of(scan: Volume, path: Path) -> TissueLevels:
    """The levels in a scan of a stripped brain; raises BadInput where it has none."""
    check_stripped(scan, path)
    in_ras = canonical(scan)
    brain = foreground(in_ras)
    wrong = check_kind(scan.modality, scan.unit, intensity_statistics(in_ras.data[0], brain)) + ask(
        "noise", quality_numbers(in_ras)
    )
    levels = find_levels(in_ras.data[0], brain, in_ras.grid.spacing_mm)
    if scan.unit != ARBITRARY or background_value(in_ras) != 0 or wrong or levels is None:
        raise BadInput(
            f"{path}: expected an MR of a brain in a background of 0 for {OPTION}, with levels of fluid and both tissues, found none. Give another scan of {scan.modality}."
        )
    return levels
