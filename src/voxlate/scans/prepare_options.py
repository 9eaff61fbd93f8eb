"""Options of `prepare`."""

from collections.abc import Sequence
from typing import Annotated

from voxlate.base.errors import as_list
from voxlate.base.option import ADVANCED, MAIN, ExecutorOptions, Option, options
from voxlate.scans.cases.align import Preparation, PreparationOption
from voxlate.scans.layout_options import Layout


@options
class PrepareOptions(Layout, ExecutorOptions, Preparation):
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
