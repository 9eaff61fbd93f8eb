"""The tissues' values and constants, and known answers of anatomy 1."""

import hashlib

import numpy as np
import pytest

from voxlate.phantoms import MODALITIES, Label, image, make_head
from voxlate.phantoms.tissue import ANATOMY_1, patient

# The first 16 digits of SHA-256 over seed 5's small heads, written before anatomy 2 existed.
KNOWN = {
    "tumour": {
        "maps": "165e155b1bd57ed3",
        "t1": "6171d4bab9894478",
        "t1c": "c20bb1f5459e07d0",
        "t2": "2f53ab7b0e6bf0e3",
        "flair": "c668c4614c86036e",
        "pd": "6114b75f5fb4242b",
        "swi": "1e777d85f020693a",
        "tof": "a5da99661556929c",
        "ncct": "b07c872da5e5b7e7",
        "ct": "d3b4e0df93473cc7",
        "cta": "dbb61a0617a0ba72",
        "cta1": "02e5fc50de6449fd",
        "cta2": "517c9ddb3fdd05e6",
        "cta3": "5e18f9d9200b22ed",
        "cbf": "ec87da0109b95b26",
        "cbv": "6c678c3c664c5b09",
        "tmax": "a0d97ed6e401d2fd",
    },
    "stroke": {
        "maps": "6a310834ead05396",
        "t1": "0fb1602c9db61a3e",
        "t1c": "f6b37974975e06d3",
        "t2": "9a1288917b50d438",
        "flair": "e09049762c3cfc0c",
        "pd": "d0631e37bd04739f",
        "swi": "b8b6f5401bb0ca8f",
        "tof": "227d148145c4ff57",
        "ncct": "1096bac5501ea87f",
        "ct": "da8ec7546743bf72",
        "cta": "6951edd3f61c9812",
        "cta1": "1b57c827a54f526e",
        "cta2": "0275abea043536f7",
        "cta3": "c43ec5640d6fa028",
        "cbf": "46d6f8a914b4ad13",
        "cbv": "192087fef4df00ff",
        "tmax": "c53445a41df29692",
    },
    "none": {
        "maps": "b259cd9ed814086d",
        "t1": "a81e8c30ca3ded9d",
        "t1c": "5b86e285984e57f4",
        "t2": "4a576bad3b7c3df4",
        "flair": "524077df94d4b707",
        "pd": "e097c880d9b7b27b",
        "swi": "a5816919f3f4586b",
        "tof": "69444597692b9c93",
        "ncct": "e3a5db15fba8bdad",
        "ct": "f79926358db531b8",
        "cta": "971a93a8ccca6a26",
        "cta1": "cabcaf22be4c1d3e",
        "cta2": "b32252259a694578",
        "cta3": "241ff73ae53a81e6",
        "cbf": "644ed51a84357c42",
        "cbv": "51b8ed2da72875c1",
        "tmax": "7843c2390498bde5",
    },
}


def digest(*arrays: np.ndarray) -> str:
    sha = hashlib.sha256()
    for array in arrays:
        sha.update(np.ascontiguousarray(array).tobytes())
    return sha.hexdigest()[:16]


@pytest.mark.parametrize(("case", "lesion"), enumerate(KNOWN))
def test_anatomy_1_has_the_bits_that_it_had_before_anatomy_2(case: int, lesion: str) -> None:
    head = make_head(5, case, (24, 28, 20), lesion)
    maps = (head.labels, head.second, head.share, head.lesion_map, head.texture)
    found = {"maps": digest(*maps)}
    for modality in MODALITIES:
        found[modality] = digest(image(head, modality).astype(np.float32))
    assert found == KNOWN[lesion]


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
