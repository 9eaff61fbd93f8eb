"""The border of an image: a slice that is a training's whole patch meets the same network in synthesis, and air stays air."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from rows import every_row, slow
from voxlate.base.executors.case_work import no_report
from voxlate.scans.cases.prepared import open_cohort
from voxlate.scans.formats.io import read_volume
from voxlate.scans.images.grid import canonical
from voxlate.scans.images.mask import foreground
from voxlate.science.diffusion.noise import Noise
from voxlate.synthesis.sampling import predict_case
from voxlate.training.batches.patches import Patches
from voxlate.training.load import load

PLACE = 3  # the slice that is compared


def outputs_of(method, act):
    """Every image that the network of a method makes while act() runs."""
    made = []
    hook = method.net.register_forward_hook(lambda _, __, output: made.append(output.image))
    act()
    hook.remove()
    return torch.cat(made)


@every_row("border, same", [("zeros", True), ("repeat", True), (None, False)])
def test_a_slice_gives_the_same_output_through_trainings_path_and_through_that_of_synthesis(
    prepared, cohort, changed, border, same
):
    """Unset, training pads zeros and synthesis repeats the border."""
    few = {"train.steps": "2", "train.validate_every": "0", "train.ema": "0"}
    few |= {"net.border": f"'{border}'"} if border else {}
    run = changed(f"border_{border}", {"net.zero_init": "false", **few})
    model, opened = load(run, device="cpu"), open_cohort(prepared)
    case, method, known = opened.splits["train"][0], model.network.method, model.network.recipe
    scans = {"t1": cohort / case / "t1.nii.gz"}
    synthesised = outputs_of(method, lambda: model.synthesise(scans))
    batch = Patches(opened, known.data, known.intensity).read([(case, (PLACE, 0, 0))])
    (turn,) = method.turns
    method.train()
    trained = outputs_of(method, lambda: method.loss(turn, batch, Noise(0, batch.item)))
    apart = (trained[0] - synthesised[PLACE]).abs()
    assert (apart.max() < 1e-5) == same


MARGIN = 20  # pixels of 2 mm of air around the small head


@pytest.fixture
def untrained(request, trained, tiny):
    """A model of a kind with random weights, whose output is noise and whose borders are the paddings'."""
    kind, *stem = request.param.split()
    if stem:
        net = 'net = {{ kind = "unet", patch = {}, border = "{}"'.format(*stem)
        text = tiny.read_text().replace('net = { kind = "unet"', net)
        run = trained("_".join(request.param.split()), text.replace("steps = 6", "steps = 1"))
    else:
        run = request.getfixturevalue(kind)
    model = load(run)
    torch.manual_seed(0)
    for values in model.network.method.parameters():
        torch.nn.init.normal_(values, 0.3, 0.3)
    return model


@slow
@pytest.mark.parametrize(
    "untrained",
    ["run", "diffusion", "completing", "latent", "stem 2 zeros", "stem 4 repeat"],
    indirect=True,
)
def test_air_at_the_border_is_background_with_any_weights_and_the_head_is_the_networks(
    untrained, cohort
):
    head = read_volume(cohort / "case0/t1.nii.gz", "t1")
    # air that is not exactly 0, as it is around a stripped brain: its own rule may reach into the head
    data = np.pad(head.data, [(0, 0), (0, 0), (MARGIN, MARGIN), (MARGIN, MARGIN)]) + 10
    scans = {"t1": replace(head, data=data)}
    drawn, _ = predict_case(
        untrained.facts, untrained.network, untrained.check(scans), 0, no_report
    )
    raw, made = drawn["t2"].values, untrained.synthesise(scans).volumes["t2"]
    image = canonical(made).data[0]
    frame = np.ones(image.shape[1:], bool)
    frame[8:-8, 8:-8] = False  # half of the air, less the 5 mm around the head
    assert np.abs(raw[:, frame]).max() > 100
    assert (image[:, frame] == 0).all()
    inside = np.s_[:, MARGIN:-MARGIN, MARGIN:-MARGIN]
    shown = foreground(canonical(head))
    np.testing.assert_array_equal(image[inside][shown], raw[inside][shown])
    again = untrained.with_options(batch=1).synthesise(scans).volumes["t2"]
    np.testing.assert_array_equal(again.data == 0, made.data == 0)
