"""Colours of perfusion maps in reports: ordered by lightness, with the range and unit that readers expect."""

import numpy as np

from voxlate.evaluation.reports.case_pictures import read_case
from voxlate.scans.formats.io import write_volume
from voxlate.scans.images.grid import Volume
from voxlate.scans.images.pictures import palette
from voxlate.scans.images.units import unit_of


def lightness(colours) -> np.ndarray:
    """CIE L* of sRGB bytes [N, 3]. Source: IEC 61966-2-1 and CIE 15."""
    share = colours / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    luminance = linear @ [0.2126, 0.7152, 0.0722]
    return np.where(luminance > 0.008856, 116 * np.cbrt(luminance) - 16, 903.3 * luminance)


def test_a_perfusion_map_grows_lighter_with_its_values_and_begins_in_black():
    for name in ("cbf", "cbv", "tmax"):
        steps = np.diff(lightness(palette(name).astype(float)))
        assert (palette(name)[0] == 0).all()
        # but for the rounding to bytes
        assert (steps > -0.05).all()
        # no step that looks like a border
        assert np.convolve(steps, np.ones(8), "valid").max() < 12
        assert lightness(palette(name)[-1:].astype(float))[0] > 90


SCALES = {  # colours, highest value, unit
    "cbf": ("cbf", 200, "ml/100g/min"),
    "cbv": ("cbv", 20, "ml/100g"),
    "tmax": ("tmax", 30, "s"),
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
