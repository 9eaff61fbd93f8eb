"""Kinds of files that take longer to make: of planned, adversarial and residual runs, and what they lead to."""

import contextlib
import os
import shutil
import signal
from pathlib import Path

import nibabel as nib
import numpy as np

from kinds import RECIPE, Kind, done, keep
from voxlate.base.errors import Stopped
from voxlate.training import recipe
from voxlate.training.job import Budget
from voxlate.training.train import Beginning, train

NET = 'net = { kind = "unet", width = 8, multipliers = [1, 2], blocks = 1, groups = 4, middle_attention = false }'
TRAIN = RECIPE[RECIPE.index("train = ") :]
REGRESSION = 'method = { kind = "regression" }'
DIFFUSION = (
    'method = { kind = "diffusion", clip = [-1, 1] }\nsynth = { sampler = "ddim", steps = 2 }'
)
CRITIC = 'critic = { widths = [4, 4], output = "patches" }'
MUON = RECIPE.replace("steps = 1,", 'steps = 1, optimiser = { kind = "muon" },')
CYCLE = RECIPE.replace(REGRESSION, f'method = {{ kind = "cycle", {CRITIC} }}').replace(
    NET, 'net = { kind = "resnet", width = 4, blocks = 1 }'
)
OPPONENT = RECIPE + f"opponent = {{ {CRITIC} }}\n"
RESIDUAL = RECIPE.replace(REGRESSION, f'task = {{ kind = "residual" }}\n{DIFFUSION}')
RESIDUAL += f'[[stages]]\nname = "predictor"\n{REGRESSION}\n{NET}\n{TRAIN}'
COMPLETION = RECIPE.replace(
    'source = ["t1"], target = ["t2"]', 'source = ["t1", "t2"], target = ["t1", "t2"]'
).replace(REGRESSION, f'task = {{ kind = "complete" }}\n{REGRESSION}')
LATENT = RECIPE.replace(REGRESSION, f'task = {{ kind = "latent" }}\n{DIFFUSION}')
LATENT += f"""[[stages]]
name = "autoencoder"
method = {{ kind = "autoencoding" }}
net = {{ kind = "kl_autoencoder", width = 8, multipliers = [1, 2], blocks = 1, groups = 4 }}
{TRAIN}"""
RECIPES = {
    "muon": MUON, "cycle": CYCLE, "opponent": OPPONENT, "residual": RESIDUAL, "latent": LATENT, "complete": COMPLETION,
}  # fmt: skip
AUTO = ("train", "auto", "--data", "prepared", "--out")
LONG = {"train.steps": "25"}  # of a planned run


def training(name: str) -> tuple[str, ...]:
    """The training of one of the recipes."""
    return ("train", f"{name}.toml", "--data", "prepared", "--out", name)


FURTHER = (
    *(
        Kind(f"state, {name}", f"{name}/state.pt", training(name), restored=name)
        for name in ("muon", "cycle", "opponent", "residual")
    ),
    *(
        Kind(f"{kind} of a plan", f"planned/{file}", (*AUTO, "planned"), form=form, restored="planned")
        for kind, file, form in (("clock", "clock.txt", "words"), ("provenance", "provenance.json", "json"))
    ),
    *(
        Kind("weights, residual", f"drawn/weights{stage}.safetensors",
             ("synth", "drawn", "cohort/case0", "--answer", answer, "--out", "new"), True, form="weights")
        for stage, answer in (("", "sample"), (".predictor", "mean"))
    ),
    Kind("weights, cycle", "turned/weights.safetensors", ("synth", "turned", "cohort/case0", "--out", "new"), True,
         form="weights"),
    Kind("calibration of samples", "drawn/calibration.sample.2.safetensors",
         ("synth", "drawn", "cohort/case0", "--samples", "2", "--out", "new"), True),
    *(
        Kind("ensemble's provenance", f"several/{place}provenance.json", command, form="json",
             restored="several")
        for place in ("", "case1/")
        for command in (("evaluate", "several", "--truth", "cohort", "--json"), ("report", "several"))
    ),
    *(
        Kind(f"completion's {file}", f"missing/{file}", command, form="json", restored="missing")
        for file in ("provenance.json", "case3/provenance.json")
        for command in (
            ("report", "missing"),
            ("compare", "missing", "out", "--json"),
            ("evaluate", "missing", "--truth", "cohort"),
        )
    ),
    Kind("transform", "registered/transforms/case1/t2.tfm",
         ("evaluate", "moved", "--truth", "shifted", "--prepared", "registered", "--json"), form="words",
         restored="moved"),
)  # fmt: skip


def prepare_further() -> None:
    """Runs of further methods, and what is made of them, beside the files of `prepare_files`."""
    for name, text in RECIPES.items():
        Path(f"{name}.toml").write_text(text)
        done(training(name))
    shutil.copytree("residual", "drawn")
    shutil.copytree("cycle", "turned")
    prepare_planned()
    for name in ("muon", "cycle", "opponent", "residual"):
        Path(name, "weights.safetensors").unlink()  # as if it had been killed before the end
    done(
        ("calibrate", "drawn", "others", "--samples", "2"),
        ("synth", "run", "cal", "cohort", "--out", "several"),
        ("evaluate", "several", "--truth", "cohort"),
        ("synth", "complete", "cohort", "--missing", "t2", "--out", "missing"),
        ("evaluate", "missing", "--truth", "cohort"),
    )
    prepare_registered()
    keep(FURTHER)


def prepare_planned() -> None:
    """A planned run that was stopped after its fifth step."""
    steps = list[None]()

    def stop(*_: object) -> None:
        steps.append(None)
        if len(steps) == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    with contextlib.suppress(Stopped):
        train(
            recipe.read("tiny.toml", LONG),
            Path("prepared"),
            Path("planned"),
            device="cpu",
            progress=stop,
            beginning=Beginning(budgets={"final": Budget(seconds=2.0, most_steps=30)}),
        )
    if not Path("planned/clock.txt").is_file():
        raise SystemExit("expected the clock of a planned run, found none")


def prepare_registered() -> None:
    """A cohort whose second scans are shifted, registered, and synthesised in the frame of the first."""
    shutil.copytree("cohort", "shifted")
    for path in Path("shifted").glob("*/t2.nii.gz"):
        image = nib.nifti1.load(path)
        nib.save(
            nib.Nifti1Image(image.get_fdata(dtype=np.float32), image.affine + np.eye(4, k=3) * 6),
            path,
        )
    done(
        ("prepare", "shifted", "--register", "rigid", "--fixed", "t1", "--out", "registered"),
        ("train", "tiny.toml", "--data", "registered", "--out", "there"),
        ("synth", "there", "shifted", "--out", "moved"),
        ("evaluate", "moved", "--truth", "shifted", "--prepared", "registered"),
    )
    if not Path("registered/transforms/case1/t2.tfm").is_file():
        raise SystemExit("expected a transform of case1, found none")
