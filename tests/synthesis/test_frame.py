"""A network reads the frame of the body: how much air a file holds changes no voxel of its image."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from refusals import refuses
from rows import every_row, slow
from voxlate.base.executors.case_work import no_report
from voxlate.base.items import BACKGROUND
from voxlate.scans.cases.align import Preparation
from voxlate.scans.cases.case import prepare_case
from voxlate.scans.cases.prepared import open_cohort
from voxlate.scans.formats.io import read_volume
from voxlate.scans.images.frame import BodyFrame, find_frame
from voxlate.scans.images.grid import Volume, orient, resample
from voxlate.scans.images.mask import dilate, hard_edges
from voxlate.synthesis.intervals import AIR_HU
from voxlate.synthesis.patch import Patch
from voxlate.training import recipe
from voxlate.training.batches.batches import training_batches
from voxlate.training.batches.patches import read_pair
from voxlate.training.load import load

PADS = [
    ((0, 0), (7, 3), (0, 11)),
    ((2, 5), (0, 0), (0, 0)),
    ((4, 0), (40, 31), (60, 2)),
]


def with_air(scan, pads):
    """A scan with planes of zeros appended along D, H, W, in the same place."""
    affine = scan.affine.copy()
    affine[:3, 3] -= affine[:3, :3] @ [before for before, _ in reversed(pads)]
    return replace(scan, data=np.pad(scan.data, ((0, 0), *pads)), affine=affine)


def in_noise():
    """A head in much air with the noise of magnitude images, and the ends of the head along D, H, W."""
    z, y, x = np.ogrid[-37:38, -72:73, -68:69]
    radius = (z / 6.9) ** 2 + (y / 22) ** 2 + (x / 18) ** 2
    head = np.where(radius < 1, 700 + 200 * np.sin(y / 3) * np.cos(x / 4), 0)
    head[radius < 0.2] = 150
    real, imaginary = np.random.default_rng(3).normal(0, 15, (2, *head.shape))
    image = np.hypot(head + real, imaginary).astype(np.float32)
    volume = Volume(image[None], np.diag([2.0, 2, 3, 1]), "a.u.", "t1")
    return volume, [(31, 44), (51, 94), (51, 86)]


def boxed(scan, ends):
    """A box of a scan, in the same place."""
    return BodyFrame(scan.grid, ends, ends, ends).cut(scan)


def around(head, before, after=None):
    """The ends of a head with so many voxels of air on either side."""
    return [(first - before, end + (after or before)) for first, end in head]


def made_of(model, scan):
    return model.synthesise({"t1": scan}, warn=no_report, anyway=True)


@pytest.fixture
def framed(changed):
    """A model that was trained in frames."""
    changes = {"data.frame": "4.0", "data.patch": "[1,32,24]", "net.zero_init": "false"}
    changes["intensity.t1"] = "{kind='percentile'}"
    return load(changed("framed", changes), device="cpu")


@slow
def test_noise_in_the_air_around_a_body_and_the_end_of_the_air_change_no_voxel_of_the_body(framed):
    whole, head = in_noise()
    made = []
    for voxels, planes in ((1, 0), (2, 0), (5, 0), (1, 9), (20, 0), (9, [[9, 0], [0, 0], [0, 4]])):
        near = boxed(whole, around(head, voxels))
        made.append(with_air(near, np.broadcast_to(planes, (3, 2))))
    for side in range(6):  # air on one side alone
        ends = [[*pair] for pair in around(head, 1)]
        ends[side // 2][side % 2] = (0, whole.grid.shape[side // 2])[side % 2]
        made.append(boxed(whole, ends))
    # zeros between the air of the head and other noise
    zeros = with_air(made[1], [(4, 4)] * 3)
    other = np.random.default_rng(1).rayleigh(15, whole.data.shape).astype(np.float32)
    place = tuple(slice(a - 6, a - 6 + n) for (a, _), n in zip(head, zeros.grid.shape))
    other[(0, *place)] = zeros.data[0]
    made.append(replace(whole, data=other))
    images = [made_of(framed, scan).volume for scan in made]
    plain, *others = (resample(image, boxed(whole, head).grid).data for image in images)
    assert np.ptp(plain) > 1
    assert all(np.abs(other - plain).max() <= 1e-5 * 1400 for other in others)


def test_training_and_synthesis_read_the_same_input_of_a_frame_in_any_air(framed):
    whole, head = in_noise()
    given = boxed(whole, around(head, 1, 9))
    stored = prepare_case("a", {"t1": boxed(whole, around(head, 5))}, Preparation())
    (trained, inside), (source, mask) = (
        Patch(
            case,
            framed.facts.data,
            framed.facts.intensity,
            [first - 3 for first, _ in case.header.mask_box],
            (19, 49, 41),
            None,
        ).sources()
        for case in (framed.check({"t1": given}, "a").prepared, stored)
    )
    assert np.array_equal(trained, source)
    assert np.array_equal(inside, mask)
    shown = source[0] != BACKGROUND
    assert shown[mask > 0].mean() > 0.99
    assert not shown[~dilate(mask > 0, 1, (1, 1, 1))].any()


def test_a_scan_of_the_training_is_known_in_its_frame(framed, prepared, cohort):
    case = open_cohort(prepared).splits["train"][0]
    scan = read_volume(cohort / case / "t1.nii.gz", "t1")
    assert made_of(framed, scan).provenance["in_training"]


def test_a_frame_holds_the_body_and_its_margin_and_no_constant_plane():
    image = np.zeros((20, 30, 40), np.float32)
    image[6:14, 8:20, 10:30] = 100
    scan = Volume(image[None], np.diag([1.0, 2, 3, 1]), "a.u.", "t1")
    image[5, 0, 0] = image[15, 29, 39] = 1e-3  # what is in the file, however faint, ends the planes
    assert find_frame([scan], 4.0).ends == [(2, 18), (4, 24), (4, 36)]
    wide = with_air(scan, PADS[2])
    frame = find_frame([wide], 4.0)
    back = frame.restore(frame.cut(wide), 0.0).data
    assert np.array_equal(back, wide.data * (back > 0))
    in_hu = frame.restore(frame.cut(wide), AIR_HU).data
    assert (in_hu == AIR_HU).sum() == wide.data.size - frame.cut(wide).data.size


def test_the_frame_of_a_scan_that_is_stored_in_other_directions_is_the_same():
    image = np.random.default_rng(0).normal(100, 1, (9, 12, 15)).astype(np.float32)
    scan = Volume(np.pad(image, 3)[None], np.diag([1.0, 2, 3, 1]), "a.u.", "t1")
    frame = find_frame([scan], 0.0)
    assert np.array_equal(frame.cut(orient(scan, "LIP")).data, frame.cut(scan).data)


def test_training_reads_nothing_outside_of_the_frame_and_places_patches_around_the_body(prepared):
    cohort = open_cohort(prepared)
    known = recipe.read("t1_to_t2_brain")
    data = replace(known.data, source=["t1"], target=["t2"], patch=(1, 40, 40), frame=4.0)
    stored = cohort.case(cohort.splits["train"][0])
    pair = read_pair(stored, data, known.intensity, (3, 0, 0))
    shown = (pair.source[0, 0, 0] != BACKGROUND).numpy()
    margin = 2  # 4 mm of 2 mm
    for axis, (first, end) in zip((1, 0), stored.header.mask_box[1:]):
        places = np.flatnonzero(shown.any(axis))
        assert first - margin <= places[0]
        assert places[-1] < end + margin
    batches = training_batches(cohort, data, known.intensity)
    places = [batches._place(item, torch.Generator()) for item in range(8)]
    for name, (_, y, x) in places:
        for start, (first, end) in zip((y, x), cohort.header(name).mask_box[1:]):
            assert start <= first
            assert end <= start + 40
            assert abs((first + end) / 2 - (start + 20)) <= margin + 1


def test_an_edge_is_hard_where_it_cuts_a_body_and_not_where_a_round_body_ends():
    z, y, x = np.ogrid[:60, :60, :60]
    ball = (z - 29.5) ** 2 + (y - 29.5) ** 2 + (x - 29.5) ** 2 < 29.9**2
    assert not hard_edges(ball, (2.0, 2.0, 2.0), 0.2).any()
    cut = hard_edges(ball[:45, 8:], (2.0, 2.0, 2.0), 0.2)
    assert cut.tolist() == [[False, True], [True, False], [False, False]]


@every_row("factor", [1e-3, 1e3])
def test_a_scan_whose_voxels_are_not_in_mm_is_refused_before_memory_is_taken(framed, factor):
    whole, _ = in_noise()
    wrong = replace(whole, affine=whole.affine @ np.diag([factor, factor, factor, 1.0]))
    with refuses(" mm long"):
        framed.check({"t1": wrong}, "a")
