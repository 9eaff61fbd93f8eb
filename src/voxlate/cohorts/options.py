"""Options of `prepare`, and those that say where the files of a cohort are (shared with synth, evaluate, calibrate).

This module imports nothing heavy, because the command line reads it for --help.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from voxlate.formats.limits import allow_volumes
from voxlate.system.options import ADVANCED, INPUT, MAIN, PREPARATION, Option

SHIPPED = resources.files("voxlate") / "presets"


def presets() -> list[str]:
    """Names of the presets that come with the package."""
    return sorted(
        path.name.removesuffix(".toml") for path in SHIPPED.iterdir() if path.name.endswith(".toml")
    )


def _presets(begun: str) -> list[str]:
    return [name for name in presets() if name.startswith(begun)]


def _reversed(sizes: Sequence[Any]) -> tuple[Any, ...]:
    """Sizes in the order of arrays (z, y, x) from those in the order of the command line."""
    return tuple(reversed(sizes))


MAX_VOLUME = Option(
    "Largest scan that is read. Default: 4GB.",
    panel=INPUT,
    metavar="SIZE",
)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where the files of a cohort are, and to which patients they belong; see find.find_cohort."""

    pattern: Annotated[
        str | None,
        Option("Path of scans, with {patient}, {case}, {modality}.", panel=INPUT),
    ] = None
    manifest: Annotated[
        Path | str | None,
        Option("Table (CSV, TSV) of cases, patients and paths.", panel=INPUT),
    ] = None
    preset: Annotated[
        Path | str | None,
        Option(
            f"Public data set ({', '.join(presets())}) or a TOML file.",
            panel=INPUT,
            metavar="NAME",
            takes=str,
            complete=_presets,
        ),
    ] = None
    patients: Annotated[
        Path | str | None,
        Option(
            "'CASE PATIENT' a line, or each (a patient a case).",
            panel=INPUT,
            metavar="FILE",
        ),
    ] = None
    allow_outside: Annotated[
        bool,
        Option("Allow a manifest's paths to leave its folder.", panel=INPUT),
    ] = False
    prefer: Annotated[
        Sequence[str] | str | None,
        Option(
            "File to take if a case has several of a modality, such as '*_run-2_*'. Repeatable.",
            panel=INPUT,
            takes=list[str],
        ),
    ] = None
    exclude: Annotated[
        Sequence[str] | str | None,
        Option(
            "Case or patient to leave out (*, ?). Repeatable.",
            panel=INPUT,
            takes=list[str],
        ),
    ] = None
    exclude_file: Annotated[
        Sequence[str] | str | None,
        Option(
            "Name, path or series description of files to leave out: '*_defaced*'. Repeatable.",
            panel=INPUT,
            takes=list[str],
        ),
    ] = None

    max_volume: Annotated[str | None, MAX_VOLUME] = None

    def __post_init__(self) -> None:
        if self.max_volume is not None:  # here, because every reader of scans has these options
            allow_volumes(self.max_volume)

    @property
    def layout(self) -> dict[str, Any]:
        """These options alone, as keyword arguments of find_cohort."""
        return layout_of(vars(self))


def layout_of(stated: Mapping[str, Any]) -> dict[str, Any]:
    """The layout among options or in the provenance of a prepared cohort, as keyword arguments of find_cohort."""
    names = (field.name for field in fields(Layout) if field.name != "max_volume")
    return {name: stated[name] for name in names if stated.get(name)}


@dataclass(frozen=True, kw_only=True)
class PrepareOptions(Layout):
    """Options of `voxlate prepare` and voxlate.prepare."""

    modalities: Annotated[
        Sequence[str] | None,
        Option(
            "Modality to keep; every case must have it. Repeatable. Default: all.",
            flag="--modality",
            panel=MAIN,
            metavar="NAME",
            takes=list[str],
        ),
    ] = None
    resample: Annotated[
        bool,
        Option("Resample the scans of a case to the grid with the thinnest slices.", panel=MAIN),
    ] = False
    register: Annotated[
        Literal["rigid", "affine", "smooth", "bspline", "ants"] | None,
        Option("Register the scans of a case: rigid, affine, smooth, bspline or ants.", panel=MAIN),
    ] = None
    spacing_mm: Annotated[
        tuple[float, float, float] | None,
        Option(
            "Voxel size in mm to which all scans are resampled.",
            flag="--spacing",
            panel=PREPARATION,
            metavar="X Y Z",
            read=_reversed,
        ),
    ] = None
    matrix: Annotated[
        tuple[int, int] | None,
        Option(
            "Columns and rows to which every slice is resized, instead of --spacing.",
            panel=PREPARATION,
            metavar="X Y",
            read=_reversed,
        ),
    ] = None
    fixed: Annotated[
        str | None,
        Option(
            "Modality whose grid the other scans are resampled to.",
            panel=PREPARATION,
            metavar="NAME",
        ),
    ] = None
    align: Annotated[
        Literal["midline"] | None,
        Option(
            "Align heads: midline turns and shifts them until left and right mirror each other.",
            panel=PREPARATION,
        ),
    ] = None
    mask: Annotated[
        Literal["body", "brain"],
        Option("Mask of a case that has no mask file: body or brain.", panel=PREPARATION),
    ] = "body"
    mask_from: Annotated[
        str | None,
        Option(
            "Modality in which the brain is segmented. Default: plain CT if there is one.",
            panel=PREPARATION,
            metavar="NAME",
        ),
    ] = None
    shares: Annotated[
        tuple[float, float, float] | None,
        Option(
            "Shares or numbers of patients for train, val and test. Default: 0.7 0.15 0.15, and no test patients if there are fewer than 10. The splits of a manifest take precedence.",
            panel=PREPARATION,
            metavar="A B C",
        ),
    ] = None
    seed: Annotated[
        int, Option("Random seed of the split by patient.", panel=PREPARATION, least=0)
    ] = 0
    audit: Annotated[
        bool,
        Option(
            "Estimate how far the scans of a case are misaligned.",
            flag="--audit/--no-audit",
            panel=ADVANCED,
        ),
    ] = True
    audit_cases: Annotated[
        int | None,
        Option(
            "Number of cases whose alignment is estimated. Default: all of a small cohort, a tenth of a large one.",
            panel=ADVANCED,
            least=1,
        ),
    ] = None
