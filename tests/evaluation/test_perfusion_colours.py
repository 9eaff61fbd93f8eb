"""Colours of perfusion maps in reports, with the range and unit that readers expect."""

import numpy as np

from voxlate.evaluation.reports.case_pictures import read_case
from voxlate.scans.formats.io import write_volume
from voxlate.scans.images.grid import Volume
from voxlate.scans.images.units import unit_of

SCALES = {  # colours, highest value, unit
    "cbf": ("CMRmap", 200, "ml/100g/min"),
    "cbv": ("inferno", 20, "ml/100g"),
    "tmax": ("magma", 30, "s"),
    "ncct": ("gray", 80, "HU"),
    "cta2": ("gray", 200, "HU"),
    "ct": ("gray", 200, "HU"),  # a narrow body, as a head
    "t1": ("gray", 1, "× peak"),
}


def test_each_perfusion_map_has_its_colours_range_and_unit_and_all_else_is_grey(tmp_path):
    data = np.random.default_rng(0).uniform(0, 20, (1, 2, 12, 12)).astype(np.float32)
    for modality, expected in SCALES.items():
        path = tmp_path / f"p0/{modality}.nii.gz"
        write_volume(path, Volume(data, np.diag([2.0, 2.0, 5.0, 1.0]), unit_of(modality), modality))
        case = read_case(tmp_path, {"truth_files": {f"p0/{modality}": str(path)}}, "p0", modality)
        scales = {image.role: image.scale for image in case.images if image.scale}
        for role in ("synthesis", "truth"):
            assert (scales[role].colours, scales[role].high, scales[role].unit) == expected
