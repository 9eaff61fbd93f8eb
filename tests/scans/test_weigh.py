"""`data.weigh`: voxels that label maps mark count more than once in training's loss."""

import pytest
import torch

from refusals import refuses
from rows import every_row
from voxlate.science.batch import Batch
from voxlate.science.methods.method import Problem
from voxlate.science.nets.interface import NetworkInput
from voxlate.training import recipe as recipes
from voxlate.training.batches.patches import DataSettings

DATA = {"source": ["t1"], "target": ["t2"], "patch": (1, 4, 4)}


def test_marked_voxels_weigh_as_stated_and_those_without_a_map_once():
    data = DataSettings(**DATA, labels=["seg", "lesion"], weigh={"lesion": 10.0, "seg=3": 2.0})
    seg, lesion = torch.tensor([0.0, 3, 3, 2]), torch.tensor([0.0, 1, 0, 4])
    labels = torch.stack([torch.stack([seg, lesion]), torch.full((2, 4), -1.0)]).view(2, 2, 1, 2, 2)
    weight = data.weight(labels)
    assert weight[0].flatten().tolist() == [1, 20, 2, 10]
    assert weight[1].flatten().tolist() == [1, 1, 1, 1]
    assert DataSettings(**DATA, labels=["seg"]).weight(labels[:, :1]) is None


@every_row("weigh", [{"lesion": 10.0}, {"seg=high": 2.0}, {"seg": 0.0}])
def test_weights_of_nothing_are_refused(weigh):
    with refuses():
        DataSettings(**DATA, labels=["seg"], weigh=weigh)


WEIGHED = {"data.labels": '["lesion"]', "data.weigh": "{ lesion = 9 }"}


def test_the_loss_is_the_weighted_mean_of_the_errors(tiny):
    method = recipes.read(str(tiny), {"method.loss": "mse", **WEIGHED}).build()
    zeros, ones = torch.zeros(1, 1, 1, 8, 8), torch.ones(1, 1, 1, 8, 8)
    batch = Batch(
        source=zeros,
        mask=ones,
        present=torch.ones(1, 1, dtype=torch.bool),
        item=torch.zeros(1, 1, dtype=torch.int64),
        target=zeros,
        source_names=("t1",),
        target_names=("t2",),
    )
    problem = method.task.pose(batch, noise=object())
    image = zeros.clone()
    image[..., :2] = 1.0  # a quarter of the voxels is wrong by 1
    for weight, loss in ((None, 1 / 4), (ones + 8 * image, 9 / 12)):
        total = method.compare(image, problem.with_weight(weight))["total"]
        assert total.item() == pytest.approx(loss)


def test_a_latents_voxel_weighs_as_the_mean_of_the_images_below_it():
    coarse = Problem(NetworkInput({}), torch.ones(1, 1, 1, 2, 2))
    weight = torch.ones(1, 1, 1, 4, 4)
    weight[..., 0, 0] = 5.0
    assert coarse.with_weight(weight).loss_mask.flatten().tolist() == [2, 1, 1, 1]


def test_methods_whose_loss_is_not_of_voxels_refuse_weights():
    with refuses():
        recipes.read("cyclegan_3d_swi_mra_small", WEIGHED)
