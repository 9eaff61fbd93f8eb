"""What each task promises: known voxels stay, masks hold, residuals add up, latents fold their channels."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity
from torch import nn

from rows import every_row
from voxlate.base.errors import BadInput
from voxlate.science.batch import Batch
from voxlate.science.diffusion.noise import Noise
from voxlate.science.diffusion.sample import SamplerSettings
from voxlate.science.methods.diffusion import Diffusion, DiffusionSettings
from voxlate.science.methods.losses import dissimilarity
from voxlate.science.methods.regression import Regression, RegressionSettings, leaky
from voxlate.science.methods.stage_tasks import LatentTask, Residual, ResidualTask
from voxlate.science.methods.tasks import Complete, Translate, draw_missing
from voxlate.science.nets.autoencoder import KLAutoencoder
from voxlate.science.nets.interface import Channels, Output

HOW = SamplerSettings(sampler="ddim", steps=4, eta=0.5)
AUTOENCODER = KLAutoencoder(width=8, multipliers=(1, 2), blocks=1, groups=4, latent=3)
CONFIGURATIONS = [bits for bits in product([False, True], repeat=4) if any(bits) and not all(bits)]


class Wild(nn.Module):
    """A network that mixes all it sees, so that a leak anywhere would show."""

    def forward(self, inputs):
        x, log_snr = inputs.state, inputs.log_snr
        shift = log_snr[:, None, None, None, None] if log_snr is not None else 0
        given = sum(inputs.images.values(), torch.zeros(()))
        return Output(
            torch.tanh(3 * x.roll(1, 1) - x.mean((1, 3, 4), keepdim=True) + shift + given)
        )


class Half(nn.Module):
    """A predictor that gives half its source."""

    def predict(self, batch):
        return batch.source[:, :1] / 2, ()


def batch(channels=4, items=2, size=8, present=None, target=True) -> Batch:
    draw = torch.Generator().manual_seed(1)
    images = torch.rand(items, channels, 1, size, size, generator=draw) * 2 - 1
    mask = torch.zeros(items, 1, 1, size, size)
    mask[..., 2:6, 2:6] = 1
    there = torch.ones(items, channels, dtype=torch.bool) if present is None else present
    return Batch(images, mask, there, torch.arange(items), images if target else None)


def test_scanned_modalities_come_back_bit_identical_and_missing_ones_have_no_influence():
    method = Diffusion(DiffusionSettings(), Wild(), Complete(), 4)
    for missing in CONFIGURATIONS:
        present = ~torch.tensor([missing] * 2)
        full = batch(present=present, target=False)
        made = method.synthesise(full, Noise(0, full.item), HOW)
        assert torch.equal(made[present], full.source[present])
        assert not torch.equal(made[~present], full.source[~present])
        hidden = full.source.masked_fill(~present[:, :, None, None, None], torch.nan)
        other = replace(full, source=hidden)
        assert torch.equal(made, method.synthesise(other, Noise(0, full.item), HOW))


def test_missing_modalities_are_drawn_uniformly_over_the_fourteen_subsets():
    count = 14_000
    drawn = draw_missing(torch.ones(count, 4, dtype=torch.bool), Noise(0, range(count)))
    codes = (drawn * torch.tensor([1, 2, 4, 8])).sum(1)
    numbers, frequencies = codes.unique(return_counts=True)
    assert numbers.tolist() == list(range(1, 15))
    expected = count / 14
    assert (frequencies - expected).abs().max() < 4 * (expected * 13 / 14) ** 0.5


def drawn_sets(task: Complete, progress: float, present: torch.Tensor) -> set[str]:
    """The sets of missing modalities that a task draws, as bits, the first modality first."""
    full = batch(items=len(present), present=present)
    missing = task.pose(full, Noise(0, range(len(present))), progress).inputs.code.int()
    return {"".join(str(bit) for bit in row) for row in missing.unique(dim=0).tolist()}


def test_a_curriculum_draws_the_published_sets_and_no_others():
    """Sharma and Hamarneh's list of the 14 configurations by number available, from index 10, 7, 3 and 0 on."""
    task = Complete(curriculum=((0.17, 0.286), (0.33, 0.5), (0.5, 0.786)))
    available = sorted(
        (bits for bits in product("01", repeat=4) if len(set(bits)) == 2),
        key=lambda one: one.count("1"),
    )
    everything = torch.ones(800, 4, dtype=torch.bool)
    for progress, index in ((0.0, 10), (0.169, 10), (0.17, 7), (0.33, 3), (0.5, 0), (1.0, 0)):
        expected = {"".join("10"[int(bit)] for bit in one) for one in available[index:]}
        assert drawn_sets(task, progress, everything) == expected, progress
        assert len(expected) == 14 - index


def test_a_curriculum_counts_the_sets_of_what_was_scanned():
    gaps = torch.tensor([[True, False, True, True]]).expand(300, 4)
    task = Complete(incomplete=True, curriculum=((0.5, 0.5),))
    assert drawn_sets(task, 0.0, gaps) == {"10000100", "00100100", "00010100"}
    assert len(drawn_sets(task, 0.5, gaps)) == 6


@every_row("pairs", [((0.5, 0.2), (0.4, 0.5)), ((0.5, 0.0),), ((1.5, 0.5),), ((0.0, 0.5),)])
def test_a_curriculum_that_does_not_rise_is_refused(pairs):
    with pytest.raises(BadInput, match=r"task\.curriculum: expected pairs"):
        Complete(curriculum=pairs)


def test_only_modalities_that_were_scanned_are_left_out():
    present = torch.tensor([[True, False, True, True]]).expand(600, 4)
    drawn = draw_missing(present, Noise(0, range(600)))
    assert not drawn[:, 1].any()
    assert len(drawn.unique(dim=0)) == 6  # of three, any non-empty proper subset
    alone = torch.tensor([[False, True, False, False]])
    assert torch.equal(draw_missing(alone, Noise(0, [1])), alone)


def test_absent_modalities_have_bits_of_their_own_and_no_loss():
    present = torch.tensor([[True, False, True, True], [True, True, True, False]])
    problem = Complete(incomplete=True).pose(batch(present=present), Noise(0, range(2)))
    assert problem.inputs.code.shape == (2, 8)
    missing, absent = problem.inputs.code.bool().chunk(2, dim=1)
    assert torch.equal(absent, ~present)
    assert not (missing & absent).any()
    assert not problem.mask.bool().flatten(2).any(2)[~present].any()


def test_each_validation_item_misses_one_modality_in_turn():
    whole = Complete().as_at_inference(batch(items=4))
    assert torch.equal(whole.present, ~torch.eye(4, dtype=torch.bool))
    there = torch.tensor([[1, 0, 1, 1], [1, 0, 1, 1], [0, 1, 0, 0]]).bool()
    gaps = batch(items=3, present=there)
    hidden = gaps.present & ~Complete().as_at_inference(gaps).present
    assert hidden.int().tolist() == [[1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]


@pytest.mark.parametrize("inside", [False, True])
def test_the_true_residual_restores_the_target(inside):
    full = batch(channels=1)
    task = ResidualTask(Residual(scale=3.0, inside=inside), Half())
    problem = task.pose(full, Noise(0, full.item))
    restored = task.restore(problem.x0, problem)
    mask = full.mask.bool() if inside else torch.ones_like(full.mask, dtype=torch.bool)
    torch.testing.assert_close(restored[mask], full.target[mask])
    assert torch.equal(restored[~mask], (full.source / 2)[~mask])


def test_a_network_of_residuals_sees_no_noise_outside_the_mask():
    seen = []

    class Watch(nn.Module):
        def forward(self, inputs):
            seen.append(inputs.state)
            return Output(torch.zeros_like(inputs.state))

    full = batch(channels=1)
    method = Diffusion(DiffusionSettings(), Watch(), ResidualTask(Residual(inside=True), Half()), 1)
    method.attempt(full, Noise(0, full.item))
    method.synthesise(full, Noise(0, full.item), HOW)
    outside = full.mask == 0
    assert all(torch.equal(state[outside], torch.zeros(int(outside.sum()))) for state in seen)
    assert len(seen) == 1 + HOW.steps


def test_a_late_start_of_a_residual_begins_at_the_predictors_image():
    """Where the network always answers 0, nothing of the noise is left and the predictor's image remains."""

    class Nothing(nn.Module):
        def forward(self, inputs):
            return Output(torch.zeros_like(inputs.state))

    full = batch(channels=1, target=False)
    options, task = DiffusionSettings(prediction="x0"), ResidualTask(Residual(), Half())
    sampling = SamplerSettings(sampler="ddim", steps=3, start=0.5)
    made = Diffusion(options, Nothing(), task, 1).synthesise(full, Noise(0, full.item), sampling)
    # sigma is e^-7.5 at t = 0, not 0
    torch.testing.assert_close(made, full.source / 2, rtol=0, atol=5e-3)


def test_a_frozen_predictor_stays_frozen_and_a_joint_one_learns():
    layer = nn.Conv3d(1, 1, 1)

    class Learning(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = layer

        def predict(self, batch):
            return self.layer(batch.source), ()

    full = batch(channels=1)
    for weight, learns in ((0.0, False), (0.1, True)):
        layer.requires_grad_(True)
        task = ResidualTask(Residual(predictor_weight=weight), Learning())
        method = Diffusion(DiffusionSettings(), Wild(), task, 1)
        assert any(parameter is layer.weight for parameter in method.parameters_of("net")) == learns
        loss = method.loss("net", full, Noise(0, full.item))
        assert ("predictor" in loss) == learns
        if learns:
            expected = 0.1 * (full.target - layer(full.source)).abs().mean()
            torch.testing.assert_close(loss["predictor"], expected)
            assert loss["total"] == loss["diffusion"] + loss["predictor"]


def made_alike(method, *batches):
    """The images that a method makes of each of two batches."""
    made, again = (method.synthesise(one, Noise(0, one.item), HOW) for one in batches)
    assert torch.equal(made, again)
    return made


@pytest.mark.parametrize("task", [Translate(inside=True, strip=True), "residual"])
def test_inside_a_mask_nothing_outside_is_seen_or_made(task):
    if task == "residual":
        predictor = Regression(RegressionSettings(), Sums(), Translate(inside=True, strip=True))
        task = ResidualTask(Residual(inside=True, strip=True), predictor)
    full = batch(channels=1, target=False)
    outside = full.mask == 0
    other = replace(full, source=torch.where(outside, 7.0, full.source))
    made = made_alike(Diffusion(DiffusionSettings(), Wild(), task, 1), full, other)
    assert torch.equal(made[outside], torch.full_like(made[outside], -1))
    assert made[~outside].std() > 0.01


@every_row("missing", CONFIGURATIONS[::4])
def test_completion_inside_a_mask_sees_and_makes_background_around_it(missing):
    full = batch(present=~torch.tensor([missing] * 2), target=False)
    outside = (full.mask == 0).expand_as(full.source)
    other = replace(full, source=torch.where(outside, 7.0, full.source))
    task = Complete(inside=True, strip=True)
    made = made_alike(Diffusion(DiffusionSettings(), Wild(), task, 4), full, other)
    assert (made[outside] == -1).all()
    seen = full.present[:, :, None, None, None] & ~outside
    assert torch.equal(made[seen], full.source[seen])
    assert made[~full.present[:, :, None, None, None] & ~outside].std() > 0.01


@pytest.mark.parametrize("task", [Translate(inside=True), "residual"])
def test_an_empty_mask_gives_the_picture_that_was_there_before(task):
    task = ResidualTask(Residual(inside=True), Half()) if task == "residual" else task
    full = batch(channels=1, target=False)
    full.mask[0] = 0
    method = Diffusion(DiffusionSettings(), Wild(), task, 1)
    made = method.synthesise(full, Noise(0, full.item), HOW)
    residual = isinstance(task, ResidualTask)
    assert torch.equal(made[0], full.source[0] / 2 if residual else -torch.ones(1, 1, 8, 8))


class Sums(nn.Module):
    def forward(self, inputs):
        return Output(
            inputs.joined.mean((-2, -1), keepdim=True) + inputs.joined.sum(1, keepdim=True) / 2
        )


def test_a_mask_keeps_what_lies_outside_out_of_the_loss():
    full = batch(channels=1)
    other = replace(full, target=torch.where(full.mask == 0, 9.0, full.target))
    for task in (
        Translate(inside=True),
        ResidualTask(Residual(inside=True, predictor_weight=0.1), Half()),
    ):
        method = Diffusion(DiffusionSettings(reduction="all"), Wild(), task, 1)
        losses = [method.loss("net", one, Noise(0, one.item)) for one in (full, other)]
        assert losses[0] == losses[1]


def test_the_predictors_loss_is_of_the_scaled_residual_and_averaged_as_the_method_says():
    full = batch(channels=1)
    task = ResidualTask(Residual(inside=True, scale=0.5, predictor_weight=0.1), Half())
    inside = (full.mask * (full.target - full.source / 2)).abs().sum() * 0.5 * 0.1
    for reduction, voxels in (("mask", 2 * 16), ("all", 2 * 64)):
        method = Diffusion(DiffusionSettings(reduction=reduction), Wild(), task, 1)
        found = method.loss("net", full, Noise(0, full.item))["predictor"]
        torch.testing.assert_close(found, inside / voxels)


class Offering(nn.Module):
    """A predictor of one weight, which its features hold, too."""

    feature_channels = (1,)

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.5))
        self.drop = nn.Dropout()

    def predict(self, batch):
        return self.weight * batch.source, (self.weight * batch.source,)


class AddsFeatures(nn.Module):
    def forward(self, inputs):
        return Output(inputs.state + sum(inputs.features))


@pytest.mark.parametrize(("detach", "moves"), [(True, False), (False, True)])
def test_features_never_move_the_predictor_and_the_residual_does_unless_detached(detach, moves):
    predictor, full = Offering(), batch(channels=1)
    residual = Residual(asymmetry=True, see_base=False, predictor_weight=0.1, detach=detach)
    method = Diffusion(DiffusionSettings(), AddsFeatures(), ResidualTask(residual, predictor), 1)
    loss = method.loss("net", full, Noise(0, full.item))["diffusion"]
    assert loss.requires_grad == moves
    if moves:
        assert torch.autograd.grad(loss, predictor.weight)[0] != 0


@pytest.mark.parametrize(
    ("weight", "steady", "acts"), [(0.1, False, True), (0.1, True, False), (0.0, False, False)]
)
def test_a_predictor_drops_features_only_where_it_learns_and_is_not_held_steady(
    weight, steady, acts
):
    residual = Residual(predictor_weight=weight, predictor_steady=steady)
    assert ResidualTask(residual, Offering()).train().predictor.drop.training == acts


def test_latents_hold_each_modality_in_its_own_channels():
    torch.manual_seed(0)
    net = AUTOENCODER.build(Channels(images={"image": 1}, out=1))
    task = LatentTask(net)
    full = batch(channels=2, size=16)
    problem = task.pose(full)
    for channel, image in enumerate(problem.inputs.images.values()):
        alone, _ = net.encode(full.source[:, channel : channel + 1])
        torch.testing.assert_close(image, alone)
    restored = task.restore(problem.inputs.joined, problem)
    assert restored.shape == full.source.shape
    torch.testing.assert_close(restored[:, :1], net.decode(problem.inputs.joined[:, :3], (16, 16)))


def test_cached_moments_pose_the_same_latent_problem_as_the_images():
    torch.manual_seed(0)
    net = AUTOENCODER.build(Channels(images={"image": 1}, out=1))
    net.scale.fill_(0.7)
    task, full = LatentTask(net), batch(channels=2, size=16)
    with torch.no_grad():
        moments = torch.stack(
            [torch.cat(net.encode(full.source[:, k : k + 1]), dim=1) for k in range(2)], dim=1
        )
    cached = replace(full, source_moments=moments, target_moments=moments)
    one, other = (task.pose(each, Noise(0, full.item)) for each in (full, cached))
    torch.testing.assert_close(one.x0, other.x0)
    torch.testing.assert_close(one.inputs.joined, other.inputs.joined)


def test_the_dissimilarity_is_one_minus_the_ssim_of_every_third_window():
    a, b = (
        torch.rand(2, 1, 1, 40, 37, generator=torch.Generator().manual_seed(k)) * 2 - 1
        for k in (0, 1)
    )
    expected = []
    for one, other in zip(a[:, 0, 0].numpy(), (a + 0.3 * b)[:, 0, 0].numpy()):
        options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
        options |= {"data_range": 2.0, "full": True}
        windows = structural_similarity(one + 1, other + 1, **options)[1][5:-5:3, 5:-5:3]
        expected.append(1 - windows.mean())
    np.testing.assert_allclose(dissimilarity(a, a + 0.3 * b).numpy(), expected, atol=2e-4)
    assert dissimilarity(a, a).abs().max() < 1e-5


def test_an_output_beyond_the_range_counts_with_its_leak():
    x = torch.tensor([-3.0, -1.0, 0.25, 1.0, 2.0])
    assert leaky(x, 0.1).tolist() == pytest.approx([-1.2, -1.0, 0.25, 1.0, 1.1])
    assert torch.equal(leaky(x, 0.0), x.clamp(-1, 1))


def test_what_an_absent_target_holds_changes_no_loss():
    from voxlate.training.recipe import from_dict

    net = {"kind": "unet", "width": 8, "multipliers": [1, 2], "blocks": 1, "groups": 4}
    net["middle_attention"] = False
    data = {"source": ["a"], "target": ["b", "c"], "patch": [1, 16, 16], "allow_missing": True}
    base = {
        "title": "tiny",
        "data": data,
        "intensity": {name: {"kind": "window", "low": 0, "high": 1} for name in "abc"},
        "net": net,
    }
    draw = torch.Generator().manual_seed(0)
    target = torch.rand(2, 2, 1, 16, 16, generator=draw) * 2 - 1
    present = torch.tensor([[True, True], [True, False]])
    other = torch.where(present[:, :, None, None, None], target, 0.7)
    for method in ({"kind": "regression", "ssim": 0.5}, {"kind": "diffusion"}):
        for opponent in ({}, {"opponent": {"critic": {"widths": [4, 4]}, "weight": 1.0}}):
            torch.manual_seed(0)
            made = from_dict({**base, "method": method, **opponent}, "tiny").build()
            *_, last = made.turns
            mask, there = torch.ones(2, 1, 1, 16, 16), torch.ones(2, 1, dtype=torch.bool)
            full = Batch(target[:, :1], mask, there, torch.arange(2)[:, None], target)
            full = replace(full, target_present=present)
            first = made.loss(last, full, Noise(0, full.item))
            second = made.loss(last, replace(full, target=other), Noise(0, full.item))
            for part in first:
                # a critic sees such a channel, alike in true and in made images
                if part != "gan" and not (part == "total" and opponent):
                    assert torch.equal(first[part], second[part]), (method, opponent, part)
