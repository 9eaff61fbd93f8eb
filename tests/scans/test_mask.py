"""Body and brain masks against made-up heads whose answer is known, and against a published mask."""

import numpy as np
import pytest
from numpy.random import default_rng

from refusals import refuses
from rows import every_row
from voxlate.anatomy.mapped_head import make_head
from voxlate.anatomy.signal import image
from voxlate.anatomy.tissue import BRAIN as BRAIN_TISSUES
from voxlate.anatomy.tissue import INTRACRANIAL
from voxlate.base.similarity import dice
from voxlate.scans.formats.io import read_volume
from voxlate.scans.images.grid import Volume
from voxlate.scans.images.mask import (
    brain,
    foreground,
    largest,
)

SHAPE, SPACING = (40, 84, 64), (4.0, 3.0, 3.0)  # D, H, W


def ellipsoid(*half_mm: float, centre_mm=(0.0, 0.0, 0.0)) -> np.ndarray:
    """The voxels inside an ellipsoid with half-axes (D, H, W) around the centre of the grid."""
    axes = [(np.arange(n) - (n - 1) / 2) * s for n, s in zip(SHAPE, SPACING)]
    places = np.meshgrid(*axes, indexing="ij")
    return sum(((p - c) / h) ** 2 for p, c, h in zip(places, centre_mm, half_mm)) <= 1


def volume_of(data, unit) -> Volume:
    return Volume(data[None].astype(np.float32), np.diag([*SPACING[::-1], 1.0]), unit, "x")


HEAD = ellipsoid(72, 98, 80)
SKULL = ellipsoid(66, 92, 74)
BRAIN = ellipsoid(58, 84, 66)
VENTRICLE = ellipsoid(14, 24, 10)


def ct_head() -> np.ndarray:
    """Skin 30, bone 1000, brain 35, fluid 8 HU; a sinus of air; a hollow table behind the head; noise of 8 HU."""
    hu = np.full(SHAPE, -1000.0)
    hu[HEAD], hu[SKULL], hu[BRAIN], hu[VENTRICLE] = 30, 1000, 35, 8
    hu[ellipsoid(10, 12, 15, centre_mm=(-40, 60, 0)) & ~BRAIN] = -1000
    hu[:, 1, 2:-2] = hu[:, 4, 2:-2] = hu[:, 1:5, 2] = hu[:, 1:5, -3] = 100
    return hu + default_rng(0).normal(0, 8, SHAPE)


def mr_head(noise=4.0) -> np.ndarray:
    """T1-like: fat 220, bone 8, brain 130, fluid 40; magnitude of complex noise (Rician)."""
    signal = np.zeros(SHAPE)
    signal[HEAD], signal[SKULL], signal[BRAIN], signal[VENTRICLE] = 220, 8, 130, 40
    random = default_rng(0)
    return np.hypot(signal + random.normal(0, noise, SHAPE), random.normal(0, noise, SHAPE))


@every_row(
    "head, unit",
    [
        (ct_head(), "HU"),
        (mr_head(0.5), "a.u."),
        (mr_head(9.0), "a.u."),
        (mr_head() * (mr_head() >= 5), "grey"),  # as where the scanner cut noise to zero
    ],
)
def test_the_body_is_the_head_and_one_slice_is_masked_as_well(head, unit):
    """In CT without the table and with the sinus, in MR with the dark skull."""
    for part in (slice(None), slice(20, 21)):
        assert dice(foreground(volume_of(head[part], unit)), HEAD[part]) > 0.98


@every_row("background", [0.0, -3.2, 100.0])
def test_a_stripped_brain_stands_out_from_any_constant(background):
    """Also where fluid is darker than the background, as after standardising."""
    contrast = default_rng(0).normal(4, 0.5, SHAPE)
    volume = volume_of(background + BRAIN * contrast, "a.u.")
    assert dice(foreground(volume), BRAIN) > 0.99


def test_without_background_everything_is_body():
    tissue = default_rng(0).normal(100, 20, SHAPE)
    tissue[ellipsoid(20, 20, 10)] = 600  # a vessel
    assert foreground(volume_of(tissue, "a.u.")).all()
    assert foreground(volume_of(np.full(SHAPE, 7.0), "a.u.")).all()


def test_the_brain_is_found_within_the_skull_with_its_ventricles_and_not_without_a_skull_or_a_ct():
    assert dice(brain(volume_of(ct_head(), "HU")), BRAIN) > 0.97
    with refuses("found no brain"):
        brain(volume_of(np.where(HEAD, 30.0, -1000.0), "HU"))
    with refuses("expected a CT"):
        brain(volume_of(mr_head(), "a.u."))


@every_row("modality", ["t1c", "flair"])
def test_real_brains_with_a_negative_background_match_their_published_mask(shared, modality):
    folder = shared / "data/brats_like/BraTS2013-pat0003"
    truth = read_volume(folder / "brainmask.nii.gz").data[0] > 0
    assert dice(foreground(read_volume(folder / f"{modality}.nii.gz")), truth) > 0.99


PHANTOM = (48, 56, 32)


@pytest.fixture(scope="module", params=[(4, "stroke"), (5, "tumour")], ids=["stroke", "tumour"])
def head(request):
    return make_head(request.param[0], 0, PHANTOM, request.param[1])


def ct(head, modality="ncct", box=()) -> Volume:
    return Volume(image(head, modality)[(None, *box)], head.affine, "HU", modality)


@every_row(
    "modality, slices, overlap, kept",
    [
        ("ncct", slice(None), 0.95, 0.97),
        ("cta1", slice(None), 0.95, 0.97),
        ("ncct", slice(16, 24), 0.91, 0.86),  # where no other plane closes the rings of thin bone
    ],
)
def test_the_brain_in_ct_is_what_the_phantom_has_inside_its_skull(
    head, modality, slices, overlap, kept
):
    truth = largest(np.isin(head.labels, INTRACRANIAL))[slices]
    found = brain(ct(head, modality, (slices,)))
    tissue = np.isin(head.labels, BRAIN_TISSUES)[slices] & truth
    assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > overlap
    # no brain is lost at the rim, where bone brightens it
    assert (found & tissue).sum() / tissue.sum() > kept


@every_row(
    "box, side",
    [
        (np.s_[:, :, 10:], "left or right"),
        (np.s_[:, :34], "front or back"),
        (np.s_[24:25, :, 20:], "left or right"),
    ],
)
def test_a_head_that_the_field_of_view_cuts_off_is_refused(head, box, side):
    with refuses(f"cuts off at the {side}"):
        brain(ct(head, box=box))
