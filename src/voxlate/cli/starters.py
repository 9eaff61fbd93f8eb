"""Commands on starters and on runs for another site: starters, adapt."""

import json
from pathlib import Path
from typing import Annotated, Any

from rich.text import Text
from typer import Argument

from voxlate.cli.app import err, note, out, say
from voxlate.cli.options import Json, To, command
from voxlate.cli.progress import progress_on
from voxlate.options.option import MAIN, TRAINING, AllowCode, Device, Option
from voxlate.starters.names import complete_starter
from voxlate.system.errors import BadInput

NONE = "No starter is installed with this copy of voxlate: train a run (voxlate train auto)."


@command("starters", "starters --check", name="starters")
def list_starters(
    check: Annotated[
        bool, Option("Check the weights of each starter by its hash and self-test.", panel=MAIN)
    ] = False,
    as_json: Json = False,
) -> None:
    """List the weights that come with voxlate, with what was measured."""
    facts = starter_facts(check)
    if as_json:
        print(json.dumps(facts))
        return
    if not facts:
        say(NONE)
        return
    for one in facts:
        state = "  hash and self-test are right" if check else ""
        out.print(Text.assemble((one["name"], "bold"), f"  {one['title']}{state}"), soft_wrap=True)
        say(
            f"  {' + '.join(one['source'])} to {' + '.join(one['target'])}, {one['bytes'] / 1e6:.1f} MB, {one['parameters'] / 1e6:.2g} million weights"
        )
        for line in one["card"]:
            say(f"  {line}")
    of_one_scan = [one["name"] for one in facts if len(one["source"]) == 1]
    if of_one_scan:  # others need a name for each scan
        say(f"\nNext:  voxlate synth {of_one_scan[0]} scan.nii.gz --out OUT")


def starter_facts(check: bool = False) -> list[dict[str, Any]]:
    """The cards of the installed starters; check: raise BadInput if none is installed, or one's hash or self-test is wrong."""
    from voxlate.starters.card import read_card
    from voxlate.starters.names import FOLDER, PREFIX, folder_of, starter_names

    facts = []
    names = starter_names()
    if check and not names:
        raise BadInput(
            f"starters --check: expected an installed starter to check, found none in {FOLDER}. Install a version of voxlate with starters, or leave --check out."
        )
    for name in names:
        folder = folder_of(name)
        if check:
            from voxlate.training.starter import (
                check_starter,  # imports torch, which a list needs not
            )

            check_starter(folder)
        card = read_card(folder)
        facts.append(
            {
                "name": f"{PREFIX}{name}",
                "title": card.title,
                "source": card.source,
                "target": card.target,
                "accepts": card.accepts,
                "bytes": card.bytes,
                "parameters": card.parameters,
                "trained_on": card.trained_on,
                "card": card.lines,
            }
        )
    return facts


@command(
    "adapt RUN --data PREPARED --minutes 5 --out ADAPTED",
    "adapt starter:head-mr-to-ct --data PREPARED --out ADAPTED",
)
def adapt(
    run: Annotated[
        Path,
        Argument(
            metavar="RUN",
            help="Run folder, weights file or starter:NAME.",
            autocompletion=complete_starter,
        ),
    ],
    data: Annotated[
        Path, Option("Prepared cohort of the other site, with a held-out case.", panel=MAIN)
    ],
    to: To,
    minutes: Annotated[float, Option("Training time on this machine.", panel=MAIN)] = 5,
    steps: Annotated[
        int | None, Option("Number of steps instead of minutes.", panel=MAIN, least=1)
    ] = None,
    replay: Annotated[
        Path | None,
        Option(
            "Prepared cohort of the old site, which is replayed. Default: that of the run.",
            panel=TRAINING,
        ),
    ] = None,
    share: Annotated[
        float,
        Option(
            "Share of the items that is of the old site; 0: none.",
            flag="--replay-share",
            panel=TRAINING,
            least=0,
            most=0.9,
        ),
    ] = 0.25,
    device: Device = "auto",
    allow_code: AllowCode = False,
) -> None:
    """Continue a run or starter on a few cases of another site.

    The learning rate is lower, and the weights with the least error on held-out cases are kept.
    Calibrate the new run again before its intervals are used.
    """
    from voxlate.planning.adapt import adapt as continue_on

    with progress_on(err) as bars:
        done = continue_on(
            run,
            data,
            to,
            minutes=minutes,
            steps=steps,
            replay=replay,
            share=share,
            device=device,
            allow_code=allow_code,
            progress=bars,
            say=note,
        )
    say(f"{done.weights()} is the model. Next:  voxlate synth {to} SCANS --out OUT")
