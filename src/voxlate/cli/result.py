"""Commands on results: evaluate, compare, likelihood, report, demo."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from typer import Argument, Option

from voxlate.cli.app import app, end, err, note, out, say
from voxlate.cli.options import (
    AllowCode,
    Device,
    Everything,
    Json,
    Layout,
    Noise,
    Samples,
    Split,
    Steps,
    SynthChanges,
    pairs,
    synth_table,
    with_tables,
)
from voxlate.cli.progress import progress_on
from voxlate.errors import BadInput


def _masks(begun: str) -> list[str]:
    return [name for name in ("body", "brain", "cohort") if name.startswith(begun)]


def _scopes(begun: str) -> list[str]:
    from voxlate.scoring.scopes import SCOPES

    return [name for name in SCOPES if name.startswith(begun)]


@dataclass(frozen=True)
class Scoring:
    """Options of `evaluate` as voxlate.evaluate takes them."""

    mask: Annotated[
        str | None,
        Option(help="body, brain, cohort (its mask files) or a file; else the whole image.", autocompletion=_masks),
    ] = None
    value_range: Annotated[
        tuple[float, float] | None, Option("--range", help="Range of PSNR and SSIM, in the target's unit.")
    ] = None
    scopes: Annotated[
        list[str] | None,
        Option(
            "--score",
            help="Score in another scope, too: whole, both_masked (both images empty outside the mask), slices, crops; "
            "both_masked.slices, … (repeat it; docs/guides/comparing.md).",
            autocompletion=_scopes,
        ),
    ] = None
    slices: Annotated[
        str | None,
        Option(
            metavar="TABLE",
            help="Which slices those scopes count: 'above={tof=\"mean\",cta=0}, pixels=200, overlap=0.3'; "
            "mask=0 is the mask's area.",
        ),
    ] = None
    crop: Annotated[int, Option(help="Pixels a side of crops.")] = 256
    seed: Annotated[int, Option(min=0, help="Of crops, intervals and distances; with --run of the synthesis, too.")] = 0
    features: Annotated[
        str | None, Option(help="Distances between all slices by texture (built in), vit, or a ViT's folder.")
    ] = None
    lpips: Annotated[
        Path | None, Option(metavar="WEIGHTS", help="Score LPIPS too: its AlexNet weights (safetensors).")
    ] = None
    units: Annotated[
        Literal["own", "network"],
        Option(help="MR: each image by its own peak; or network: 0 to 255 as the network saw it (paper 003)."),
    ] = "own"
    ssim_from: Annotated[
        Literal["low", "zero"], Option(help="SSIM measures values from the range's low end, or from zero.")
    ] = "low"
    prepared: Annotated[
        Path | None,
        Option(help="The prepared cohort, with the transforms of registered scans; else that of OUT's own run."),
    ] = None
    naive: Annotated[Path | None, Option(help="A run's naive.safetensors; else that of OUT's own run.")] = None


@app.command(
    epilog="Examples:  voxlate evaluate OUT --truth COHORT --mask body    "
    "voxlate evaluate NEW --truth COHORT --run RUN --missing all --mask brain"
)
@with_tables
def evaluate(
    to: Annotated[Path, Argument(metavar="OUT", help="The folder that synth wrote; with --run a new one.")],
    truth: Annotated[Path, Option(help="The cohort with the true scans.")],
    run: Annotated[
        list[Path] | None,
        Option(help="Make what is scored by this run: each modality without itself, see --missing (repeat it)."),
    ] = None,
    missing: Annotated[
        Literal["one", "all"] | None,
        Option(help="With --run: one modality missing at a time (default), or every subset of them."),
    ] = None,
    samples: Samples = None,
    steps: Steps = None,
    noise: Noise = None,
    change: SynthChanges = None,
    device: Device = "auto",
    region: Annotated[
        list[str] | None,
        Option(help="Score a region: 'lesion=tmax>6', 'core=cbf<30%', core=seg=1, a mask file, ratio=lesion/core."),
    ] = None,
    *,
    options: Scoring,
    split: Split = None,
    layout: Layout,
    everything: Everything = False,
    as_json: Json = False,
) -> None:
    """Score syntheses and naive baselines against the truth: metrics.csv and metrics.json.

    The last line says whether the syntheses are better than the best naive baseline.
    """
    from voxlate.scoring.captions import held_out_note
    from voxlate.scoring.evaluate import evaluate as score_images
    from voxlate.scoring.verdict import coloured

    how = {**vars(options), "scopes": options.scopes or (), "regions": pairs(region, "--region")}
    unmade: dict[str, str] = {}
    of_synthesis = {"--missing": missing, "--samples": samples, "--steps": steps, "--noise": noise, "--set": change}
    if not run and (given := [name for name, value in of_synthesis.items() if value is not None]):
        raise BadInput(
            f"{given[0]}: expected --run with it, whose images it makes, found none. Add --run RUN, or drop {given[0]}."
        )
    with progress_on(err) as bars:
        if run:
            from voxlate.synthesis.missing import score_scenarios
            from voxlate.synthesis.model import load

            kind = None if noise is None else {"kind": noise}
            changes = {"samples": samples, "steps": steps, "noise": kind, **synth_table(change)}
            models = [load(one, device).with_options(**changes) for one in run]
            summary = score_scenarios(
                models, truth, to, missing or "one", split=split, layout=vars(layout), progress=bars, say=note, **how
            )
            scores, unmade = summary.scores, dict(summary.failed)
            for sentence in summary.incomplete.values():
                note(f"left out {sentence}")
        else:
            how["progress"] = lambda done, total, _: bars("evaluate", done, total)
            scores = score_images(to, truth, split=split, **vars(layout), **how)
    if sentence := held_out_note(scores.document()):
        note(sentence)
    for sentence in scores.header["shared_masks"]:
        note(f"not known, taken to be so: {sentence}.")
    _print(scores.document(), scores.table if everything else scores.short_table, as_json)
    if run and not as_json and (everything or missing == "all"):
        out.print(summary.table())
    if not as_json:
        say(coloured(scores.verdicts))
    absent = [f"not scored: {case} ({why})" for case, why in scores.header["not_synthesised"].items()]
    end([*absent, *(f"left out {sentence}" for sentence in unmade.values())])


@app.command(epilog="Example:  voxlate compare CNN_OUT DDPM_OUT --reference CNN_OUT --report methods.html")
def compare(
    folders: Annotated[list[Path], Argument(metavar="OUT...", help="Scored folders, of the same cases.")],
    reference: Annotated[str | None, Option(help="Test against this one; else against the best.")] = None,
    answer: Annotated[str, Option(help="Compare a naive baseline of each instead.")] = "synthesis",
    to: Annotated[Path | None, Option("--out", help="Write the table as JSON too.")] = None,
    page: Annotated[
        Path | None, Option("--report", metavar="FILE", help="Write table and pictures as one offline HTML page.")
    ] = None,
    everything: Everything = False,
    as_json: Json = False,
) -> None:
    """Compare scored methods: mean and standard deviation, and paired tests of their differences."""
    from voxlate.scoring.compare import compare as run

    found = run(folders, reference=reference, answer=answer)
    if to:
        found.write(to)
    if page:
        from voxlate.reports.comparison import write_page

        write_page(found.document, page)
    _print(found.document, found.table if everything else found.short_table, as_json)


@app.command(epilog="Example:  voxlate likelihood RUN PREPARED --slices 4 --tolerance 1e-3")
def likelihood(
    run: Annotated[Path, Argument(help="A run folder, or a weights file, of a diffusion model.")],
    cohort: Annotated[Path, Argument(help="A prepared cohort with the true targets.")],
    split: Annotated[str, Option(help="Which split: train, val or test.")] = "val",
    slices: Annotated[int | None, Option(min=1, help="At most so many a case, evenly spaced; else all.")] = None,
    tolerance: Annotated[float, Option(help="Error that a step of the ODE may make; larger is quicker.")] = 1e-5,
    batch: Annotated[int | None, Option(min=1, help="Slices at a time: memory, not results.")] = None,
    seed: Annotated[int, Option(min=0, help="Of the random probes.")] = 0,
    device: Device = "auto",
    to: Annotated[Path | None, Option("--out", metavar="FILE", help="Write the result as JSON too.")] = None,
    allow_code: AllowCode = False,
    as_json: Json = False,
) -> None:
    """State how likely the true images are under a diffusion model: bits per dimension, case by case (slow)."""
    from voxlate.synthesis.likelihood import likelihood as run_it

    with progress_on(err) as bars:
        found = run_it(
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
        found.write(to)
    _print(found.document, found.table, as_json)


def _print(document: Mapping[str, Any], table: Callable[[], Any], as_json: bool) -> None:
    """JSON for programs, or a table for people."""
    if as_json:
        print(json.dumps(document))
    else:
        out.print(table())


@app.command(epilog="Examples:  voxlate report OUT    voxlate report PREPARED")
def report(
    path: Annotated[Path, Argument(help="A run, a folder that synth wrote, or a prepared cohort.")],
    to: Annotated[Path | None, Option("--out", help="The file; PATH/report.html by default.")] = None,
) -> None:
    """Write one HTML file with pictures, curves, tables and provenance; it opens offline."""
    if (path / "cohort.json").is_file():
        from voxlate.reports.prepared import report_prepared as run
    else:
        from voxlate.reports.page import report as run

    print(run(path, to))


@app.command(epilog="Example:  voxlate demo --out demo")
def demo(
    to: Annotated[Path, Option("--out", help="Folder for everything that the demo makes.")] = Path("demo"),
) -> None:
    """Every step on a phantom cohort: phantom, prepare, train, synth, evaluate, report. CPU, a few minutes."""
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
