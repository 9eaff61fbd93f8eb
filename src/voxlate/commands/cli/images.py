"""Commands on images: check, synth, evaluate, compare, report, export, demo."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from typer import Argument

from voxlate.base.errors import BadInput, plural
from voxlate.base.messages import message, worst_grade
from voxlate.base.options.option import MAIN, Option
from voxlate.clinic.options.consumers import ConsumerOptions
from voxlate.clinic.options.share import ExportOptions, ModelOptions
from voxlate.commands.api.console import note, out, say
from voxlate.commands.cli.app import end
from voxlate.commands.cli.messages import Verbose, keep_messages
from voxlate.commands.cli.options import Everything, Json, Run, To, command
from voxlate.evaluation.options.evaluate import CompareOptions, EvaluateOptions
from voxlate.synthesis.options import CheckOptions, SynthOptions

Inputs = Annotated[
    list[str],
    Argument(
        metavar="[RUN...] INPUT",
        help="Cohort, case, DICOM series, file or modality=path pairs; several runs give their mean.",
    ),
]


@command("check RUN COHORT --split val", "check starter:head-mr-to-ct scan.nii.gz")
def check(run: Run, inputs: Inputs, options: CheckOptions, as_json: Json = False) -> None:
    """State whether a model fits scans, before anything is computed.

    The exit code is 3 where a case is graded "do not trust": synth leaves it out unless --anyway.
    """
    from voxlate.commands.api.images import check as check_scans
    from voxlate.training.model import members_and_scans

    members, scans = members_and_scans(inputs)
    found = check_scans([run, *members], scans, options)
    print(json.dumps(found.document) if as_json else found)
    end((f"left out {why}" for why in found.left_out.values()), found.document["verdicts"])


@command(
    "synth RUN COHORT --out OUT --split val",
    "synth RUN t1=scan.nii.gz --out OUT --samples 10",
    "synth RUN COHORT --out MEANS --answer mean",
    "synth FOLD0 FOLD1 FOLD2 COHORT --out OUT",
)
def synth(
    run: Run,
    inputs: Inputs,
    to: To,
    options: SynthOptions,
    verbose: Verbose = False,
    as_json: Json = False,
) -> None:
    """Synthesise the target modalities of a case or a cohort.

    The images are in physical units on the grid of the input.
    """
    from voxlate.commands.api.images import synthesise
    from voxlate.commands.api.progress import Reporter
    from voxlate.training.model import members_and_scans

    members, scans = members_and_scans(inputs)
    with keep_messages(to, "synth", verbose) as take:
        done = synthesise([run, *members], scans, to, options, progress=Reporter(say=take))
    if as_json:
        print(json.dumps({"out": str(to), **done.document}))
    elif done.others and not (done.cases or done.left_out):
        say(f"--part {options.part} holds none of the {done.others} cases: nothing to do.")
        return
    else:
        for line in done.bound_lines:
            say(line)
        if done.complete:
            say(
                f"{len(done.complete)} cases lack no modality and are not synthesised: {', '.join(done.complete)}"
            )
        from voxlate.commands.api.next_steps import after_synthesis

        after = after_synthesis(done, run, options)
        following = f" Next:  voxlate {after[0]}" if after else ""
        say(f"{plural(len(done.cases), 'case')} in {to}.{following}")
        for scoring in after[1:]:  # true scans exist of complete cases alone
            say(f"To score the model on complete cases:  voxlate {scoring}")
    grades = map(worst_grade, done.warnings.values())
    end((f"left out {why}" for why in done.left_out.values()), grades)


@command(
    "evaluate OUT --truth COHORT --mask body",
    "evaluate OUT --truth COHORT --for proton,pet,ultrasound",
    "evaluate NEW --truth COHORT --run RUN --missing all --mask brain",
)
def evaluate(
    to: Annotated[
        Path,
        Argument(metavar="OUT", help="Folder of images; with --run, a new one."),
    ],
    truth: Annotated[Path, Option("Cohort with the true scans.", panel=MAIN)],
    options: EvaluateOptions,
    everything: Everything = False,
    verbose: Verbose = False,
    as_json: Json = False,
) -> None:
    """Score synthesised images and naive baselines against the true scans.

    The scores are written into scores.csv and metrics.json.
    The last line states whether the images are better than the best baseline.
    """
    from voxlate.commands.api.progress import Reporter
    from voxlate.commands.api.scores import score
    from voxlate.evaluation.scoring.captions import training_note, truth_messages

    with keep_messages(to, "evaluate", verbose) as take:
        done = score(to, truth, options, progress=Reporter(say=take))
        faults = truth_messages(done.scores)
        for said in done.messages:
            take(said)
        if as_json and (trained := training_note(done.scores)):  # tables have it in their caption
            take(message("trained-on", trained))
        for said in faults if options.any_truth else ():
            take(said)
    _print(done.document, done.scores.table if everything else done.scores.short_table, as_json)
    if not as_json:
        if done.summary and (everything or options.missing == "all"):
            out.print(done.summary.table())
        say(done.verdict)
    refused = [] if options.any_truth else map(str, faults)
    end([*refused, *done.undone])


@command("compare CNN_OUT DDPM_OUT --reference CNN_OUT --report methods.html")
def compare(
    folders: Annotated[
        list[Path], Argument(metavar="OUT...", help="Scored folders of the same cases.")
    ],
    options: CompareOptions,
    everything: Everything = False,
    as_json: Json = False,
) -> None:
    """Compare scored methods by paired tests."""
    from voxlate.commands.api.scores import compare as run

    found = run(folders, options)
    _print(found.document, found.table if everything else found.short_table, as_json)


def _print(document: Mapping[str, Any], table: Callable[[], Any], as_json: bool) -> None:
    """JSON for programs, or a table for people."""
    if as_json:
        print(json.dumps(document))
    else:
        out.print(table())


@command("report OUT", "report PREPARED")
def report(
    path: Annotated[
        Path, Argument(metavar="PATH", help="Run, folder that synth wrote, or prepared cohort.")
    ],
    to: Annotated[
        Path | None, Option("HTML file. Default: PATH/report.html.", flag="--out", panel=MAIN)
    ] = None,
) -> None:
    """Write an offline HTML page with pictures, curves and tables."""
    from voxlate.commands.api.scores import report as run

    print(run(path, to))


@command(
    "export OUT --dicom TO",
    "export OUT/CASE --dicom TO --like SERIES",
    "export OUT --for proton --beam 90 --out TO",
    "export RUN --out MODEL",
)
def export(
    path: Annotated[
        Path,
        Argument(
            metavar="OUT|RUN",
            help="Folder that synth wrote, or one case's folder in it; with --for also a CT; with --out alone a run, starter:NAME or hf://NAME/REPO.",
        ),
    ],
    options: ExportOptions,
    consumer: ConsumerOptions,
    model: ModelOptions,
    dicom: Annotated[Path | None, Option("New folder for the DICOM series.", panel=MAIN)] = None,
    to: Annotated[
        Path | None,
        Option(
            "Folder for the images of --for, or new folder for the model, which voxlate-run reads.",
            flag="--out",
            panel=MAIN,
        ),
    ] = None,
) -> None:
    """Write images as derived DICOM series or in the units of their user (research use only), or a model that runs without torch."""
    if consumer != ConsumerOptions():
        consumer = replace(consumer, like=options.like, accept_untrusted=options.accept_untrusted)
        _export_for(path, to, dicom, consumer)
        return
    if (dicom is None) == (to is None):
        found = "neither" if to is None else "both"
        raise BadInput(
            f"export: expected --dicom (for images) or --out (for a model), found {found}. Pass one of them."
        )
    if to is not None:
        from voxlate.commands.api.carry import export_model
        from voxlate.synthesis.inputs import scans_to_give

        written = export_model(path, to, model)
        loss = written.graph.largest_loss
        say(
            f"{written.facts.title} in {to}: at most {loss:.2g} network units from torch on its self-test."
        )
        scans = scans_to_give(written.facts.data, written.facts.completes)
        say(f"Next:  voxlate-run {to} {scans} --out OUT")
        return
    from voxlate.commands.api.exports import export as run

    assert dicom is not None
    done = run(path, dicom, options)
    refused = [said for said in done.messages if said.grade == "do not trust"]
    for said in done.messages:
        if said not in refused:
            note(said)
    say(f"{done.summary} in {dicom}: derived, synthetic, not for diagnosis.")
    end(f"left out {said.text}" for said in refused)


def _export_for(path: Path, to: Path | None, dicom: Path | None, options: ConsumerOptions) -> None:
    """Write CTs for their user."""
    from voxlate.commands.api.exports import export_for

    if to is None or dicom is not None:
        raise BadInput(
            "export --for: expected --out for the folder, and no --dicom, found otherwise. Pass --out TO; --for planning writes DICOM too."
        )
    done = export_for(path, to, options)
    for said in done.messages:
        note(said)
    say(f"{plural(len(done.folders), 'case')} for {done.consumer} in {to}: research use only.")
    end(f"left out {case}: {why}" for case, why in done.left_out.items())


@command("demo --out demo", "demo --real scan.nii.gz --out mine")
def demo(
    to: To = Path("demo"),
    real: Annotated[
        Path | None,
        Option(
            "Scan of your own: a starter's synthesis of it as a picture, in seconds.", panel=MAIN
        ),
    ] = None,
    starter: Annotated[
        str | None,
        Option(
            "Starter for --real, as starter:NAME. Default: by the scan's name.",
            panel=MAIN,
            metavar="NAME",
            complete="voxlate.training.starters.names:starters_to_run",
        ),
    ] = None,
) -> None:
    """Run every step on a phantom cohort (a few minutes on a CPU), or a starter on a scan of your own."""
    from voxlate.commands.api.demo import RealDemo
    from voxlate.commands.api.demo import demo as run
    from voxlate.commands.api.progress import Reporter

    done = run(to, real=real, starter=starter, progress=Reporter(say=note))
    if isinstance(done, RealDemo):
        print(f"picture: {done.picture}\nimages:  {done.folder}")
        say(f"Synthesised by {done.starter}. Its card:  voxlate info {done.starter}")
        return
    out.print(done.compared.short_table())
    compared_page, own = done.pages
    print(f"picture: {done.picture}\nreport:  {compared_page}\nnaive baselines: {own}\n")
    say(done.sentence)
    say("Next, on scans of your own (a folder for each case):")
    say("  voxlate prepare COHORT --out PREPARED")
    say("  voxlate train auto --data PREPARED --out RUN --minutes 60")
