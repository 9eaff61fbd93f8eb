"""Commands on results: evaluate, compare, likelihood, report, demo."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

from typer import Argument

from voxlate.cli.app import end, err, note, out, say
from voxlate.cli.messages import Verbose, keep_messages
from voxlate.cli.options import Everything, Json, To, command
from voxlate.cli.progress import progress_on
from voxlate.executors.choose import choose_executor
from voxlate.options.evaluate import EvaluateOptions
from voxlate.options.executors import ExecutorOptions
from voxlate.options.option import MAIN, OUTPUT, SAMPLING, AllowCode, Device, Option
from voxlate.options.synthesise import RunOptions
from voxlate.system.errors import BadInput
from voxlate.system.messages import message


@command(
    "evaluate OUT --truth COHORT --mask body",
    "evaluate NEW --truth COHORT --run RUN --missing all --mask brain",
)
def evaluate(
    to: Annotated[
        Path,
        Argument(metavar="OUT", help="Folder that synth wrote; with --run, a new one."),
    ],
    truth: Annotated[Path, Option("Cohort with the true scans.", panel=MAIN)],
    *,
    options: EvaluateOptions,
    by_run: RunOptions,
    by: ExecutorOptions,
    everything: Everything = False,
    verbose: Verbose = False,
    as_json: Json = False,
) -> None:
    """Score synthesised images and naive baselines against the true scans.

    The scores are written into metrics.csv and metrics.json.
    The last line states whether the images are better than the best baseline.
    """
    from voxlate.scoring.captions import training_note, truth_messages
    from voxlate.scoring.evaluate import evaluate as score_images
    from voxlate.scoring.verdict import colour_lines

    failed: dict[str, str] = {}
    summary = None
    with keep_messages(to, "evaluate", verbose) as say_one, progress_on(err) as bars:
        if by_run.run:
            from voxlate.synthesis.missing import score_run

            summary = score_run(truth, to, by_run, options, progress=bars, say=say_one, by=by)
            scores, failed = summary.scores, dict(summary.failed)
            for sentence in summary.incomplete.values():
                say_one(message("case-left-out", f"left out {sentence}"))
        else:
            by_run.refuse_without_run()
            scores = score_images(
                to,
                truth,
                progress=lambda done, total, _: bars("evaluate", done, total),
                executor=choose_executor(by),
                **vars(options),
            )
        document = scores.document()
        if as_json and (sentence := training_note(document)):
            say_one(message("trained-on", sentence))
        if options.align:
            text = f"--align: {scores.header['scopes']['aligned'].rpartition('; ')[2]}."
            say_one(message("aligned", text))
        for sentence in [*scores.header["shared_masks"], *scores.header.get("windows", ())]:
            say_one(message("assumed", f"assumed: {sentence}."))
        faults = truth_messages(document)
        for one in faults if options.any_truth else ():
            say_one(one)
    _print(document, scores.table if everything else scores.short_table, as_json)
    if summary is not None and not as_json and (everything or by_run.missing == "all"):
        out.print(summary.table())
    if not as_json:
        say(colour_lines(scores.verdicts))
    absent = [
        f"not scored: {case} ({why})" for case, why in scores.header["not_synthesised"].items()
    ]
    refused = [] if options.any_truth else map(str, faults)
    end([*refused, *absent, *(f"left out {sentence}" for sentence in failed.values())])


@command("compare CNN_OUT DDPM_OUT --reference CNN_OUT --report methods.html")
def compare(
    folders: Annotated[
        list[Path], Argument(metavar="OUT...", help="Scored folders of the same cases.")
    ],
    reference: Annotated[
        str | None,
        Option(
            "Folder against which the others are tested. Default: the best one.",
            panel=MAIN,
            metavar="NAME",
        ),
    ] = None,
    page: Annotated[
        Path | None, Option("HTML page with the table and pictures.", flag="--report", panel=MAIN)
    ] = None,
    answer: Annotated[
        str,
        Option(
            "Naive baseline that is compared instead of the synthesised images.", metavar="NAME"
        ),
    ] = "synthesis",
    to: Annotated[
        Path | None, Option("JSON file of the table.", flag="--out", panel=OUTPUT)
    ] = None,
    everything: Everything = False,
    as_json: Json = False,
) -> None:
    """Compare scored methods by paired tests."""
    from voxlate.scoring.compare import compare as run

    comparison = run(folders, reference=reference, answer=answer)
    if to:
        comparison.write(to)
    if page:
        from voxlate.reports.comparison import write_page

        write_page(comparison.document, page)
    _print(comparison.document, comparison.table if everything else comparison.short_table, as_json)


@command("likelihood RUN PREPARED --slices 4 --tolerance 1e-3")
def likelihood(
    run: Annotated[
        Path, Argument(metavar="RUN", help="Run folder or weights file of a diffusion model.")
    ],
    cohort: Annotated[
        Path, Argument(metavar="PREPARED", help="Prepared cohort with the true targets.")
    ],
    split: Annotated[
        str, Option("Split that is evaluated: train, val or test.", panel=MAIN, metavar="NAME")
    ] = "val",
    slices: Annotated[
        int | None,
        Option(
            "Largest number of slices a case, evenly spaced. Default: all.", panel=MAIN, least=1
        ),
    ] = None,
    tolerance: Annotated[
        float, Option("Error of a step of the ODE; a larger one is faster.", panel=SAMPLING)
    ] = 1e-5,
    seed: Annotated[int, Option("Random seed of the probes.", panel=SAMPLING, least=0)] = 0,
    to: Annotated[
        Path | None, Option("JSON file of the result.", flag="--out", panel=OUTPUT)
    ] = None,
    as_json: Json = False,
    batch: Annotated[
        int | None, Option("Number of slices at a time: changes memory alone.", least=1)
    ] = None,
    device: Device = "auto",
    allow_code: AllowCode = False,
) -> None:
    """Compute the likelihood of true images under a diffusion model (slow).

    The result is in bits per dimension, case by case.
    """
    from voxlate.synthesis.likelihood import likelihood as compute

    with progress_on(err) as bars:
        result = compute(
            run,
            cohort,
            split=split,
            slices=slices,
            tolerance=tolerance,
            batch=batch,
            seed=seed,
            device=device,
            allow_code=allow_code,
            progress=lambda done, total: bars("likelihood", done, total),
        )
    if to:
        result.write(to)
    _print(result.document, result.table, as_json)


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
    if (path / "cohort.json").is_file():
        from voxlate.reports.prepared import report_prepared as run
    else:
        from voxlate.reports.page import report as run

    print(run(path, to))


@command("export OUT --dicom TO", "export OUT/CASE --dicom TO --like SERIES")
def export(
    path: Annotated[
        Path, Argument(metavar="OUT", help="Folder that synth wrote, or one case's folder in it.")
    ],
    dicom: Annotated[Path, Option("New folder for the DICOM series.", panel=MAIN)],
    like: Annotated[
        Path | None,
        Option(
            "DICOM series of the source, for one case. Default: as the provenance states it.",
            panel=MAIN,
            metavar="SERIES",
        ),
    ] = None,
    enhanced: Annotated[
        bool,
        Option("One enhanced object of many frames for each CT or MR image.", panel=MAIN),
    ] = False,
) -> None:
    """Write synthesised images as derived DICOM series in the study of their source (research use only)."""
    from voxlate.delivery.dicom_out import export_dicom

    with progress_on(err) as bars:
        done = export_dicom(
            path, dicom, like, lambda number, total: bars("images", number, total), enhanced
        )
    for one in done.messages:
        note(one)
    say(f"{done.summary} in {dicom}: derived, synthetic, not for diagnosis.")


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
            complete="voxlate.starters.names:named",
        ),
    ] = None,
) -> None:
    """Run every step on a phantom cohort (a few minutes on a CPU), or a starter on a scan of your own."""
    if real is not None:
        _show_real(real, to, starter)
        return
    if starter is not None:
        raise BadInput(f"--starter: expected --real SCAN with it, found {starter} alone. Add it.")
    from voxlate.cli.demo import demo as run

    with progress_on(err) as bars:
        done = run(to, bars)
    out.print(done.compared.short_table())
    compared_page, own = done.pages
    print(f"picture: {done.picture}\nreport:  {compared_page}\nnaive baselines: {own}\n")
    say(done.sentence)
    say("Next, on scans of your own (a folder for each case):")
    say("  voxlate prepare COHORT --out PREPARED")
    say("  voxlate train auto --data PREPARED --out RUN --minutes 60")


def _show_real(scan: Path, to: Path, starter: str | None) -> None:
    """Synthesise a scan of the user by a starter, and name the picture."""
    from voxlate.cli.demo_real import demo_on_scan

    with progress_on(err) as bars:
        done = demo_on_scan(scan, to, starter, bars, note)
    print(f"picture: {done.picture}\nimages:  {done.folder}")
    say(f"{done.starter} made them. Its card:  voxlate info {done.starter}")
