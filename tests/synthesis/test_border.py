"""The border of an image: a slice that is a training's whole patch meets the same network in synthesis, and air stays air."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from rows import every_row
from voxlate.base.executors.job import no_report
from voxlate.scans.cases.prepared import open_cohort
from voxlate.scans.formats.io import read_volume
from voxlate.scans.images.grid import canonical
from voxlate.science.diffusion.noise import Noise
from voxlate.science.nets.blocks import BlockOptions, SliceConv, VolumeConv
from voxlate.synthesis.model import predict_case
from voxlate.training import recipe
from voxlate.training.batches.batches import read_batch
from voxlate.training.model import load
from voxlate.training.train import train

PLACE = 3  # the slice that is compared


def outputs_of(net: torch.nn.Module, act) -> torch.Tensor:
    """Every image that a network makes while act() runs."""
    made: list[torch.Tensor] = []
    hook = net.register_forward_hook(lambda _, __, output: made.append(output.image.detach()))
    act()
    hook.remove()
    return torch.cat(made)


@pytest.mark.parametrize(("border", "same"), [("zeros", True), ("repeat", True), (None, False)])
def test_a_slice_gives_the_same_output_through_trainings_path_and_through_that_of_synthesis(
    prepared, cohort, tiny, tmp_path, border, same
):
    """Unset, training pads zeros and synthesis repeats the border."""
    changes = {
        "train.steps": "2",
        "train.validate_every": "0",
        "train.ema": "0",
        "net.zero_init": "false",
    }
    changes |= {} if border is None else {"net.border": f"'{border}'"}
    run = train(recipe.read(str(tiny), changes), prepared, tmp_path / "run", device="cpu")
    model, opened = load(run.folder, device="cpu"), open_cohort(prepared)
    case = opened.splits["train"][0]
    synthesised = outputs_of(
        model.network.method.net, lambda: model.synthesise({"t1": cohort / case / "t1.nii.gz"})
    )
    batch = read_batch(
        opened, model.network.recipe.data, model.network.recipe.intensity, [(case, (PLACE, 0, 0))]
    )
    (turn,) = model.network.method.turns
    model.network.method.train()
    trained = outputs_of(
        model.network.method.net,
        lambda: model.network.method.loss(turn, batch, Noise(0, batch.item)),
    )
    apart = (trained[0] - synthesised[PLACE]).abs()
    assert (apart.max() < 1e-5) == same


@every_row("kind", [SliceConv, VolumeConv])
@every_row(
    "repeat, training, edge",
    [
        ("never", True, 2),
        ("never", False, 2),
        ("synthesis", True, 2),
        ("synthesis", False, 3),
        ("always", True, 3),
        ("always", False, 3),
    ],
)
def test_a_convolution_repeats_the_border_when_it_should(kind, repeat, training, edge):
    """Sums of three ones along a row: 2 where the third one is a zero beyond the border."""
    options = BlockOptions(dims=2 if kind is SliceConv else 3, repeat=repeat)
    conv = SliceConv(1, 1, options) if kind is SliceConv else VolumeConv(1, 1, options, (1, 1, 1))
    conv.train(training)
    torch.nn.init.zeros_(conv.weight)
    torch.nn.init.zeros_(conv.bias)
    middle = (0, 0, 1) if kind is SliceConv else (0, 0, 1, 1)
    conv.weight.data[middle] = 1.0
    made = conv(torch.ones(1, 1, *([4] * (conv.weight.ndim - 2))), 1)
    assert made[..., 2, :].flatten()[:4].tolist() == [edge, 3, 3, edge]


MARGIN = 20  # pixels of 2 mm of air around the small head


@pytest.fixture
def untrained(request, trained, tiny, run, diffusion, completing, latent):
    """A model of a kind with random weights, whose output is noise and whose borders are the paddings'."""
    kind = request.param
    folders = {
        "regression": run,
        "diffusion": diffusion,
        "completion": completing,
        "latent": latent,
    }
    if kind.startswith("stem"):
        _, size, border = kind.split()
        net = f'net = {{ kind = "unet", patch = {size}, border = "{border}"'
        text = (
            tiny.read_text().replace('net = { kind = "unet"', net).replace("steps = 6", "steps = 1")
        )
        folders[kind] = trained(kind.replace(" ", "_"), text)
    model = load(folders[kind])
    torch.manual_seed(0)
    for values in model.network.method.parameters():
        torch.nn.init.normal_(values, 0.3, 0.3)
    return model


@pytest.mark.slow
@pytest.mark.parametrize(
    "untrained",
    [*("regression", "diffusion", "completion", "latent"), *("stem 2 zeros", "stem 4 repeat")],
    indirect=True,
)
def test_air_at_the_border_is_background_with_any_weights_and_the_head_is_the_networks(
    untrained, cohort
):
    head = read_volume(cohort / "case0" / "t1.nii.gz", "t1")
    around = [(0, 0), (0, 0), (MARGIN, MARGIN), (MARGIN, MARGIN)]
    # air that is not exactly 0, as it is around a stripped brain: its own rule may reach into the head
    scans = {"t1": replace(head, data=np.pad(head.data, around) + 10)}
    drawn, _ = predict_case(untrained, untrained.check(scans).inputs, 0, no_report)
    raw = drawn["t2"].values
    made = untrained.synthesise(scans)
    image = canonical(made.volumes["t2"]).data[0]
    frame = np.ones(image.shape[1:], bool)
    frame[8:-8, 8:-8] = False  # half of the air, less the 5 mm around the head
    assert np.abs(raw[:, frame]).max() > 100
    assert (image[:, frame] == 0).all()
    inside = np.s_[:, MARGIN:-MARGIN, MARGIN:-MARGIN]
    np.testing.assert_array_equal(image[inside], raw[inside])
    again = untrained.with_options(batch=1).synthesise(scans)
    np.testing.assert_array_equal(again.volumes["t2"].data == 0, made.volumes["t2"].data == 0)
