"""The tissues' values and constants, and known answers of anatomy 1."""

import hashlib

import numpy as np
import pytest

from voxlate.anatomy.head import make_head
from voxlate.anatomy.scanner import image
from voxlate.anatomy.signal import MODALITIES
from voxlate.anatomy.tissue import ANATOMY_1, Label, patient

# The first 16 digits of SHA-256 over the maps and all images of seed 5's small heads.
KNOWN = {"tumour": "799df8b723b20737", "stroke": "ddc3471167cb3409", "none": "8cc2fcbb043a9f5c"}


def digest(*arrays: np.ndarray) -> str:
    sha = hashlib.sha256()
    for array in arrays:
        sha.update(np.ascontiguousarray(array).tobytes())
    return sha.hexdigest()[:16]


@pytest.mark.parametrize(("case", "lesion"), enumerate(KNOWN))
def test_heads_of_anatomy_1_keep_their_bits(case: int, lesion: str) -> None:
    head = make_head(5, case, (24, 28, 20), lesion)
    maps = (head.labels, head.second, head.share, head.lesion_map, head.texture)
    images = (image(head, modality).astype(np.float32) for modality in MODALITIES)
    assert digest(*maps, *images) == KNOWN[lesion]


def test_the_values_of_labels_are_those_of_written_cohorts() -> None:
    assert [label.name for label in ANATOMY_1] == [
        *("AIR", "SKIN", "FAT", "MUSCLE", "BONE", "DIPLOE", "CSF", "GREY", "WHITE", "VENTRICLE"),
        *("DEEP_GREY", "EYE", "SINUS", "ARTERY", "VEIN", "ARTERY_BEYOND_CLOT", "CLOT"),
        *("NECROSIS", "ENHANCING", "OEDEMA"),
    ]
    assert [int(label) for label in Label] == list(range(len(Label)))


def test_new_tissues_do_not_change_what_the_first_twenty_draw() -> None:
    tissue = patient(np.random.default_rng(7))
    expected = np.random.default_rng(7).standard_normal((20, 9))
    assert tissue.t1_ms[Label.GREY] == pytest.approx(1331 * np.exp(0.03 * expected[7, 1]), rel=1e-5)
    assert len(tissue.t1_ms) == len(Label)


def test_air_is_paramagnetic_and_fat_is_fat() -> None:
    tissue = patient(np.random.default_rng(7))
    assert tissue.chi_ppm[Label.AIR] == pytest.approx(0.36 + 9.05, abs=0.02)
    assert tissue.chi_ppm[Label.BONE] < 0 < tissue.chi_ppm[Label.VEIN]
    assert tissue.fat[Label.FAT] > 0.9 > tissue.fat[Label.MARROW] > 0.3
    assert tissue.fat[Label.WHITE] == 0
