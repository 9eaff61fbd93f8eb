"""Options of `phantom`."""

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

from voxlate.base.errors import as_list
from voxlate.base.option import MainOption, Option, options, shipped_tables

LEAST_MM, MOST_MM = 0.2, 10.0  # voxels
Side = Annotated[int, Option("Number of voxels.", least=8, most=1024)]
Length = Annotated[float, Option("Voxel size in mm.", least=LEAST_MM, most=MOST_MM)]
SHIPPED = resources.files("voxlate.anatomy") / "tables"


def tables() -> list[str]:
    """Names of the tables of labels' tissues that come with the package."""
    return shipped_tables(SHIPPED)


@options
class PhantomOptions:
    """Options of `voxlate phantom` and voxlate.phantom."""

    cases: Annotated[int, MainOption("Number of cases.", least=1)] = 24
    size: Annotated[
        tuple[Side, Side, Side] | None,
        MainOption(
            "Number of voxels in x, y and z, 8 to 1024 each. Default: 96 96 48. Not with --labels.",
            metavar="X Y Z",
        ),
    ] = None
    labels: Annotated[
        Path | str | None,
        MainOption(
            "Label map, or folder of label maps, whose anatomy is varied and drawn in place of simulated heads.",
            metavar="PATH",
        ),
    ] = None
    tissues: Annotated[
        str | Path | None,
        MainOption(
            f"Tissues of the labels: {', '.join(tables())}, or a TOML file.",
            metavar="TABLE",
        ),
    ] = None
    spacing_mm: Annotated[
        tuple[Length, Length, Length] | None,
        MainOption(
            "Voxel size in mm with --labels, 0.2 to 10 each. Default: that of the label map.",
            metavar="X Y Z",
        ),
    ] = None
    modalities: Annotated[
        Sequence[str] | None,
        MainOption(
            "Modality that is written, such as t1, ct, a map of a tissue parameter such as t1_map, or maps for all of these. Repeatable. Default: all images and no map.",
            read=as_list,
            metavar="NAME",
        ),
    ] = None
    lesion: Annotated[
        Literal["none", "tumour", "stroke", "mixed"],
        MainOption("Lesion of the heads: none, tumour, stroke or mixed."),
    ] = "mixed"
    stripped: Annotated[bool, Option("Write the brain alone, as after skull stripping.")] = False
    seed: Annotated[int, Option("Random seed of the heads.", least=0)] = 0
