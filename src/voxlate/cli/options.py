"""Options that several commands share, with their help."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from voxlate.errors import BadInput


def _presets(begun: str) -> list[str]:
    from voxlate.data.presets import presets

    return [name for name in presets() if name.startswith(begun)]


To = Annotated[Path, typer.Option("--out", help="Folder for what this command makes.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON, for programs.")]
Device = Annotated[str, typer.Option(help="auto (a GPU if there is one), cpu or cuda.")]
AllowCode = Annotated[
    bool, typer.Option("--allow-code", help="Import the Python code that the model names, and run it.")
]
Pattern = Annotated[str | None, typer.Option(help="Where files are, with {patient}, {case} and {modality}.")]
Manifest = Annotated[Path | None, typer.Option(help="CSV or TSV: case, patient, split, a path for each modality.")]
Preset = Annotated[
    str | None,
    typer.Option(
        help="Layout of a public data set, or of a paper's own arrays: bids, brats, brats2019, brats2023, gold_atlas, "
        "isles18, isles24, ixi, lyu_wang, mrdpm, msd_brain_tumour, open_ms, rire, rire_rectified, synthrad, topcow, "
        "unitobrain, xmodality; or a TOML file like theirs, whose tables series.t2, … choose DICOM series by tags.",
        autocompletion=_presets,
    ),
]
Patients = Annotated[
    Path | None,
    typer.Option(
        help="Whose the slices of array files are: a text file with 'ID PATIENT' a line, for HDF5 a patient a slice; "
        "default: patients.txt in the cohort."
    ),
]
Outside = Annotated[
    bool, typer.Option("--allow-outside", help="A manifest's paths may lead out of its folder and the cohort.")
]
Modalities = Annotated[list[str] | None, typer.Option(help="Only this, in every case (repeat it); else all.")]
Split = Annotated[Literal["train", "val", "test"] | None, typer.Option(help="Only this split.")]
Changes = Annotated[list[str] | None, typer.Option("--set", help="Change a key: train.steps=500 (repeat it).")]
Samples = Annotated[int | None, typer.Option(min=1, help="Images a case; over 1: mean and standard deviation.")]


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
