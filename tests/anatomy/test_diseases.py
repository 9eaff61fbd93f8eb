"""Ages and diseases of brains."""

from functools import cache

import numpy as np
import pytest
from numpy.random import default_rng

from rows import every_row
from voxlate.anatomy import diseases
from voxlate.anatomy.diseases import LesionKind
from voxlate.anatomy.mapped_head import make_head
from voxlate.anatomy.shapes import noise
from voxlate.anatomy.signal import Head
from voxlate.anatomy.tissue import BRAIN, OTHER_BRAIN, TUMOUR, VESSEL, Label

pytestmark = pytest.mark.slow

SIZE = (46, 56, 34)


@cache
def head(case: int, kind: LesionKind = "none") -> Head:
    return make_head(7, case, SIZE, kind)


def test_every_disease_occurs_and_a_shunt_only_with_hydrocephalus():
    rough = noise(default_rng(0), 16, 4, 64)
    made = [diseases.draw(*default_rng(seed).spawn(2), "none", rough) for seed in range(300)]
    remnants = {"none", "infarct", "haemorrhage", "resection", "hydrocephalus"}
    assert {one.remnant for one in made} == remnants
    tumours = {"glioblastoma", "low grade", "meningioma", "metastases"}
    assert {one.tumour for one in made} == tumours
    assert all(one.remnant == "hydrocephalus" for one in made if one.has_shunt)
    assert any(one.has_shunt for one in made)


@every_row(
    "case, labels",
    [(1, (Label.NECROSIS, Label.ENHANCING, Label.OEDEMA)), (4, (Label.LOW_GRADE,))],
)
def test_a_tumour_paints_its_tissues_and_its_map_marks_tissue_of_the_brain(case, labels):
    made = head(case, "tumour")
    assert {*labels} <= {*made.labels.flat}
    assert made.lesion_map.max() >= 2
    solid = (*BRAIN, *OTHER_BRAIN, *TUMOUR, *VESSEL)  # a tumour of low grade holds vessels
    assert np.isin(made.labels, solid)[made.lesion_map > 0].all()


@every_row(
    "case, labels",
    [
        (8, (Label.RESECTION, Label.GLIOSIS)),
        (6, (Label.OLD_CAVITY, Label.GLIOSIS)),
        (17, (Label.HAEMORRHAGE_ACUTE, Label.OEDEMA)),
        (35, (Label.HAEMORRHAGE_SUBACUTE, Label.HAEMOSIDERIN)),
        (37, (Label.HAEMOSIDERIN, Label.OLD_CAVITY)),
        (2, (Label.SHUNT,)),
    ],
)
def test_a_disease_paints_its_tissues(case, labels):
    assert {*labels} <= {*head(case).labels.flat}
