"""The brain in the phantom's CTs against the phantom's own tissues, and heads that have none to find."""

import numpy as np
import pytest

from refusals import refuses
from rows import every_row
from voxlate.anatomy.head import make_head
from voxlate.anatomy.scanner import image
from voxlate.anatomy.tissue import BRAIN, INTRACRANIAL
from voxlate.scans.images.grid import Volume
from voxlate.scans.images.mask import brain, largest

SIZE = (48, 56, 32)


@pytest.fixture(scope="module", params=[(4, "stroke"), (5, "tumour")], ids=["stroke", "tumour"])
def head(request):
    return make_head(request.param[0], 0, SIZE, request.param[1])


def ct(head, modality="ncct", box=()) -> Volume:
    return Volume(image(head, modality)[(None, *box)], head.affine, "HU", modality)


@every_row(
    "modality, slices",
    [("ncct", slice(None)), ("cta1", slice(None)), ("ncct", slice(16, 24))],
)
def test_the_brain_in_ct_is_what_the_phantom_has_inside_its_skull(head, modality, slices):
    truth = largest(np.isin(head.labels, INTRACRANIAL))[slices]
    found = brain(ct(head, modality, (slices,)))
    tissue = np.isin(head.labels, BRAIN)[slices] & truth
    assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > 0.97
    # no brain is lost at the rim, where bone brightens it
    assert (found & tissue).sum() / tissue.sum() > 0.99


@every_row(
    "box, side",
    [
        (np.s_[:, :, 10:], "left or right"),
        (np.s_[:, :34], "front or back"),
        (np.s_[20:21, :, 14:], "left or right"),
    ],
)
def test_a_head_that_the_field_of_view_cuts_off_is_refused(head, box, side):
    with refuses(f"cuts off at the {side}"):
        brain(ct(head, box=box))
