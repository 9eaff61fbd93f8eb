"""Options that state where cases are processed."""

from typing import Annotated, Literal

from voxlate.base.options.option import Option, options


@options
class ExecutorOptions:
    """Where cases are processed, and by how many workers; None: in this process, 0 workers: as many as fit."""

    executor: Annotated[
        Literal["local", "ray"] | None, Option("Workers: local (processes) or ray.")
    ] = None
    workers: Annotated[int | None, Option("Number of workers.", least=0)] = None
    address: Annotated[str | None, Option("Ray cluster: HOST:PORT or auto.", metavar="HOST")] = None
