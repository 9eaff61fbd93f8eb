"""Commands for images that are given to others: pseudonyms, and a listener for picture archives."""

from pathlib import Path
from typing import Annotated

from typer import Argument

from voxlate.cli.app import note, say
from voxlate.cli.options import To, command
from voxlate.options.option import MAIN, Device, Option


@command("pseudonym-key key", "pseudonym-key key --of anna --of ben")
def pseudonym_key(
    file: Annotated[Path, Argument(metavar="FILE", help="Key file, outside all output folders.")],
    of: Annotated[
        list[str] | None,
        Option("Patient whose pseudonym is printed; FILE must exist. Repeatable.", panel=MAIN),
    ] = None,
) -> None:
    """Write a new random key for --pseudonymise, or print the pseudonyms of patients by an existing key."""
    from voxlate.cohorts.pseudonyms import read_key, write_key

    if of:
        pseudonyms = read_key(file)
        for name in of:
            say(f"{name}  {pseudonyms.case(name)}")
        return
    write_key(file)
    say(f"{file} is the key. Keep it: without it no pseudonym can be computed again.")
    say(f"Next:  voxlate synth RUN COHORT --out OUT --pseudonymise {file}")


@command("pseudonymise SERIES --key key --out TO")
def pseudonymise(
    folder: Annotated[Path, Argument(metavar="DICOM", help="Folder with DICOM files.")],
    to: To,
    key: Annotated[Path, Option("Key file of pseudonym-key.", flag="--key", panel=MAIN)],
) -> None:
    """Copy DICOM images under pseudonyms, by the basic profile of DICOM PS3.15.

    Patient ids and UIDs are keyed hashes; dates are shifted by a number of days of the patient.
    """
    from voxlate.cohorts.deidentify import deidentify_folder
    from voxlate.cohorts.pseudonyms import check_outside, read_key

    check_outside(key, to)
    done = deidentify_folder(folder, to, read_key(key))
    if done.left_out:
        note(
            f"{len(done.left_out)} objects without pixels are left out: their texts may hold names."
        )
    say(f"{len(done.files)} images in {to}.")


@command("listen RUN --host 10.0.0.7 --allow SCANNER --to PACS@10.0.0.5:104 --out QUEUE")
def listen(
    run: Annotated[Path, Argument(metavar="RUN", help="Run folder, weights file or starter:NAME.")],
    out: Annotated[Path, Option("Folder of the queue, on a disk of its own.", panel=MAIN)],
    allow: Annotated[
        list[str], Option("AE title of a sender that is allowed. Repeatable.", panel=MAIN)
    ],
    to: Annotated[
        str,
        Option("Node that takes the images.", panel=MAIN, metavar="TITLE@HOST:PORT"),
    ],
    port: Annotated[int, Option("Port to listen on.", panel=MAIN, least=1, most=65535)] = 11112,
    title: Annotated[str, Option("Own AE title.", panel=MAIN, metavar="NAME")] = "VOXLATE",
    host: Annotated[
        str,
        Option("Own address to listen on, which the senders reach; 0.0.0.0: all.", metavar="NAME"),
    ] = "127.0.0.1",
    idle: Annotated[
        float,
        Option(
            "Seconds without a new image or an open association, after which a study is complete.",
            least=1,
        ),
    ] = 10.0,
    device: Device = "auto",
) -> None:
    """Receive studies by C-STORE, synthesise one at a time, and send the images by C-STORE.

    The queue survives a killed process: the same command goes on, and sends no image twice.
    """
    from voxlate.delivery.serving import serve

    say(f"{title} listens on {host}:{port} for {', '.join(allow)}; images go to {to}.")
    serve(
        run, out, allow, to, port=port, title=title, host=host, idle=idle, device=device, say=note
    )
