"""A loss of a recipe's own that needs an earlier stage: the benchmark's, on a few tiny slices."""

from pathlib import Path

import pytest
import torch

from voxlate import recipe
from voxlate.batch import Batch
from voxlate.batches.batches import Batches
from voxlate.cases.prepared import open_cohort
from voxlate.diffusion.noise import Noise
from voxlate.training.run import Run
from voxlate.training.train import train

EDGES = [-0.95, -0.2, 0.0, 0.2]


@pytest.fixture
def anatomy(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    import anatomy

    return anatomy


def test_the_loss_adds_its_share_of_the_error_and_the_model_holds_nothing_of_the_network(
    anatomy, tiny, prepared, tmp_path
):
    seen = anatomy.with_anatomy(recipe.read(str(tiny)), 0.5, (2, 2), EDGES)
    run = train(seen, prepared, tmp_path / "run", device="cpu")
    assert recipe.read(str(run.folder / "recipe.toml"), allow_code=True) == seen
    method = seen.build()
    assert not [name for name, _ in method.named_parameters() if "eyes" in name]
    batch: Batch = Batches(open_cohort(prepared), seen.data, seen.intensity, batch=2)[0]
    terms = method.loss("net", batch, Noise(0, batch.item))
    assert terms["total"].item() == pytest.approx(1.5 * terms["l1"].item())
    assert Run(run.folder).weights("anatomy").exists()


def test_features_lie_apart_only_where_images_differ_and_move_the_image_alone(anatomy):
    torch.manual_seed(0)
    eyes = anatomy.EyesNet(1, 4, 1, 3).requires_grad_(False)
    truth = torch.rand(2, 1, 1, 10, 14)
    image = truth.clone()
    image[..., :5] += 0.1
    image.requires_grad_()
    assert anatomy.distance(eyes, truth, truth) == 0
    anatomy.distance(eyes, image, truth).backward()
    moved = image.grad.abs().amax((0, 1, 2, 3))
    assert moved[:5].min() > 0
    assert moved[13] == 0  # no feature that differs sees it


def test_classes_of_a_ct_follow_hounsfield_units(anatomy, prepared, tiny):
    ct = recipe.read(
        str(tiny),
        {"data.target": '["ct"]', "intensity.ct": '{ kind = "window", low = -200, high = 1200 }'},
    )
    cohort = open_cohort(prepared)
    cohort.units["ct"] = "HU"
    assert anatomy.edges_of(cohort, ct.data, ct)[1:4] == pytest.approx([-0.742857, -0.685714, -0.5])
