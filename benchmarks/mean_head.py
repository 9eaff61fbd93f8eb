"""The mean head and brain of checks/head_pose.py: of whole heads, or stripped brains, of any contrast.

    voxlate phantom --labels MAPS --tissues synthseg --modality t1 --modality t2 --modality pd --modality flair --out HEADS
    voxlate phantom --labels MAPS --tissues synthseg --stripped --spacing 2 2 2 … --out BRAINS
    python benchmarks/mean_head.py head HEADS
    python benchmarks/mean_head.py brain BRAINS

They were made of head_01 to head_12 of SynthSeg's training label maps (Apache-2.0), drawn once each.
"""

import sys
import warnings
from pathlib import Path

import numpy as np

from voxlate.checks import head_pose
from voxlate.checks.head_checks import coarse_head, tissue_of
from voxlate.scans.formats.io import read_volume
from voxlate.scans.images.grid import canonical_view

heads = list[np.ndarray]()
for path in sorted(Path(sys.argv[2]).glob("*/*.nii.gz")):
    modality = path.name.split(".")[0]
    if modality not in ("t1", "t2", "pd", "flair"):
        continue
    head = coarse_head(canonical_view(read_volume(path, modality)))
    heads.append(head_pose.cells_of(tissue_of(head), head.body, np.array(head.spacing_mm)))
with warnings.catch_warnings(action="ignore"):  # cells that no head has
    mean = np.nan_to_num(np.nanmean(heads, axis=0))
mean = (mean + mean[..., ::-1]) / 2
to = Path(head_pose.__file__).with_name(f"mean_{sys.argv[1]}.npy")
np.save(to, (mean * 255).round().astype(np.uint8))
print(f"{to}: the mean of {len(heads)} scans")
