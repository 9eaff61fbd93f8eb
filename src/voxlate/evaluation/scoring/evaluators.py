"""The metrics of public challenges, and errors in the units of users of CTs, as further scopes of an evaluation."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import nibabel as nib
import numpy as np

from voxlate.base.arrays import AnyArray, Bool
from voxlate.base.errors import BadInput
from voxlate.evaluation.challenges import CHALLENGES
from voxlate.evaluation.scoring.metrics import add_scope_metrics
from voxlate.evaluation.scoring.regions import mask_of, on_grid_of
from voxlate.scans.cohorts.case_files import CaseFiles
from voxlate.scans.formats.io import read_volume
from voxlate.scans.images.grid import Volume, orient

SYNTHRAD = (
    "conventions of its evaluator: the values of the files, in the mask of the cohort or of --mask"
)
BRASYN = (
    "conventions of its published script: each image over its own percentiles, by the label map seg"
)
RULES = {"synthrad2023": SYNTHRAD, "synthrad2025": SYNTHRAD, "brasyn": BRASYN}

Errors = Callable[[Volume, Volume, Mapping[str, Volume], Bool | None], Mapping[str, float]]
"""Of a true CT and an image on its grid, canonical and in HU, of "low" and "high" of the image's intervals or none, and of
the voxels that count, None for all: the scores by name. A function of a module, because workers receive it."""


@dataclass(frozen=True)
class Evaluator:
    """A challenge or a user of CTs.

    stated: the conventions of its scores; errors: those of a user, None for a challenge; pictures: it has none of its own.
    """

    name: str
    stated: str
    errors: Errors | None = None
    pictures: str = ""

    def rule(self, mask: str | None, _: object) -> str:
        """A sentence for the caption and metrics.json."""
        in_mask = self.errors is not None and mask is not None
        return f"{self.stated}{f'; all in the mask {mask}' if in_mask else ''}"

    def score(
        self,
        truth: Volume,
        image: Volume,
        mask: Bool | None,
        case: CaseFiles,
        ends: Mapping[str, Volume],
        counted: Bool | None,
    ) -> Mapping[str, float]:
        """The scores of an image by key; truth, image: canonical, on one grid, in their own unit.

        mask: of the evaluation; ends: "low" and "high" of the image's intervals, or none; counted: the voxels of the mask
        that the image covers, None for all. Raises BadInput for an image
        in other units, and for a case without the mask or label map.
        """
        if truth.unit != "HU" and self.name != "brasyn":
            option = "score" if self.errors is None else "for"
            raise BadInput(
                f"--{option} {self.name}: expected a CT in HU, found {truth.modality} in {truth.unit}. Drop it for this modality."
            )
        if self.errors is not None:
            scores = self.errors(truth, image, ends, counted)
        else:
            scores = self._challenge(truth, image, mask, case)
        return {f"{self.name}.{key}": value for key, value in scores.items()}

    def _challenge(
        self, truth: Volume, image: Volume, mask: Bool | None, case: CaseFiles
    ) -> Mapping[str, float]:
        """The scores of a challenge, on the voxels as they are in the truth's file."""
        if self.name == "brasyn":
            mask = self._tumour(truth, case)
        elif mask is None:
            mask = mask_of("cohort", truth, case)
        assert mask is not None
        stored = read_volume(case.files[truth.modality], truth.modality)
        axes = "".join(nib.orientations.aff2axcodes(stored.affine))

        def as_stored(values: AnyArray) -> AnyArray:
            """An array [D, H, W] in the orientation of the file, on which halving an image depends."""
            return orient(replace(truth, data=values.astype(np.float32)[None]), axes).data[0]

        a, b = as_stored(truth.data[0]), as_stored(image.data[0])
        return CHALLENGES[self.name](a, b, as_stored(mask) > 0)

    def _tumour(self, truth: Volume, case: CaseFiles) -> Bool:
        if "seg" not in case.labels:
            raise BadInput(
                f"--score {self.name}: expected the label map seg of {case.case}, which separates tumour and the rest, found none. Add it to the cohort."
            )
        return on_grid_of(truth, case.labels["seg"], "seg").data[0] > 0


CONSUMERS = dict[str, Evaluator]()  # users of CTs by name


def add_consumer(name: str, stated: str, errors: Errors, *tables: str) -> None:
    """Add a user of CTs to those of `evaluate --for`, with the tables of its metrics (see `add_scope_metrics`)."""
    CONSUMERS[name] = Evaluator(name, stated, errors)
    for table in tables:
        add_scope_metrics(table)
