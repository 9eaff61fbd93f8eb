"""The window of Hounsfield units that a cohort's 8-bit pictures of CT show, found with a starter's synthesis of their MR."""

from collections.abc import Mapping

import numpy as np
import torch

from voxlate.scans.images.intensity import Window
from voxlate.scans.images.units import unit_of
from voxlate.science.diffusion.noise import Noise
from voxlate.training.batches.batches import batches_of, even_places
from voxlate.training.batches.patches import DataSettings
from voxlate.training.planning.rules import Draft
from voxlate.training.starter import load_run
from voxlate.training.starters.card import Card

# Low and high ends in HU of windows in which pictures of heads are published.
WINDOWS_HU = (
    *((0, 80), (20, 60), (-20, 130), (-160, 240), (-125, 275), (-200, 800)),
    *((-500, 1500), (-1000, 1000), (-1000, 2000), (-1024, 3071)),
)
SLICES = 12  # of the training cases that are synthesised

Ends = tuple[float, float]


def find_windows(start_from: str, card: Card, draft: Draft) -> dict[str, Ends]:
    """The window in HU that pictures of a planned target show; empty if the target is in Hounsfield units itself."""
    names = dict(zip([*card.source, *card.target], [*draft.roles.source, *draft.roles.target]))
    return {
        name: find_window(start_from, names, draft, Window(**draft.tables["intensity"][name]))
        for name in draft.roles.target
        if draft.facts.scans[name].pictures and unit_of(name) == "HU"
    }


def find_window(start_from: str, names: Mapping[str, str], draft: Draft, grey: Window) -> Ends:
    """The usual window in which a starter's CT of the training cases is nearest to their pictures.

    names: the cohort's name of each modality of the starter; grey: the pictures' range. The mean absolute error in the mask
    decides: of the levels alone a window that is half as wide can be as near.
    """
    method, recipe, _ = load_run(start_from)
    (target,) = recipe.data.target
    whole = recipe.intensity[target]
    assert isinstance(whole, Window)
    intensity = {names[name]: spec for name, spec in recipe.intensity.items()}
    cohort = draft.facts.cohort
    shown = DataSettings(
        source=[names[name] for name in recipe.data.source],
        target=[names[target]],
        patch=tuple(draft.data["patch"]),
        axes=recipe.data.axes,
        stack=recipe.data.stack,
    )
    places = even_places(cohort, shown, "train", SLICES)
    made, seen = [], []
    for batch in batches_of(cohort, shown, intensity | {names[target]: grey}, places, batch=4):
        with torch.inference_mode():
            image = method.synthesise(batch, Noise(0, batch.item), recipe.synth).float()
        inside = batch.mask.bool().expand_as(image)
        made.append(image[inside].numpy())
        assert batch.target is not None
        seen.append(batch.target[inside].numpy())
    hu = whole.low + (np.concatenate(made) + 1) / 2 * (whole.high - whole.low)
    truth = np.clip((np.concatenate(seen) + 1) / 2, 0, 1)
    return min(WINDOWS_HU, key=lambda ends: _difference(hu, truth, ends))


def _difference(hu: np.ndarray, truth: np.ndarray, ends: Ends) -> float:
    low, high = ends
    return float(np.abs(np.clip((hu - low) / (high - low), 0, 1) - truth).mean())
