"""Options of `calibrate`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

from voxlate.base.errors import as_list
from voxlate.base.option import MAIN, AllowCode, Device, ExecutorOptions, Option, options, pairs
from voxlate.scans.layout_options import Layout
from voxlate.synthesis.synth_options import ANSWER, ANYWAY, SAMPLES, SEED, SET_KEYS, Setting, Table


@options
class CalibrateOptions(Layout, ExecutorOptions):
    """Options of `voxlate calibrate` and voxlate.calibrate."""

    out: Annotated[
        Path | str | None,
        Option("Folder for a copy of a starter with the new calibration.", panel=MAIN),
    ] = None
    split: Annotated[
        Literal["train", "val", "test"] | None,
        Option("Split that calibrates: train, val or test.", panel=MAIN),
    ] = None
    out_of_fold: Annotated[
        Sequence[Path | str],
        Option(
            "Another fold of the run's cross-validation: each patient is synthesised by a fold that did not train on them; test patients are left out. Repeatable.",
            read=as_list,
            panel=MAIN,
        ),
    ] = ()
    answer: Annotated[Literal["mean", "sample"] | None, ANSWER] = None
    samples: Annotated[int | None, SAMPLES] = None
    coverage: Annotated[
        float,
        Option(
            "Share of a new patient's voxels that the intervals contain, in whole percents.",
            panel=MAIN,
            least=0.5,
            most=0.99,
        ),
    ] = 0.9
    confidence: Annotated[
        float,
        Option(
            "Confidence in the coverage, on average over patients.",
            panel=MAIN,
            least=0.5,
            most=0.9999,
        ),
    ] = 0.9
    bound: Annotated[
        Literal["normal", "none"] | None,
        Option(
            "Margin for a limited number of patients: normal (Student's t; the default from 10 patients on) or none (the default below 10)."
        ),
    ] = None
    method: Annotated[
        Literal["learned", "difficulty", "constant"] | None,
        Option(
            "Type of intervals: learned (quantiles of the error, from six patients on, similar coverage in all regions), difficulty (mean size of the error) or constant; the default is the narrower one of the first two."
        ),
    ] = None
    regions: Annotated[
        Mapping[str, str] | None,
        Option(
            "Region that is calibrated in addition to bone, soft tissue and labels: lesion='tmax>6'; of vessels, a label map, because a threshold in a head finds bone. Repeatable.",
            metavar="RULE",
            read=pairs,
        ),
    ] = None
    seed: Annotated[int, SEED] = 0
    set: Annotated[Mapping[str, Setting | Table] | None, SET_KEYS] = None
    any_truth: Annotated[
        bool,
        Option("Calibrate on truths that cannot be those of their images, too (see evaluate)."),
    ] = False
    anyway: Annotated[bool, ANYWAY] = False
    device: Device = "auto"
    allow_code: AllowCode = False
