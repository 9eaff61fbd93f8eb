"""Muon: what a step does to a kernel and to the rest, with answers that are known."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from voxlate.training.recipe.training_settings import (
    COEFFICIENTS,
    MOMENTUM,
    RMS,
    ROUNDS,
    Optimiser,
)


def step(optimiser, parameters, grads):
    for parameter, grad in zip(parameters, grads):
        parameter.grad = grad.clone()
    optimiser.step()


def muon(parameters, lr=0.01, decay=0.0):
    return Optimiser(kind="muon", lr=lr, betas=(0.9, 0.99), weight_decay=decay).build(parameters)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def reference(grads, kernels, lr):
    """What steps make of kernels, one by one and in float64, by the iteration as it is published."""
    kernels = [one.detach().double() for one in kernels]
    momenta = [torch.zeros_like(one) for one in kernels]
    for step_grads in grads:
        for kernel, momentum, grad in zip(kernels, momenta, step_grads):
            momentum.lerp_(grad.double(), 1 - MOMENTUM)
            matrix = grad.double().lerp(momentum, MOMENTUM).flatten(1)
            x = matrix.T if len(matrix) > matrix.shape[1] else matrix
            x = x / (x.norm() + 1e-7)
            a, b, c = COEFFICIENTS
            for _ in range(ROUNDS):
                gram = x @ x.T
                x = a * x + (b * gram + c * gram @ gram) @ x
            x = x.T if len(matrix) > matrix.shape[1] else x
            kernel.sub_(lr * RMS * max(matrix.shape) ** 0.5 * x.reshape(kernel.shape))
    return kernels


SHAPES = ((16, 8, 3, 3), (16, 16, 3, 3), (32, 16, 1, 1), (64, 16), (16, 32, 3, 3, 3), (16, 8, 3, 3))


def test_kernels_that_move_together_move_as_each_does_by_the_published_iteration():
    """Those of four axes are channels-last, as networks hold them."""
    drawn = [torch.randn(shape) for shape in SHAPES]
    kernels = [
        nn.Parameter(one.to(memory_format=torch.channels_last) if one.ndim == 4 else one)
        for one in drawn
    ]
    grads = [[torch.randn(one.shape) for one in kernels] for _ in range(3)]
    expected = reference(grads, kernels, lr=1e-3)
    optimiser = muon(kernels, lr=1e-3)
    for each in grads:
        step(optimiser, kernels, each)
    for one, other in zip(kernels, expected):
        assert_close(one.double(), other, atol=1e-6, rtol=0)


def test_vectors_and_heads_of_few_channels_move_as_by_adamw():
    start = [torch.randn(30), torch.randn(1, 32, 3, 3)]
    grads = [[torch.randn_like(one) for one in start] for _ in range(3)]
    ends = []
    for kind in ("muon", "adamw"):
        parameters = [nn.Parameter(one.clone()) for one in start]
        optimiser = Optimiser(kind=kind).build(parameters)
        for each in grads:
            step(optimiser, parameters, each)
        ends.append(parameters)
    for one, other in zip(*ends):
        assert torch.equal(one, other)


def test_weight_decay_shrinks_a_kernel_besides_its_step():
    grad = torch.randn(16, 16)
    plain, decayed = (nn.Parameter(torch.ones(16, 16)) for _ in range(2))
    step(muon([plain], lr=0.1), [plain], [grad])
    step(muon([decayed], lr=0.1, decay=0.5), [decayed], [grad])
    assert_close(plain - decayed, torch.full((16, 16), 0.05))


def test_the_size_of_a_gradient_changes_no_move():
    gradient, moved = torch.randn(32, 288), []
    for factor in (1.0, 1e-20, 1e20):
        kernel = nn.Parameter(torch.zeros(32, 288))
        step(muon([kernel], lr=1e-3), [kernel], [gradient * factor])
        moved.append(kernel.detach())
        assert_close(moved[-1], moved[0], rtol=1e-4, atol=1e-7)
    assert moved[0].abs().max() > 0
