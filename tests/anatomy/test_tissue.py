"""The tissues' values and constants."""

import numpy as np
import pytest

from voxlate.anatomy.tissue import Label, patient


def test_the_values_of_labels_are_those_of_written_cohorts():
    assert " ".join(label.name for label in Label).startswith(
        "AIR SKIN FAT MUSCLE BONE DIPLOE CSF GREY WHITE VENTRICLE DEEP_GREY EYE SINUS ARTERY VEIN "
        "ARTERY_BEYOND_CLOT CLOT NECROSIS ENHANCING OEDEMA "
    )
    assert [*Label] == [*range(len(Label))]


def test_air_is_paramagnetic_and_fat_is_fat():
    tissue = patient(np.random.default_rng(7))
    assert tissue.chi_ppm[Label.AIR] == pytest.approx(0.36 + 9.05, abs=0.02)
    assert tissue.chi_ppm[Label.BONE] < 0 < tissue.chi_ppm[Label.VEIN]
    assert tissue.fat[Label.FAT] > 0.9 > tissue.fat[Label.MARROW] > 0.3
    assert tissue.fat[Label.WHITE] == 0
