"""The files of other packages' models: diffusers, MONAI, nnU-Net, KonfAI and pix2pix; each reader states what they hold."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from voxlate.base.errors import BadInput
from voxlate.exchange.foreign import (
    AUTOENCODER,
    Foreign,
    Preprocessing,
    Reader,
    import_foreign,
    read_checkpoint,
    read_config,
    read_tensors,
)
from voxlate.science.nets.foreign import NONE
from voxlate.training.run import Run

CHANNELS = ("in_channels", "out_channels")
PREDICTIONS = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}
DDIM_STEPS = 50  # of diffusers' DDIMPipeline


def read_diffusers(place: Path) -> Foreign:
    """A folder that `save_pretrained` wrote: config.json, the weights and, of a denoiser, scheduler_config.json."""
    config = read_config(place / "config.json", "the configuration of a diffusers model")
    name = config.get("_class_name")
    if name not in ("UNet2DModel", "AutoencoderKL"):
        raise BadInput(
            f"{place / 'config.json'}: expected _class_name UNet2DModel or AutoencoderKL, found {name!r}. Choose the folder of one of these."
        )
    weights = place / "diffusion_pytorch_model.safetensors"
    form = f"diffusers {name}"
    arguments = _arguments(config)
    if name == "AutoencoderKL":
        return _autoencoder(form, f"diffusers.{name}", arguments, weights)
    stated = [place / "scheduler_config.json", place / "scheduler" / "scheduler_config.json"]
    scheduler = next((path for path in stated if path.is_file()), None)
    tables = _denoiser(f"diffusers.{name}", arguments)
    if scheduler is not None:
        tables |= _sampling(read_config(scheduler, "a scheduler"), scheduler, BY_DIFFUSERS)
    channels: Any = tuple(map(config.get, CHANNELS))
    return Foreign(form, weights, read_tensors(weights), tables, channels=channels)


def _first_there(*files: Path) -> Path:
    """The first of some files that is there; the last one where none is."""
    return next(filter(Path.is_file, files), files[-1])


def _arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments in a configuration, with a text for None."""
    return {
        name: NONE if value is None else value
        for name, value in config.items()
        if not name.startswith("_")
    }


def _denoiser(network: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    own = {name: value for name, value in arguments.items() if name not in CHANNELS}
    return {"net": {"kind": "foreign", "network": network, "arguments": own}}


def _autoencoder(
    form: str, network: str, arguments: Mapping[str, Any], weights: Path, *holders: str
) -> Foreign:
    tables = {"net": {"kind": AUTOENCODER, "network": network, "arguments": dict(arguments)}}
    return Foreign(
        form, weights, read_tensors(weights, *holders), tables, "net.module.", needs=("net.range",)
    )


# The keys of a scheduler's class and schedule, as each package writes them, and its schedules, the usual one first.
Keys = tuple[str, str, Mapping[str, str]]
BY_DIFFUSERS: Keys = (
    "_class_name",
    "beta_schedule",
    {"linear": "linear", "scaled_linear": "sqrt", "squaredcos_cap_v2": "cosine"},
)
# its cosine is capped at another beta
BY_MONAI: Keys = ("_target_", "schedule", {"linear_beta": "linear", "scaled_linear_beta": "sqrt"})
# What would change the image and has no counterpart here: the only value of a key that is taken.
PLAIN = {
    "trained_betas": (None,),
    "thresholding": (False,),
    "rescale_betas_zero_snr": (False,),
    "variance_type": ("fixed_small", None),
}
SAMPLERS = {"DDPMScheduler": "ddpm", "DDIMScheduler": "ddim"}


def _sampling(config: Mapping[str, Any], where: Path, by: Keys) -> dict[str, Any]:
    """The tables `method` and `synth` of a scheduler; raises BadInput for one that has no exact counterpart."""

    def taken(key: str, default: Any, choices: Mapping[Any, Any]) -> Any:
        value = config.get(key, default)
        if isinstance(value, list | dict) or value not in choices:
            listed = ", ".join(map(str, choices))
            raise BadInput(
                f"{where}: expected {key} to be one of {listed}, found {value!r}. Choose another model, or state method and synth and remove the scheduler."
            )
        return choices[value]

    for key, values in PLAIN.items():
        taken(key, values[0], dict.fromkeys(values))
    class_key, schedule_key, kinds = by
    spacing = taken(schedule_key, next(iter(kinds)), kinds)
    count = config.get("num_train_timesteps", 1000)
    schedule: dict[str, Any] = {"kind": "cosine_betas", "count": count}
    if spacing != "cosine":
        ends = {"first": config.get("beta_start", 1e-4), "last": config.get("beta_end", 0.02)}
        schedule = {"kind": "linear_betas", "count": count, "spacing": spacing, **ends}
    name = str(config.get(class_key, "")).rpartition(".")[2]
    if name not in SAMPLERS:
        raise BadInput(
            f"{where}: expected one of {', '.join(SAMPLERS)}, found {name or 'no class'!r}. State method and synth, and remove the scheduler."
        )
    prediction = taken("prediction_type", "epsilon", PREDICTIONS)
    method = {"kind": "diffusion", "schedule": schedule, "prediction": prediction}
    if config.get("clip_sample", True):
        reach = config.get("clip_sample_range", 1.0)
        method["clip"] = [
            config.get("clip_sample_min", -reach),
            config.get("clip_sample_max", reach),
        ]
    steps = count if SAMPLERS[name] == "ddpm" else min(count, DDIM_STEPS)
    return {"method": method, "synth": {"sampler": SAMPLERS[name], "steps": steps, "grid": "index"}}


MONAI = {
    "BasicUNet": "monai.BasicUNet",
    "DiffusionModelUNet": "monai.DiffusionModelUNet",
    "AutoencoderKL": "monai.AutoencoderKL",
}
HOLDERS = ("model", "state_dict")  # of MONAI's CheckpointSaver, and of Lightning


def read_monai(place: Path) -> Foreign:
    """A MONAI bundle (configs/inference.json or train.json, models/model.pt), or weights whose network a recipe names."""
    if not place.is_dir():
        return Foreign("MONAI", place, read_tensors(place, *HOLDERS), _regression({}))
    inference, train = (place / "configs" / f"{name}.json" for name in ("inference", "train"))
    path = _first_there(inference, train, inference)
    config = read_config(path, "the configuration of a MONAI bundle")
    networks = dict(_targets(config, MONAI, path))
    if len(networks) != 1:
        found = ", ".join(networks) or "none"
        raise BadInput(
            f"{path}: expected one network of {', '.join(MONAI)}, found {found}. Name its weights file, and state net.network and net.arguments."
        )
    ((name, arguments),) = networks.values()
    models = place / "models"
    weights = _first_there(models / "model.safetensors", models / "model.pt")
    if name == "AutoencoderKL":
        return _autoencoder(f"MONAI {name}", MONAI[name], arguments, weights, *HOLDERS)
    tables = _denoiser(MONAI[name], arguments)
    if name == "BasicUNet":
        tables = _regression(tables)
    for _, (scheduler, values) in _targets(config, SAMPLERS, path):
        tables |= _sampling(values | {"_target_": scheduler}, path, BY_MONAI)
    channels = tuple(arguments.get(key, default) for key, default in zip(CHANNELS, (1, 2)))
    return Foreign(
        f"MONAI {name}", weights, read_tensors(weights, *HOLDERS), tables, channels=channels
    )


def _regression(tables: Mapping[str, Any]) -> dict[str, Any]:
    return {"net": {"kind": "foreign"}, "method": {"kind": "regression"}, **tables}


def _targets(
    config: Mapping[str, Any], known: Mapping[str, str], path: Path
) -> Iterator[tuple[str, tuple[str, dict[str, Any]]]]:
    """The tables of a bundle that build one of these classes: key, class and arguments."""
    for key, table in config.items():
        name = table.get("_target_", "") if isinstance(table, dict) else ""
        package, _, kind = str(name).rpartition(".")
        if kind in known and package.partition(".")[0] in ("", "monai"):
            values = {
                inner: _plain(value, config, f"{path}: {key}.{inner}")
                for inner, value in table.items()
            }
            yield key, (kind, _arguments(values))


def _plain(value: Any, config: Mapping[str, Any], where: str) -> Any:
    """A value of a bundle, with those that it refers to; raises BadInput for code."""
    if isinstance(value, list):
        return [_plain(entry, config, where) for entry in value]
    if isinstance(value, str) and value.startswith("@") and value[1:] in config:
        return _plain(config[value[1:]], config, where)
    if isinstance(value, str) and value[:1] in ("$", "@", "%"):
        raise BadInput(
            f"{where}: expected a plain value, found {value!r}, which is code or a reference that voxlate does not evaluate. Write the value itself into the file."
        )
    return value


UNETS = "dynamic_network_architectures.architectures.unet."


def read_nnunet(place: Path) -> Foreign:
    """A folder of nnU-Net v2 with plans.json, dataset.json and one fold, or the folder of a fold in it."""
    folder = place if (place / "plans.json").is_file() else place.parent
    plans = read_config(folder / "plans.json", "the plans of nnU-Net")
    folds = [place] if place != folder else sorted(folder.glob("fold_*"))
    if len(folds) != 1:
        found = ", ".join(fold.name for fold in folds) or "none"
        raise BadInput(f"{folder}: expected one fold, found {found}. Name the folder of the fold.")
    # the first is of a user who saved the weights without the training's own numbers
    weights = _first_there(folds[0] / "weights.pth", folds[0] / "checkpoint_final.pth")
    checkpoint = read_checkpoint(weights)
    is_checkpoint = isinstance(checkpoint, dict) and "network_weights" in checkpoint
    # the folder is called TRAINER__PLANS__CONFIGURATION
    name = folder.resolve().name.rpartition("__")[2]
    if is_checkpoint and isinstance(checkpoint.get("init_args"), dict):
        name = checkpoint["init_args"].get("configuration", name)
    configuration = _configuration(plans, name, folder / "plans.json")
    architecture = configuration.get("architecture") or {}
    kind = str(architecture.get("network_class_name", ""))
    if kind not in (UNETS + "PlainConvUNet", UNETS + "ResidualEncoderUNet"):
        raise BadInput(
            f"{folder / 'plans.json'}: expected the configuration {name} with network_class_name PlainConvUNet or ResidualEncoderUNet (nnU-Net 2.4 or later), found {kind or 'none'}. Choose another model."
        )
    tensors = read_tensors(weights, "network_weights")
    heads = [
        tensors[key] for key in tensors if re.fullmatch(r"decoder\.seg_layers\.\d+\.weight", key)
    ]
    dataset = read_config(folder / "dataset.json", "the data set of nnU-Net")
    scans = dataset.get("channel_names") or dataset.get("modality") or {}
    schemes = ", ".join(map(str, configuration.get("normalization_schemes", ())))
    hint = f"The plans state the spacing {configuration.get('spacing')} mm, the patch {configuration.get('patch_size')}, the axes {plans.get('transpose_forward')} of arrays and {schemes or 'no normalisation'}, which are not taken over."
    network = f"nnunet.{kind.removeprefix(UNETS)}"
    return Foreign(
        f"nnU-Net {kind.removeprefix(UNETS)}",
        weights,
        tensors,
        _regression(_denoiser(network, _arguments(architecture.get("arch_kwargs", {})))),
        channels=(len(scans), heads[0].shape[0]) if heads else None,
        hint=hint,
    )


def _configuration(plans: Mapping[str, Any], name: str, where: Path) -> dict[str, Any]:
    """A configuration of the plans, over those that it inherits from."""
    known = plans.get("configurations", {})
    chain = list[dict[str, Any]]()
    while name:
        if name not in known or len(chain) > len(known):
            raise BadInput(
                f"{where}: expected a configuration of {', '.join(known) or 'the plans'}, found {name!r}. Give the folder its name (TRAINER__PLANS__CONFIGURATION)."
            )
        chain.append(known[name])
        name = known[name].get("inherits_from", "")
    merged = dict[str, Any]()
    for table in reversed(chain):
        merged |= table
    return merged


def read_konfai(place: Path) -> Foreign:
    """A checkpoint of KonfAI's U-Net++ (its class UNetPlusPlus), of slices with their neighbours."""
    tensors = read_tensors(place, "Model", "UNetPlusPlus")
    ends = [f"x_0_{level}_conv.Conv_1.weight" for level in range(5)]
    if absent := [name for name in ("StemConv.weight", *ends) if name not in tensors]:
        raise BadInput(
            f"{place}: expected a checkpoint of KonfAI's UNetPlusPlus, found no key '{absent[0]}'. Choose another file."
        )
    stem, head = tensors["StemConv.weight"], tensors["SegmentationHead.weight"]
    deep = "Encoder_1_Block_2.Conv1.weight" in tensors
    arguments = {
        "dim": stem.ndim - 2,
        "encoder_name": "resnet34" if deep else "resnet18",
        "decoder_channels": [len(tensors[name]) for name in ends],
    }
    tables = _regression(_denoiser("konfai.UNetPlusPlus", arguments))
    return Foreign(
        "KonfAI UNetPlusPlus",
        place,
        tensors,
        tables,
        channels=(stem.shape[1], len(head)),
        # weights do not tell what follows the last convolution
        needs=("net.arguments.activation",),
    )


def read_pix2pix(place: Path) -> Foreign:
    """A generator of the repository pytorch-CycleGAN-and-pix2pix (latest_net_G.pth): ResNet or U-Net."""
    theirs = read_tensors(place)
    if "model.model.0.weight" in theirs:
        names, net = _unet(theirs)
    elif "model.1.weight" in theirs and any(".conv_block." in name for name in theirs):
        names, net = _resnet(theirs)
    else:
        raise BadInput(
            f"{place}: expected a generator of pix2pix or CycleGAN (ResNet or U-Net), found other weights ({', '.join(list(theirs)[:2])}, …). Choose another file."
        )
    modules = {name: name.rpartition(".")[0] for name in theirs}
    if unknown := [name for name, module in modules.items() if module not in names]:
        raise BadInput(
            f"{place}: expected a generator as the repository builds it (U-Net, or ResNet with --norm instance), found the unknown key '{unknown[0]}'. Choose another file."
        )
    tensors = {
        f"{names[modules[name]]}.{name.rpartition('.')[2]}": tensor
        for name, tensor in theirs.items()
    }
    placed = [*names]
    first, last = (theirs[f"{placed[end]}.weight"].shape for end in (0, -1))
    # kernels of transposed convolutions, which end the U-Net, have their outputs second
    outs = last[1] if net["kind"] == "pix2pix_unet" else last[0]
    tables = {"net": net, "method": {"kind": "regression"}}
    return Foreign("pix2pix", place, tensors, tables, "net.", channels=(first[1], outs))


def _resnet(theirs: Mapping[str, Tensor]) -> tuple[dict[str, str], dict[str, Any]]:
    """Our names of the modules of a ResNet, first and last ones first and last, and our settings of it."""
    blocks = {name.split(".")[1] for name in theirs if ".conv_block." in name}
    end = 10 + len(blocks)  # norms and activations have numbers, too, as in our network
    second = 6 if any(".conv_block.6." in name for name in theirs) else 5  # after a dropout
    names = {f"model.{place}": f"layers.{place}" for place in (1, 4, 7)}
    for place in range(10, end):
        names[f"model.{place}.conv_block.1"] = f"layers.{place}.layers.1"
        names[f"model.{place}.conv_block.{second}"] = f"layers.{place}.layers.5"
    names |= {f"model.{place}": f"layers.{place}" for place in (end, end + 3, end + 7)}
    width = len(theirs["model.1.weight"])
    return names, {"kind": "resnet", "width": width, "blocks": len(blocks)}


def _unet(theirs: Mapping[str, Tensor]) -> tuple[dict[str, str], dict[str, Any]]:
    """Our names of the modules of a U-Net, whose levels are inside each other, and our settings of it."""
    last = max(name.count("model.") for name in theirs) - 2
    down, up = dict[str, str](), dict[str, str]()
    path = "model.model"
    for level in range(last + 1):
        # a level is: activation, convolution, norm, the level inside it, activation, convolution, norm; the first and the
        # last lack some of these
        places = (0, 2, 3, 6) if level == 0 else (1, 2, 3, 4) if level == last else (1, 2, 5, 6)
        down[f"{path}.{places[0]}"] = f"down.{level}"
        if 0 < level < last:
            down[f"{path}.{places[1]}"] = f"down_norms.{level}"
        if level:
            up[f"{path}.{places[3]}"] = f"up_norms.{level}"
        up[f"{path}.{places[2]}"] = f"up.{level}"
        path += ".3.model" if level else ".1.model"
    norm = "batch" if any(name.endswith("running_mean") for name in theirs) else "instance"
    net = {
        "kind": "pix2pix_unet",
        "width": len(theirs["model.model.0.weight"]),
        "halvings": last + 1,
        "norm": norm,
    }
    ends = dict(reversed(up.items()))  # the outermost convolution last
    return down | ends, net


def import_model(source: str, place: Path, stated: Preprocessing, out: Path) -> Run:
    """Write another package's model as a run folder; source: one of READERS. Raises BadInput in one sentence."""
    try:
        foreign_model = READERS[source](place)
    except BadInput:  # a ValueError, which says it already
        raise
    # of values of other types
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise BadInput(
            f"{place}: expected a model as {source} writes it, found a file of another structure ({error}). Copy it again."
        ) from error
    return import_foreign(foreign_model, stated, out)


READERS: dict[str, Reader] = {
    "diffusers": read_diffusers,
    "monai": read_monai,
    "nnunet": read_nnunet,
    "konfai": read_konfai,
    "pix2pix": read_pix2pix,
}
