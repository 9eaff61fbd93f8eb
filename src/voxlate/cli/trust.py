"""Commands on trust: calibrate."""

import json
import shlex
from pathlib import Path
from typing import Annotated, Literal

from typer import Argument

from voxlate.cli.app import err, note, say
from voxlate.cli.options import Json, command
from voxlate.cli.progress import progress_on
from voxlate.executors.choose import choose_executor
from voxlate.options.executors import ExecutorOptions
from voxlate.options.layout import Layout
from voxlate.options.option import MAIN, SAMPLING, AllowCode, Device, Option, pairs
from voxlate.options.synthesise import ANSWER, SAMPLES, SET, synth_keys
from voxlate.starters.names import complete_starter


@command(
    "calibrate RUN COHORT --split val --samples 8",
    "calibrate RUN COHORT --split val --answer mean",
    "synth RUN NEW --out OUT --samples 8",
)
def calibrate(
    run: Annotated[
        Path,
        Argument(
            metavar="RUN",
            help="Run folder, into which the calibration is written, or starter:NAME with --out.",
            autocompletion=complete_starter,
        ),
    ],
    cohort: Annotated[
        Path, Argument(metavar="COHORT", help="Cases with true scans that training did not use.")
    ],
    to: Annotated[
        Path | None,
        Option("Folder for a copy of a starter with its calibration.", flag="--out", panel=MAIN),
    ] = None,
    split: Annotated[
        Literal["train", "val", "test"] | None,
        Option("Split that calibrates: train, val or test.", panel=MAIN),
    ] = None,
    answer: Annotated[Literal["mean", "sample"] | None, ANSWER] = None,
    samples: Annotated[int | None, SAMPLES] = None,
    coverage: Annotated[
        float, Option("Share of a new patient's voxels that the intervals contain.", panel=MAIN)
    ] = 0.9,
    confidence: Annotated[
        float, Option("Confidence in the coverage, on average over patients.", panel=MAIN)
    ] = 0.9,
    bound: Annotated[
        Literal["normal", "any", "none"] | None,
        Option(
            "Margin for a limited number of patients: normal (Student's t; the default from 10 patients on), any (no assumption; needs 22 patients for 90 %) or none (the default below 10)."
        ),
    ] = None,
    region: Annotated[
        list[str] | None,
        Option(
            "Region that is calibrated in addition to bone, soft tissue and labels: vessels='cta>150'. Repeatable.",
            metavar="RULE",
        ),
    ] = None,
    seed: Annotated[int, Option("Random seed of the synthesis.", panel=SAMPLING, least=0)] = 0,
    change: Annotated[list[str] | None, SET] = None,
    any_truth: Annotated[
        bool,
        Option("Calibrate on truths that cannot be those of their images, too (see evaluate)."),
    ] = False,
    *,
    layout: Layout,
    by: ExecutorOptions,
    device: Device = "auto",
    allow_code: AllowCode = False,
    as_json: Json = False,
) -> None:
    """Fit prediction intervals and error bounds on held-out patients.

    The calibration is written into RUN; synth then writes interval bounds.
    The same command resumes a stopped calibration.
    """
    from voxlate.synthesis.calibrate import calibrate as fit
    from voxlate.synthesis.calibrate import find_calibration_cases, own_copy
    from voxlate.synthesis.model import load
    from voxlate.trust.summary import sentences, table

    run = Path(own_copy(run, to))
    model = load(run, device, allow_code, answer).with_options(
        allow_code, samples=samples, **synth_keys(change)
    )
    cases = find_calibration_cases(model, cohort, split, **layout.layout)
    with progress_on(err) as bars:
        path, fitted = fit(
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
            executor=choose_executor(by, device, note),
            device=device,
            any_truth=any_truth,
        )
    if as_json:
        print(
            json.dumps({"calibration": str(path), **fitted.entry, "compared": table(fitted.header)})
        )
        return
    for line in sentences(fitted.header):
        say(line)
    count = model.recipe.synth.samples
    same = f" --answer {answer}" if answer else ""
    same += f" --samples {count}" if count > 1 else ""
    same += "".join(f" --set {shlex.quote(text)}" for text in change or ())
    say(f"{path}. Next:  voxlate synth {shlex.quote(str(run))} NEW --out OUT{same}")
