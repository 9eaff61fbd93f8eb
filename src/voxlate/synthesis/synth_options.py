"""Options of `synth`. Settings of the sampling that are unset keep the recipe's values."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from voxlate.base.errors import BadInput, as_list
from voxlate.base.option import (
    INPUT,
    MAIN,
    OUTPUT,
    SAMPLING,
    AllowCode,
    Device,
    ExecutorOptions,
    Option,
    options,
    pairs,
    toml_value,
)
from voxlate.scans.layout_options import Layout

Setting = str | float | bool | Sequence[float] | None
Table = Mapping[str, Setting]
SAMPLES = Option(
    "Number of samples a case, of which mean and standard deviation are written.",
    panel=SAMPLING,
    least=1,
)
SEED = Option("Random seed.", panel=SAMPLING, least=0)
SPLIT = Option("Split to synthesise: train, val or test.", panel=MAIN)
ANYWAY = Option('Also cases graded "do not trust".', panel=MAIN)
ACCEPT_UNTRUSTED = Option("Hand on untrusted images.", panel=OUTPUT)
ANSWER = Option(
    "Model of two stages: mean (least error) or sample (sharp). Default: sample.",
    panel=MAIN,
)


def synth_keys(texts: Sequence[str]) -> dict[str, Any]:
    """KEY=VALUE texts as keys of a recipe's synth table; they may be written as in a recipe, synth.KEY."""
    table = pairs([text.strip().removeprefix("synth.") for text in as_list(texts)])
    return {key: toml_value(value) for key, value in table.items()}


def part_of(text: str) -> slice:
    """The cases of the part that "3/8" names: neighbours, which are often similar, go to several parts.

    Raises BadInput, without a place, for any other text.
    """
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text.strip())
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise BadInput(
            f"expected the number of a part and how many there are, such as 3/8, found {text!r}. Write it so."
        )
    return slice(int(match[1]) - 1, None, int(match[2]))


SET_KEYS = Option(
    "Change of a key of the recipe's synth table, such as overlap=0.25. Repeatable.",
    panel=SAMPLING,
    metavar="KEY=…",
    read=synth_keys,
)


@options
class SynthKeys:
    """Keys of a recipe's synth table; `set` holds keys that have no option of their own."""

    samples: Annotated[int | None, SAMPLES] = None
    steps: Annotated[
        int | None,
        Option(
            "Number of times at which the network denoises.",
            panel=SAMPLING,
            least=1,
        ),
    ] = None
    set: Annotated[Mapping[str, Setting | Table] | None, SET_KEYS] = None
    sharpness: Annotated[
        float | None,
        Option("Mean at 0, sample at 1.", panel=SAMPLING, least=0, most=1),
    ] = None
    sampler: Annotated[
        str | None,
        Option(
            "Sampler, instead of the recipe's.",
            panel=SAMPLING,
            metavar="NAME",
        ),
    ] = None
    keep_states: Annotated[
        int | None,
        Option(
            "States of sampling to write.",
            panel=OUTPUT,
            least=1,
        ),
    ] = None
    batch: Annotated[
        int | None,
        Option("Number of slices at a time: changes memory, and rounding unless --exact.", least=1),
    ] = None
    exact: Annotated[
        bool | None,
        Option("Compute in float32, one slice at a time: bit-identical for every --batch, slower."),
    ] = None


@options
class CheckOptions(Layout):
    """Options of `voxlate check` and voxlate.check."""

    split: Annotated[Literal["train", "val", "test"] | None, SPLIT] = None
    answer: Annotated[Literal["mean", "sample"] | None, ANSWER] = None
    missing: Annotated[
        Sequence[str] | None,
        Option(
            "Modality to leave out of the input and synthesise. Repeatable.",
            read=as_list,
            panel=MAIN,
            metavar="NAME",
        ),
    ] = None
    device: Device = "auto"
    allow_code: AllowCode = False


@options
class SynthOptions(SynthKeys, CheckOptions, ExecutorOptions):
    """Options of `voxlate synth` and voxlate.synthesise."""

    samples: Annotated[int | None, replace(SAMPLES, panel=MAIN)] = None
    anyway: Annotated[bool, ANYWAY] = False
    part: Annotated[
        str | None,
        Option(
            "Every N-th case from the I-th on, for N jobs.",
            panel=INPUT,
            metavar="I/N",
            check=part_of,
        ),
    ] = None
    like: Annotated[
        str | None,
        Option(
            "Recipe whose synth table replaces the model's.",
            panel=SAMPLING,
            metavar="RECIPE",
        ),
    ] = None
    seed: Annotated[int, SEED] = 0
    intervals: Annotated[
        bool,
        Option(
            "Write calibrated bounds.",
            panel=OUTPUT,
        ),
    ] = True
    format: Annotated[
        Literal["nii.gz", "nii", "nrrd", "mha"],
        Option("Format.", panel=OUTPUT),
    ] = "nii.gz"
    dicom: Annotated[
        Path | None,
        Option("Folder for DICOM series.", panel=OUTPUT),
    ] = None
    store: Annotated[bool, Option("Store in INPUT's study.", panel=OUTPUT)] = False
    accept_untrusted: Annotated[bool, ACCEPT_UNTRUSTED] = False
