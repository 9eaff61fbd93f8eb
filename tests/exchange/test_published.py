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
from voxlate.exchange.published import import_run, layout, read_weights
from voxlate.science.nets.dit import DiT
from voxlate.science.nets.interface import Channels, NetworkInput
from voxlate.science.nets.xmodality_unets import ADM, PlainUNet, UViT
from voxlate.training import recipe
from voxlate.training.load import load

NETS = ("unet", "unet_time", "adm", "uvit", "dit")
DEV = {  # keys of the networks of the reference outputs, which are smaller than the published ones
    "unet": {"net.width": 32, "net.multipliers": [1, 2, 4]},
    "adm": {"net.width": 16, "net.multipliers": [1, 2, 4], "net.heads": 4},
    "uvit": {"net.width": 16, "net.multipliers": [1, 2, 4], "net.heads": 4, "net.depth": 2, "net.vit_heads": 4},
    "dit": {"net.patch": 8, "net.width": 64, "net.depth": 3, "net.heads": 4},
}  # fmt: skip
DEV["unet_time"] = {"net.kind": PlainUNet.kind, **DEV["unet"]}
RECIPES = {name: f"tof_to_cta_{name}" for name in NETS} | {"unet_time": "tof_to_cta_adm"}


@pytest.fixture(scope="module")
def reference(shared) -> Path:
    return shared / "reference" / "xmodality"


def _channels(joined: int, noisy: bool) -> Channels:
    return Channels(images={"image": joined}, out=1, noisy=noisy)


def ask(net: nn.Module, noisy: Tensor | None, condition: Tensor, log_snr: Tensor | None) -> Tensor:
    return net(NetworkInput({"image": condition}, noisy, log_snr=log_snr)).image


def load_network(path: Path, name: str) -> nn.Module:
    """The small network of a published file with its weights, in evaluation mode."""
    found, state = read_weights(path, RECIPES[name], DEV[name])
    with torch.device("meta"):
        net = found.build().net
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
    net = load_network(reference / "dev" / f"{name}.safetensors", name)
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


def _file(path: Path, name: str, noisy: bool = True, **changes) -> Path:
    """A small file in the published style with made-up numbers; changes: key -> tensor, or None to leave it out."""
    torch.manual_seed(1)
    made = recipe.read(f"tof_to_cta_{name}", DEV[name])
    with torch.device("meta"):
        net = made.net.build(_channels(noisy + 1, noisy))
    tensors = {key: 0.2 * torch.randn(slot.shape) for key, slot in layout(net).items()} | changes
    save_file({key: values for key, values in tensors.items() if values is not None}, path)
    return path


@every_row(
    "key, value, words",
    [
        ("Extra_0/kernel", torch.zeros(2), "found the unknown key 'Extra_0/kernel'"),
        ("RMSNorm_1/scale", None, "found no key 'RMSNorm_1/scale'"),
        ("RMSNorm_1/scale", torch.zeros(5), r"'RMSNorm_1/scale' of shape \(32,\), found \(5,\)"),
        ("Dense_0/kernel", torch.zeros(64, 8), r"of shape \(16, 64\), found \(64, 8\)"),
    ],
)
def test_a_file_that_is_not_as_published_is_refused_by_name(key, value, words, tmp_path):
    path = _file(tmp_path / "adm.safetensors", "adm", **{key: value})
    with refuses(words) as error:
        load_network(path, "adm")
    assert "\n" not in str(error.value)


@every_row(
    "write, words",
    [
        (lambda path: None, "no such file"),
        (lambda path: path.write_bytes(b"no tensors at all"), "in a safetensors file"),
        (lambda path: save_file({"conv.weight": torch.zeros(3)}, path), "found no key"),
        (lambda path: os.truncate(_file(path, "dit"), 30_000), "in a safetensors file"),
    ],
)
def test_a_file_that_is_no_weights_is_refused(tmp_path, write, words):
    write(tmp_path / "w.safetensors")
    with refuses(words):
        load_network(tmp_path / "w.safetensors", "dit")


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
    run = import_run(weights, tmp_path / "run", RECIPES["unet"], DEV["unet"] | changes)
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
            out = ask(load_network(weights, "unet"), None, seen, None)[:, 0, 0]
        return ((out.clamp(-1, 1) + 1) * 200 - 50).numpy()

    expected = answer(seen).transpose(1, 2, 0)[::left, ::back]  # as the file is stored
    assert np.abs(made.data[0].transpose(2, 1, 0) - expected).max() < 0.01
    turned = answer(seen.mT).transpose(2, 1, 0)[::left, ::back]
    assert np.abs(turned - expected).mean() > 0.1, "the network must tell rows from columns"


def test_a_file_of_another_size_or_of_more_channels_than_the_recipe_s_is_refused(tmp_path):
    weights = _file(tmp_path / "w.safetensors", "adm")
    with refuses("found"):
        import_run(weights, tmp_path / "run", RECIPES["adm"])
    two = {"data.source": '["tof", "t1"]', "intensity.t1.kind": '"minmax"'}
    with refuses(r"'Conv_0/kernel' of shape \(7, 7, 3, 16\), found \(7, 7, 2, 16\)"):
        import_run(weights, tmp_path / "run", RECIPES["adm"], DEV["adm"] | two)
