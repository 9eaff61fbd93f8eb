"""Muon: what a step does to a kernel and to the rest, with answers that are known."""

import copy

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from voxlate.training.recipe.optimiser import (
    COEFFICIENTS,
    MOMENTUM,
    RMS,
    ROUNDS,
    Optimiser,
    factors,
)


def step(
    optimiser: torch.optim.Optimizer, parameters: list[nn.Parameter], grads: list[torch.Tensor]
) -> None:
    for parameter, grad in zip(parameters, grads):
        parameter.grad = grad.clone()
    optimiser.step()


def orthogonal(matrix: torch.Tensor) -> torch.Tensor:
    """The matrix with all singular values about 1."""
    (factor,) = factors([matrix])
    return factor @ matrix if len(factor) == len(matrix) else matrix @ factor


def muon(
    parameters: list[nn.Parameter], lr: float = 0.01, decay: float = 0.0
) -> torch.optim.Optimizer:
    return Optimiser(kind="muon", lr=lr, betas=(0.9, 0.99), weight_decay=decay).build(parameters)


@pytest.mark.parametrize("shape", [(16, 16), (16, 90), (90, 16)])
def test_a_matrix_keeps_its_singular_vectors_and_gets_equal_singular_values(
    shape,
):
    torch.manual_seed(0)
    left, _, right = torch.linalg.svd(torch.randn(shape), full_matrices=False)
    values = torch.linspace(0.2, 1, 16)
    made = left.T @ orthogonal(left @ torch.diag(values) @ right) @ right.T
    assert made.diag().min() > 0.6
    assert made.diag().max() < 1.3
    assert (made - torch.diag(made.diag())).abs().max() < 0.05


def reference(
    grads: list[list[torch.Tensor]], kernels: list[torch.Tensor], lr: float
) -> list[torch.Tensor]:
    """What steps make of kernels, one by one and in float64, by the iteration as it is published."""
    kernels = [one.detach().double() for one in kernels]
    momenta = [torch.zeros_like(one) for one in kernels]
    for step_grads in grads:
        for kernel, momentum, grad in zip(kernels, momenta, step_grads):
            momentum.lerp_(grad.double(), 1 - MOMENTUM)
            matrix = grad.double().lerp(momentum, MOMENTUM).flatten(1)
            x = matrix.T if len(matrix) > matrix.shape[1] else matrix
            x = x / (x.norm() + 1e-7)
            for _ in range(ROUNDS):
                gram = x @ x.T
                x = (
                    COEFFICIENTS[0] * x
                    + (COEFFICIENTS[1] * gram + COEFFICIENTS[2] * gram @ gram) @ x
                )
            x = x.T if len(matrix) > matrix.shape[1] else x
            kernel.sub_(lr * RMS * max(matrix.shape) ** 0.5 * x.reshape(kernel.shape))
    return kernels


SHAPES = ((16, 8, 3, 3), (16, 16, 3, 3), (32, 16, 1, 1), (64, 16), (16, 32, 3, 3, 3), (16, 8, 3, 3))


def kernels_of(generator: torch.Generator) -> list[nn.Parameter]:
    """Kernels of several shapes; those of four axes channels-last, as networks hold them."""
    drawn = [torch.randn(shape, generator=generator) for shape in SHAPES]
    return [
        nn.Parameter(one.contiguous(memory_format=torch.channels_last) if one.ndim == 4 else one)
        for one in drawn
    ]


def test_kernels_that_move_together_move_as_each_does_by_the_published_iteration():
    generator = torch.Generator().manual_seed(0)
    kernels = kernels_of(generator)
    grads = [[torch.randn(one.shape, generator=generator) for one in kernels] for _ in range(3)]
    expected = reference(grads, kernels, lr=1e-3)
    optimiser = muon(kernels, lr=1e-3)
    for each in grads:
        step(optimiser, kernels, each)
    for one, other in zip(kernels, expected):
        assert_close(one.double(), other, atol=1e-6, rtol=0)


def test_the_state_of_a_kernel_is_its_momentum_and_a_count_in_its_own_shape():
    kernel = nn.Parameter(torch.randn(16, 8, 3, 3))
    optimiser = muon([kernel])
    step(optimiser, [kernel], [torch.ones(16, 8, 3, 3)])
    (state,) = optimiser.state_dict()["state"].values()
    assert set(state) == {"step", "momentum"}
    assert_close(state["momentum"], torch.full((16, 8, 3, 3), 1 - MOMENTUM))


def test_a_matrix_of_low_rank_keeps_its_zeros():
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(24, 2, generator=generator) @ torch.randn(2, 216, generator=generator)
    values = torch.linalg.svdvals(orthogonal(matrix))
    assert 0.6 < values[1] <= values[0] < 1.3
    assert values[2] < 1e-3


def test_vectors_and_heads_of_few_channels_move_as_by_adamw():
    torch.manual_seed(0)
    start = [torch.randn(30), torch.randn(1, 32, 3, 3)]
    ours, theirs = ([nn.Parameter(one.clone()) for one in start] for _ in range(2))
    optimisers = [
        Optimiser(kind=kind).build(own) for kind, own in (("muon", ours), ("adamw", theirs))
    ]
    for _ in range(3):
        grads = [torch.randn_like(one) for one in start]
        step(optimisers[0], ours, grads)
        step(optimisers[1], theirs, grads)
    for one, other in zip(ours, theirs):
        assert_close(one, other, atol=0, rtol=0)


def test_weight_decay_shrinks_a_kernel_besides_its_step():
    torch.manual_seed(0)
    grad = torch.randn(16, 16)
    plain, decayed = (nn.Parameter(torch.ones(16, 16)) for _ in range(2))
    step(muon([plain], lr=0.1), [plain], [grad])
    step(muon([decayed], lr=0.1, decay=0.5), [decayed], [grad])
    assert_close(plain - decayed, torch.full((16, 16), 0.05))


def test_a_restored_state_goes_on_bit_for_bit():
    torch.manual_seed(0)
    one = [nn.Parameter(torch.randn(16, 8, 3, 3)), nn.Parameter(torch.randn(16))]
    first, grads = muon(one), [[torch.randn_like(each) for each in one] for _ in range(3)]
    step(first, one, grads[0])
    other = [nn.Parameter(each.detach().clone()) for each in one]
    second = muon(other)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for each in grads[1:]:
        step(first, one, each)
        step(second, other, each)
    assert all(torch.equal(a, b) for a, b in zip(one, other))


@pytest.mark.parametrize("scale", [1e-20, 1e20])
def test_the_size_of_a_gradient_changes_no_move(scale):
    torch.manual_seed(0)
    gradient, moved = torch.randn(32, 288), []
    for factor in (1.0, scale):
        kernel = nn.Parameter(torch.zeros(32, 288))
        kernel.grad = gradient * factor
        Optimiser(kind="muon", lr=1e-3).build([kernel]).step()
        moved.append(kernel.detach().clone())
    assert_close(moved[1], moved[0], rtol=1e-4, atol=1e-7)
    assert moved[0].abs().max() > 0
