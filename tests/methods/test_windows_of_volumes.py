"""A diffusion model of volumes that denoises in windows of slices."""

import torch

from voxlate.batch import Batch
from voxlate.diffusion.noise import Noise
from voxlate.diffusion.sample import SamplerSettings
from voxlate.diffusion.schedules import Cosine
from voxlate.diffusion.windows import Windows
from voxlate.methods.diffusion import Diffusion, DiffusionSettings
from voxlate.methods.tasks import Translate
from voxlate.nets.interface import Channels
from voxlate.nets.unet import UNet


def test_a_network_of_slices_draws_the_same_volume_in_windows_as_whole():
    torch.manual_seed(0)
    net = UNet(
        width=4, multipliers=(1, 2), blocks=1, groups=2, middle_attention=False, zero_init=False
    )
    method = Diffusion(
        DiffusionSettings(schedule=Cosine()),
        net.build(Channels({"a": 1}, 1, 1, noisy=True)),
        Translate(),
        1,
    ).eval()
    source = torch.randn(2, 1, 7, 8, 8)
    batch = Batch(
        source,
        torch.ones_like(source),
        torch.ones(2, 1, dtype=torch.bool),
        torch.arange(14).reshape(2, 7),
    )
    whole, parts = (
        method.synthesise(batch, Noise(0, batch.item), SamplerSettings(steps=3, windows=windows))
        for windows in (None, Windows(size=4, overlap=2))
    )
    assert whole.std() > 0.1
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-4)
