"""Options of `evaluate`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from voxlate.options.layout import Layout
from voxlate.options.option import ADVANCED, MAIN, SCORES, Option, pairs

CROP = 256  # pixels a side: paper 001, table 1


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(Layout):
    """Options of `voxlate evaluate` and voxlate.evaluate that say what is scored, and how.

    naive, features and slices also take objects in Python: Baselines, Features and SliceFilter.
    """

    mask: Annotated[
        Path | str | None,
        Option(
            "Voxels to score: body, brain, cohort (its mask files) or a mask file. Default: the whole image.",
            panel=MAIN,
            metavar="NAME",
            takes=str,
            complete=("body", "brain", "cohort"),
        ),
    ] = None
    regions: Annotated[
        Mapping[str, str] | None,
        Option(
            "Region to score by itself: 'lesion=tmax>6', 'core=cbf<30%', core=seg=1, vessels=MASK_FILE or ratio=lesion/core. Repeatable.",
            flag="--region",
            panel=MAIN,
            metavar="RULE",
            takes=list[str],
            read=partial(pairs, option="--region"),
        ),
    ] = None
    split: Annotated[
        str | None,
        Option(
            "Split to score: train, val or test.", panel=MAIN, takes=Literal["train", "val", "test"]
        ),
    ] = None
    value_range: Annotated[
        Mapping[str, Sequence[float]] | Sequence[float] | None,
        Option(
            "Range of PSNR and SSIM in the target's unit.",
            flag="--range",
            panel=SCORES,
            metavar="A B",
            takes=tuple[float, float],
        ),
    ] = None
    any_truth: Annotated[
        bool,
        Option(
            "Count truths of another unit or patient, too.",
            panel=SCORES,
        ),
    ] = False
    align: Annotated[
        bool,
        Option(
            "Add scores of images moved onto the truth.",
            panel=SCORES,
        ),
    ] = False
    window: Annotated[
        tuple[float, float] | None,
        Option(
            "HU range of PNG truths. Default: 0 80.",
            panel=SCORES,
            metavar="A B",
        ),
    ] = None
    scopes: Annotated[
        Sequence[str],
        Option(
            "Additional scope of the scores: whole, both_masked, slices, crops, … Repeatable.",
            flag="--score",
            panel=SCORES,
            metavar="NAME",
            takes=list[str],
            complete="voxlate.scoring.scopes:SCOPES",
        ),
    ] = ()
    slices: Annotated[
        Any,
        Option(
            "Slices that count in the scopes of --score: 'above={tof=\"mean\",cta=0}, pixels=200, overlap=0.3'.",
            panel=SCORES,
            metavar="TABLE",
            takes=str,
        ),
    ] = None
    crop: Annotated[int, Option("Side length of crops in pixels.", panel=SCORES)] = CROP
    features: Annotated[
        Any,
        Option(
            "Features of the distances between all slices: texture (built in), vit or a ViT's folder.",
            panel=SCORES,
            metavar="NAME",
            takes=str,
        ),
    ] = None
    lpips: Annotated[
        Path | str | None,
        Option("AlexNet weights (safetensors) for LPIPS.", panel=SCORES),
    ] = None
    units: Annotated[
        Literal["own", "network"],
        Option(
            "Unit of MR: own divides each image by its peak; network is 0 to 255 as the network sees it.",
            panel=SCORES,
        ),
    ] = "own"
    ssim_from: Annotated[
        Literal["low", "zero"],
        Option("Zero of the values in SSIM: low (the range's low end) or zero.", panel=SCORES),
    ] = "low"
    seed: Annotated[
        int,
        Option(
            "Random seed of crops, intervals, distances and the synthesis by --run.",
            panel=SCORES,
            least=0,
        ),
    ] = 0
    prepared: Annotated[
        Path | None,
        Option(
            "Prepared cohort with the transforms of registered scans. Default: that of the run.",
            panel=ADVANCED,
        ),
    ] = None
    naive: Annotated[
        Any,
        Option(
            "Naive baselines. Default: those of the run.",
            panel=ADVANCED,
            takes=Path,
        ),
    ] = None
