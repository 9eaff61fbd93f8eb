"""Published weights: the reference outputs of all four networks, and every way in which a file may be wrong."""

import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from refusals import refuses
from rows import every_row, slow
from voxlate.base.files import read_json
from voxlate.exchange.published import detect, import_run, layout, read_weights
from voxlate.science.nets.interface import Channels, NetworkInput
from voxlate.science.nets.xmodality.adm import ADM
from voxlate.science.nets.xmodality.baseline_unet import PlainUNet
from voxlate.science.nets.xmodality.dit import DiT
from voxlate.science.nets.xmodality.uvit import UViT
from voxlate.training.load import load

NETS = ("unet", "unet_time", "adm", "uvit", "dit")
SMALL = {
    "unet": PlainUNet(width=32),
    "adm": ADM(width=8, multipliers=(1, 3), heads=2),
    "uvit": UViT(width=8, multipliers=(2, 2), heads=2, depth=3, vit_heads=1),
    "dit": DiT(patch=4, width=24, depth=2, heads=3),
}


@pytest.fixture(scope="module")
def reference(shared) -> Path:
    return shared / "reference" / "xmodality"


def _channels(joined: int, noisy: bool) -> Channels:
    return Channels(images={"image": joined}, out=1, noisy=noisy)


def ask(net: nn.Module, noisy: Tensor | None, condition: Tensor, log_snr: Tensor | None) -> Tensor:
    return net(NetworkInput({"image": condition}, noisy, log_snr=log_snr)).image


def load_network(path: Path) -> nn.Module:
    """The network of a published file with its weights, in evaluation mode."""
    found, state = read_weights(path)
    net = found.build()
    net.load_state_dict(state, assign=True)
    return net.eval()


@every_row("suffix", ["", "_rect"])
@every_row("name", NETS)
def test_small_networks_reproduce_the_reference_outputs(reference, name, suffix):
    io = load_file(reference / "dev" / f"{name}_io.safetensors")
    noisy, condition, expected = (
        io[key + suffix].permute(0, 3, 1, 2)[:, :, None] if key + suffix in io else None
        for key in ("noisy", "condition", "output")
    )
    net = load_network(reference / "dev" / f"{name}.safetensors")
    with torch.no_grad():
        found = ask(net, noisy, condition, io.get("log_snr" + suffix))
    assert (found - expected).abs().max() < (5e-5 if name.startswith("unet") else 2e-5)


@every_row(
    "name, settings",
    [
        ("unet", PlainUNet()),
        ("unet_time", PlainUNet()),
        ("adm", ADM()),
        ("uvit", UViT()),
        ("dit", DiT()),
    ],
)
def test_the_published_keys_and_shapes_are_ours(reference, name, settings):
    published = read_json(reference / "default_params.json")[name]["params"]
    noisy = name != "unet"
    with torch.device("meta"):
        net = settings.build(_channels(int(noisy) + 1, noisy))
    assert {key: [*slot.shape] for key, slot in layout(net).items()} == published


def _file(path: Path, name: str, sources: int = 1, noisy: bool = True, **changes) -> Path:
    """A file in the published style with made-up numbers; changes: key -> tensor, or None to leave it out."""
    torch.manual_seed(1)
    net = SMALL[name].build(_channels(noisy + sources, noisy))
    tensors = {key: 0.2 * torch.randn(slot.shape) for key, slot in layout(net).items()} | changes
    save_file({key: values for key, values in tensors.items() if values is not None}, path)
    return path


@every_row("sources", [1, 3])
@every_row(
    "name, noisy",
    [("unet", False), ("unet", True), ("adm", True), ("uvit", True), ("dit", True)],
)
def test_network_and_sizes_are_read_from_the_file(name, noisy, sources, tmp_path):
    arrays = load_file(_file(tmp_path / "w.safetensors", name, sources, noisy))
    found = detect({key: tuple(values.shape) for key, values in arrays.items()}, "w")
    assert found.net == SMALL[name]
    assert (found.ins, found.outs, found.noisy) == (sources + noisy, 1, noisy)


@every_row(
    "key, value, words",
    [
        ("Extra_0/kernel", torch.zeros(2), "found the unknown key 'Extra_0/kernel'"),
        ("RMSNorm_1/scale", None, "found no key 'RMSNorm_1/scale'"),
        ("Conv_0/kernel", None, "Conv_0/kernel"),  # which tells a size
        ("RMSNorm_1/scale", torch.zeros(5), r"'RMSNorm_1/scale' of shape \(24,\), found \(5,\)"),
        ("Conv_0/kernel", torch.zeros(3), "with 4 dimensions"),
        ("Dense_0/kernel", torch.zeros(32, 8), r"of shape \(8, 32\), found \(32, 8\)"),
        ("MultiHeadDotProductAttention_0/query/kernel", torch.zeros(8, 3, 3), "found 3"),  # heads
        ("ResNetBlock_9/Dense_7/bias", torch.zeros(2), "unknown key"),
    ],
)
def test_a_file_that_is_not_as_published_is_refused_by_name(key, value, words, tmp_path):
    path = _file(tmp_path / "adm.safetensors", "adm", **{key: value})
    with refuses(words) as error:
        load_network(path)
    assert "\n" not in str(error.value)


@every_row(
    "write, words",
    [
        (lambda path: None, "no such file"),
        (lambda path: path.write_bytes(b"no tensors at all"), "in a safetensors file"),
        (lambda path: save_file({"conv.weight": torch.zeros(3)}, path), "found other weights"),
        (lambda path: os.truncate(_file(path, "dit"), 30_000), "in a safetensors file"),
    ],
)
def test_a_file_that_is_no_weights_is_refused(tmp_path, write, words):
    write(tmp_path / "w.safetensors")
    with refuses(words):
        load_network(tmp_path / "w.safetensors")


def test_an_imported_network_gives_the_same_numbers_inside_its_run(tmp_path):
    weights = _file(tmp_path / "adm.safetensors", "adm")
    inside = load(import_run(weights, tmp_path / "run").folder).network.method.net
    x, image = torch.randn(2, 2, 1, 1, 12, 12)
    log_snr = torch.tensor([0.5, -4.0])
    alone = load_network(weights)
    with torch.no_grad():
        torch.testing.assert_close(ask(alone, x, image, log_snr), ask(inside, x, image, log_snr))


STORED = {  # stored as LPS and as RAS: steps to LPS, and where a piece of the head begins
    "topcow_pair/mra.nii.gz": (1, 1, (50, 70, 10)),
    "native_unaligned/chris/mra.nii.gz": (-1, -1, (70, 120, 30)),
}


@slow
@every_row("name", STORED)
def test_an_imported_network_sees_the_slices_of_the_lps_array_and_answers_on_the_scan_s_grid(
    shared, name, tmp_path
):
    """Convolutions tell rows from columns."""
    left, back, (x, y, z) = STORED[name]
    image = nib.load(shared / "data" / name).slicer[x : x + 32, y : y + 24, z : z + 2]
    nib.save(image, tmp_path / "tof.nii.gz")
    weights = _file(tmp_path / "w.safetensors", "unet", noisy=False)
    changes = {"synth.slices": '{kind="whole"}', "train.precision": "float32"}
    run = import_run(weights, tmp_path / "run", changes)
    made = load(run.folder).synthesise({"tof": tmp_path / "tof.nii.gz"}).volume
    assert made.unit == "HU"
    noted = read_json(run.provenance)["data"]["imported"]
    assert (noted["file"], len(noted["sha256"])) == (weights.name, 64)

    raw = image.get_fdata(dtype=np.float32)[::left, ::back]
    planes = torch.from_numpy(raw.transpose(2, 0, 1).copy())  # [:, :, k], rows = x, columns = y
    low, high = planes.amin((1, 2), keepdim=True), planes.amax((1, 2), keepdim=True)
    seen = ((planes - low) / (high - low) * 2 - 1)[:, None, None]

    def answer(seen):
        with torch.no_grad():
            out = ask(load_network(weights), None, seen, None)[:, 0, 0]
        return ((out.clamp(-1, 1) + 1) * 200 - 50).numpy()

    expected = answer(seen).transpose(1, 2, 0)[::left, ::back]  # as the file is stored
    assert np.abs(made.data[0].transpose(2, 1, 0) - expected).max() < 0.01
    turned = answer(seen.mT).transpose(2, 1, 0)[::left, ::back]
    assert np.abs(turned - expected).mean() > 0.1, "the network must tell rows from columns"


def test_an_import_for_other_modalities_needs_as_many_channels(tmp_path):
    weights = _file(tmp_path / "w.safetensors", "adm", sources=2)
    with refuses("1 source and 1 target channels as in the recipe, found 2 and 1"):
        import_run(weights, tmp_path / "run")
    changes = {"data.source": '["tof", "t1"]', "intensity.t1.kind": '"minmax"'}
    imported = load(import_run(weights, tmp_path / "run", changes).folder)
    assert imported.facts.data.source == ["tof", "t1"]
