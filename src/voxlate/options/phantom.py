"""Options of `phantom`."""

from collections.abc import Sequence
from typing import Annotated, Literal

from voxlate.options.option import MAIN, Option, options


@options
class PhantomOptions:
    """Options of `voxlate phantom` and voxlate.phantom."""

    cases: Annotated[int, Option("Number of heads.", panel=MAIN, least=1)] = 24
    size: Annotated[
        tuple[int, int, int], Option("Number of voxels in x, y and z.", panel=MAIN, metavar="X Y Z")
    ] = (96, 96, 48)
    modalities: Annotated[
        Sequence[str] | None,
        Option(
            "Modality that is written, such as t1, ct, a map of a tissue parameter such as t1_map, or maps for all of these. Repeatable. Default: all images and no map.",
            flag="--modality",
            panel=MAIN,
            metavar="NAME",
            takes=list[str],
        ),
    ] = None
    lesion: Annotated[
        Literal["none", "tumour", "stroke", "mixed"],
        Option("Lesion of the heads: none, tumour, stroke or mixed.", panel=MAIN),
    ] = "mixed"
    stripped: Annotated[bool, Option("Write the brain alone, as after skull stripping.")] = False
    anatomy: Annotated[
        int,
        Option(
            "Anatomy of the heads: 1 plain; 2 with skull base, sinuses, jaw and neck, all ages and many diseases.",
            panel=MAIN,
            least=1,
            most=2,
        ),
    ] = 1
    seed: Annotated[int, Option("Random seed of the heads.", least=0)] = 0
