"""Options that state where the files of a cohort are, which prepare, synth, evaluate and calibrate have, and those of prepare."""

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from voxlate.base.errors import as_list, known_name
from voxlate.base.option import (
    ADVANCED,
    INPUT,
    MAIN,
    PREPARATION,
    ExecutorOptions,
    Option,
    bytes_of,
    in_array_order,
    options,
    shipped_tables,
)
from voxlate.scans.images.units import check_window

# of the environment, which processes that a command starts inherit
LARGEST_VOLUME = "VOXLATE_MAX_VOLUME"
Names = Sequence[str] | str | None
PLACEHOLDERS = ("patient", "case", "modality", "split")
SHIPPED = resources.files("voxlate.scans") / "presets"


def presets() -> list[str]:
    """Names of the presets that come with the package."""
    return shipped_tables(SHIPPED)


def check_pattern(pattern: str) -> None:
    """Raise BadInput for a path pattern with an unknown {placeholder}."""
    for name in re.findall(r"\{(\w+)\}", pattern):
        known_name(
            f"'{pattern}'",
            "{patient}, {case}, {modality} or {split}",
            name,
            PLACEHOLDERS,
        )


InputOption = partial(Option, panel=INPUT)
PreparationOption = partial(Option, panel=PREPARATION)
MAX_VOLUME = InputOption("Largest scan that is read. Default: 4GB.", metavar="SIZE")


@options
class Layout:
    """Where the files of a cohort are, and to which patients they belong; see find.find_cohort."""

    pattern: Annotated[
        str | None,
        InputOption(
            "Path of scans, with {patient}, {case}, {modality}.",
            check=check_pattern,
        ),
    ] = None
    manifest: Annotated[
        Path | str | None,
        InputOption("Table (CSV, TSV): cases, patients and paths."),
    ] = None
    preset: Annotated[
        str | Path | None,
        InputOption(
            f"Public data set ({', '.join(presets())}) or a TOML file.",
            metavar="NAME",
        ),
    ] = None
    patients: Annotated[
        str | Path | None,
        InputOption(
            "File of 'CASE PATIENT' a line, regular expression of the patient in a case's name, or each (a patient a case).",
            metavar="FILE|REGEX",
        ),
    ] = None
    allow_outside: Annotated[
        bool,
        InputOption("Allow a manifest's paths to leave its folder."),
    ] = False
    exclude: Annotated[
        Names,
        InputOption(
            "Case or patient to leave out (*, ?). Repeatable.",
        ),
    ] = None

    max_volume: Annotated[str | None, MAX_VOLUME] = None

    def __post_init__(self) -> None:
        allow_volumes(self.max_volume)  # here, because every reader of scans has these options

    @property
    def layout(self) -> dict[str, Any]:
        """These options alone, as keyword arguments of find_cohort."""
        return layout_of(vars(self))


@options
class PrepareOptions(Layout, ExecutorOptions):
    """Options of `voxlate prepare` and voxlate.prepare."""

    modalities: Annotated[
        Sequence[str] | None,
        Option(
            "Modality to keep; cases without any of them are left out. Repeatable. Default: all.",
            read=as_list,
            panel=MAIN,
            metavar="NAME",
        ),
    ] = None
    resample: Annotated[
        bool,
        Option("Resample the scans of a case to the grid with the thinnest slices.", panel=MAIN),
    ] = False
    register: Annotated[
        Literal["rigid", "bspline"] | None,
        Option("Register the scans of a case: rigid or bspline.", panel=MAIN),
    ] = None
    spacing_mm: Annotated[
        tuple[float, float, float] | None,
        PreparationOption(
            "Voxel size in mm to which all scans are resampled (in Python z, y, x).",
            metavar="X Y Z",
            read=in_array_order,
        ),
    ] = None
    matrix: Annotated[
        tuple[int, int, int] | tuple[int, int] | None,
        PreparationOption(
            "Columns, rows and slices (0: as they are) to which every scan is resized, instead of --spacing-mm (in Python z, y, x).",
            metavar="X Y Z",
            read=lambda sizes: in_array_order(sizes[:2] if tuple(sizes[2:]) == ("0",) else sizes),
        ),
    ] = None
    fixed: Annotated[
        str | None,
        PreparationOption(
            "Modality whose grid the other scans are resampled to.",
            metavar="NAME",
        ),
    ] = None
    align: Annotated[
        Literal["midline"] | None,
        PreparationOption(
            "Align heads: midline turns and shifts them until left and right mirror each other.",
        ),
    ] = None
    mask: Annotated[
        Literal["body", "brain"],
        PreparationOption("Mask of a case that has no mask file: body, or the brain of a CT."),
    ] = "body"
    mask_from: Annotated[
        str | None,
        PreparationOption(
            "Modality in which the brain is segmented. Default: plain CT if there is one.",
            metavar="NAME",
        ),
    ] = None
    window: Annotated[
        tuple[float, float] | None,
        PreparationOption(
            "HU that black and white show in pictures of CT. Default: 0 80 in heads, the window of the brain.",
            metavar="LOW HIGH",
            check=check_window,
        ),
    ] = None
    shares: Annotated[
        tuple[float, float, float] | None,
        PreparationOption(
            "Shares or numbers of patients for train, val and test. Default: 0.7 0.15 0.15, and no test patients if there are fewer than 10. The splits of a manifest take precedence.",
            metavar="A B C",
        ),
    ] = None
    seed: Annotated[int, PreparationOption("Random seed of the split by patient.", least=0)] = 0
    audit: Annotated[
        bool,
        Option(
            "Measure how far the scans of a case are misaligned.",
            panel=ADVANCED,
        ),
    ] = True


def allow_volumes(size: str | None) -> None:
    """Let scans of this size be read, such as 8GB; None changes nothing."""
    if size is not None:
        bytes_of(size, "--max-volume: ")
        os.environ[LARGEST_VOLUME] = size


def layout_of(stated: Mapping[str, Any]) -> dict[str, Any]:
    """The layout among options or in the provenance of a prepared cohort, as keyword arguments of find_cohort."""
    names = (field.name for field in fields(Layout) if field.name != "max_volume")
    return {name: stated[name] for name in names if stated.get(name)}


def quote_path(path: Path | str) -> str:
    """A path quoted for a shell, relative to the current folder if it is below it."""
    here = os.path.relpath(path) if Path(path).is_absolute() else str(path)
    return shlex.quote(str(path) if here.startswith("..") else here)


def layout_options(layout: Mapping[str, Any]) -> str:
    """The layout of a cohort as options of a command."""
    named = ""
    for key, value in layout_of(layout).items():
        option = f" --{key.replace('_', '-')}"
        for text in value if isinstance(value, list | tuple) else [value]:
            named += option if text is True else f"{option} {quote_path(text)}"
    return named
