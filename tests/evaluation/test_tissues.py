"""Tissues of a CT by ranges of HU, scored without a label map."""

import numpy as np
import pytest

from made_volumes import save_pair
from voxlate.evaluation.scoring.evaluate import evaluate
from voxlate.evaluation.scoring.metrics import TISSUES
from voxlate.scans.images.regions import BORDERS_HU, TISSUES_HU, regions_from

SPACING = np.diag([1.0, 1.0, 2.0, 1.0])  # x, y, z


def head(first=8):
    """Soft tissue of 40 HU in air with fat, a sinus, a plate of bone from row `first`, and its marrow."""
    data = np.full((14, 30, 28), -1000.0, np.float32)
    data[1:-1, 3:27, 3:25] = 40
    data[1:-1, 4:6, 4:24] = -80
    data[1:-1, first : first + 2, 4:24] = 1200
    data[1:-1, 10:11, 4:24] = 300
    data[5:9, 15:21, 10:18] = -1000
    return data


@pytest.fixture
def folders(tmp_path):
    """The truth, and a synthesis whose bone lies one row too far up and whose sinus is half as deep."""
    image = head(first=7)
    image[5:7, 15:21, 10:18] = 40
    return save_pair(tmp_path, head(), image, affine=SPACING)


def test_each_value_belongs_to_one_tissue_and_bone_is_its_two_parts():
    regions = {region.name: region for region in regions_from({"tissues": "ct"})}
    assert regions.keys() == TISSUES_HU.keys()
    values = np.concatenate([np.arange(-1100, 3000), np.array(BORDERS_HU) - 0.01]).astype(
        np.float32
    )
    everywhere = np.ones(values.shape, bool)
    inside = {name: region.select(values, everywhere) for name, region in regions.items()}
    bone = inside.pop("bone")
    assert (sum(part.astype(int) for part in inside.values()) == 1).all()
    np.testing.assert_array_equal(bone, inside["trabecular"] | inside["cortical"])
    number = np.argmax([*inside.values()], axis=0)
    for border in BORDERS_HU:
        assert number[values == border] == number[values == border - 1] + 1


def test_tissues_are_scored_by_the_truths_values(folders):
    scores = evaluate(*folders, regions={"tissues": "ct"})
    row = scores.rows[0].scores
    assert row["air.voxels"] == 4 * 6 * 8
    assert row["air.dice"] == pytest.approx(2 * 0.5 / 1.5)
    volumes_ml = row["air.truth_volume"], row["air.volume"]  # of voxels of 2 mm³
    assert volumes_ml == pytest.approx((0.384, 0.192))
    assert row["fat.truth_mean"] == pytest.approx(-80, abs=0.01)
    assert row["cortical.voxels"] == 12 * 2 * 20
    # one of two rows is gone
    assert row["cortical.mae"] == pytest.approx((1200 - 40) / 2, abs=0.1)
    assert not {"bone.pieces", "bone.psnr"} & row.keys()


def test_a_ct_is_scored_in_its_body_with_its_tissues_and_the_whole_image_beside_it(folders):
    standard = evaluate(*folders)
    row = standard.rows[0].scores
    body, whole = (evaluate(*folders, mask=mask).rows[0].scores for mask in ("body", "whole"))
    assert (row["mae"], row["whole.mae"]) == (body["mae"], whole["mae"])
    # air, which every image has right, is half of it
    assert row["mae"] > 1.2 * row["whole.mae"]
    assert {key.split(".")[0] for key in row if key.endswith(".dice")} == {*TISSUES}
    printed = {line.label for line in standard.short_table().lines["ct"]}
    assert {"MAE, whole", "bone Dice"} <= printed
    assert not {"fat MAE", "PSNR, whole"} & printed
    own = evaluate(*folders, regions={"bone": "ct>1000"}).rows[0].scores
    # a name of the user's keeps its rule
    assert own["bone.voxels"] < row["bone.voxels"]
