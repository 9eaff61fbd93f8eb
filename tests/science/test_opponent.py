"""Adversarial training, with pairs and without: its losses have known values, and a history forgets nothing at a restart."""

import math

import pytest
import torch
from calling import batch_of
from torch import nn

from rows import every_row, slow
from trainings import same_tensors, same_weights, stop_at, weights_of
from voxlate.base.errors import Stopped
from voxlate.base.items import BACKGROUND
from voxlate.science.batch import Batch
from voxlate.science.diffusion.noise import Noise
from voxlate.science.methods.cycle import Cycle, CycleSettings, History
from voxlate.science.methods.opponent import (
    Opponent,
    OpponentSettings,
    discriminator_loss,
)
from voxlate.science.methods.regression import Regression, RegressionSettings
from voxlate.science.methods.tasks import Complete, Translate
from voxlate.science.nets.completion import MMGAN
from voxlate.science.nets.critic import Critic
from voxlate.science.nets.interface import Channels, Output
from voxlate.training import recipe
from voxlate.training.run import Run
from voxlate.training.train import train


class Constant(nn.Module):
    """A generator that answers one learned grey."""

    def __init__(self, grey: float) -> None:
        super().__init__()
        self.grey = nn.Parameter(torch.tensor(grey))

    def forward(self, inputs):
        return Output(self.grey.expand_as(inputs.joined if inputs.state is None else inputs.state))


class Slope(nn.Module):
    """A critic whose answer is a factor times the sum of the made image, so that its gradient is known."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))

    def forward(self, images):
        return self.factor * images[:, 1:].flatten(1).sum(1, keepdim=True)


def opponents(factor: float, **options) -> Opponent:
    generator = Regression(RegressionSettings(loss="mse"), Constant(-0.25), Translate())
    return Opponent(OpponentSettings(**options), generator, Slope(factor))


def batch() -> Batch:
    ones = torch.ones(3, 1, 1, 4, 4)
    return batch_of(ones * 0.1, ones * 0.75)


def loss_of(method: Opponent, turn: str, *progress: float) -> dict[str, torch.Tensor]:
    full = batch()
    return method.loss(turn, full, Noise(0, full.item), *progress)


def test_the_wasserstein_critic_loss_is_the_distance_and_a_penalty_of_its_slope():
    method = opponents(0.5)
    parts = loss_of(method, "critic")
    distance = 0.5 * 16 * (0.75 - -0.25)
    # the slope counts the condition too, whose gradient is 0: norm = 0.5 * sqrt(16 pixels)
    penalty = 10 * (0.5 * 4 - 1) ** 2
    expected = {"apart": distance, "penalty": penalty, "total": penalty - distance}
    assert {name: parts[name].item() for name in expected} == pytest.approx(expected)
    parts["total"].backward()
    assert method.generator.net.grey.grad is None
    # the penalty is of second order for the critic's weights: d/dfactor of 10 * (4 * factor - 1)^2 - 16 * factor
    assert method.critic.factor.grad.item() == pytest.approx(20 * (0.5 * 4 - 1) * 4 - 16)


TRUE, MADE = 0.05 * 16 * 0.75, 0.05 * 16 * -0.25  # what a critic of the factor 0.05 gives


@every_row(
    "game, factor, of_critic, of_generator",
    [
        ("cross_entropy", 0.0, math.log(2), math.log(2)),
        ("least_squares", 0.0, 0.5, 1),
        ("hinge", 0.0, 1, 0),
        # a margin for the critic, and none for the generator
        ("hinge", 0.05, 0.5 * ((1 - TRUE) + (1 + MADE)), -MADE),
        ("wasserstein", 0.05, MADE - TRUE, -MADE),
    ],
)
def test_the_losses_of_a_known_critic(game, factor, of_critic, of_generator):
    method = opponents(factor, gan_loss=game, penalty=0, weight=0.1)
    assert loss_of(method, "critic")["total"].item() == pytest.approx(of_critic)
    assert loss_of(method, "generator")["gan"].item() == pytest.approx(0.1 * of_generator)


def test_an_adaptive_weight_is_a_share_of_the_gradient_of_the_methods_own_loss():
    """Of d(grey - 0.75)^2 = -2 and d(0.5 * 16 * grey) = 8, whatever the critic's factor."""
    for factor in (0.5, 5.0):
        method = opponents(factor, gan_loss="hinge", penalty=0, weight=0.25, adaptive=True)
        method.generator.net.grey = nn.Parameter(torch.tensor([[-0.25]]))
        loss_of(method, "generator")["total"].backward()
        assert method.generator.net.grey.grad.item() == pytest.approx(-2 - 0.25 * 2, rel=1e-3)
        assert method.critic.factor.grad is None


def test_the_patch_critic_sees_70_pixels_as_that_of_pix2pix_does():
    plain = Critic(widths=(8, 8, 8, 8), output="patches").build(channels=2)
    image = torch.zeros(1, 2, 1, 256, 256, requires_grad=True)
    outputs = plain(image)
    assert outputs.shape == (1, 1, 1, 30, 30)
    outputs[0, 0, 0, 15, 15].backward()
    rows = image.grad[0].abs().sum(dim=(0, 1, 3)).nonzero().flatten()
    assert rows[-1] - rows[0] + 1 == 70  # Isola et al. 2017, appendix 6.1.2


def test_batch_norms_of_the_critic_see_true_and_made_images_apart():
    """A batch norm makes 0 of any grey, but 1 and -1 of two greys that it sees at once."""
    true, made = (torch.full((2, 1, 1, 4, 4), grey) for grey in (0.3, -0.8))
    parts = discriminator_loss(nn.BatchNorm3d(1, affine=False), "least_squares", true, made)
    found = {name: parts[name].item() for name in ("apart", "gan")}
    assert found == pytest.approx({"apart": 0, "gan": 0.5}, abs=1e-3)


class Keeps(nn.Module):
    """A critic that answers the last four channels it sees, and remembers all."""

    def forward(self, images):
        self.seen = images.detach()
        return images[:, -4:]


def completion(**options) -> tuple[Opponent, Batch]:
    """Least squares over four maps, of a batch whose images are 0.1, 0.2, 0.3, 0.4 and lack the first two channels."""
    images = torch.tensor([0.1, 0.2, 0.3, 0.4]).view(1, 4, 1, 1, 1).expand(1, 4, 1, 4, 4)
    generator = Regression(RegressionSettings(), Constant(0.5), Complete())
    options |= {"gan_loss": "least_squares", "penalty": 0, "weight": 1.0}
    return Opponent(
        OpponentSettings(critic=Critic(maps=4), **options), generator, Keeps()
    ), batch_of(images, images)


def test_scanned_channels_count_as_true_for_the_critic_and_not_at_all_for_the_generator():
    method, full = completion()
    noise = next(
        Noise(seed, full.item)
        for seed in range(99)
        if Complete().pose(full, Noise(seed, full.item)).inputs.code.tolist() == [[1, 1, 0, 0]]
    )
    parts = method.loss("generator", full, Noise(noise.seed, full.item))
    assert parts["gan"].item() == pytest.approx(0.25)  # (0.5 - 1)², over the two made channels
    assert parts["l1"].item() == pytest.approx((0.4 + 0.3) / 2)
    true = sum((1 - value) ** 2 for value in (0.1, 0.2, 0.3, 0.4)) / 4
    made = (0.5**2 + 0.5**2 + (1 - 0.3) ** 2 + (1 - 0.4) ** 2) / 4
    found = method.loss("critic", full, Noise(noise.seed, full.item))["gan"]
    assert found.item() == pytest.approx((true + made) / 2)


def completing() -> Regression:
    task = Complete()
    return RegressionSettings().build(MMGAN(widths=(4, 4)), task, task.channels("abcd", "abcd"))


@every_row("context, channels", [("given", 4), ("none", 4), ("true", 8)])
def test_the_critic_sees_with_an_image_what_its_context_says(context, channels):
    method, full = completion(context=context)
    method.loss("generator", full, Noise(0, full.item))
    assert method.critic.seen.shape[1] == channels
    if context == "true":
        assert torch.equal(method.critic.seen[:, :4], full.target)
    settings = OpponentSettings(context=context, critic=Critic(widths=(4,), maps=4))
    assert settings.build(completing()).critic.layers[0].in_channels == channels


def test_an_opponent_that_begins_late_leaves_the_generator_alone_until_then():
    method, full = opponents(factor=0.5, weight=0.1, start=0.5), batch()
    turns = [method.takes_turn("critic", progress) for progress in (0.0, 0.49, 0.5, 1.0)]
    assert turns == [False, False, True, True]
    assert method.takes_turn("generator", 0.0)
    alone = method.generator.loss("net", full, Noise(0, full.item))["total"]
    totals = [loss_of(method, "generator", progress)["total"] for progress in (0.49, 0.5)]
    assert [total == alone for total in totals] == [True, False]


class Line(nn.Module):
    """A generator that answers factor * x + offset."""

    def __init__(self, factor: float, offset: float) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))
        self.offset = nn.Parameter(torch.tensor(offset))

    def forward(self, inputs):
        return Output(self.factor * inputs.joined + self.offset)


class Grey(nn.Module):
    """A critic whose answer is a factor times the mean of the image, and which keeps what it was given."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor, self.seen = nn.Parameter(torch.tensor(factor)), []

    def forward(self, images):
        self.seen.append(images.detach())
        return self.factor * images.flatten(1).mean(1, keepdim=True)


def lines(
    forward=(0.5, 0.25), backward=(2.0, -0.5), masked=True, answer: float = 0.0, **options
) -> Cycle:
    """Generators that are inverses, of bodies where masked, and critics."""
    task, channels = Translate(strip=masked, inside=masked), Channels(images={"a": 1}, out=1)
    made = Cycle(CycleSettings(**options), Line(*forward), Line(*backward), task, channels)
    made.critics = nn.ModuleDict({name: Grey(answer) for name in ("to_target", "to_source")})
    return made


def costs(method: Cycle, full: Batch | None = None) -> dict[str, torch.Tensor]:
    """What the generators lose."""
    full = full or unpaired()
    return method.loss("generators", full, Noise(0, full.item))


def unpaired() -> Batch:
    """Sources and targets with bodies of their own: the left half of one, the upper half of the other."""
    draw = torch.Generator().manual_seed(3)
    items = 3
    source, target = torch.rand(2, items, 1, 1, 8, 8, generator=draw) * 2 - 1
    mask, target_mask = torch.zeros(2, items, 1, 1, 8, 8)
    mask[..., :4], target_mask[..., :4, :] = 1, 1
    return batch_of(source, target, mask=mask, target_mask=target_mask)


@every_row("masked, share", [(True, 1 / 2), (False, 1)])
def test_a_cycle_that_misses_by_a_constant_costs_ten_times_that_on_the_mask_of_its_own_start(
    masked, share
):
    parts = costs(lines(backward=(2.0, -0.3), masked=masked))
    # forward, then backward: 0.2 on the half that is body, over all pixels; backward, then forward: half of it again
    expected = {
        "cycle_to_target": 10 * 0.2 * share,
        "cycle_to_source": 10 * 0.1 * share,
        "gan_to_target": 1,  # (0 - 1)^2, of a critic that answers 0
        "total": 10 * 0.3 * share + 2,
    }
    found = {name: parts[name].item() for name in expected}
    assert found == pytest.approx(expected, rel=1e-5)


def test_an_image_that_needs_nothing_pays_for_what_is_done_to_it():
    parts = costs(lines(forward=(1.0, 0.25), backward=(1.0, 0.0), masked=False, identity=5.0))
    assert parts["identity_to_target"].item() == pytest.approx(5 * 0.25, rel=1e-5)
    assert parts["identity_to_source"].item() == 0


def test_critics_see_true_and_made_images_each_with_background_around_its_own_body():
    full, method = unpaired(), lines()
    method.loss("critics", full, Noise(0, full.item))
    seen = [*method.critics["to_target"].seen, *method.critics["to_source"].seen]
    expected = (
        (full.target, full.target_mask),
        (0.5 * full.source + 0.25, full.mask),
        (full.source, full.mask),
        (2 * full.target - 0.5, full.target_mask),
    )
    for image, (inside, mask) in zip(seen, expected, strict=True):
        torch.testing.assert_close(image, inside.where(mask > 0, BACKGROUND))


def test_each_turn_moves_its_own_side_alone():
    full, method = unpaired(), lines(masked=False, answer=0.5)
    sides = {name: [*getattr(method, name).parameters()] for name in ("generators", "critics")}
    for turn, own in sides.items():
        method.zero_grad()
        method.loss(turn, full, Noise(0, full.item))["total"].backward()
        assert list(method.parameters_of(turn)) == own
        moved = {name: {one.grad is not None for one in side} for name, side in sides.items()}
        assert moved == {name: {name == turn} for name in sides}


def test_the_history_shows_half_old_images_each_at_most_twice_and_none_that_was_never_made():
    size, number_made, seen = 50, 1000, []
    history = History(size)
    for step in range(number_made // 4):
        made = torch.arange(4 * step, 4 * step + 4.0).view(4, 1, 1, 1, 1)
        seen += history.swap(made, Noise(step, range(4))).flatten().int().tolist()
    assert seen[:size] == list(range(size))  # filling up: the images themselves
    assert all(number <= step for step, number in enumerate(seen))
    assert len(history.images) == size
    # when they were new, and when they were replaced
    assert max(seen.count(number) for number in range(size)) == 2
    assert max(seen.count(number) for number in range(size, number_made)) == 1
    later = number_made - size
    fresh = sum(number == step for step, number in enumerate(seen[size:], start=size)) / later
    assert fresh == pytest.approx(0.5, abs=4 * 0.5 / later**0.5)


def test_the_history_is_for_training_alone_and_no_part_of_the_weights():
    full, method, twin = unpaired(), lines(masked=False), lines()
    for training in (False, True):
        assert method.training_state() == {}
        method.train(training).loss("critics", full, Noise(0, full.item))
    memory = method.training_state()
    assert torch.equal(memory["to_target"], 0.5 * full.source + 0.25)
    twin.load_training_state(memory)
    assert same_tensors(memory, twin.training_state())
    assert method.state_dict().keys() == lines().state_dict().keys()


TINY = """
title = "tiny"
data = { source = ["t1"], target = ["t2"], patch = [1, 24, 20], augment = { flip_lr = 0.5 } }
intensity = { t1 = { kind = "window", low = 0, high = 1200 }, t2 = { kind = "window", low = 0, high = 1400 } }
task = { kind = "translate", inside = true, strip = true }
method = { kind = "cycle", history = 5, critic = { widths = [4, 8], norm = "instance", output = "patches" } }
net = { kind = "resnet", width = 4, blocks = 1 }
train = { steps = 7, batch = 2, workers = 0, ema = 0.9, validate_every = 4, log_every = 1 }
"""


@slow
def test_a_stopped_unpaired_training_resumes_to_the_same_weights(prepared, tmp_path):
    (tmp_path / "tiny.toml").write_text(TINY)
    chosen = recipe.read(str(tmp_path / "tiny.toml"))
    whole = train(chosen, prepared, tmp_path / "whole", device="cpu")
    with pytest.raises(Stopped):
        train(chosen, prepared, tmp_path / "parts", device="cpu", progress=stop_at(4))
    memory = torch.load(Run(tmp_path / "parts").state, weights_only=True)["memory"]
    assert {way: len(images) for way, images in memory.items()} == {"to_target": 5, "to_source": 5}
    train(chosen, prepared, tmp_path / "parts", device="cpu")
    assert same_weights(whole, tmp_path / "parts")
    assert not any("histor" in name for name in weights_of(whole))
