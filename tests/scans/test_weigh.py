"""`data.weigh`: voxels that label maps mark count more than once in training's loss."""

import nibabel as nib
import numpy as np
import pytest
import torch

from rows import every_row
from voxlate.base.errors import BadInput
from voxlate.checks.prepare import prepare
from voxlate.science.batch import Batch
from voxlate.science.methods.method import Problem
from voxlate.science.nets.interface import NetworkInput
from voxlate.training import recipe as recipes
from voxlate.training.batches.patches import DataSettings
from voxlate.training.train import train

DATA = {"source": ["t1"], "target": ["t2"], "patch": (1, 4, 4)}


def test_marked_voxels_weigh_as_stated_and_those_without_a_map_once():
    data = DataSettings(**DATA, labels=["seg", "lesion"], weigh={"lesion": 10.0, "seg=3": 2.0})
    seg, lesion = torch.tensor([0.0, 3, 3, 2]), torch.tensor([0.0, 1, 0, 4])
    labels = torch.stack([torch.stack([seg, lesion]), torch.full((2, 4), -1.0)]).view(2, 2, 1, 2, 2)
    weight = data.weight(labels)
    assert weight[0].flatten().tolist() == [1, 20, 2, 10]
    assert weight[1].flatten().tolist() == [1, 1, 1, 1]
    assert DataSettings(**DATA, labels=["seg"]).weight(labels[:, :1]) is None


@every_row(
    "weigh, said",
    [
        ({"lesion": 10.0}, "expected label maps of data.labels"),
        ({"seg=high": 2.0}, "expected NAME or NAME=NUMBER"),
        ({"seg": 0.0}, "expected a number above 0"),
    ],
)
def test_weights_of_nothing_are_refused(weigh, said):
    with pytest.raises(BadInput, match=said):
        DataSettings(**DATA, labels=["seg"], weigh=weigh)


def test_the_loss_is_the_weighted_mean_of_the_errors(tiny):
    recipe = recipes.read(
        str(tiny),
        {"method.loss": "mse", "data.labels": '["lesion"]', "data.weigh": "{ lesion = 9 }"},
    )
    method = recipe.build()
    batch = Batch(
        source=torch.zeros(1, 1, 1, 8, 8),
        mask=torch.ones(1, 1, 1, 8, 8),
        present=torch.ones(1, 1, dtype=torch.bool),
        item=torch.zeros(1, 1, dtype=torch.int64),
        target=torch.zeros(1, 1, 1, 8, 8),
        source_names=("t1",),
        target_names=("t2",),
    )
    problem = method.task.pose(batch, noise=object())
    image = torch.zeros(1, 1, 1, 8, 8)
    image[..., :2] = 1.0  # a quarter of the voxels is wrong by 1
    weight = torch.ones(1, 1, 1, 8, 8)
    assert method.compare(image, problem.with_weight(None))["total"].item() == pytest.approx(1 / 4)
    weight[..., :2] = 9.0
    assert method.compare(image, problem.with_weight(weight))["total"].item() == pytest.approx(
        9 / 12
    )


def test_a_latents_voxel_weighs_as_the_mean_of_the_images_below_it():
    coarse = Problem(NetworkInput({}), torch.ones(1, 1, 1, 2, 2))
    weight = torch.ones(1, 1, 1, 4, 4)
    weight[..., 0, 0] = 5.0
    assert coarse.with_weight(weight).loss_mask.flatten().tolist() == [2, 1, 1, 1]


def test_methods_whose_loss_is_not_of_voxels_refuse_weights():
    changes = {"data.labels": '["lesion"]', "data.weigh": "{ lesion = 9 }"}
    with pytest.raises(BadInput, match=r"expected no data\.weigh for this method"):
        recipes.read("cyclegan_3d_t1_t2_small", changes)


@pytest.mark.slow
def test_a_training_says_how_many_cases_have_marked_voxels(cohort, tiny, tmp_path):
    for number in range(6):
        image = nib.load(cohort / f"case{number}" / "t1.nii.gz")
        marks = np.zeros(image.shape, np.uint8)
        marks[8:12, 8:12, 2] = number == 0
        nib.save(nib.Nifti1Image(marks, image.affine), cohort / f"case{number}" / "lesion.nii.gz")
    prepare(cohort, tmp_path / "p", workers=0, audit=False, shares=(4, 1, 1))
    weighed = {"data.labels": '["lesion"]', "data.weigh": "{ lesion = 10 }", "train.steps": "1"}
    messages = []
    recipe = recipes.read(str(tiny), weighed)
    train(recipe, tmp_path / "p", tmp_path / "run", device="cpu", say=messages.append)
    said = " ".join(map(str, messages))
    assert "of 4 training cases have voxels that count more in the loss (lesion 10 times)" in said
    assert ("1 of 4 training" in said) != (
        "0 of 4 training cases" in said and "CHANGES NOTHING" in said
    )
