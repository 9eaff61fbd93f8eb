"""Commands on trust: calibrate."""

import json
import shlex
from pathlib import Path
from typing import Annotated, Literal

from typer import Argument, Option

from voxlate.cli.app import app, err, note, say
from voxlate.cli.options import (
    AllowCode,
    Answer,
    Device,
    Json,
    Layout,
    Samples,
    Split,
    SynthChanges,
    pairs,
    synth_table,
    with_tables,
)
from voxlate.cli.progress import progress_on


@app.command(
    epilog="Examples:  voxlate calibrate RUN COHORT --split val --samples 8    "
    "voxlate calibrate RUN COHORT --split val --answer mean    then:  voxlate synth RUN NEW --out OUT --samples 8"
)
@with_tables
def calibrate(
    run: Annotated[Path, Argument(help="A run folder; the calibration is written into it.")],
    cohort: Annotated[Path, Argument(help="Cases with truth, which training did not see.")],
    split: Split = None,
    samples: Samples = None,
    answer: Answer = None,
    coverage: Annotated[float, Option(help="Share of a new patient's voxels that intervals are to hold.")] = 0.9,
    confidence: Annotated[float, Option(help="With which they do so, on average over patients.")] = 0.9,
    bound: Annotated[
        Literal["normal", "any", "none"] | None,
        Option(
            help="normal: shares of patients are about normal (Student's t), as unset from 10 patients on; any: no "
            "assumption (needs 22 patients or more for 90 %); none: the mean, without a margin, as unset for fewer."
        ),
    ] = None,
    region: Annotated[
        list[str] | None,
        Option(help="A part of the body that is calibrated, too: vessels='cta>150'. Bone, soft tissue, labels are."),
    ] = None,
    seed: Annotated[int, Option(min=0, help="Of the noise.")] = 0,
    change: SynthChanges = None,
    *,
    layout: Layout,
    device: Device = "auto",
    allow_code: AllowCode = False,
    as_json: Json = False,
) -> None:
    """Let held-back patients say how far images can be trusted: intervals of voxels, and bounds of a case's errors.

    What they teach lies in RUN; synth then writes <modality>_low and <modality>_high next to each image. A stopped
    calibration goes on where it was.
    """
    from voxlate.synthesis.calibrate import calibrate as learn
    from voxlate.synthesis.calibrate import held_out_cases
    from voxlate.synthesis.model import load
    from voxlate.trust.summary import sentences, table

    model = load(run, device, allow_code, answer).with_options(samples=samples, **synth_table(change))
    cases = held_out_cases(model, cohort, split, **vars(layout))
    with progress_on(err) as bars:
        path, made = learn(
            model,
            cases,
            split=split,
            coverage=coverage,
            confidence=confidence,
            bound=bound,
            regions=pairs(region, "--region"),
            seed=seed,
            progress=bars,
            warn=note,
        )
    if as_json:
        print(json.dumps({"calibration": str(path), **made.stated, "compared": table(made.header)}))
        return
    for line in sentences(made.header):
        say(line)
    count = model.recipe.synth.samples
    given = f"{f' --answer {answer}' if answer else ''}{f' --samples {count}' if count > 1 else ''}"
    given += "".join(f" --set {shlex.quote(one)}" for one in change or ())
    say(f"{path}. Next:  voxlate synth {shlex.quote(str(run))} NEW --out OUT{given}")
