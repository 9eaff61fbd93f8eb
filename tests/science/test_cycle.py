"""Unpaired translation: its losses have known values, and its history forgets nothing at a restart."""

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
from voxlate.science.methods.tasks import Translate
from voxlate.science.nets.interface import Channels, Output
from voxlate.training import recipe
from voxlate.training.run import Run
from voxlate.training.train import train


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
    full = full or batch()
    return method.loss("generators", full, Noise(0, full.item))


def batch() -> Batch:
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
    full, method = batch(), lines()
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
    full, method = batch(), lines(masked=False, answer=0.5)
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
    full, method, twin = batch(), lines(masked=False), lines()
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
