"""What every method must keep, on a tiny network: it learns, synthesises, and does not mix items or leak targets."""

import copy
from dataclasses import fields, replace

import pytest
import torch
from calling import batch_of

from rows import slow
from stand_ins import recipe_of
from voxlate.science.batch import Batch
from voxlate.science.diffusion.noise import Noise

SIZES = {"width": 8, "multipliers": [1, 2], "blocks": 1, "groups": 4}
TINY = {"kind": "unet", **SIZES, "middle_attention": False}
TRAIN = {"steps": 1, "batch": 2, "precision": "float32"}
AUTOENCODER = {
    "name": "autoencoder",
    "method": {"kind": "autoencoding"},
    "net": {"kind": "kl_autoencoder", **SIZES, "latent": 3},
    "train": TRAIN,
}
PREDICTOR = {"name": "predictor", "method": {"kind": "regression"}, "net": TINY, "train": TRAIN}
BRAN = {
    "name": "predictor",
    "task": {"kind": "translate", "inside": True, "strip": True},
    "method": {"kind": "regression"},
    "net": {"kind": "bran", "width": 4, "stages": 3, "hidden": 4},
    "train": TRAIN,
}
CRITIC = {"critic": {"widths": [8, 8]}}
METHODS = {  # what is learned, and its opponent
    "diffusion": ({"kind": "diffusion"}, None),
    "flow": ({"kind": "flow", "shortcuts": 0.5}, None),
    "regression": ({"kind": "regression"}, None),
    "regression_opponent": ({"kind": "regression"}, CRITIC),
    "diffusion_opponent": ({"kind": "diffusion"}, CRITIC | {"gan_loss": "least_squares"}),
    "cycle": (
        {"kind": "cycle", "critic": {"widths": [8, 8], "norm": "instance", "output": "patches"}},
        None,
    ),
}
ASYMMETRY = {"kind": "residual", "inside": True, "strip": True, "asymmetry": True}
ASYMMETRY["predictor_weight"] = 0.1
TASKS = {
    "translate": ({"kind": "translate"}, []),
    "complete": ({"kind": "complete"}, []),
    "residual": ({"kind": "residual", "scale": 2.0}, [PREDICTOR]),
    "residual_inside": ({"kind": "residual", "inside": True, "predictor_weight": 0.1}, [PREDICTOR]),
    "translate_inside": ({"kind": "translate", "inside": True, "strip": True}, []),
    "asymmetry": (ASYMMETRY, [BRAN]),
    "latent": ({"kind": "latent"}, [AUTOENCODER]),
}
FEW = {
    "cycle": ("translate", "translate_inside"),
    "flow": ("residual", "residual_inside", "asymmetry"),
    "regression_opponent": ("translate", "complete", "asymmetry"),
    "diffusion_opponent": ("translate", "complete", "latent"),
}

every_method_and_task = pytest.mark.parametrize(
    ("method_name", "task"),
    [(method, task) for method in METHODS for task in FEW.get(method, TASKS)],
)


def recipe(method: str, task: str):
    modalities = ["a", "b", "c"] if task == "complete" else ["a"]
    targets = modalities if task == "complete" else ["b"]
    posed, stages = TASKS[task]
    learned, opponent = METHODS[method]
    return recipe_of(
        {
            "source": modalities,
            "target": targets,
            "patch": [1, 16, 16],
            "centred": task == "asymmetry",
        },
        {name: {"kind": "window", "low": 0, "high": 1} for name in "abc"},
        **({"opponent": opponent} if opponent else {}),
        task=posed,
        method=learned,
        net=TINY,
        synth={"sampler": "ddim", "steps": 3},
        stages=stages,
    )


def batch(task: str, items: int = 2, size: int = 16) -> Batch:
    draw = torch.Generator().manual_seed(7)
    channels = 3 if task == "complete" else 1
    images = torch.rand(items, channels, 1, size, size, generator=draw) * 2 - 1
    target = images if task == "complete" else -images
    mask = torch.zeros(items, 1, 1, size, size)
    mask[..., 4:12, 4:12] = 1
    return batch_of(images, target, mask=mask)


def part(full: Batch, index: int) -> Batch:
    """One item."""
    values = ((one.name, getattr(full, one.name)) for one in fields(full))
    return replace(
        full, **{name: one[index : index + 1] for name, one in values if one is not None}
    )


def noise(full: Batch, seed: int = 0) -> Noise:
    return Noise(seed, full.item)


def trained(method_name: str, task: str):
    torch.manual_seed(0)
    made = recipe(method_name, task)
    method = made.build()
    with torch.no_grad():  # zero-initialised layers would make every answer the same
        for parameter in method.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return method.eval(), made


@every_method_and_task
def test_a_step_against_the_gradient_lowers_the_loss_and_a_batch_counts_the_mean_of_its_items(
    method_name, task
):
    method, _ = trained(method_name, task)
    *_, last = method.turns

    def total(full, turn=last):
        return method.loss(turn, full, noise(full))["total"]

    full = batch(task)
    alone = [total(part(full, index)) for index in range(2)]
    torch.testing.assert_close(total(full), sum(alone) / 2, rtol=1e-4, atol=1e-6)
    for turn in method.turns:
        parameters = list(method.parameters_of(turn))
        before = total(full, turn)
        gradients = torch.autograd.grad(before, parameters, allow_unused=True)
        norm = sum(float(g.square().sum()) for g in gradients if g is not None)
        assert norm > 0
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients):
                if gradient is not None:
                    parameter -= 1e-3 / norm**0.5 * gradient
        assert total(full, turn) < before


@slow
@every_method_and_task
def test_synthesis_depends_on_the_item_its_seed_and_the_weights_alone(method_name, task):
    """Not on the other items of a batch, nor on the target; a loaded twin draws the same."""
    method, made = trained(method_name, task)
    full = batch(task)
    given = replace(
        full, target=None
    )  # as at inference, with one modality missing where there are several
    if task == "complete":
        given.present[:, 1] = False
    together = method.synthesise(given, noise(given), made.synth)
    assert together.shape == (2, len(made.data.target), 1, 16, 16)
    assert together.isfinite().all()
    for index in range(2):
        one = part(given, index)
        alone = method.synthesise(one, noise(one), made.synth)[0]
        torch.testing.assert_close(alone, together[index], rtol=0, atol=2e-5)
    other_seed = method.synthesise(given, noise(given, 1), made.synth)
    assert torch.equal(together, other_seed) != made.method.iterates
    cheating = replace(given, target=torch.full_like(full.target, torch.nan))
    twin = made.build().eval()
    twin.load_state_dict(copy.deepcopy(method.state_dict()))
    for same in (
        method.synthesise(cheating, noise(given), made.synth),
        twin.synthesise(given, noise(given), made.synth),
    ):
        assert torch.equal(together, same)
