"""The command that serves a local web page."""

from pathlib import Path
from typing import Annotated

from typer import Argument

from voxlate.cli.app import note, say
from voxlate.cli.options import command
from voxlate.options.option import MAIN, Device, Option
from voxlate.starters.names import complete_starter
from voxlate.web.settings import DEFAULT_DISK, DEFAULT_UPLOAD, SHORTEST_TOKEN, Limits


@command(
    "serve RUN",
    "serve RUN starter:head-mr-to-ct --root SCANS",
    "serve RUN --host 10.0.0.5 --token-file FILE",
)
def serve(
    runs: Annotated[
        list[str] | None,
        Argument(
            metavar="[RUN...]",
            help="Run folders, weights files or starter:NAME; without any, the installed starters.",
            autocompletion=complete_starter,
        ),
    ] = None,
    data: Annotated[
        Path | None,
        Option("Folder of uploads, queue and results (default: in the user's cache).", panel=MAIN),
    ] = None,
    root: Annotated[
        Path | None,
        Option(
            "Folder below which the page may read scans, and write prepared cohorts and runs.",
            panel=MAIN,
        ),
    ] = None,
    port: Annotated[int, Option("Port of the page.", panel=MAIN, least=1, most=65535)] = 8765,
    host: Annotated[
        str,
        Option("Address to listen on; one that others reach needs --token-file.", metavar="NAME"),
    ] = "127.0.0.1",
    name: Annotated[
        list[str] | None,
        Option("Further host name by which browsers reach the page. Repeatable."),
    ] = None,
    token_file: Annotated[
        Path | None,
        Option(
            f"File with an own token of at least {SHORTEST_TOKEN} characters, for several browsers.",
        ),
    ] = None,
    keep: Annotated[
        float, Option("Hours after which uploads and results are removed.", least=0.1)
    ] = Limits.keep_hours,
    max_upload: Annotated[
        str, Option("Size of the largest upload.", metavar="SIZE")
    ] = DEFAULT_UPLOAD,
    max_disk: Annotated[
        str, Option("Size of all uploads and results.", metavar="SIZE")
    ] = DEFAULT_DISK,
    device: Device = "auto",
) -> None:
    """Serve a page on this machine: choose a scan, see which model fits, synthesise, view, download.

    The printed URL has a token, which lets one browser in. No request leaves the machine.
    """
    from voxlate.web.offering import offer, read_token
    from voxlate.web.offering import serve as serve_page

    offered = offer(
        runs or (),
        data=data,
        root=root,
        port=port,
        host=host,
        names=name or (),
        token=None if token_file is None else read_token(token_file),
        keep=keep,
        max_upload=max_upload,
        max_disk=max_disk,
        device=device,
    )
    serve_page(offered, say, note)
