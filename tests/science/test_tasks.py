"""What each task promises: known voxels stay, masks hold, residuals add up, latents fold their channels."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from calling import batch_of
from skimage.metrics import structural_similarity
from torch import nn
from torch.testing import assert_close

from rows import every_row
from stand_ins import recipe_of
from voxlate.science.batch import Batch
from voxlate.science.diffusion.noise import Noise
from voxlate.science.diffusion.sample import SamplerSettings
from voxlate.science.methods.diffusion import Diffusion, DiffusionSettings
from voxlate.science.methods.regression import Regression, RegressionSettings, dissimilarity, leaky
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
        x, shift = inputs.state, inputs.log_snr[:, None, None, None, None]
        given = sum(inputs.images.values(), torch.zeros(()))
        return Output(
            torch.tanh(3 * x.roll(1, 1) - x.mean((1, 3, 4), keepdim=True) + shift + given)
        )


class Half(nn.Module):
    """A predictor that gives half its source."""

    def predict(self, batch):
        return batch.source[:, :1] / 2, ()


def batch(channels=4, items=2, size=8, **parts) -> Batch:
    draw = torch.Generator().manual_seed(1)
    images = torch.rand(items, channels, 1, size, size, generator=draw) * 2 - 1
    mask = torch.zeros(items, 1, 1, size, size)
    mask[..., 2:6, 2:6] = 1
    return batch_of(images, images, mask=mask, **parts)


def noise(full: Batch) -> Noise:
    return Noise(0, full.item)


def test_missing_modalities_are_drawn_uniformly_over_the_fourteen_subsets():
    expected = 1000
    drawn = draw_missing(torch.ones(14 * expected, 4, dtype=torch.bool), Noise(0, range(14_000)))
    codes, frequencies = (drawn * torch.tensor([1, 2, 4, 8])).sum(1).unique(return_counts=True)
    assert codes.tolist() == [*range(1, 15)]
    assert (frequencies - expected).abs().max() < 4 * (expected * 13 / 14) ** 0.5


def drawn_sets(task: Complete, progress: float, present: torch.Tensor) -> set[str]:
    """The sets of missing modalities that a task draws, as bits, the first modality first."""
    full = batch(items=len(present), present=present)
    missing = task.pose(full, Noise(0, range(len(present))), progress).inputs.code.int()
    return {"".join(str(bit) for bit in row) for row in missing.unique(dim=0).tolist()}


def test_a_curriculum_draws_the_published_sets_and_no_others():
    """Sharma and Hamarneh's list of the 14 configurations by number available, from index 10, 7, 3 and 0 on."""
    task = Complete(curriculum=((0.17, 0.286), (0.33, 0.5), (0.5, 0.786)))
    missing = sorted(CONFIGURATIONS, key=lambda one: (-sum(one), [not bit for bit in one]))
    listed = ["".join(str(int(bit)) for bit in one) for one in missing]
    everything = torch.ones(800, 4, dtype=torch.bool)
    for progress, index in ((0.0, 10), (0.169, 10), (0.17, 7), (0.33, 3), (0.5, 0), (1.0, 0)):
        assert drawn_sets(task, progress, everything) == {*listed[index:]}, progress


def test_a_curriculum_counts_the_sets_of_what_was_scanned():
    gaps = torch.tensor([[True, False, True, True]]).expand(300, 4)
    task = Complete(incomplete=True, curriculum=((0.5, 0.5),))
    assert drawn_sets(task, 0.0, gaps) == {"10000100", "00100100", "00010100"}
    assert len(drawn_sets(task, 0.5, gaps)) == 6


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


@every_row("inside", [False, True])
def test_the_true_residual_restores_the_target(inside):
    full = batch(channels=1)
    task = ResidualTask(Residual(scale=3.0, inside=inside), Half())
    problem = task.pose(full, noise(full))
    expected = torch.where(full.mask.bool() | (not inside), full.target, full.source / 2)
    assert_close(task.restore(problem.x0, problem), expected)


class Nothing(nn.Module):
    """A network that always answers 0."""

    def forward(self, inputs):
        return Output(torch.zeros_like(inputs.state))


def test_a_late_start_of_a_residual_begins_at_the_predictors_image():
    """Where the network always answers 0, nothing of the noise is left and the predictor's image remains."""
    full, options = batch(channels=1), DiffusionSettings(prediction="x0")
    method = Diffusion(options, Nothing(), ResidualTask(Residual(), Half()), 1)
    sampling = SamplerSettings(sampler="ddim", steps=3, start=0.5)
    made = method.synthesise(full, noise(full), sampling)
    # sigma is e^-7.5 at t = 0, not 0
    assert_close(made, full.source / 2, rtol=0, atol=5e-3)


@every_row("weight, learns", [(0.0, False), (0.1, True)])
def test_a_frozen_predictor_stays_frozen_and_a_joint_one_learns(weight, learns):
    full, predictor = batch(channels=1), Offering()
    task = ResidualTask(Residual(predictor_weight=weight), predictor)
    method = Diffusion(DiffusionSettings(), Wild(), task, 1)
    assert any(one is predictor.weight for one in method.parameters_of("net")) == learns
    assert method.task.train().predictor.drop.training == learns
    loss = method.loss("net", full, noise(full))
    assert loss["total"] == loss["diffusion"] + loss.get("predictor", 0)
    assert ("predictor" in loss) == learns


STRIPPED = Translate(inside=True, strip=True)


class Sums(nn.Module):
    def forward(self, inputs):
        return Output(
            inputs.joined.mean((-2, -1), keepdim=True) + inputs.joined.sum(1, keepdim=True) / 2
        )


@every_row(
    "task, missing",
    [
        (STRIPPED, [True]),
        (
            ResidualTask(
                Residual(inside=True, strip=True),
                Regression(RegressionSettings(), Sums(), STRIPPED),
            ),
            [True],
        ),
        *((Complete(inside=True, strip=True), missing) for missing in CONFIGURATIONS[::4]),
    ],
)
def test_inside_a_mask_nothing_outside_is_seen_or_made_and_what_is_present_stays(task, missing):
    full = batch(channels=len(missing), present=~torch.tensor([missing] * 2))
    method = Diffusion(DiffusionSettings(), Wild(), task, len(missing))
    other = replace(full, source=torch.where(full.mask == 0, 7.0, full.source))
    made, again = (
        method.synthesise(replace(one, target=None), noise(one), HOW) for one in (full, other)
    )
    assert torch.equal(made, again)
    inside = (full.mask == 1).expand_as(full.source)
    present = full.present[:, :, None, None, None]
    assert (made[~inside] == -1).all()
    assert torch.equal(made[present & inside], full.source[present & inside])
    assert made[~present & inside].std() > 0.01


@every_row(
    "task",
    [Translate(inside=True), ResidualTask(Residual(inside=True, predictor_weight=0.1), Half())],
)
def test_a_mask_keeps_what_lies_outside_out_of_the_loss(task):
    full = batch(channels=1)
    other = replace(full, target=torch.where(full.mask == 0, 9.0, full.target))
    method = Diffusion(DiffusionSettings(reduction="all"), Wild(), task, 1)
    one, two = (method.loss("net", each, noise(each)) for each in (full, other))
    assert one == two


def test_the_predictors_loss_is_of_the_scaled_residual_and_averaged_as_the_method_says():
    full = batch(channels=1)
    task = ResidualTask(Residual(inside=True, scale=0.5, predictor_weight=0.1), Half())
    inside = (full.mask * (full.target - full.source / 2)).abs().sum() * 0.5 * 0.1
    for reduction, voxels in (("mask", 2 * 16), ("all", 2 * 64)):
        method = Diffusion(DiffusionSettings(reduction=reduction), Wild(), task, 1)
        found = method.loss("net", full, noise(full))["predictor"]
        assert_close(found, inside / voxels)


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


def test_the_residual_moves_the_predictor():
    predictor, full = Offering(), batch(channels=1)
    residual = Residual(asymmetry=True, see_base=False, predictor_weight=0.1)
    method = Diffusion(DiffusionSettings(), AddsFeatures(), ResidualTask(residual, predictor), 1)
    loss = method.loss("net", full, noise(full))["diffusion"]
    assert torch.autograd.grad(loss, predictor.weight)[0] != 0


def test_latents_hold_each_modality_in_its_own_channels_and_cached_moments_pose_the_same_problem():
    torch.manual_seed(0)
    net = AUTOENCODER.build(Channels(images={"image": 1}, out=1))
    net.scale.fill_(0.7)
    task, full = LatentTask(net), batch(channels=2, size=16)
    problem = task.pose(full, noise(full))
    with torch.no_grad():
        moments = [net.encode(image) for image in full.source.split(1, dim=1)]
    for image, (mean, _) in zip(problem.inputs.images.values(), moments, strict=True):
        assert_close(image, 0.7 * mean)
    latents = problem.inputs.joined
    restored = task.restore(latents, problem)
    assert restored.shape == full.source.shape
    assert_close(restored[:, :1], net.decode(latents[:, :3] / 0.7, (16, 16)))
    kept = torch.stack([torch.cat(one, dim=1) for one in moments], dim=1)
    cached = task.pose(replace(full, source_moments=kept, target_moments=kept), noise(full))
    assert_close(cached.x0, problem.x0)
    assert_close(cached.inputs.joined, latents)


def test_the_dissimilarity_is_one_minus_the_ssim_of_every_third_window():
    a, b = torch.rand(2, 2, 1, 1, 40, 37, generator=torch.Generator().manual_seed(0)) * 2 - 1
    b = a + 0.3 * b
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    options |= {"data_range": 2.0, "full": True}
    expected = [
        1 - structural_similarity(*pair, **options)[1][5:-5:3, 5:-5:3].mean()
        for pair in zip(a[:, 0, 0].numpy() + 1, b[:, 0, 0].numpy() + 1)
    ]
    np.testing.assert_allclose(dissimilarity(a, b).numpy(), expected, atol=2e-4)
    assert dissimilarity(a, a).abs().max() < 1e-5


def test_an_output_beyond_the_range_counts_with_its_leak():
    x = torch.tensor([-3.0, -1.0, 0.25, 1.0, 2.0])
    assert leaky(x, 0.1).tolist() == pytest.approx([-1.2, -1.0, 0.25, 1.0, 1.1])
    assert torch.equal(leaky(x, 0.0), x.clamp(-1, 1))


@every_row("method", [{"kind": "regression", "ssim": 0.5}, {"kind": "diffusion"}])
def test_what_an_absent_target_holds_changes_no_loss(method):
    torch.manual_seed(0)
    made = recipe_of(
        {"source": ["a"], "target": ["b", "c"], "patch": [1, 16, 16], "allow_missing": True},
        {name: {"kind": "window", "low": 0, "high": 1} for name in "abc"},
        net={"kind": "unet", "width": 8, "groups": 4, "middle_attention": False},
        method=method,
    ).build()
    full, there = batch(channels=2, size=16), torch.tensor([[True, True], [True, False]])
    full = replace(full, source=full.source[:, :1], present=there[:, :1], target_present=there)
    other = replace(full, target=full.target.where(there[:, :, None, None, None], 0.7))
    first, second = (made.loss("net", each, noise(each)) for each in (full, other))
    assert first == second
