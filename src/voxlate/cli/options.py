"""Options that several commands share, with their help."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from typer import Option

from voxlate.errors import BadInput
from voxlate.recipe.text import table


def _presets(begun: str) -> list[str]:
    from voxlate.data.presets import presets

    return [name for name in presets() if name.startswith(begun)]


To = Annotated[Path, Option("--out", help="Folder for what this command makes.")]
Json = Annotated[bool, Option("--json", help="Print the result as JSON, for programs.")]
Everything = Annotated[bool, Option("--all", help="Print all scores and baselines, not only the main ones.")]
Device = Annotated[str, Option(help="auto (a GPU if there is one), cpu, cuda, cuda:1, mps or xpu.")]
AllowCode = Annotated[bool, Option("--allow-code", help="Import the Python code that the model names, and run it.")]
Modalities = Annotated[list[str] | None, Option(help="Only this, in every case (repeat it); else all.")]
Split = Annotated[Literal["train", "val", "test"] | None, Option(help="Only this split.")]
Changes = Annotated[list[str] | None, Option("--set", help="Change a key: train.steps=500 (repeat it).")]
Samples = Annotated[int | None, Option(min=1, help="Images a case; over 1: mean and standard deviation.")]
SynthChanges = Annotated[
    list[str] | None,
    Option("--set", help="Change a key of the recipe's synth table: overlap=0.25, or synth.overlap=0.25."),
]
Noise = Annotated[
    Literal["independent", "shared", "correlated"] | None, Option(help="How the noise of slices is related.")
]
Answer = Annotated[
    Literal["mean", "sample"] | None,
    Option(help="Of a diffusion of what a predictor leaves: the predictor's image, or a sample (as unset)."),
]
Steps = Annotated[int | None, Option(min=1, help="Times at which the network denoises.")]


@dataclass(frozen=True)
class Layout:
    """Where the files of a cohort are, and whose they are."""

    pattern: Annotated[str | None, Option(help="Where files are, with {patient}, {case} and {modality}.")] = None
    manifest: Annotated[
        Path | None,
        Option(help="CSV or TSV: case, patient, split, a path for each modality."),
    ] = None
    preset: Annotated[
        str | None,
        Option(
            help="Layout of a public data set, or of a paper's own arrays: bids, brats, brats2019, brats2023, "
            "gold_atlas, isles18, isles24, ixi, lyu_wang, mrdpm, msd_brain_tumour, open_ms, rire, rire_rectified, "
            "synthrad, topcow, unitobrain, xmodality; or a TOML file like theirs, whose tables series.t2, … choose "
            "DICOM series by tags (docs/dicom.md).",
            autocompletion=_presets,
        ),
    ] = None
    patients: Annotated[
        Path | None,
        Option(
            help="Whose the slices of array files are: a text file with 'ID PATIENT' a line, for HDF5 a patient a "
            "slice; default: patients.txt in the cohort."
        ),
    ] = None
    allow_outside: Annotated[
        bool, Option("--allow-outside", help="A manifest's paths may lead out of its folder and the cohort.")
    ] = False
    prefer: Annotated[
        list[str] | None,
        Option(help="Of several files of one modality in a case, take the one of this name or path: '*_run-2_*'."),
    ] = None
    exclude: Annotated[list[str] | None, Option(help="Leave out this case or patient (* and ?; repeat it).")] = None
    exclude_file: Annotated[
        list[str] | None, Option(help="Leave out files of this name, path or series description: '*_defaced*'.")
    ] = None


def with_tables(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command, in place of each parameter that is a dataclass, the options that its fields are.

    Typer reads the options of a command in its signature.
    """
    signature = inspect.signature(command)
    own = signature.parameters
    tables: dict[str, Any] = {name: one.annotation for name, one in own.items() if is_dataclass(one.annotation)}
    fields = {name: inspect.signature(table).parameters for name, table in tables.items()}

    @functools.wraps(command)
    def run(**given: Any) -> None:
        filled = {name: table(**{key: given.pop(key) for key in fields[name]}) for name, table in tables.items()}
        command(**given, **filled)

    parameters = list[inspect.Parameter]()
    for name, one in own.items():
        parameters += fields[name].values() if name in fields else [one]
    options = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in parameters]
    run.__signature__ = signature.replace(parameters=options)  # type: ignore[attr-defined]
    return run


def synth_table(texts: list[str] | None) -> dict[str, Any]:
    """KEY=VALUE texts as tables of synthesis options; keys may be written as in a recipe, synth.KEY."""
    named = [text.strip().removeprefix("synth.") for text in texts or []]
    return table(pairs(named))


def pairs(texts: list[str] | None, option: str = "--set") -> dict[str, str]:
    """KEY=VALUE texts as a table; raises BadInput for a text without `=`, and for a key with two values."""
    found = dict[str, str]()
    for text in texts or []:
        if "=" not in text:
            raise BadInput(f"{option}: expected KEY=VALUE, found {text!r}. Add the value.")
        key, _, value = text.partition("=")
        if found.setdefault(key.strip(), value) != value:
            raise BadInput(f"{option}: expected each key once, found '{key.strip()}' twice. Remove one of the two.")
    return found
