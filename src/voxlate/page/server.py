"""From the options of `voxlate serve` to a server: its settings, its token, and the URL that lets a browser in."""

import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from voxlate.base.errors import BadInput, as_list, plural
from voxlate.base.hub import address_of, download, is_on_hub
from voxlate.base.machine import cache_folder
from voxlate.base.optional import optional_package
from voxlate.clinic.share_options import SHORTEST_TOKEN, ServeOptions
from voxlate.commands.api.entry import RUNS, Address, Command
from voxlate.commands.api.progress import say
from voxlate.page.page_settings import LOCAL, WILDCARDS, Settings
from voxlate.training.starters.names import folder_of, is_starter, starter_names

PACKAGES = ("fastapi", "uvicorn", "python_multipart", "jinja2")
OTHERS = 0o077  # the permissions of all but the owner


def check_server(runs: Sequence[Address], options: ServeOptions) -> Settings:
    """Check the options of a server; raises BadInput where a run is absent, or where others could get in."""
    token = secrets.token_urlsafe(32)
    host, names = options.host, options.name
    if host not in LOCAL and options.token_file is None:
        raise BadInput(
            f"--host {host}: expected a token with an address that other machines reach, found none. Add --token-file FILE."
        )
    if host in WILDCARDS and not names:
        raise BadInput(
            f"--host {host}: expected --name with the host name by which browsers reach the page, found none. Add --name NAME, or listen on one address."
        )
    if options.token_file is not None:
        token = read_token(Path(options.token_file))
    return Settings(
        label_runs(_check_runs(runs)),
        Path(options.data or cache_folder() / "serve").absolute(),
        token,
        options.device,
        host,
        options.port,
        tuple(names),
        keep_hours=options.keep,
    )


def read_token(file: Path) -> str:
    """The token in a file, because other users of a machine see its command lines; raises BadInput where they may read it, and for a short one."""
    if os.name == "posix" and file.is_file() and file.stat().st_mode & OTHERS:
        raise BadInput(
            f"{file}: expected a token that its owner alone may read, found a file that others may read. Run chmod 600 {file}."
        )
    token = file.read_text(encoding="utf-8", errors="replace").strip()
    if len(token) < SHORTEST_TOKEN:
        raise BadInput(
            f"{file}: expected a token of at least {SHORTEST_TOKEN} characters, found {len(token)}. Take a longer one, such as that of openssl rand -hex 16."
        )
    return token


@Command(
    """
    serve RUN
    serve RUN starter:head-mr-to-ct
    serve RUN --host 10.0.0.5 --token-file FILE
    """
)
def serve(
    runs: Annotated[Sequence[Address] | Address, RUNS] = (),
    *,
    options: ServeOptions,
) -> None:
    """Serve a page on this machine: choose a scan, see which model fits, synthesise, view, download; until interrupted.

    The printed URL has a token, which lets browsers in. No request leaves the machine.
    \f
    Returns:
        None: After an interruption (Ctrl-C).

    Raises:
        BadInput: a run is absent; the address is open to other machines without a token; the port is taken; or the packages of the
            extra serve are not installed.

    Example:
        >>> import voxlate
        >>> voxlate.serve("RUN", port=8765)  # doctest: +SKIP
    """
    settings = check_server(as_list(runs), options)
    for package in PACKAGES:
        optional_package(package, "serve", "voxlate serve", f"the package {package}")
    from voxlate.page.app import run_server

    if settings.host not in LOCAL:
        say("The connection is not encrypted: others on the network can read scans and the token.")
    say(f"{plural(len(settings.runs), 'model')}: {', '.join(settings.runs)}.")
    say(f"Open this page in a browser; Ctrl-C ends the server:  {settings.address}")
    run_server(settings)


def _check_runs(runs: Sequence[Address]) -> list[str]:
    """The runs, or else the installed starters; raises BadInput for one that is not there, and where there is none."""
    chosen = [*map(str, runs)] or starter_names()
    if not chosen:
        raise BadInput(
            "RUN: expected a run to serve, found none: no starter is installed with this copy of voxlate. Name a run."
        )
    # once, because no request leaves the machine while the page is served
    chosen = [str(download(run)) if is_on_hub(run) else run for run in chosen]
    for run in chosen:
        if is_starter(run):
            folder_of(run)
        elif not Path(run).exists():
            raise BadInput(
                f"{run}: expected a run folder, a weights file or starter:NAME, found nothing there. Check the path."
            )
    return chosen


def label_runs(runs: list[str]) -> dict[str, str]:
    """Runs by a label without their place: starter:NAME, the address on a hub or the folder's name, with a number where names are equal."""
    texts = dict[str, str]()
    for run in runs:
        place = run if run.startswith("starter:") else str(Path(run).absolute())
        if place in texts.values():
            continue
        name = run if run.startswith("starter:") else address_of(Path(place)) or Path(place).name
        label = name
        number = 1
        while label in texts:
            number += 1
            label = f"{name} ({number})"
        texts[label] = place
    return texts
