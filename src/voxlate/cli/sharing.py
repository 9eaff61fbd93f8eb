"""Commands for images that are given to others: the key of pseudonyms."""

from pathlib import Path
from typing import Annotated

from typer import Argument

from voxlate.cli.app import say
from voxlate.cli.options import command
from voxlate.options import MAIN, Option


@command("pseudonym-key key", "pseudonym-key key --of anna --of ben")
def pseudonym_key(
    file: Annotated[Path, Argument(metavar="FILE", help="Key file, outside all output folders.")],
    of: Annotated[
        list[str] | None,
        Option("Patient whose pseudonym is printed; FILE must exist. Repeatable.", panel=MAIN),
    ] = None,
) -> None:
    """Write a new random key for --pseudonymise, or print the pseudonyms of patients by an existing key."""
    from voxlate.data.pseudonyms import read_key, write_key

    if of:
        pseudonyms = read_key(file)
        for name in of:
            say(f"{name}  {pseudonyms.case(name)}")
        return
    write_key(file)
    say(f"{file} is the key. Keep it: without it no pseudonym can be computed again.")
    say(f"Next:  voxlate synth RUN COHORT --out OUT --pseudonymise {file}")
