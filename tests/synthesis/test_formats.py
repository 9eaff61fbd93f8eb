"""`synth --format`: the images are in another format, on the same grid and with the same voxels."""

from numpy.testing import assert_allclose, assert_array_equal

from rows import slow
from scans import t1_of
from voxlate.base.files import read_json
from voxlate.scans.formats.io import is_synthetic, read_volume
from voxlate.synthesis.provenance import ENDINGS
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


@slow
def test_another_format_replaces_the_first_is_kept_and_scored(voxlate, run, cohort, out):
    command = ("synth", run, cohort / "case0", "--out", out)
    voxlate(*command).done()
    voxlate(*command, "--format", "nrrd").done()
    assert sorted(one.name for one in (out / "case0").iterdir()) == ["provenance.json", "t2.nrrd"]
    kept = voxlate(*command, "--format", "nrrd", "-v")
    assert "1 of 1 cases were synthesised before and are kept" in kept.err
    voxlate("evaluate", out, "--truth", cohort / "case0").done()
