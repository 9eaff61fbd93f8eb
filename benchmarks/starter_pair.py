"""The real head of the starters' rulers as training data: its MR, and its CT with the soft tissue of a living head.

Its CT is of a frozen head whose bone and air are right and whose soft tissue is 50 HU too dark. There the image of a starter is
taken, which learnt soft tissue of drawn heads.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from starter_heads import real_pair, synthesised
from voxlate.scans.formats.io import write_volume
from voxlate.synthesis.model import Model

SOFT_HU = (-200.0, 120.0)  # of the true CT; beyond it shows air and bone, and their partial volumes
MOST_HU, LEAST_HU = 110.0, -130.0  # of living soft tissue
USUAL_HU = 40.0  # where the starter's image is bone or air
COPIES = 5  # among the training's cases: a seventh of all slices
CREDIT = "Visible Human Male, courtesy of the U.S. National Library of Medicine, public domain"


def write_living(pair: Path, starter: Model, folder: Path) -> list[str]:
    """Write mr.nii.gz and ct.nii.gz of the living head into a folder; returns rows of a table of cases below its parent."""
    folder.mkdir(parents=True, exist_ok=True)
    name, mr, ct, _ = real_pair(pair)
    made = synthesised(starter, name, mr).volumes["ct"].data[0]
    truth = ct.data[0]
    soft = (SOFT_HU[0] < truth) & (truth < SOFT_HU[1])
    is_soft = (made > SOFT_HU[0] + 20) & (made < SOFT_HU[1])
    living = np.where(is_soft, made, USUAL_HU).clip(LEAST_HU, MOST_HU)
    write_volume(folder / "mr.nii.gz", mr)
    values = np.where(soft, living, truth).astype(np.float32)
    write_volume(folder / "ct.nii.gz", replace(ct, data=values[None]))
    return [
        f"{folder.name}_{copy},{folder.name},train,{modality},{folder.name}/{modality}.nii.gz"
        for copy in range(COPIES)
        for modality in ("mr", "ct")
    ]
