"""Commands for images that are given to others: pseudonyms, a listener for picture archives, and the page."""

from pathlib import Path
from typing import Annotated

from typer import Argument

from voxlate.base.options.option import MAIN, Option
from voxlate.clinic.options.share import ListenOptions, PushOptions, ServeOptions
from voxlate.commands.api.console import note, say
from voxlate.commands.cli.options import Run, To, command, complete_starter


@command("pseudonym-key key", "pseudonym-key key --of anna --of ben")
def pseudonym_key(
    file: Annotated[Path, Argument(metavar="FILE", help="Key file, outside all output folders.")],
    of: Annotated[
        list[str] | None,
        Option("Patient whose pseudonym is printed; FILE must exist. Repeatable.", panel=MAIN),
    ] = None,
) -> None:
    """Write a new random key for --pseudonymise, or print the pseudonyms of patients by an existing key."""
    from voxlate.commands.api.cohorts import pseudonym_key as run

    for name, pseudonym in run(file, of=of or None).items():
        say(f"{name}  {pseudonym}")
    if not of:
        say(f"{file} is the key. Keep it: without it no pseudonym can be computed again.")
        say(f"Next:  voxlate synth RUN COHORT --out OUT --pseudonymise {file}")


@command("pseudonymise SERIES --key key --out TO")
def pseudonymise(
    folder: Annotated[Path, Argument(metavar="DICOM", help="Folder with DICOM files.")],
    to: To,
    key: Annotated[Path, Option("Key file of pseudonym-key.", panel=MAIN)],
) -> None:
    """Copy DICOM images under pseudonyms, by the basic profile of DICOM PS3.15.

    Patient ids and UIDs are keyed hashes; dates are shifted by a number of days of the patient.
    """
    from voxlate.commands.api.cohorts import pseudonymise as run

    done = run(folder, to, key=key)
    if done.left_out:
        note(
            f"{len(done.left_out)} objects without pixels are left out: their texts may hold names."
        )
    say(f"{len(done.files)} images in {to}.")


@command(
    "push RUN NAME/REPO --scores OUT --licence apache-2.0",
    "push RUN NAME/REPO --dry-run FOLDER",
)
def push(
    run: Run,
    repo: Annotated[
        str, Argument(metavar="NAME/REPO", help="Repository, which is created if it is absent.")
    ],
    options: PushOptions,
) -> None:
    """Upload a trained model to a hub of Hugging Face, with a card and without anything on its patients.

    --dry-run writes the same files into a folder: look at them first.
    """
    from voxlate.commands.api.carry import push as run_push
    from voxlate.exchange.hub_card import ABSENT

    done = run_push(run, repo, options)
    for said in done.messages:
        note(said)
    for place, size in done.files.items():
        say(f"{size / 1e6:8.2f} MB  {place}")
    say(ABSENT)
    if options.dry_run:
        say(f"Nothing was uploaded. Next:  voxlate push {run} {repo}")
        return
    say(f"Commit {done.commit}. Next:  voxlate synth {done.address} COHORT --out OUT")


@command("listen RUN --host 10.0.0.7 --allow SCANNER --to PACS@10.0.0.5:104 --out QUEUE")
def listen(
    run: Run,
    out: Annotated[Path, Option("Folder of the queue, on a disk of its own.", panel=MAIN)],
    options: ListenOptions,
) -> None:
    """Receive studies by C-STORE, synthesise one at a time, and send the images by C-STORE.

    The queue survives a killed process: the same command goes on, and sends no image twice.
    """
    from voxlate.commands.api.exports import listen as answer_studies
    from voxlate.commands.api.progress import Reporter

    say(
        f"{options.title} listens on {options.host}:{options.port} for {', '.join(options.allow)}; images go to {options.to}."
    )
    answer_studies(run, out, options, progress=Reporter(say=note))


@command(
    "serve RUN",
    "serve RUN starter:head-mr-to-ct --root SCANS",
    "serve RUN --host 10.0.0.5 --token-file FILE",
)
def serve(
    options: ServeOptions,
    runs: Annotated[
        list[str] | None,
        Argument(
            metavar="[RUN...]",
            help="Run folders, weights files, starter:NAME or hf://NAME/REPO; without any, the installed starters.",
            autocompletion=complete_starter,
        ),
    ] = None,
) -> None:
    """Serve a page on this machine: choose a scan, see which model fits, synthesise, view, download.

    The printed URL has a token, which lets one browser in. No request leaves the machine.
    """
    import voxlate  # its stub lists commands of wings above this one

    voxlate.serve(runs or (), options)
