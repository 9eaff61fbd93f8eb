"""Published weights: the reference outputs of all four networks, and every way in which a file may be wrong."""

import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rows import every_row
from voxlate.base.errors import BadInput
from voxlate.base.files import read_json
from voxlate.exchange.published import detect, import_run, layout, read_weights
from voxlate.scans.images.grid import Volume
from voxlate.science.nets.interface import Channels, NetworkInput
from voxlate.science.nets.xmodality.adm import ADM
from voxlate.science.nets.xmodality.dit import DiT
from voxlate.science.nets.xmodality.unet import PlainUNet
from voxlate.science.nets.xmodality.uvit import UViT
from voxlate.training.model import load

NETS = ("unet", "unet_time", "adm", "uvit", "dit")
SMALL = {
    "unet": PlainUNet(width=32),
    "adm": ADM(width=8, multipliers=(1, 3), heads=2),
    "uvit": UViT(width=8, multipliers=(2, 2), heads=2, depth=3, vit_heads=1, mlp_ratio=3),
    "dit": DiT(patch=4, width=24, depth=2, heads=3, mlp_ratio=2, frequencies=64),
}


@pytest.fixture(scope="module")
def reference(shared) -> Path:
    return shared / "reference" / "xmodality"


def _channels(joined: int, noisy: bool) -> Channels:
    return Channels(images={"image": joined}, out=1, noisy=noisy)


def ask(
    net: nn.Module, noisy: Tensor | None, condition: Tensor | None, log_snr: Tensor | None
) -> Tensor:
    return net(
        NetworkInput({} if condition is None else {"image": condition}, noisy, log_snr=log_snr)
    ).image


def load_network(path: Path) -> nn.Module:
    """The network of a published file with its weights, in evaluation mode."""
    found, state = read_weights(path)
    net = found.build()
    net.load_state_dict(state, assign=True)
    return net.eval()


def _most(name: str) -> float:
    return 5e-5 if name.startswith("unet") else 2e-5


def _difference(path: Path, io: dict[str, Tensor], suffix: str = "") -> float:
    """The largest absolute difference from the reference output."""
    images = {
        key.removesuffix(suffix): values for key, values in io.items() if key.endswith(suffix)
    }
    noisy, condition, expected = (
        None if key not in images else images[key].permute(0, 3, 1, 2)[:, :, None]
        for key in ("noisy", "condition", "output")
    )
    with torch.no_grad():
        found = ask(load_network(path), noisy, condition, images.get("log_snr"))
    return (found - expected).abs().max().item()


@every_row("suffix", ["", "_rect"])
@every_row("name", NETS)
def test_small_networks_reproduce_the_reference_outputs(reference, name, suffix):
    io = load_file(reference / "dev" / f"{name}_io.safetensors")
    io = {key: values for key, values in io.items() if key.endswith("_rect") == bool(suffix)}
    assert _difference(reference / "dev" / f"{name}.safetensors", io, suffix) < _most(name)


def _from_recipe(shapes: dict[str, list[int]]) -> dict[str, Tensor]:
    """The parameters that the reference outputs at full size were made with: each from its own key."""
    tensors = {}
    for key, shape in shapes.items():
        draw = np.random.Generator(np.random.PCG64(zlib.crc32(key.encode())))
        z = draw.standard_normal(shape, dtype=np.float32)
        if key.endswith("kernel"):
            z *= np.float32(1 / np.sqrt(np.prod(shape[:-1])))
        else:
            z = z * np.float32(0.1) + np.float32(key.endswith("scale"))
        tensors[key] = torch.from_numpy(z)
    return tensors


@pytest.mark.slow
@pytest.mark.parametrize("name", ["unet", "adm", "uvit", "dit"])
def test_networks_of_the_published_size_reproduce_the_reference_outputs(reference, name, tmp_path):
    published = read_json(reference / "default_params.json")[name]
    save_file(_from_recipe(published["params"]), tmp_path / "full.safetensors")
    io = load_file(reference / "dev" / f"full_{name}_io.safetensors")
    difference = _difference(tmp_path / "full.safetensors", io)
    print(f"{name}: {difference:.2g}")
    assert difference < _most(name)


@pytest.mark.parametrize("name", ["adm", "uvit", "dit"])
def test_bfloat16_of_the_reference_networks_is_within_a_hundredth(reference, name):
    io = load_file(reference / "dev" / f"{name}_io.safetensors")
    noisy, condition = (io[key].permute(0, 3, 1, 2)[:, :, None] for key in ("noisy", "condition"))
    expected = io["output"].permute(0, 3, 1, 2)[:, :, None]
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        rounded = ask(
            load_network(reference / "dev" / f"{name}.safetensors"), noisy, condition, io["log_snr"]
        )
    assert (rounded - expected).norm() < 1e-2 * expected.norm()


@every_row("name", NETS)
def test_the_published_keys_and_shapes_are_ours(reference, name):
    published = read_json(reference / "default_params.json")[name]["params"]
    others = {"adm": ADM(), "uvit": UViT(), "dit": DiT()}
    settings = others.get(name, PlainUNet())
    noisy = name != "unet"
    with torch.device("meta"):
        net = settings.build(_channels(int(noisy) + 1, noisy))
    assert {key: slot.shape for key, slot in layout(net).items()} == {
        key: tuple(s) for key, s in published.items()
    }


def _file(path: Path, name: str, sources: int = 1, noisy: bool | None = None, **changes) -> Path:
    """A file in the published style with made-up numbers; changes: key -> tensor, or None to leave it out."""
    noisy = name != "unet" if noisy is None else noisy
    torch.manual_seed(1)
    net = SMALL[name].build(_channels(int(noisy) + sources, noisy))
    tensors = {key: 0.2 * torch.randn(slot.shape) for key, slot in layout(net).items()}
    tensors |= changes
    save_file({key: values for key, values in tensors.items() if values is not None}, path)
    return path


@every_row("sources", [1, 3])
@every_row(
    ("name", "noisy"),
    [("unet", False), ("unet", True), ("adm", True), ("uvit", True), ("dit", True)],
)
def test_network_and_sizes_are_read_from_the_file(name, noisy, sources, tmp_path):
    arrays = load_file(_file(tmp_path / "w.safetensors", name, sources, noisy))
    found = detect({key: tuple(values.shape) for key, values in arrays.items()}, "w")
    assert found.net == SMALL[name]
    assert (found.ins, found.outs, found.noisy) == (sources + noisy, 1, noisy)


BAD = {
    "unknown key": ({"Extra_0/kernel": torch.zeros(2)}, "found the unknown key 'Extra_0/kernel'"),
    "missing key": ({"RMSNorm_1/scale": None}, "found no key 'RMSNorm_1/scale'"),
    "missing key that tells a size": ({"Conv_0/kernel": None}, "Conv_0/kernel"),
    "wrong shape": (
        {"RMSNorm_1/scale": torch.zeros(5)},
        r"'RMSNorm_1/scale' of shape \(24,\), found \(5,\)",
    ),
    "wrong number of dimensions": ({"Conv_0/kernel": torch.zeros(3)}, "with 4 dimensions"),
    "transposed": ({"Dense_0/kernel": torch.zeros(32, 8)}, r"of shape \(8, 32\), found \(32, 8\)"),
    "heads that do not fit": (
        {"MultiHeadDotProductAttention_0/query/kernel": torch.zeros(8, 3, 3)},
        "found 3",
    ),
    "a block too many": ({"ResNetBlock_9/Dense_7/bias": torch.zeros(2)}, "unknown key"),
}


@every_row("case", BAD)
def test_a_file_that_is_not_as_published_is_refused_by_name(case, tmp_path):
    changes, words = BAD[case]
    path = _file(tmp_path / "adm.safetensors", "adm", **changes)
    with pytest.raises(BadInput, match=words) as error:
        load_network(path)
    assert "\n" not in str(error.value)


def test_a_file_that_is_no_weights_is_refused(tmp_path):
    path = tmp_path / "w.safetensors"
    with pytest.raises(BadInput, match="no such file"):
        load_network(path)
    path.write_bytes(b"no tensors at all")
    with pytest.raises(BadInput, match="in a safetensors file"):
        load_network(path)
    save_file({"conv.weight": torch.zeros(3)}, path)
    with pytest.raises(
        BadInput, match=r"one of the published networks .* found other weights \(conv.weight"
    ):
        load_network(path)
    whole = _file(path, "dit").read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadInput, match="in a safetensors file"):
        load_network(path)


@pytest.mark.slow
@every_row("name", ["unet", "dit"])
def test_an_imported_file_is_a_run_that_synthesises(name, tmp_path):
    weights = _file(tmp_path / f"{name}.safetensors", name)
    run = import_run(weights, tmp_path / "run", {"synth.steps": "2"} if name != "unet" else None)
    data = np.random.default_rng(0).uniform(0, 900, (1, 2, 18, 20)).astype(np.float32)
    made = load(run.folder).synthesise(
        {"tof": Volume(data, np.diag([1.0, 1, 2, 1]), "a.u.", "tof")}
    )
    assert made.volume.data.shape == data.shape
    assert made.volume.unit == "HU"
    assert -50 <= made.volume.data.min() < made.volume.data.max() <= 350
    noted = read_json(run.provenance)["data"]["imported"]
    assert noted["file"] == weights.name
    assert len(noted["sha256"]) == 64


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


@pytest.mark.slow
@every_row("name", STORED)
@every_row("kind", ["unet", "adm"])
def test_an_imported_network_sees_the_slices_of_the_lps_array_and_answers_on_the_scan_s_grid(
    shared, kind, name, tmp_path
):
    """Convolutions and attention along rows tell rows from columns; the noise is next to none, so nothing is drawn."""
    left, back, (x, y, z) = STORED[name]
    image = nib.load(shared / "data" / name).slicer[x : x + 32, y : y + 24, z : z + 2]
    nib.save(image, tmp_path / "tof.nii.gz")
    weights = _file(tmp_path / "w.safetensors", kind)
    changes = {"synth.slices": '{kind="whole"}'}
    changes |= (
        {"synth.steps": "1", "synth.sampler": "ddim", "synth.temperature": "1e-30"}
        if kind == "adm"
        else {}
    )
    run = import_run(weights, tmp_path / "run", {**changes, "train.precision": "float32"})
    made = load(run.folder).synthesise({"tof": tmp_path / "tof.nii.gz"}).volume

    raw = image.get_fdata(dtype=np.float32)[::left, ::back]
    planes = torch.from_numpy(raw.transpose(2, 0, 1).copy())  # [:, :, k], rows = x, columns = y
    low, high = planes.amin((1, 2), keepdim=True), planes.amax((1, 2), keepdim=True)
    seen = ((planes - low) / (high - low) * 2 - 1)[:, None, None]

    def answer(seen):
        net = load_network(weights)
        with torch.no_grad():
            if kind == "unet":
                out = ask(net, None, seen, None)
            else:  # v at x = 0 and log-SNR -15: x0 = -sigma v
                out = -ask(net, torch.zeros_like(seen), seen, torch.full((2,), -15.0))
        return ((out[:, 0, 0].clamp(-1, 1) + 1) * 200 - 50).numpy()

    expected = answer(seen).transpose(1, 2, 0)[::left, ::back]  # as the file is stored
    ours = made.data[0].transpose(2, 1, 0)
    assert np.abs(ours - expected).max() < 0.01
    turned = answer(seen.mT).transpose(2, 1, 0)[::left, ::back]
    assert np.abs(turned - expected).mean() > 0.1, "the network must tell rows from columns"


def test_an_import_for_other_modalities_needs_as_many_channels(tmp_path):
    weights = _file(tmp_path / "w.safetensors", "adm", sources=2)
    with pytest.raises(
        BadInput, match="1 source and 1 target channels as in the recipe, found 2 and 1"
    ):
        import_run(weights, tmp_path / "run")
    changes = {"data.source": '["tof", "t1"]', "intensity.t1.kind": '"minmax"'}
    imported = load(import_run(weights, tmp_path / "run", changes).folder)
    assert imported.facts.data.source == ["tof", "t1"]
