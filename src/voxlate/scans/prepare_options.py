"""Options of `prepare`."""

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Literal

from voxlate.base.errors import as_list
from voxlate.base.option import (
    ADVANCED,
    MAIN,
    PREPARATION,
    ExecutorOptions,
    Option,
    in_array_order,
    options,
)
from voxlate.scans.layout_options import Layout

PreparationOption = partial(Option, panel=PREPARATION)


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
            "Voxel size in mm to which all scans are resampled.",
            metavar="X Y Z",
            read=in_array_order,
        ),
    ] = None
    matrix: Annotated[
        tuple[int, int, int] | tuple[int, int] | None,
        PreparationOption(
            "Columns, rows and slices (0: as they are) to which every scan is resized, instead of --spacing-mm.",
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
