"""Options of `evaluate`, `compare` and `calibrate`."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from voxlate.base.errors import as_list
from voxlate.base.option import (
    ADVANCED,
    MAIN,
    OUTPUT,
    SCORES,
    AllowCode,
    Device,
    ExecutorOptions,
    Object,
    Option,
    options,
    pairs,
)
from voxlate.scans.layout_options import Layout
from voxlate.synthesis.synth_options import (
    ANSWER,
    ANYWAY,
    SAMPLES,
    SEED,
    SET_KEYS,
    Setting,
    Table,
)


@options
class EvaluateOptions(Layout, ExecutorOptions):
    """Options of `voxlate evaluate` and voxlate.evaluate."""

    mask: Annotated[
        str | Path | None,
        Option(
            "Voxels to score: body (the default in HU and for perfusion), whole (else), cohort (its mask files) or a file.",
            panel=MAIN,
            metavar="NAME",
        ),
    ] = None
    regions: Annotated[
        Mapping[str, str] | None,
        Option(
            "Region to score: 'lesion=tmax>6', core=seg=1, vessels=MASK_FILE or tissues=ct. Repeatable.",
            panel=MAIN,
            metavar="RULE",
            read=pairs,
        ),
    ] = None
    split: Annotated[
        Literal["train", "val", "test"] | None,
        Option("Split to score: train, val or test.", panel=MAIN),
    ] = None
    value_range: Annotated[
        tuple[float, float] | Mapping[str, Sequence[float]] | None,
        Option(
            "Range of PSNR and SSIM.",
            panel=SCORES,
            metavar="A B",
        ),
    ] = None
    any_truth: Annotated[
        bool,
        Option(
            "Count wrong truths, too.",
            panel=SCORES,
        ),
    ] = False
    features: Annotated[
        Literal["texture"] | Callable[..., Any] | None,
        Option(
            "Distance of the slices' features: texture.",
            panel=SCORES,
            metavar="NAME",
        ),
    ] = None
    metrics: Annotated[
        Sequence[str | Callable[..., float]],
        Option(
            "Score of your own, MODULE:FUNCTION, with --allow-code. Repeatable.",
            read=as_list,
            panel=SCORES,
            metavar="NAME",
        ),
    ] = ()
    lpips: Annotated[
        Path | str | None,
        Option("AlexNet weights (safetensors) for LPIPS.", panel=SCORES),
    ] = None
    units: Annotated[
        Literal["own", "network"],
        Option(
            "Unit of MR: own (of its peak) or network (0 to 255).",
            panel=SCORES,
        ),
    ] = "own"
    ssim_from: Annotated[
        Literal["low", "zero"],
        Option("Zero of SSIM: low (of the range) or zero.", panel=SCORES),
    ] = "low"
    prepared: Annotated[
        Path | None,
        Option(
            "Prepared cohort with the transforms of registered scans and the window of pictures. Default: that of the run.",
            panel=ADVANCED,
        ),
    ] = None
    naive: Annotated[
        Path | str | Annotated[Any, Object("voxlate.training.naive:Baselines")] | None,
        Option(
            "Run whose naive baselines are scored. Default: that of OUT.",
            panel=ADVANCED,
        ),
    ] = None
    allow_code: AllowCode = False


@options
class CompareOptions:
    """Options of `voxlate compare` and voxlate.compare."""

    reference: Annotated[
        str | None,
        Option(
            "Folder against which the others are tested. Default: the best one.",
            panel=MAIN,
            metavar="NAME",
        ),
    ] = None
    report: Annotated[
        Path | str | None, Option("HTML page with the table and pictures.", panel=MAIN)
    ] = None
    out: Annotated[
        Path | str | None,
        Option("File of the table: .csv or .tex (LaTeX).", panel=OUTPUT),
    ] = None


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
    seed: Annotated[int, SEED] = 0
    set: Annotated[Mapping[str, Setting | Table] | None, SET_KEYS] = None
    anyway: Annotated[bool, ANYWAY] = False
    device: Device = "auto"
    allow_code: AllowCode = False
