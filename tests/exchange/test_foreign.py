"""Models of other packages: the same image as the package's own module, and every way in which a folder may be wrong."""

import json
import re
import shlex
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from refusals import refuses
from rows import every_row, slow
from voxlate.base.files import read_json
from voxlate.exchange.foreign import Preprocessing
from voxlate.exchange.foreign_formats import import_model
from voxlate.exchange.pretrained import net_changes
from voxlate.science.diffusion.schedules import CosineBetas, LinearBetas
from voxlate.science.nets.interface import NetworkInput
from voxlate.training import recipe as recipes
from voxlate.training.load import load
from voxlate.training.run import Run
from voxlate.training.weights import unfit_network

MOST = 1e-4
STATED = """
data = {{ source = {source}, target = ["ct"], patch = {patch}, axes = "SAR"{more} }}
net = {{ {net} }}
[intensity]
ct = {{ kind = "window", low = -1000, high = 1000 }}
{maps}
"""
RANGES = "input_range = { t1 = [0, 1] }, output_range = [0, 2]"
UNET = {
    "block_out_channels": [8, 16],
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
    "norm_num_groups": 4,
    "attention_head_dim": None,
    "layers_per_block": 1,
    "sample_size": None,
}


def random(module: nn.Module) -> nn.Module:
    """A module with weights of which none is 0, in evaluation mode."""
    torch.manual_seed(1)
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point():
            factor = tensor.ndim == 1 and name.endswith(("weight", "running_var"))
            if tensor.ndim < 2:
                tensor.uniform_(0.5 if factor else -0.2, 1.5 if factor else 0.2)
            elif tensor.any():
                tensor.mul_(1.5)
            else:
                tensor.normal_(std=0.1)
    return module.eval().requires_grad_(False)


def assert_near(found: Tensor, expected: Tensor) -> None:
    """Ours is the module's image, which is not flat."""
    assert expected.std() > 0.05
    assert (found - volumes(expected)).abs().max() < MOST


def stated(
    folder: Path, net: str = "", patch=(1, 16, 16), source=("t1",), more=""
) -> Preprocessing:
    """A recipe that states the inputs and the preprocessing."""
    maps = "\n".join(f'{name} = {{ kind = "minmax", per = "volume" }}' for name in source)
    path = folder / "stated.toml"
    path.write_text(
        STATED.format(source=json.dumps(source), patch=list(patch), net=net, maps=maps, more=more)
    )
    return Preprocessing(str(path), any_spacing=True)


def as_ours(x: Tensor, high: float) -> Tensor:
    """Values of a range from 0 in voxlate's network units."""
    return x * 2 / high - 1


def volumes(x: Tensor) -> Tensor:
    return x[:, :, None] if x.dim() == 4 else x


def network(source: str, place: Path, told: Preprocessing) -> Callable[..., Tensor]:
    """The network inside an imported run, as a function of images by name."""
    out = place.parent / f"{place.name}_run"
    net = load(import_model(source, place, told, out).folder).network.method.net

    def _run(log_snr: Tensor | None = None, state: Tensor | None = None, **images: Tensor):
        given = {name: volumes(image) for name, image in images.items()}
        noisy = None if state is None else volumes(state)
        return net(NetworkInput(given, noisy, log_snr=log_snr)).image.detach()

    return _run


# Writers of the packages' own formats, on random weights.


def bundle(folder: Path, network_def: dict[str, Any], module: nn.Module, **more: Any) -> Path:
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    (folder / "configs" / "inference.json").write_text(
        json.dumps({"network_def": network_def, **more})
    )
    torch.save(module.state_dict(), folder / "models" / "model.pt")
    return folder


def basic_unet(folder: Path, dims: int = 2) -> tuple[Path, nn.Module]:
    nets = pytest.importorskip("monai.networks.nets")
    keys = {"spatial_dims": dims, "in_channels": 1, "out_channels": 1}
    keys["features"] = [4, 4, 8, 8, 8, 4]
    module = random(nets.BasicUNet(**keys))
    return bundle(folder / "basic", {"_target_": "BasicUNet", **keys}, module), module


def diffusers_unet(folder: Path, scheduler: str = "DDIMScheduler", **keys: Any):
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(1)
    module = random(diffusers.UNet2DModel(in_channels=2, out_channels=1, **UNET))
    module.save_pretrained(folder / "unet")
    schedule = getattr(diffusers, scheduler)(**keys)
    schedule.save_pretrained(folder / "unet")
    return folder / "unet", module, schedule


def nnunet(
    folder: Path, kind: str = "PlainConvUNet", dims: int = 2, inputs: int = 1
) -> tuple[Path, nn.Module]:
    unets = pytest.importorskip("dynamic_network_architectures.architectures.unet")
    repeats = "n_blocks_per_stage" if kind.startswith("Res") else "n_conv_per_stage"
    keys = {
        "n_stages": 3,
        "features_per_stage": [4, 8, 8],
        "kernel_sizes": [[3] * dims] * 3,
        "strides": [[1] * dims, [2] * dims, [*[1] * (dims - 2), 2, 2]],
        repeats: [1, 2, 2],
        "n_conv_per_stage_decoder": [1, 1],
        "conv_bias": True,
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "nonlin_kwargs": {"inplace": True},
    }
    conv = {2: nn.Conv2d, 3: nn.Conv3d}[dims]
    norm = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}[dims]
    layers = {"conv_op": conv, "norm_op": norm, "nonlin": nn.LeakyReLU}
    module = random(
        getattr(unets, kind)(
            input_channels=inputs, num_classes=1, deep_supervision=True, **keys, **layers
        )
    )
    names = {name: f"{layer.__module__}.{layer.__name__}" for name, layer in layers.items()}
    architecture = {
        "network_class_name": f"dynamic_network_architectures.architectures.unet.{kind}",
        "arch_kwargs": {**keys, **names, "dropout_op": None, "dropout_op_kwargs": None},
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }
    place = folder / "nnUNetTrainer__nnUNetPlans__own"
    (place / "fold_0").mkdir(parents=True)
    base = {
        "architecture": architecture,
        "spacing": [2.0, 1.0, 1.0],
        "patch_size": [8, 16, 16],
        "normalization_schemes": ["ZScoreNormalization"],
    }
    configurations = {"base": base, "own": {"inherits_from": "base"}}
    plans = {"configurations": configurations, "transpose_forward": [0, 1, 2]}
    (place / "plans.json").write_text(json.dumps(plans))
    names = {str(number): f"scan{number}" for number in range(inputs)}
    (place / "dataset.json").write_text(json.dumps({"channel_names": names, "labels": {}}))
    checkpoint = {"network_weights": module.state_dict(), "init_args": {"configuration": "own"}}
    torch.save({**checkpoint, "current_epoch": 5}, place / "fold_0" / "checkpoint_final.pth")
    module.decoder.deep_supervision = False
    return place, module


@every_row("dims, patch", [(2, (1, 16, 16)), (3, (16, 16, 16))])
@slow
def test_a_basic_unet_of_monai_gives_the_module_s_image_in_its_own_ranges(tmp_path, dims, patch):
    place, module = basic_unet(tmp_path, dims)
    ours = network("monai", place, stated(tmp_path, RANGES, patch))
    image = torch.rand(2, 1, *(16, 48, 32)[-dims:])
    assert_near(ours(t1=as_ours(image, 1)), as_ours(module(image), 2))


@every_row("kind", ("PlainConvUNet", "ResidualEncoderUNet"))
@every_row("dims, patch", [(2, (1, 16, 16)), (3, (8, 16, 16))])
def test_a_network_of_nnunet_s_plans_gives_the_module_s_image(tmp_path, kind, dims, patch):
    place, module = nnunet(tmp_path, kind, dims, inputs=2)
    ranges = "inputs = ['t2', 't1'], input_range = { t1 = [-1, 1], t2 = [-3, 3] }, output_range = [-1, 1]"
    ours = network("nnunet", place, stated(tmp_path, ranges, patch, ("t1", "t2")))
    t1, t2 = torch.randn(2, 1, 1, *patch[-dims:])
    assert_near(ours(t1=t1, t2=t2 / 3), module(torch.cat([t2, t1], dim=1)))


SQUARES = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
COSINE = {"beta_schedule": "squaredcos_cap_v2", "num_train_timesteps": 500}
SCHEDULES = [
    ({"beta_schedule": "linear"}, LinearBetas(), "epsilon", "eps"),
    (SQUARES, LinearBetas(first=0.00085, last=0.012, spacing="sqrt"), "sample", "x0"),
    (COSINE, CosineBetas(count=500), "v_prediction", "v"),
]


@every_row("keys, schedule, prediction, ours", SCHEDULES)
@slow
def test_a_scheduler_of_diffusers_is_ours_to_the_sixth_digit(
    tmp_path, keys, schedule, prediction, ours
):
    place, _, theirs = diffusers_unet(tmp_path, "DDPMScheduler", prediction_type=prediction, **keys)
    folder = import_model("diffusers", place, noisy(tmp_path), tmp_path / "r").folder
    method = load(folder).network.recipe.method
    assert (method.schedule, method.prediction, [*method.clip]) == (schedule, ours, [-1, 1])
    count = schedule.count
    alpha, _ = schedule((torch.arange(count, dtype=torch.float64) + 1) / count)
    assert (alpha**2 - theirs.alphas_cumprod).abs().max() < 1e-6


def noisy(folder: Path) -> Preprocessing:
    return stated(folder, "inputs = ['t1', 'state'], input_range = { t1 = [-1, 1] }")


def log_snr_of(scheduler: Any, index: Tensor) -> Tensor:
    return torch.logit(scheduler.alphas_cumprod.double()[index]).float()


def test_a_unet_of_diffusers_gets_the_index_of_each_noise_level(tmp_path):
    place, module, scheduler = diffusers_unet(tmp_path)
    ours = network("diffusers", place, noisy(tmp_path))
    state, image = torch.randn(2, 3, 1, 16, 12)
    index = torch.tensor([0, 431, 999])
    expected = module(torch.cat([image, state], dim=1), index).sample
    assert_near(ours(log_snr_of(scheduler, index), state, t1=image), expected)


@every_row("dims, patch", [(2, (1, 16, 16)), (3, (4, 16, 16))])
def test_a_diffusion_unet_of_monai_gives_the_module_s_prediction_by_its_scheduler(
    tmp_path, dims, patch
):
    nets = pytest.importorskip("monai.networks.nets")
    schedulers = pytest.importorskip("monai.networks.schedulers")
    keys = {
        "spatial_dims": dims,
        "in_channels": "@channels",
        "out_channels": 1,
        "channels": [8, 16],
        "attention_levels": [False, True],
        "num_head_channels": 8,
        "num_res_blocks": 1,
        "norm_num_groups": 4,
    }
    module = random(nets.DiffusionModelUNet(**(keys | {"in_channels": 2})))
    betas = {"schedule": "scaled_linear_beta", "beta_start": 0.0015, "beta_end": 0.0195}
    place = bundle(
        tmp_path / "bundle",
        {"_target_": "monai.networks.nets.DiffusionModelUNet", **keys},
        module,
        noise_scheduler={"_target_": "DDPMScheduler", **betas, "clip_sample": False},
        channels=2,
    )
    told = stated(tmp_path, "inputs = ['state', 't1'], input_range = { t1 = [-1, 1] }", patch)
    ours = network("monai", place, told)
    state, image = torch.randn(2, 2, 1, *patch[-dims:])
    index = torch.tensor([17, 803])
    log_snr = log_snr_of(schedulers.DDPMScheduler(**betas), index)
    assert_near(ours(log_snr, state, t1=image), module(torch.cat([state, image], dim=1), index))


def autoencoder(folder: Path, package: str, colours: int) -> tuple[Path, nn.Module]:
    """A KL autoencoder that halves the sides once, in its package's format."""
    keys = {"in_channels": colours, "out_channels": colours, "norm_num_groups": 4}
    keys["latent_channels"] = 2
    if package == "diffusers":
        keys |= {
            "down_block_types": ["DownEncoderBlock2D"] * 2,
            "up_block_types": ["UpDecoderBlock2D"] * 2,
            "block_out_channels": [8, 16],
        }
        module = random(pytest.importorskip("diffusers").AutoencoderKL(**keys))
        module.save_pretrained(folder / "vae")
        return folder / "vae", module
    keys |= {
        "spatial_dims": 2,
        "channels": [8, 16],
        "num_res_blocks": [1, 1],
        "attention_levels": [False, False],
    }
    module = random(pytest.importorskip("monai.networks.nets").AutoencoderKL(**keys))
    return bundle(folder / "vae", {"_target_": "AutoencoderKL", **keys}, module), module


@every_row("package", ("diffusers", "monai"))
@every_row("colours", (1, 3))
def test_a_kl_autoencoder_gives_the_moments_and_the_image_of_the_module(tmp_path, package, colours):
    place, module = autoencoder(tmp_path, package, colours)
    told = Preprocessing(changes={"net.range": [0, 1]})
    run = import_model(package, place, told, tmp_path / "run")
    ours = load(run.folder).network.method.net
    x, z = torch.rand(2, 1, 16, 12), torch.randn(2, 2, 8, 6)
    coloured, decoded = x.expand(-1, colours, -1, -1), module.decode(z)
    if package == "diffusers":
        moments, decoded = module.encode(coloured).latent_dist, decoded.sample
        mean, log_variance = moments.mean, moments.logvar
    else:
        mean, sigma = module.encode(coloured)
        log_variance = 2 * sigma.log()
    with torch.no_grad():
        found = *ours.encode(volumes(as_ours(x, 1))), ours.decode(volumes(z))
    expected = mean, log_variance, as_ours(decoded.mean(1, keepdim=True), 1)
    for pair in zip(found, expected):
        assert_near(*pair)


def test_the_line_that_an_imported_autoencoder_prints_makes_a_recipe_take_it(tmp_path, voxlate):
    place, _ = autoencoder(tmp_path, "diffusers", 1)
    line = f"import diffusers {place} --set net.range=[-1,1] --out {tmp_path / 'KL'}"
    said = voxlate(*line.split()).done().out
    run = Run(tmp_path / "KL")
    assert f"--reuse {run.folder}" in said
    flags = shlex.split(net_changes(run))
    changes = dict(change.split("=", 1) for change in flags if change != "--set")
    recipe = recipes.read("make_a_volume_slices_swi_mra", changes)
    stage = next(stage for stage in recipe.all_stages if stage.name == "autoencoder")
    assert unfit_network(run, stage) == ""


def unet_plus_plus(place: Path) -> nn.Module:
    """A checkpoint of KonfAI's U-Net++ of three slices."""
    nets = pytest.importorskip("konfai.models.python.segmentation.unetplusplus")
    keys = {"encoder_name": "resnet18", "decoder_channels": [16, 8, 8, 8, 4]}
    module = random(nets.UNetPlusPlus(dim=2, in_channels=3, activation="tanh", **keys))
    for part in module.train().modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = 1  # statistics of one pass keep the maps of the next from vanishing
    [*module.named_forward(torch.randn(4, 3, 64, 64))]
    torch.save({"epoch": 3, "loss": 0.5, "Model": module.network_states()}, place)
    return module.eval()


def test_a_unet_plus_plus_of_konfai_gets_neighbouring_slices_in_its_own_order(tmp_path):
    place = tmp_path / "checkpoint.pt"
    module = unet_plus_plus(place)
    net = "inputs = ['t1[-1]', 't1', 't1[+1]'], input_range = { t1 = [-1, 1] }, output_range = [-1, 1]"
    options = {"patch": (1, 64, 64), "more": ", stack = 1"}
    told = stated(tmp_path, net, **options)
    assert "found no net.arguments.activation." in refusal("konfai", place, told)
    told = stated(tmp_path, f"{net}, arguments = {{ activation = 'tanh' }}", **options)
    ours = network("konfai", place, told)
    below, image, above = torch.randn(3, 1, 1, 64, 64)
    *_, (_, expected) = module.named_forward(torch.cat([below, image, above], dim=1))
    assert_near(ours(**{"t1": image, "t1[-1]": below, "t1[+1]": above}), expected)


# The generators of pix2pix and CycleGAN, by the structure that their authors published.


class Level(nn.Module):
    """A level of the U-Net inside its outermost one, with the levels inside it."""

    def __init__(self, ins: int, inner: int, below: nn.Module | None, norm: type):
        super().__init__()
        bias = norm is nn.InstanceNorm2d
        inside = [] if below is None else [norm(inner), below]
        up = nn.ConvTranspose2d(inner * (1 + len(inside) // 2), ins, 4, 2, 1, bias=bias)
        down = nn.Conv2d(ins, inner, 4, 2, 1, bias=bias)
        self.model = nn.Sequential(nn.LeakyReLU(0.2), down, *inside, nn.ReLU(), up, norm(ins))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.model(x)], dim=1)


def held(*layers: nn.Module) -> nn.Module:
    """The layers as the published networks hold them."""
    holder = nn.Module()
    holder.model = nn.Sequential(*layers)
    holder.forward = holder.model.forward
    return holder


def unet_256(width: int, norm: type) -> nn.Module:
    level = None
    for ins, inner in [(8, 8)] * 4 + [(4, 8), (2, 4), (1, 2)]:
        level = Level(ins * width, inner * width, level, norm)
    down = nn.Conv2d(1, width, 4, 2, 1, bias=norm is nn.InstanceNorm2d)
    up = nn.ConvTranspose2d(2 * width, 1, 4, 2, 1)
    whole = nn.Module()
    whole.model = held(down, level, nn.ReLU(), up, nn.Tanh())
    whole.forward = whole.model.forward
    return whole


class Residual(nn.Module):
    def __init__(self, width: int, dropout: bool):
        super().__init__()
        conv = lambda: [nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3), nn.InstanceNorm2d(width)]  # noqa: E731
        drop = [nn.Dropout(0.5)] if dropout else []
        self.conv_block = nn.Sequential(*conv(), nn.ReLU(), *drop, *conv())

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv_block(x)


def resnet(width: int, blocks: int, dropout: bool) -> nn.Module:
    def act(channels: int) -> list[nn.Module]:
        return [nn.InstanceNorm2d(channels), nn.ReLU()]

    layers = [nn.ReflectionPad2d(3), nn.Conv2d(1, width, 7), *act(width)]
    for ins in (width, 2 * width):
        layers += [nn.Conv2d(ins, 2 * ins, 3, 2, 1), *act(2 * ins)]
    layers += [Residual(4 * width, dropout) for _ in range(blocks)]
    for ins in (4 * width, 2 * width):
        layers += [nn.ConvTranspose2d(ins, ins // 2, 3, 2, 1, output_padding=1), *act(ins // 2)]
    return held(*layers, nn.ReflectionPad2d(3), nn.Conv2d(width, 1, 7), nn.Tanh())


GENERATORS = [
    (256, lambda: unet_256(4, nn.BatchNorm2d)),
    (256, lambda: unet_256(4, nn.InstanceNorm2d)),
    (32, lambda: resnet(4, 9, False)),
    (32, lambda: resnet(4, 6, True)),
]


@every_row("side, build", GENERATORS)
def test_a_generator_of_pix2pix_or_cyclegan_gives_the_module_s_image(tmp_path, side, build):
    module = random(build())
    torch.save(module.state_dict(), tmp_path / "latest_net_G.pth")
    ours = network("pix2pix", tmp_path / "latest_net_G.pth", stated(tmp_path))
    image = torch.rand(1, 1, side, side) * 2 - 1
    assert_near(ours(t1=image), module(image))


# The whole way, by the command line.


GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "importing.md"


def test_the_commands_of_the_guide_run_as_they_are_written(
    tmp_path, voxlate, small_head, monkeypatch
):
    """On tiny models, which are called as there."""
    monkeypatch.chdir(tmp_path)
    basic_unet(tmp_path)[0].rename("BUNDLE")
    nnunet(tmp_path, "ResidualEncoderUNet")[0].rename("NNUNET__own")
    diffusers_unet(tmp_path)[0].rename("UNET")
    autoencoder(tmp_path, "diffusers", 1)[0].rename("VAE")
    unet_plus_plus(tmp_path / "CHECKPOINT.pt")
    torch.save(random(unet_256(4, nn.BatchNorm2d)).state_dict(), "latest_net_G.pth")
    small_head(tmp_path / "case", 0, (40, 48, 4))
    text = GUIDE.read_text()
    (told,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    Path("stated.toml").write_text(told)
    (lines,) = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    names = {"NNUNET": "NNUNET__own", "SCAN": "case/t1.nii.gz"}
    for line in lines.splitlines():
        words = [names.get(word, word) for word in shlex.split(line)]
        voxlate(*words[1:]).done()
    assert {path.name for path in tmp_path.glob("RUN*")} == {
        "RUN",
        *(f"RUN{n}" for n in (2, 3, 4, 5)),
    }
    assert (tmp_path / "CARRIED" / "network.onnx").is_file()
    assert list((tmp_path / "OUT").rglob("ct.nii.gz"))


def sar(image: nib.Nifti1Image) -> np.ndarray:
    return nib.as_closest_canonical(image).get_fdata(dtype=np.float32).transpose(2, 1, 0)


def scan(cohort: Path) -> tuple[Path, Tensor, np.ndarray]:
    """A head, its slices [D, 1, H, W] from 0 to 1 as the recipe states them (axes SAR), and where it is no air."""
    path = cohort / "case0" / "t1.nii.gz"
    data = sar(nib.load(path))
    return path, torch.from_numpy((data - data.min()) / np.ptp(data))[:, None], data > 0


def by_command(
    voxlate, folder: Path, source: str, place: Path, told: Preprocessing, cohort, *more: str
):
    """The image that `import` and `synth` give of a head, its slices, and where the head is no air."""
    line = [source, place, "--recipe", told.recipe, "--any-spacing", "--out", folder / "RUN"]
    said = voxlate("import", *line, *more).done().out
    assert f"voxlate synth {folder / 'RUN'}" in said
    path, slices, inside = scan(cohort)
    voxlate("synth", folder / "RUN", path, "--out", folder / "OUT", "--device", "cpu").done()
    (made,) = (folder / "OUT").rglob("ct.nii.gz")
    return sar(nib.load(made))[inside], slices, inside


def test_an_imported_regression_synthesises_what_the_module_does_with_the_same_slices(
    tmp_path, cohort, voxlate
):
    place, module = nnunet(tmp_path, "ResidualEncoderUNet")
    told = stated(tmp_path, RANGES, (1, 24, 20))
    made, slices, inside = by_command(voxlate, tmp_path, "nnunet", place, told, cohort)
    expected = as_ours(module(slices), 2)[:, 0].numpy()[inside] * 1000  # HU
    assert np.ptp(expected) > 100
    assert np.abs(made - expected.clip(-1000, 1000)).max() < MOST * 1000


def test_an_imported_diffusion_synthesises_what_its_scheduler_does_from_the_same_noise(
    tmp_path, cohort, voxlate
):
    """The temperature leaves next to no noise, so that both begin with 0."""
    place, module, schedule = diffusers_unet(tmp_path, num_train_timesteps=20)
    made, slices, inside = by_command(
        voxlate,
        tmp_path,
        *("diffusers", place, noisy(tmp_path), cohort),
        *("--set", "synth.temperature=1e-30"),
    )
    schedule.set_timesteps(20)
    x = torch.zeros_like(slices)
    for t in schedule.timesteps:
        out = module(torch.cat([slices * 2 - 1, x], dim=1), t).sample
        x = schedule.step(out, t, x, use_clipped_model_output=True).prev_sample
    expected = x[:, 0].numpy()[inside] * 1000
    assert np.ptp(expected) > 100
    assert np.abs(made - expected).max() < MOST * 1000


@every_row("source", ("nnunet", "diffusers"))
def test_an_imported_model_is_exported_and_runs_without_its_package(
    tmp_path, cohort, voxlate, source
):
    pytest.importorskip("onnxruntime")
    from voxlate.synthesis.exported import load_exported as load_carried

    if source == "nnunet":
        place, told = nnunet(tmp_path, "ResidualEncoderUNet")[0], stated(tmp_path, RANGES)
    else:
        place = diffusers_unet(tmp_path, num_train_timesteps=4)[0]
        told = noisy(tmp_path)
    by_command(voxlate, tmp_path, source, place, told, cohort)
    voxlate("export", tmp_path / "RUN", "--out", tmp_path / "MODEL").done()
    path = {"t1": scan(cohort)[0]}
    carried, expected = (
        read(tmp_path / name).synthesise(path, seed=3).files["ct"].data
        for read, name in ((load_carried, "MODEL"), (load, "RUN"))
    )
    assert np.ptp(expected) > 100
    assert np.abs(carried - expected).max() < 1e-3 * 1000


# What is wrong, one sentence each.


def refusal(source: str, place: Path, told: Preprocessing | None = None) -> str:
    with refuses() as error:
        import_model(source, place, told or Preprocessing(), place.parent / "refused")
    assert "\n" not in str(error.value)
    assert str(error.value).count("expected") == 1
    return str(error.value)


def test_the_spacing_that_is_stated_is_that_of_the_synthesis(tmp_path):
    torch.save(random(resnet(4, 1, False)).state_dict(), tmp_path / "g.pth")
    told = replace(stated(tmp_path), any_spacing=False, spacing_mm=(3.0, 2.0, 1.0))
    run = import_model("pix2pix", tmp_path / "g.pth", told, tmp_path / "run")
    assert load(run.folder).facts.preparation.spacing_mm == told.spacing_mm


@every_row(
    "held, said",
    [
        ({"net": random(resnet(4, 1, False))}, "weights_only=True"),
        ({"epoch": 5}, "found 'epoch' (int)"),
        ({"conv.weight": torch.ones(1)}, "found other weights (conv.weight"),
        (None, "found no such file"),
    ],
)
def test_files_without_the_weights_of_a_generator_and_pickles_are_refused(tmp_path, held, said):
    if held:
        torch.save(held, tmp_path / "g.pth")
    assert said in refusal("pix2pix", tmp_path / "g.pth")


def test_a_checkpoint_with_numbers_of_numpy_is_taken_after_the_line_of_the_guide(
    tmp_path, monkeypatch
):
    place, _ = nnunet(tmp_path)
    told, path = stated(tmp_path, RANGES), place / "fold_0" / "checkpoint_final.pth"
    torch.save(torch.load(path) | {"logging": {"dice": [np.float64(0.5)]}}, path)
    assert "voxlate does not unpickle" in refusal("nnunet", place, told)
    (line,) = re.findall(r"`(torch\.save\(.*?\))`", GUIDE.read_text())
    monkeypatch.chdir(place)
    exec(line, {"torch": torch})
    assert import_model("nnunet", place, told, tmp_path / "run").weights().is_file()


def test_a_package_that_is_not_installed_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "monai.networks.nets.basic_unet", None)
    torch.save({"a": torch.ones(1)}, tmp_path / "w.pt")
    net = f"network = 'monai.BasicUNet', arguments = {{ spatial_dims = 2 }}, {RANGES}"
    said = refusal("monai", tmp_path / "w.pt", stated(tmp_path, net))
    assert "expected the package monai, which has BasicUNet" in said
    assert "pip install '.[import]'" in said


def test_weights_of_monai_alone_are_those_of_the_network_that_the_recipe_names(tmp_path):
    _, module = basic_unet(tmp_path)
    arguments = "arguments = { spatial_dims = 2, features = [4, 4, 8, 8, 8, 4] }"
    torch.save({"model": module.state_dict()}, tmp_path / "w.pt")
    told = stated(tmp_path, f"{arguments}, {RANGES}")
    assert "no net.network" in refusal("monai", tmp_path / "w.pt", told)
    told = stated(tmp_path, f"network = 'monai.BasicUNet', {arguments}, {RANGES}")
    ours = network("monai", tmp_path / "w.pt", told)
    image = torch.rand(1, 1, 32, 32)
    assert_near(ours(t1=as_ours(image, 1)), as_ours(module(image), 2))


def change(path: Path, **keys: Any) -> None:
    path.write_text(json.dumps(read_json(path) | keys))


def test_keys_and_shapes_that_differ_from_the_configuration_are_named(tmp_path):
    place, _, _ = diffusers_unet(tmp_path)
    told = noisy(tmp_path)
    path = place / "diffusion_pytorch_model.safetensors"
    whole = load_file(path)
    name = "conv_in.bias"
    for state, said in (
        ({**whole, "more": torch.ones(1)}, "found the unknown key 'more'"),
        ({key: whole[key] for key in whole if key != name}, f"found no key '{name}'"),
        ({**whole, name: torch.ones(3)}, f"with '{name}' of shape (8,), found (3,)"),
    ):
        save_file(state, path)
        assert said in refusal("diffusers", place, told)


SCHEDULER, CONFIG = "scheduler_config.json", "config.json"
NOT_FOLLOWED = [
    *(
        (SCHEDULER, {key: value}, repr(value))
        for key, value in {
            "beta_schedule": "sigmoid",
            "prediction_type": "flow",
            "rescale_betas_zero_snr": True,
            "thresholding": True,
            "trained_betas": [0.1, 0.2],
            "_class_name": "PNDMScheduler",
        }.items()
    ),
    (SCHEDULER, {"num_train_timesteps": "many"}, "expected"),
    (SCHEDULER, {"clip_sample_range": "wide"}, "expected"),
    (CONFIG, {"in_channels": 5}, "expected 5 input and 1 output channels"),
    (CONFIG, {"num_class_embeds": 3}, "expected num_class_embeds = 'none'"),
    (CONFIG, {"dropuot": 0.1}, "found 'dropuot'"),
    (CONFIG, {"up_block_types": ["UpBlock2D"]}, "expected arguments that fit together"),
    (CONFIG, {"_class_name": "UNet2DConditionModel"}, "found 'UNet2DConditionModel'"),
    (CONFIG, {"block_out_channels": 8}, "expected"),
    (CONFIG, {"norm_num_groups": "x"}, "expected"),
]


def test_a_configuration_of_another_structure_or_that_voxlate_does_not_follow_exactly_is_refused(
    tmp_path,
):
    place, _, _ = diffusers_unet(tmp_path)
    told = noisy(tmp_path)
    for name, keys, said in NOT_FOLLOWED:
        whole = (place / name).read_text()
        change(place / name, **keys)
        assert said in refusal("diffusers", place, told), keys
        (place / name).write_text(whole)
    (place / SCHEDULER).unlink()
    assert "found no method" in refusal("diffusers", place, told)
    (place / CONFIG).write_text("{")
    assert CONFIG in refusal("diffusers", place, told)


def test_plans_of_another_structure_and_several_folds_are_refused(tmp_path):
    place, _ = nnunet(tmp_path)
    told = noisy(tmp_path)
    change(place / "plans.json", configurations=5)
    assert "of another structure" in refusal("nnunet", place, told)
    (place / "fold_0").rename(place / "fold_1")
    (place / "fold_2").mkdir()
    assert "found fold_1, fold_2" in refusal("nnunet", place, told)


def test_code_in_a_bundle_and_layers_by_other_names_are_refused(tmp_path):
    place, _ = basic_unet(tmp_path)
    config = place / "configs" / "inference.json"
    network_def = read_json(config)["network_def"]
    change(config, network_def=network_def | {"dropout": "$__import__('os').getpid()"})
    assert "network_def.dropout" in refusal("monai", place)
    change(config, network_def=network_def | {"_target_": "my.BasicUNet"})
    assert "found none. Name its weights file" in refusal("monai", place)
    place, _ = nnunet(tmp_path)
    plans = place / "plans.json"
    plans.write_text(
        plans.read_text().replace("torch.nn.modules.activation.LeakyReLU", "os.system")
    )
    said = refusal("nnunet", place, stated(tmp_path, RANGES))
    assert "net.arguments.nonlin: expected one of torch.nn's" in said


def test_the_inputs_of_several_channels_are_asked_for_by_name(tmp_path):
    place, _, _ = diffusers_unet(tmp_path)
    told = stated(tmp_path, "input_range = { t1 = [-1, 1] }")
    assert "order of state, t1" in refusal("diffusers", place, told)


@every_row(
    "ranges, said",
    [
        ("{ t1 = [0, 1], t2 = [0, 1] }", "expected ranges of t1, found 't2'"),
        ("{ t1 = [1, 1] }", "expected the range of t1 as [low, high], found [1.0, 1.0]"),
    ],
)
def test_ranges_of_other_modalities_and_without_a_width_are_refused(tmp_path, ranges, said):
    place, _ = nnunet(tmp_path)
    told = stated(tmp_path, f"input_range = {ranges}, output_range = [0, 1]")
    assert said in refusal("nnunet", place, told)


def test_a_recipe_without_data_is_refused(tmp_path):
    place, _ = nnunet(tmp_path)
    told = Preprocessing(changes={"net": "foreign", "data.source": "t1"}, any_spacing=True)
    assert "found no data.target, data.patch, data.axes." in refusal("nnunet", place, told)


def test_a_network_of_volumes_needs_patches_of_volumes(tmp_path):
    place, _ = basic_unet(tmp_path, 3)
    assert "expected more than one slice for monai.BasicUNet" in refusal(
        "monai", place, stated(tmp_path, RANGES)
    )


def test_published_weights_take_no_spacing(tmp_path, voxlate):
    line = f"import kl-f4 {tmp_path / 'w.safetensors'} --spacing 1 1 1 --out {tmp_path / 'run'}"
    assert "expected no recipe and no spacing with kl-f4" in voxlate(*line.split()).refusal
