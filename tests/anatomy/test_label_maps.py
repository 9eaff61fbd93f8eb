"""Label maps as the anatomy of phantoms: tables, drawing, variation, and the cohort on disk."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.random import default_rng
from scipy import ndimage

from made_volumes import save
from refusals import refuses
from rows import every_row
from voxlate.anatomy import variation as varying
from voxlate.anatomy.label_map import LabelMap, read_label_map, read_table
from voxlate.anatomy.mapped_head import _take, make_mapped_head, map_of
from voxlate.anatomy.phantom_cohort import label_bodies, simulated, write_cohort
from voxlate.anatomy.phantom_options import PhantomOptions, tables
from voxlate.anatomy.tissue import SKULL, Label
from voxlate.scans.formats.io import read_volume

STEP_MM = 3.0
BRAIN_MM, CAVITY_MM, SKULL_MM, SKIN_MM = 60.0, 66.0, 75.0, 87.0  # radii of a head of spheres
SYNTHSEG = {"white": 2, "fluid": 24, "bone": 515, "soft": 507}


def radius_mm(side: int) -> np.ndarray:
    return np.linalg.norm((np.indices((side,) * 3) - (side - 1) / 2) * STEP_MM, axis=0)


def ball_head(size: int = 68) -> np.ndarray:
    """A brain in fluid, skull and soft tissue: spheres around the middle."""
    radius = radius_mm(size)
    radii = (BRAIN_MM, CAVITY_MM, SKULL_MM, SKIN_MM)
    labels = np.zeros(radius.shape, np.int16)
    for limit, value in reversed([*zip(radii, SYNTHSEG.values())]):
        labels[radius < limit] = value
    return labels


def write_map(path: Path, labels: np.ndarray, affine: np.ndarray | None = None) -> Path:
    """Write labels [z, y, x] as NIfTI; affine: by default RAS with STEP_MM."""
    save(path, labels, affine=np.diag([STEP_MM, STEP_MM, STEP_MM, 1]) if affine is None else affine)
    return path


def read_map(
    folder: Path,
    labels: np.ndarray,
    table: str | Path = "synthseg",
    affine: np.ndarray | None = None,
) -> LabelMap:
    return read_label_map(write_map(folder / "a.nii.gz", labels, affine), read_table(table), "a")


@pytest.fixture(scope="module")
def head(tmp_path_factory) -> LabelMap:
    return read_map(tmp_path_factory.mktemp("maps"), ball_head())


def test_every_table_that_comes_with_the_package_names_known_tissues_once():
    assert tables() == ["charm", "synthseg", "totalsegmentator"]
    codes = {name: read_table(name).codes for name in tables()}
    assert codes["synthseg"][1035] == codes["synthseg"][3] == Label.GREY
    assert codes["charm"][7] == codes["synthseg"][515] == Label.BONE
    body = read_table("totalsegmentator")
    assert sorted(body.codes) == list(range(118))
    assert list(body.tissues) == [
        "liver",
        "kidney",
        "spleen",
        "pancreas",
        "prostate",
        "heart",
        "lung",
    ]


@every_row(
    "text",
    [
        "[labels]\nwhiet = [1]",
        "[labels]\nwhite = [1]\ngrey = ['1-3']",
        "[labels]\nwhite = ['3-x']",
        "[labels",
        "[tissues.fat]\npd=1\nt1_ms=1\nt2_ms=1\nt2star_ms=1\nhu=1\n[labels]",
        "colour = 1\n[labels]\nwhite = [1]",
    ],
)
def test_a_table_that_cannot_be_used_is_refused(tmp_path, text):
    path = tmp_path / "own.toml"
    path.write_text("title = 'x'\n" + text)
    with refuses():
        read_table(path)


BALL = ball_head(40).astype(np.float32)
RAS = np.diag([STEP_MM, STEP_MM, STEP_MM, 1])


@every_row(
    "labels, affine",
    [
        (BALL + 0.5, RAS),
        (BALL - 1, RAS),
        (BALL * 10**6, RAS),
        (np.where(SYNTHSEG["bone"] == BALL, 9999, BALL), RAS),
        (BALL, np.diag([0.003, 0.003, 0.003, 1])),  # metres
    ],
)
def test_what_is_no_label_map_of_the_table_on_a_grid_in_mm_is_refused(tmp_path, labels, affine):
    with refuses():
        read_map(tmp_path, labels.astype(np.float32), affine=affine)


def test_a_map_of_another_orientation_gives_the_same_tissues(tmp_path, head):
    labels = ball_head()
    labels[30:36, 20:24, 44:48] = SYNTHSEG["bone"]  # so that no side equals another
    upright = read_map(tmp_path, labels)
    turned = np.array([[-STEP_MM, 0, 0, 0], [0, 0, STEP_MM, 0], [0, -STEP_MM, 0, 0], [0, 0, 0, 1]])
    stored = labels[::-1, :, ::-1].transpose(1, 0, 2)
    same = read_map(tmp_path, stored, affine=turned)
    assert np.array_equal(upright.codes, same.codes)
    assert not np.array_equal(upright.codes, head.codes)


def test_air_in_the_closed_hull_is_internal_and_specks_are_filled(tmp_path):
    labels = ball_head()
    radius = radius_mm(68)
    z, y, x = np.mgrid[:68, :68, :68] - 33.5
    sinus = (radius > 70) & (radius < 80) & (np.abs(z) < 4) & (np.abs(x) < 4) & (y > 0)
    labels[sinus] = 0
    labels[34, 34, 34] = 0  # a hole in the brain
    body = read_map(tmp_path, labels)
    assert (body.codes == Label.SINUS).sum() == sinus.sum()
    assert body.where(Label.WHITE).sum() == (radius < BRAIN_MM).sum()
    assert (body.codes != Label.AIR).sum() >= (radius < SKIN_MM).sum()


def test_what_a_map_does_not_tell_apart_is_drawn_where_it_was(head):
    habitus = replace(varying.draw_habitus(default_rng(2)), skin_mm=4.0, table_mm=np.inf)
    drawn = varying.draw_tissues(head, habitus)
    soft = head.where("soft")
    assert set(np.unique(drawn[soft])) == {Label.SKIN, Label.FAT, Label.MUSCLE}
    assert set(np.unique(drawn[head.where("fluid")])) <= {Label.CSF, Label.DURA, Label.SPINAL_FLUID}
    kept = head.where(Label.WHITE, Label.BONE)
    assert np.array_equal(drawn[kept], head.codes[kept])


@every_row("vault_mm", [-2.0, 0.0, 2.0])
def test_a_thicker_vault_moves_its_outer_surface_by_the_millimetres_drawn(head, vault_mm):
    habitus = replace(varying.draw_habitus(default_rng(2)), table_mm=np.inf)
    drawn = varying.draw_tissues(head, habitus)
    still = {"turn": np.eye(3), "mirror": False, "scale": np.ones(3)}
    still |= {"bend_mm": 0.0, "vault_mm": vault_mm, "brow_mm": 0.0, "ventricle_mm": 0.0}
    variation = replace(varying.draw_variation(default_rng(0)), **still)
    places = varying.places_of(head, drawn, variation)
    along = np.linspace(-90, 90, 361, dtype=np.float32)
    x, y, z = places.on((along, *np.zeros((2, 1), np.float32)))
    canvas = _take(drawn, [p / np.float32(STEP_MM) for p in (z, y, x)], STEP_MM)
    bone_mm = np.abs(along)[canvas.label[0, 0] == Label.BONE]
    assert bone_mm.min() == pytest.approx(CAVITY_MM, abs=1.6)
    assert bone_mm.max() == pytest.approx(SKULL_MM + vault_mm, abs=1.6)


def test_bone_beside_the_ears_and_of_the_brow_has_air_cells_under_a_shell_of_bone(tmp_path):
    """A skull of 18 mm around a brain, without air inside: the drawn cells lie low in it on both sides, and in front."""
    labels = ball_head()
    radius = radius_mm(68)
    labels[(radius > SKULL_MM) & (radius < 84)] = SYNTHSEG["bone"]
    drawn = make_mapped_head(read_map(tmp_path, labels), 3, 0, None)
    cells = drawn.labels == Label.SINUS
    x, y, z = (drawn.affine[k, 3] + np.nonzero(cells)[2 - k] * STEP_MM for k in range(3))
    of_ears = y < 30
    assert x[of_ears].min() < -20 < 20 < x[of_ears].max()
    assert z[of_ears].max() < 0
    assert y[~of_ears].min() > 60
    around = ndimage.binary_dilation(cells) & ~cells
    assert np.isin(drawn.labels[around], (*SKULL, Label.MUCOSA)).mean() > 0.9


def test_a_body_without_a_brain_has_all_its_parts_in_fat_and_muscle_and_its_air_is_gas(tmp_path):
    (tmp_path / "own.toml").write_text(
        "title = 'x'\ninside = 'soft'\ncoat_mm = 14\n[labels]\nvein = [5]\ncord = [1]\nwhole_bone = [69]\nair = [200]"
    )
    radius = radius_mm(60)
    labels = np.zeros(radius.shape, np.int16)
    labels[radius < 60] = 5
    labels[radius < 20] = 69
    labels[2:6, 2:6, 2:6] = 1  # which touches nothing
    labels[40:43, 30:33, 30:33] = 200
    body = read_map(tmp_path, labels, tmp_path / "own.toml")
    assert (body.codes == Label.SINUS).sum() == 27
    assert (body.codes == Label.CORD).sum() == 64
    made = make_mapped_head(body, 0, 0, (4, 4, 4))
    present = {*made.labels[made.share == 1]}
    assert {Label.VEIN, Label.BONE, Label.MARROW, Label.FAT} <= present
    assert not {*made.labels.flat} & {Label.CSF, Label.WHITE, Label.ARTERY}


def write(folder: Path, name: str = "scans", **changes: object) -> list[Path]:
    """Write a cohort of the maps in the folder's subfolder `maps`."""
    options = {"cases": 1, "labels": folder / "maps", "tissues": "synthseg"}
    options |= {"spacing_mm": (9, 9, 9), "modalities": ["ct"]}
    return write_cohort(folder / name, **options | changes)


@every_row(
    "options, others",
    [
        ({"tissues": None}, ()),
        ({"size": (9, 9, 9)}, ()),
        ({"labels": Path(__file__).parent}, ()),
        ({"labels": None}, ()),
        ({"labels": None, "tissues": None, "spacing_mm": (1, 1, 1)}, ()),
        ({}, ("maps/a_b.nii.gz", "maps/a/b.nii.gz")),  # which would share a name
    ],
)
def test_options_and_files_that_do_not_fit_together_are_refused(tmp_path, options, others):
    write_map(tmp_path / "maps/a.nii.gz", ball_head(40))
    for other in others:
        write_map(tmp_path / other, np.zeros((9, 9, 9), np.int16))
    with refuses():
        write(tmp_path, "out", **{"spacing_mm": None, **options})


@every_row("spacing_mm", [(2.0, 2.0, 6.0), (0.75, 0.75, 6.0)])
def test_the_cortex_of_a_bone_has_its_millimetres_in_anisotropic_voxels(tmp_path, spacing_mm):
    counts = [round(72 / step) for step in spacing_mm[::-1]]
    labels = np.full(counts, 80, np.int16)
    half = slice(counts[2] // 4, 3 * counts[2] // 4)
    labels[:, :, half] = 75  # a slab of bone, 36 mm in x
    body = read_map(tmp_path, labels, "totalsegmentator", np.diag([*spacing_mm, 1]))
    habitus = replace(varying.draw_habitus(default_rng(0)), cortex_mm=4.0)
    drawn = varying.draw_tissues(body, habitus)
    middle = drawn[drawn.shape[0] // 2, drawn.shape[1] // 2]
    cortex_mm = (middle == Label.BONE).sum() * spacing_mm[0]
    assert cortex_mm == pytest.approx(8, abs=2 * spacing_mm[0])


def test_a_cohort_is_not_continued_with_a_changed_map_or_table(tmp_path):
    write_map(tmp_path / "maps/a.nii.gz", ball_head())
    own = tmp_path / "own.toml"
    text = "title = 'x'\n[labels]\nwhite = [2]\nfluid = [24]\nbone = [515]\nsoft = [507]"
    own.write_text(text)
    write(tmp_path, tissues=own)
    own.write_text(text.replace("white", "grey"))
    with refuses("expected a cohort with table"):
        write(tmp_path, tissues=own)
    own.write_text(text)
    write_map(tmp_path / "maps/a.nii.gz", ball_head(64))
    with refuses("expected a cohort with label_maps"):
        write(tmp_path, tissues=own)


def test_each_map_has_each_kind_of_lesion_also_with_three_maps(tmp_path):
    for name in "abc":
        write_map(tmp_path / f"maps/{name}.nii.gz", ball_head(40))
    own = label_bodies(PhantomOptions(labels=tmp_path / "maps", tissues="synthseg"))
    for bodies, map_in in ((own, own.patient), (simulated(PhantomOptions()), map_of)):
        assert len({(map_in(case), bodies.kind(case)) for case in range(9)}) == 9


def test_maps_of_one_file_name_have_their_own_names_and_random_numbers(tmp_path):
    for folder in ("s1", "s2"):
        write_map(tmp_path / "maps" / folder / "seg.nii.gz", ball_head())
    (tmp_path / "maps/._seg.nii.gz").write_bytes(b"hidden")
    first, second = write(tmp_path, cases=2)
    rows = (tmp_path / "scans/cases.csv").read_text().splitlines()
    assert rows == ["case,patient", "s1_seg_000,s1_seg", "s2_seg_000,s2_seg"]
    assert [first.name, second.name] == ["s1_seg_000", "s2_seg_000"]
    volumes = [read_volume(folder / "seg.nii.gz").data for folder in (first, second)]
    assert not np.array_equal(*volumes)
