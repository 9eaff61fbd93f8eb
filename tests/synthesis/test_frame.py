"""A network reads the frame of the body: how much air a file holds changes no voxel of its image."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from voxlate.base.errors import BadInput
from voxlate.base.items import BACKGROUND
from voxlate.scans.cases.align import Preparation
from voxlate.scans.cases.case import prepare_case
from voxlate.scans.cases.prepared import open_cohort
from voxlate.scans.formats.io import read_volume
from voxlate.scans.images.frame import BodyFrame, find_frame
from voxlate.scans.images.grid import Volume, orient, resample
from voxlate.scans.images.mask import dilate, hard_edges
from voxlate.synthesis.empty import AIR_HU
from voxlate.synthesis.patch import Patch
from voxlate.training import recipe
from voxlate.training.batches.batches import training_batches
from voxlate.training.batches.patches import read_pair
from voxlate.training.model import load
from voxlate.training.train import train

PADS = [
    ((0, 0), (7, 3), (0, 11)),
    ((2, 5), (0, 0), (0, 0)),
    ((4, 0), (40, 31), (60, 2)),
]


def with_air(scan: Volume, pads) -> Volume:
    """A scan with planes of zeros appended along D, H, W, in the same place."""
    affine = scan.affine.copy()
    affine[:3, 3] -= affine[:3, :3] @ [before for before, _ in reversed(pads)]
    return replace(scan, data=np.pad(scan.data, ((0, 0), *pads)), affine=affine)


def without_air(volume: Volume, pads) -> np.ndarray:
    """The voxels of a padded volume that are those of the scan."""
    return volume.data[(slice(None), *(slice(before, -after or None) for before, after in pads))]


def in_noise() -> tuple[Volume, list[tuple[int, int]]]:
    """A head in much air with the noise of magnitude images, and the ends of the head along D, H, W."""
    z, y, x = np.ogrid[-37:38, -72:73, -68:69]
    radius = (z / 6.9) ** 2 + (y / 22) ** 2 + (x / 18) ** 2
    head = np.where(radius < 1, 700 + 200 * np.sin(y / 3) * np.cos(x / 4), 0)
    head[radius < 0.2] = 150
    real, imaginary = np.random.default_rng(3).normal(0, 15, (2, *head.shape))
    image = np.hypot(head + real, imaginary).astype(np.float32)
    volume = Volume(image[None], np.diag([2.0, 2, 3, 1]), "a.u.", "t1")
    return volume, [(31, 44), (51, 94), (51, 86)]


def boxed(scan: Volume, ends) -> Volume:
    """A box of a scan, in the same place."""
    return BodyFrame(scan.grid, ends, ends, ends).cut(scan)


@pytest.fixture
def framed(once, prepared, tiny, tmp_path):
    """A model that was trained in frames, and the folder of its training."""
    changes = {"data.frame": "4.0", "data.patch": "[1,32,24]", "net.zero_init": "false"}
    changes["intensity.t1"] = "{kind='percentile'}"
    run, read = tmp_path / "run", recipe.read(str(tiny), changes)
    text = f"{tiny.read_text()}{changes}"
    once(text, prepared, run, lambda: train(read, prepared, run, device="cpu"))
    return load(run, device="cpu")


@pytest.mark.slow
@pytest.mark.parametrize("pads", PADS)
def test_air_around_a_body_changes_no_voxel_of_its_image_and_no_message(framed, cohort, pads):
    scan = read_volume(cohort / "case0" / "t1.nii.gz", "t1")
    noisy = np.random.default_rng(0).uniform(0, 20, scan.data.shape).astype(np.float32)
    for base in (scan, replace(scan, data=np.maximum(scan.data, noisy))):
        for axes in ("RAS", "SPL"):
            turned = orient(base, axes)
            plain = framed.synthesise({"t1": turned}, warn=lambda _: None, anyway=True)
            made = framed.synthesise(
                {"t1": with_air(turned, pads)}, warn=lambda _: None, anyway=True
            )
            assert np.array_equal(without_air(made.volume, pads), plain.volume.data)
            assert made.warnings == plain.warnings
            assert made.volume.data.shape[1:] == with_air(turned, pads).grid.shape


@pytest.mark.slow
def test_noise_in_the_air_around_a_body_and_the_end_of_the_air_change_no_voxel_of_the_body(framed):
    whole, head = in_noise()
    made = []
    for voxels, planes in ((1, 0), (2, 0), (5, 0), (1, 9), (20, 0), (9, [[9, 0], [0, 0], [0, 4]])):
        near = boxed(whole, [(first - voxels, end + voxels) for first, end in head])
        made.append(with_air(near, np.broadcast_to(planes, (3, 2))))
    for side in range(6):  # air on one side alone
        ends = [[first - 1, end + 1] for first, end in head]
        ends[side // 2][side % 2] = (0, whole.grid.shape[side // 2])[side % 2]
        made.append(boxed(whole, ends))
    # zeros between the air of the head and other noise
    zeros = with_air(made[1], [(4, 4)] * 3)
    other = np.random.default_rng(1).rayleigh(15, whole.data.shape).astype(np.float32)
    first = [begin - 6 for begin, _ in head]
    place = tuple(slice(a, a + n) for a, n in zip(first, zeros.grid.shape))
    other[(0, *place)] = zeros.data[0]
    made.append(replace(whole, data=other))
    images = [
        framed.synthesise({"t1": scan}, warn=lambda _: None, anyway=True).volume for scan in made
    ]
    plain, *others = (resample(image, boxed(whole, head).grid).data for image in images)
    assert np.ptp(plain) > 1
    assert all(np.abs(other - plain).max() <= 1e-5 * 1400 for other in others)


def test_training_and_synthesis_read_the_same_input_of_a_frame_in_any_air(framed):
    whole, head = in_noise()
    stored = boxed(whole, [(first - 5, end + 5) for first, end in head])
    given = boxed(whole, [(first - 1, end + 9) for first, end in head])
    inputs = framed.check({"t1": given}, "a").inputs
    (trained, inside), (source, mask) = (
        Patch(
            case,
            framed.facts.data,
            framed.facts.intensity,
            [first - 3 for first, _ in case.header.mask_box],
            (19, 49, 41),
            None,
        ).sources()
        for case in (inputs.prepared, prepare_case("a", {"t1": stored}, Preparation()))
    )
    assert np.array_equal(trained, source)
    assert np.array_equal(inside, mask)
    shown = source[0] != BACKGROUND
    assert shown[mask > 0].mean() > 0.99
    assert not shown[~dilate(mask > 0, 1, (1, 1, 1))].any()


def test_a_scan_of_the_training_is_known_in_its_frame(framed, prepared, cohort):
    case = open_cohort(prepared).splits["train"][0]
    scan = read_volume(cohort / case / "t1.nii.gz", "t1")
    assert framed.synthesise({"t1": scan}, warn=lambda _: None, anyway=True).provenance[
        "in_training"
    ]


def test_a_frame_holds_the_body_and_its_margin_and_no_constant_plane():
    image = np.zeros((20, 30, 40), np.float32)
    image[6:14, 8:20, 10:30] = 100
    scan = Volume(image[None], np.diag([1.0, 2, 3, 1]), "a.u.", "t1")
    image[5, 0, 0] = image[15, 29, 39] = 1e-3  # what is in the file, however faint, ends the planes
    assert find_frame([scan], 4.0).ends == [(2, 18), (4, 24), (4, 36)]
    frame = find_frame([with_air(scan, PADS[2])], 4.0)
    back = frame.restore(frame.cut(with_air(scan, PADS[2])), 0.0)
    assert np.array_equal(back.data, with_air(scan, PADS[2]).data * (back.data > 0))


def test_the_frame_of_a_scan_that_is_stored_in_other_directions_is_the_same():
    image = np.random.default_rng(0).normal(100, 1, (9, 12, 15)).astype(np.float32)
    scan = Volume(np.pad(image, 3)[None], np.diag([1.0, 2, 3, 1]), "a.u.", "t1")
    frame = find_frame([scan], 0.0)
    assert np.array_equal(frame.cut(orient(scan, "LIP")).data, frame.cut(scan).data)


@pytest.mark.parametrize("place", [(0, 0, 0), (8, 30, 30), (15, 63, 63), (0, 63, 5)])
def test_a_scan_with_one_voxel_has_a_frame_of_that_voxel_or_of_the_lines_that_hold_it(place):
    image = np.zeros((16, 64, 64), np.float32)
    image[place] = 5
    scan = Volume(image[None], np.eye(4), "a.u.", "t1")
    assert find_frame([scan], 4.0).cut(scan).data.max() == 5


def test_training_reads_nothing_outside_of_the_frame_and_places_patches_around_the_body(prepared):
    cohort = open_cohort(prepared)
    known = recipe.read("t1_to_t2_brain")
    data = replace(known.data, source=["t1"], target=["t2"], patch=(1, 40, 40), frame=4.0)
    maps = known.intensity
    case = cohort.splits["train"][0]
    stored = cohort.case(case)
    (_, _), *box = stored.header.mask_box
    pair = read_pair(stored, data, maps, (3, 0, 0))
    shown = (pair.source[0, 0, 0] != BACKGROUND).numpy()
    rows, columns = (np.flatnonzero(shown.any(axis)) for axis in (1, 0))
    margin = 2  # 4 mm of 2 mm
    assert box[0][0] - margin <= rows[0]
    assert rows[-1] < box[0][1] + margin
    assert box[1][0] - margin <= columns[0]
    assert columns[-1] < box[1][1] + margin
    batches = training_batches(cohort, data, maps, steps=40)
    places = [batches._place(item, torch.Generator()) for item in range(8)]
    for name, (_, y, x) in places:
        (_, _), *ends = cohort.header(name).mask_box
        for start, (first, end) in zip((y, x), ends):
            assert start <= first
            assert end <= start + 40
            assert abs((first + end) / 2 - (start + 20)) <= margin + 1


def test_an_edge_is_hard_where_it_cuts_a_body_and_not_where_a_round_body_ends():
    z, y, x = np.ogrid[:60, :60, :60]
    ball = (z - 29.5) ** 2 + (y - 29.5) ** 2 + (x - 29.5) ** 2 < 29.9**2
    assert not hard_edges(ball, (2.0, 2.0, 2.0), 0.2).any()
    cut = hard_edges(ball[:45, 8:], (2.0, 2.0, 2.0), 0.2)
    assert cut.tolist() == [[False, True], [True, False], [False, False]]


def test_outside_of_the_frame_an_image_in_hu_is_air(framed):
    scan = Volume(np.zeros((1, 2, 3, 4), np.float32), np.eye(4), "a.u.", "t1")
    scan.data[0, :, 1:, 1:3] = np.arange(8).reshape(2, 2, 2)
    frame = find_frame([scan], 0.0)
    restored = frame.restore(frame.cut(scan), AIR_HU)
    assert (restored.data == AIR_HU).sum() == scan.data.size - frame.cut(scan).data.size


def test_a_scan_whose_voxels_are_in_metres_is_refused_before_memory_is_taken(framed):
    whole, _ = in_noise()
    small = replace(whole, affine=whole.affine @ np.diag([1e-3, 1e-3, 1e-3, 1.0]))
    with pytest.raises(BadInput) as refused:
        framed.check({"t1": small}, "a")
    assert "metres" in refused.value.parts["found"]
