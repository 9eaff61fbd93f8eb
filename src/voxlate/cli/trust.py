"""Commands on trust: calibrate."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from voxlate.cli.app import app, err, note, out
from voxlate.cli.options import (
    AllowCode,
    Device,
    Json,
    Manifest,
    Outside,
    Patients,
    Pattern,
    Preset,
    Samples,
    Split,
    pairs,
)
from voxlate.cli.progress import progress_on


@app.command(
    epilog="Examples:  voxlate calibrate RUN COHORT --split val --samples 8    "
    "voxlate calibrate RUN COHORT --split val --answer mean    then:  voxlate synth RUN NEW --out OUT --samples 8"
)
def calibrate(
    run: Annotated[Path, typer.Argument(help="A run folder; the calibration is written into it.")],
    cohort: Annotated[Path, typer.Argument(help="Cases with truth, which training did not see.")],
    split: Split = None,
    samples: Samples = None,
    answer: Annotated[
        Literal["mean", "sample"] | None,
        typer.Option(help="Of a diffusion of what a predictor leaves: whose images are calibrated (sample, as unset)."),
    ] = None,
    coverage: Annotated[float, typer.Option(help="Share of a new patient's voxels that intervals are to hold.")] = 0.9,
    confidence: Annotated[float, typer.Option(help="With which they do so, on average over patients.")] = 0.9,
    bound: Annotated[
        Literal["normal", "any", "none"] | None,
        typer.Option(
            help="normal: shares of patients are about normal (Student's t), as unset from 10 patients on; any: no "
            "assumption (needs 22 patients or more for 90 %); none: the mean, without a margin, as unset for fewer."
        ),
    ] = None,
    region: Annotated[
        list[str] | None,
        typer.Option(
            help="A part of the body that is calibrated, too: vessels='cta>150'. Bone, soft tissue, labels are."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the noise.")] = 0,
    change: Annotated[
        list[str] | None, typer.Option("--set", help="Change a key of the recipe's synth table, as for synth.")
    ] = None,
    pattern: Pattern = None,
    manifest: Manifest = None,
    preset: Preset = None,
    patients: Patients = None,
    allow_outside: Outside = False,
    device: Device = "auto",
    allow_code: AllowCode = False,
    as_json: Json = False,
) -> None:
    """Let held-back patients say how far images can be trusted: intervals of voxels, and bounds of a case's errors.

    What they teach lies in RUN; synth then writes <modality>_low and <modality>_high next to each image. A stopped
    calibration goes on where it was.
    """
    from voxlate import recipe as recipes
    from voxlate.synthesis.calibrate import calibrate as learn
    from voxlate.synthesis.calibrate import held_back
    from voxlate.synthesis.model import load
    from voxlate.trust.words import sentences, table

    model = load(run, device, allow_code, answer).with_options(samples=samples, **recipes.table(pairs(change)))
    layout: dict[str, Any] = {"pattern": pattern, "manifest": manifest, "preset": preset, "patients": patients}
    cases = held_back(model, cohort, split, **layout, allow_outside=allow_outside)
    with progress_on(err) as bars:
        options: dict[str, Any] = {"split": split, "coverage": coverage, "confidence": confidence, "bound": bound}
        path, made = learn(
            model, cases, **options, regions=pairs(region, "--region"), seed=seed, progress=bars, warn=note
        )
    if as_json:
        print(json.dumps({"calibration": str(path), **made.stated, "compared": table(made.header)}))
        return
    for line in sentences(made.header):
        out.print(line, markup=False, highlight=False, soft_wrap=True)
    count = model.recipe.synth.samples
    given = f"{f' --answer {answer}' if answer else ''}{f' --samples {count}' if count > 1 else ''}"
    out.print(f"{path}. Next:  voxlate synth {run} NEW --out OUT{given}", markup=False, highlight=False)
