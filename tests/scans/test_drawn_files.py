"""Files that are drawn, not scanned: which of them is the mask of a body, which a label map, and what is no scan."""

import numpy as np
import pytest

from preparing import prepare
from rows import every_row
from scans import touch
from voxlate.scans.cohorts.case_files import kind_of
from voxlate.scans.cohorts.find import find_cohort

KINDS = {
    "mask": "mask brain_mask t1_mask desc-brain_mask Hirnmaske Maske masque_cerveau mask_2",
    "labels": "lesion_mask mask_stroke tumour_mask Läsion_Maske La\u0308sion Infarktmaske roi penumbra infarct_core Lesion_Segmentierung máscara_lesión masque_lésion hippocampus_mask",
    "image": "t1 cta_arteriell stroke_ct tumor_t1 swan",
}


@every_row(("name", "kind"), [(name, kind) for kind in KINDS for name in KINDS[kind].split()])
def test_the_words_of_a_name_say_whether_a_file_is_a_mask_of_the_body(name, kind):
    assert kind_of(name) == kind


@pytest.mark.parametrize("place", ["{}/{}.nii.gz", "{0}/{0}_{1}.nii.gz", "{}_{}.nii.gz"])
def test_a_lesion_s_mask_is_a_label_map_and_a_brain_s_the_mask(tmp_path, place):
    names = ("T1", "CT", "lesion_mask", "Infarkt_Maske", "brain_mask")
    touch(tmp_path, *(place.format(case, name) for case in ("p1", "p2") for name in names))
    case = find_cohort(tmp_path).cases[0]
    assert [*case.files] == ["ct", "t1"]
    assert [*case.labels] == ["infarkt_maske", "lesion_mask"]
    assert case.mask == tmp_path / place.format("p1", "brain_mask")


def test_a_mask_of_a_small_part_of_the_body_is_not_to_be_trusted(save, tmp_path):
    body, part = np.zeros((2, 12, 12, 12), np.float32)
    body[1:11, 1:11, 1:11] = 100
    part[5:7, 5:7, 5:7] = 1  # 8 of 1,000 voxels
    for name, mask in (("whole", body > 0), ("part", part)):
        for case in "ab":
            noise = np.random.default_rng(ord(case)).integers(0, 50, body.shape)
            save(tmp_path / name / case / "t1.nii.gz", body + noise * (body > 0))
            save(tmp_path / name / case / "mask.nii.gz", mask.astype(float))
        cohort = prepare(tmp_path / name, tmp_path / f"{name}_out", workers=1, audit=False)
        said = {one.code: one.grade for one in cohort.warnings}
        assert said.get("part-mask") == {"part": "do not trust"}.get(name)
