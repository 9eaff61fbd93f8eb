"""Options that state where cases are processed."""

from typing import Annotated, Literal

from voxlate.base.options.option import ADVANCED, Option, options


@options
class ExecutorOptions:
    """Where cases are processed, and by how many workers; None: in this process, 0 workers: as many as fit."""

    executor: Annotated[
        Literal["local", "ray"] | None,
        Option("Workers: local (processes) or ray.", panel=ADVANCED),
    ] = None
    workers: Annotated[int | None, Option("Number of workers.", panel=ADVANCED, least=0)] = None
    address: Annotated[
        str | None, Option("Ray cluster: HOST:PORT or auto.", panel=ADVANCED, metavar="HOST")
    ] = None
