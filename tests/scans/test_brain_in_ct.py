"""The brain in the phantom's CTs against the phantom's own tissues, and heads that have none to find."""

import numpy as np
import pytest

from rows import every_row
from voxlate.anatomy.head import make_head
from voxlate.anatomy.scanner import image
from voxlate.anatomy.tissue import BRAIN, INTRACRANIAL
from voxlate.base.errors import BadInput
from voxlate.scans.images.grid import Volume
from voxlate.scans.images.mask import brain, largest

SIZE = (48, 56, 32)


@pytest.fixture(scope="module", params=[(4, "stroke"), (5, "tumour")], ids=["stroke", "tumour"])
def head(request):
    return make_head(request.param[0], 0, SIZE, request.param[1])


def ct(head, modality="ncct", box=()) -> Volume:
    return Volume(image(head, modality)[(None, *box)], head.affine, "HU", modality)


@every_row("modality", ["ncct", "cta1"])
def test_the_brain_in_ct_is_what_the_phantom_has_inside_its_skull(head, modality):
    truth = largest(np.isin(head.labels, INTRACRANIAL))
    found = brain(ct(head, modality))
    tissue = np.isin(head.labels, BRAIN) & truth
    assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > 0.97
    assert (found & tissue).sum() / tissue.sum() > 0.99, (
        "no brain is lost at the rim, where bone brightens it"
    )


@every_row(
    ("box", "side"),
    [
        ((slice(None), slice(None), slice(10, None)), "left or right"),
        ((slice(None), slice(None, 34), slice(None)), "front or back"),
        ((slice(20, 21), slice(None), slice(14, None)), "left or right"),
    ],
)
def test_a_head_that_the_field_of_view_cuts_off_is_refused(head, box, side):
    with pytest.raises(
        BadInput, match=f"expected a whole head in each slice, .* cuts off at the {side}"
    ):
        brain(ct(head, box=box))


def test_a_stack_of_slices_through_the_middle_of_a_head_is_whole(head):
    truth = np.isin(head.labels, INTRACRANIAL)
    found = brain(ct(head, box=(slice(16, 24),)))
    assert 2 * (found & truth[16:24]).sum() / (found.sum() + truth[16:24].sum()) > 0.97
