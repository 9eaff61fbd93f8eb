"""Real CTs as the anatomy of phantoms: tissues by HU and place, drawn regions, and the cohort on disk."""

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from made_volumes import save
from refusals import refuses
from rows import every_row
from voxlate.anatomy.phantom_cohort import write_cohort
from voxlate.anatomy.real_ct import make_ct_body, read_ct
from voxlate.anatomy.signal import MAPS, Head, tissue_map
from voxlate.anatomy.tissue import Label
from voxlate.base.files import read_json
from voxlate.base.messages import Message
from voxlate.scans.cases.prepared import open_cohort
from voxlate.scans.formats.io import read_volume

AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])
SHAPE = (16, 90, 110)  # z, y, x
# Values inside ellipses of the x-y plane: centre y, x and half axes, in voxels.
PARTS = {
    "fat": (-100, 45, 55, 38, 50),
    "muscle": (50, 45, 55, 33, 45),
    "lung": (-820, 50, 30, 15, 12),
    "cortex": (900, 25, 55, 11, 11),
    "marrow": (200, 25, 55, 9, 9),
    "vessel": (320, 60, 62, 7, 7),
    "fluid": (5, 50, 85, 9, 9),
    "metal": (3000, 66, 80, 2, 2),
}


def inside(name: str) -> np.ndarray:
    """The voxels of a part."""
    _, *centre, height, width = PARTS[name]
    _, y, x = np.indices(SHAPE)
    return ((y - centre[0]) / height) ** 2 + ((x - centre[1]) / width) ** 2 < 1


def torso(noise_hu: float = 0.0) -> np.ndarray:
    """A body on a table."""
    hu = np.full(SHAPE, -1000.0)
    hu[:, 3:5, 5:105] = 200  # the table
    for name, (value, *_) in PARTS.items():
        hu[inside(name)] = value
    rng = np.random.default_rng(0)
    return hu + noise_hu * rng.standard_normal(SHAPE)


def pure(name: str, depth: int = 2) -> np.ndarray:
    """The voxels of a part that other parts do not cover, so deep below its surface."""
    there = inside(name) & (torso() == PARTS[name][0])
    return ndimage.binary_erosion(there, [[[1] * 3] * 3], depth) if depth else there


def write(path: Path, data: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    save(path, data, affine=affine)
    return path


def body_of(path: Path, case: int = 0) -> Head:
    return make_ct_body(read_ct(path, "a", None), 0, case)


@pytest.fixture(scope="module")
def noisy(tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("ct") / "a.nii.gz", torso(15))


def test_each_part_of_a_ct_becomes_its_tissue_and_the_table_becomes_air(noisy):
    head = body_of(noisy)
    named = {"fat": Label.FAT, "cortex": Label.BONE, "fluid": Label.SPINAL_FLUID}
    named |= {"metal": Label.METAL, "lung": len(Label), "marrow": len(Label) + 1}
    for name, label in named.items():
        there = pure(name, 0 if name in ("cortex", "metal") else 2)
        assert (head.labels[there] == label).mean() > 0.9, name
    for name in ("muscle", "vessel"):  # an enhanced vessel is no bone
        assert (head.labels[pure(name)] >= len(Label) + 2).mean() > 0.85, name
    table = torso()[:, 3:5, :20] == 200
    assert (head.labels[:, 3:5, :20][table] == Label.AIR).all()


def test_a_voxel_between_two_tissues_has_the_share_that_its_hu_states(tmp_path):
    hu = torso()
    hu[:, 30:60, 50:60] = -50  # half fat
    head = body_of(write(tmp_path / "a.nii.gz", hu))
    assert Label.FAT in (head.labels[8, 45, 55], head.second[8, 45, 55])
    assert head.share[8, 45, 55] == pytest.approx(0.5, abs=0.01)


def test_the_noise_of_a_ct_is_not_in_its_mr(noisy):
    there = pure("muscle")
    protons = tissue_map(body_of(noisy), "pd_map")[there]
    assert np.corrcoef(protons, torso(15)[there])[0, 1] < 0.1


def test_each_case_of_a_ct_draws_other_regions_and_the_same_number_the_same(noisy):
    first, again, other = (body_of(noisy, case) for case in (0, 0, 1))
    assert np.array_equal(first.labels, again.labels)
    assert np.array_equal(first.tissue.t1_ms, again.tissue.t1_ms)
    assert (first.labels != other.labels)[inside("muscle")].mean() > 0.1


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """CTs of two patients beside other scans of theirs, in another orientation and oblique."""
    root = tmp_path_factory.mktemp("cts")
    turn = np.array([[-1.9, 0.6, 0, 70], [-0.6, -1.9, 0, 9], [0, 0, 2, -5], [0, 0, 0, 1]])
    for name in ("p1", "p2"):
        write(root / name / "ct.nii.gz", torso(15), turn)
        write(root / name / "t1.nii.gz", np.ones(SHAPE))
    return root


def test_the_ct_itself_is_the_truth_on_its_own_grid(folder, out):
    first, second = write_cohort(out, ct=folder, modalities=["t1", "ct", "pd_map"])
    given, truth = (read_volume(place / "ct.nii.gz", "ct") for place in (folder / "p1", first))
    place = np.linalg.solve(truth.affine, given.affine @ [60, 50, 8, 1])
    x, y, z, _ = np.rint(place).astype(int)
    assert truth.data[0, z, y, x] == np.rint(given.data[0, 8, 50, 60])
    assert read_volume(first / "t1.nii.gz", "t1").grid.shape == truth.grid.shape
    note = read_json(out / "phantom.json")
    assert {*note["ct"]} == {"p1", "p2"}
    assert note["seg"]["region_8"] == len(Label) + 9
    assert second.name == "p2_000"


def test_a_file_with_a_space_is_said_and_images_have_the_spacing_asked_for(
    tmp_path,
):
    write(tmp_path / "cts/Pelvis Meier.nii.gz", torso(15))
    said = list[Message]()
    options = {"cases": 2, "spacing_mm": (4, 4, 4), "modalities": ["ct"]}
    first, _ = write_cohort(tmp_path / "out", ct=tmp_path / "cts", **options, say=said.append)
    assert first.name == "Pelvis_Meier_000"
    assert read_volume(first / "ct.nii.gz").grid.spacing_mm == pytest.approx((4, 4, 4))
    assert [one.code for one in said] == ["assumed"]


@pytest.fixture
def bodies(tmp_path, voxlate) -> Path:
    """Phantoms of the CTs of two training patients, two of each."""
    for name, noise_hu in (("p1", 5), ("p2", 6)):
        # oblique, because planes that are all alike are taken for shuffled ones
        planes = [np.roll(plane, level - 8, 0) for level, plane in enumerate(torso(noise_hu))]
        write(tmp_path / f"cts/{name}.nii.gz", np.stack(planes))
    of_maps = ("--modalities", "ct", "--modalities", "maps")
    out = tmp_path / "bodies"
    voxlate("phantom", "--ct", tmp_path / "cts", "--cases", 4, *of_maps, "--out", out).done()
    rows = [f"{patient}_{case:03},{patient},train" for patient in ("p1", "p2") for case in (0, 1)]
    (out / "cases.csv").write_text("\n".join(["case,patient,split", *rows]))
    return out


def test_maps_of_zeros_are_no_fault_of_a_cohort_whose_training_is_that_of_a_recipe(
    bodies, tmp_path, voxlate
):
    answer = voxlate("prepare", bodies, "--out", tmp_path / "p", "--no-audit").done()
    assert "train PHYSICS_RECIPE.toml --data" in answer.out
    cohort = open_cohort(tmp_path / "p")
    assert all({*MAPS} < {*entry.present} for entry in cohort.cases)
    codes = [one.code for one in cohort.warnings]
    assert {"blank", "same-voxels"}.isdisjoint(codes)


T1 = [(-1000, -850, -110, 0, 50, 300), (-1000, -900, 1500, -200, 300, -700)]  # of HU


SCANS = {
    "MR": torso() + 1000,
    "CLIPPED": torso().clip(-1000, 400),
    # as a T1 is, linearly to -1000 to 1500: bright fat, grey muscle, dark bone
    "SCALED": np.interp(torso(), *T1),
}


@every_row(
    "changes",
    [
        {"ct": "MR"},
        {"ct": "NOTHING"},
        {"ct": "CLIPPED"},
        {"ct": "SCALED"},
        {"size": (9, 9, 9)},
        {"lesion": "tumour"},
        {"stripped": True},
        {"tissues": "synthseg"},
        {"labels": "MR", "tissues": "synthseg"},
        {"modalities": ["cta"]},
    ],
)
def test_what_is_no_ct_and_options_that_do_not_fit_are_refused(folder, tmp_path, changes):
    options = {"ct": folder, **changes}
    for key in ("ct", "labels"):
        if key in changes:
            options[key] = tmp_path / f"{key}.nii.gz"
            if changes[key] in SCANS:
                write(options[key], SCANS[changes[key]])
    with refuses():
        write_cohort(tmp_path / "out", **options)
