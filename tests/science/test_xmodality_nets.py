"""Paper 001's networks: their published sizes, what may reach their output, and how they start."""

import dataclasses

import numpy as np
import pytest
import torch
from calling import ask, channels, count_of
from torch import nn

from rows import every_row
from voxlate.base.errors import BadInput
from voxlate.science.nets.xmodality import wavelet
from voxlate.science.nets.xmodality.adm import ADM
from voxlate.science.nets.xmodality.dit import DiT
from voxlate.science.nets.xmodality.parts import Attention, Conv, Dense
from voxlate.science.nets.xmodality.unet import PlainUNet
from voxlate.science.nets.xmodality.uvit import UViT

SMALL = {
    "unet": PlainUNet(width=16, groups=8),
    "adm": ADM(width=16),
    "uvit": UViT(width=16, depth=2),
    "dit": DiT(patch=8, width=32, depth=2, heads=4),
}


def _random(net: nn.Module) -> nn.Module:
    """With weights that are nowhere zero, so that everything can reach the output."""
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return net.eval()


def _small(name: str, **changes) -> nn.Module:
    return _random(SMALL[name].build(channels(**{"state": 1, "images": 2, "out": 1, **changes})))


def _inputs(*size: int, sources: int = 2):
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(2, 1, *size, generator=generator)
    return x, torch.randn(2, sources, *size, generator=generator), torch.tensor([-2.0, 3.0])


@pytest.mark.parametrize(
    ("net", "state", "noisy", "expected"),
    [
        pytest.param(PlainUNet(), 0, False, 14_733_953, id="unet"),
        pytest.param(PlainUNet(), 1, True, 16_907_521, id="unet with a noise level"),
        pytest.param(ADM(), 1, True, 35_371_777, id="adm"),
        pytest.param(UViT(), 1, True, 124_719_499, id="uvit"),
        pytest.param(DiT(), 1, True, 558_368_000, id="dit"),
    ],
)
def test_published_networks_have_their_parameter_counts(net, state, noisy, expected):
    assert count_of(net, channels(state, 1, 1, noisy=noisy)) == expected


@every_row("name", SMALL)
def test_a_batch_of_volumes_is_its_slices_one_by_one(name):
    net, (x, condition, log_snr) = _small(name), _inputs(3, 16, 24)
    with torch.no_grad():
        whole = ask(net, x, condition, log_snr)
        for item in range(2):
            for d in range(3):
                own, wanted, given = (
                    volume[item : item + 1, :, d : d + 1] for volume in (x, whole, condition)
                )
                alone = ask(net, own, given, log_snr[item : item + 1])
                torch.testing.assert_close(alone, wanted, rtol=1e-4, atol=1e-5)


@every_row("name", SMALL)
def test_a_slice_of_any_size_is_padded_by_its_mirror_and_cropped(name):
    net, (x, condition, log_snr) = _small(name), _inputs(1, 21, 19)
    height, width = (24, 24) if name in ("uvit", "dit") else (24, 20)
    far = [(0, 0)] * 3 + [(0, height - 21), (0, width - 19)]
    mirrored = [torch.from_numpy(np.pad(image.numpy(), far, "reflect")) for image in (x, condition)]
    with torch.no_grad():
        out = ask(net, x, condition, log_snr)
        whole = ask(net, mirrored[0], mirrored[1], log_snr)
    assert out.shape == x.shape
    torch.testing.assert_close(out, whole[..., :21, :19], rtol=1e-4, atol=1e-5)


@every_row("name", SMALL)
def test_a_regressor_needs_no_state_and_no_time(name):
    net = _small(name, state=0, out=3, noisy=False)
    _, condition, _ = _inputs(1, 16, 16)
    with torch.no_grad():
        assert ask(net, None, condition, None).shape == (2, 3, 1, 16, 16)


@every_row("name", SMALL)
def test_every_weight_gets_a_gradient(name):
    net, (x, condition, log_snr) = _small(name), _inputs(1, 16, 16)
    ask(net, x, condition, log_snr).square().mean().backward()
    without = [
        key for key, parameter in net.named_parameters() if not parameter.grad.abs().max() > 0
    ]
    assert without == []


@every_row("name", SMALL)
def test_the_condition_and_the_state_may_come_in_one_piece(name):
    net, (x, condition, log_snr) = _small(name), _inputs(1, 16, 16)
    parts = (x, condition) if name == "dit" else (condition, x)
    with torch.no_grad():
        torch.testing.assert_close(
            ask(net, None, torch.cat(parts, 1), log_snr), ask(net, x, condition, log_snr)
        )


def test_a_fresh_dit_gives_exactly_zero_and_the_others_do_not():
    for name, settings in SMALL.items():
        torch.manual_seed(0)
        net = settings.build(channels(1, 2, 1))
        with torch.no_grad():
            silent = bool((ask(net, *_inputs(1, 16, 16)) == 0).all())
        assert silent == (name == "dit")


def test_fresh_weights_have_the_published_spreads():
    torch.manual_seed(0)
    conv, dense, attention = Conv(32, 64, 3), Dense(256, 128), Attention(128, 4)
    for weight, fans in (
        (conv.weight, 9 * (32 + 64)),
        (dense.weight, 256 + 128),
        (attention.qkv.weight, 128 + 128),
        (attention.out.weight, 128 + 128),
    ):
        bound = (6 / fans) ** 0.5  # Glorot and Bengio 2010, eq. 16
        assert bound * 0.99 < weight.abs().max() <= bound
        assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.02)
    dit = dataclasses.replace(SMALL["dit"], width=256, heads=4, frequencies=256).build(
        channels(1, 1, 1)
    )
    block = dit.blocks[0]
    assert block.attention.qkv.weight.std().item() == pytest.approx(
        256**-0.5, rel=0.02
    )  # LeCun, after the cut
    assert dit.time.first.weight.abs().max() <= 0.04
    assert dit.time.first.weight.std().item() == pytest.approx(0.02 * 0.8796, rel=0.02)
    assert block.modulation.weight.abs().max() == 0 == dit.final.out.weight.abs().max()
    assert all(
        parameter.abs().max() == 0
        for key, parameter in dit.named_parameters()
        if key.endswith("bias")
    )


@every_row(
    ("settings", "words"),
    [
        (ADM(width=30), "net.heads: expected a divisor of 30 channels, found 4"),
        (PlainUNet(width=16), "net.groups: expected a divisor of 16 channels, found 32"),
        (DiT(width=64, heads=3), "net.heads: expected a divisor of 64 channels, found 3"),
        (
            UViT(width=6, heads=2, multipliers=(1,)),
            "net.width: expected a transformer of a multiple of 4",
        ),
    ],
)
def test_sizes_that_contradict_each_other_are_refused(settings, words):
    with pytest.raises(BadInput, match=words):
        settings.build(channels(1, 1, 1))


@every_row("name", SMALL)
def test_a_configuration_code_is_refused(name):
    with pytest.raises(BadInput, match="takes a configuration code"):
        SMALL[name].build(channels(2, 0, 2, code=2))


@every_row("name", SMALL)
def test_bfloat16_stays_near_float32(name):
    net, (x, condition, log_snr) = _small(name), _inputs(1, 32, 32)
    with torch.no_grad():
        exact = ask(net, x, condition, log_snr)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = ask(net, x, condition, log_snr)
    assert rounded.dtype == torch.float32
    assert (rounded - exact).norm() < 1.5e-2 * exact.norm()


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_a_compiled_network_gives_the_same_gradients(name):
    torch.compiler.reset()
    net, inputs, found = _small(name), _inputs(1, 16, 16), []
    for call in (net, torch.compile(net, backend="aot_eager", fullgraph=True)):
        net.zero_grad()
        ask(call, *inputs).square().mean().backward()
        found.append([parameter.grad.clone() for parameter in net.parameters()])
    for plain, compiled in zip(*found):
        torch.testing.assert_close(compiled, plain, rtol=1e-3, atol=1e-4)


def test_a_dit_of_wavelets_is_a_dit_of_their_bands():
    dit = dataclasses.replace(SMALL["dit"], patch=4)
    net = _random(dataclasses.replace(dit, wavelet=True).build(channels(1, 1, 1)))
    of_bands = dit.build(channels(4, 4, 4)).eval()
    of_bands.load_state_dict(net.state_dict())
    h, embedding = torch.randn(2, 16, 24, 2), torch.randn(2, 32)
    with torch.no_grad():
        bands = of_bands.slices(wavelet.analyse(h), embedding)
        torch.testing.assert_close(net.slices(h, embedding), wavelet.synthesise(bands))
    assert net.slices(h, embedding).shape == (2, 16, 24, 1)
