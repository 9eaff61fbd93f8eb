"""`synth --format`: the images are in another format, on the same grid and with the same voxels."""

from dataclasses import replace

import numpy as np
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image

from rows import slow
from scans import t1_of
from voxlate.base.files import read_json
from voxlate.scans.formats.io import is_synthetic, read_volume
from voxlate.scans.images.grid import Volume
from voxlate.scans.images.ranges import picture_window
from voxlate.synthesis.provenance import ENDINGS
from voxlate.synthesis.result import Synthesised
from voxlate.training.load import load


def test_every_format_holds_the_same_image(run, cohort, tmp_path):
    made = load(run).synthesise(t1_of(cohort))
    for ending in ENDINGS:
        out = tmp_path / ending[1:]
        made.write(out, ending)
        image = read_volume(out / f"t2{ending}", "t2")
        assert_array_equal(image.data, made.volume.data)
        assert_allclose(image.affine, made.volume.affine, atol=1e-5)
        assert [*read_json(out / "provenance.json")["images"]] == [f"t2{ending}"]
        assert is_synthetic(out / f"t2{ending}")


def test_a_picture_shows_a_window_of_the_image_and_says_that_it_is_synthetic(tmp_path):
    values = np.array([[[[-1000, 0, 50, 75, 100, 1500]]]], np.float32)
    ct = Volume(values, np.eye(4), "HU", "ct")
    grey, hu, other = (picture_window(replace(ct, unit=unit)) for unit in ("grey", "HU", "a.u."))
    assert (grey, hu) == ((0, 255), (0, 80))
    assert other[1] > 100
    low = {"ct": replace(ct, data=values - 100)}
    made = Synthesised({"ct": ct}, {}, {}, low=low, high=low)
    made.write(tmp_path, windows={"ct": (0.0, 100.0)})
    for name, shown in (("ct", [0, 0, 128, 191, 255, 255]), ("ct_low", [0, 0, 0, 0, 0, 255])):
        picture = np.asarray(Image.open(tmp_path / f"{name}.png"))
        assert_array_equal(picture[0, ::-1], shown)
    assert is_synthetic(tmp_path / "ct.png")
    assert "ct_high.png" in read_json(tmp_path / "provenance.json")["images"]


@slow
def test_another_format_replaces_the_first_is_kept_and_scored(voxlate, run, cohort, out):
    command = ("synth", run, cohort / "case0", "--out", out)
    voxlate(*command).done()
    voxlate(*command, "--format", "nrrd").done()
    assert sorted(one.name for one in (out / "case0").iterdir()) == ["provenance.json", "t2.nrrd"]
    kept = voxlate(*command, "--format", "nrrd", "-v")
    assert "1 of 1 cases were synthesised before and are kept" in kept.err
    voxlate("evaluate", out, "--truth", cohort / "case0").done()
