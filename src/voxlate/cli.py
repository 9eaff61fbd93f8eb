"""The command line. Heavy imports wait until a command needs them, so that --help answers at once."""

import json
import sys
import traceback
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from voxlate import __version__
from voxlate.errors import BadInput, Stopped
from voxlate.options import Changes, Device, Json, Manifest, Modalities, Pattern, Preset, Samples, Split, To, pairs
from voxlate.progress import Bars, bar

app = typer.Typer(
    name="voxlate",
    help="Turn one kind of medical scan into another, and say how far the pictures can be trusted.\n\n"
    "Research software, not a medical device.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
out = Console()
err = Console(stderr=True)
debug = False


def main() -> None:
    """Run the command line: exit code 0 done, 2 bad use or bad input (one sentence), 130 stopped, 1 our fault."""
    try:
        app()
    except BadInput as error:
        _fail(f"{error}", 2)
    except Stopped as stopped:
        _fail(f"{stopped}; run the same command again to go on.", 130)
    except KeyboardInterrupt:
        _fail("stopped.", 130)
    except Exception as error:
        _fail(f"This should not happen: {type(error).__name__}: {error}. Report what --debug prints.", 1)


def _fail(sentence: str, code: int) -> None:
    if debug:
        traceback.print_exc()
    print(f"voxlate: {sentence}", file=sys.stderr)
    raise SystemExit(code)


def _version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def _common(
    show_debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    global debug
    debug = show_debug


@app.command(epilog="Example:  voxlate phantom --out COHORT --cases 24 --size 96 96 48")
def phantom(
    to: To,
    cases: Annotated[int, typer.Option(min=1, help="How many heads.")] = 24,
    size: Annotated[tuple[int, int, int], typer.Option(help="Voxels in x, y and z.")] = (96, 96, 48),
    seed: Annotated[int, typer.Option(min=0, help="Other seeds give other heads.")] = 0,
    lesion: Annotated[Literal["none", "tumour", "stroke", "mixed"], typer.Option(help="What they have.")] = "mixed",
    modality: Modalities = None,
) -> None:
    """Make a cohort of head phantoms: one anatomy seen by MR, CT, CTA, TOF, SWI and perfusion."""
    from voxlate.images.phantom import write_cohort

    with bar(err) as shown:
        bars = Bars(shown)

        def progress(done: int, total: int) -> None:
            bars("phantom", done, total)

        folders = write_cohort(to, cases, size, seed=seed, lesion=lesion, modalities=modality, progress=progress)
    out.print(f"{len(folders)} cases in {to}. Next:  voxlate prepare {to} --out PREPARED")


@app.command(
    epilog="Examples:  voxlate prepare COHORT --out PREPARED    voxlate prepare BraTS --preset brats --out PREPARED    "
    "voxlate prepare SCANS --pattern '{patient}/{case}_{modality}.nii.gz' --out PREPARED"
)
def prepare(
    cohort: Annotated[Path, typer.Argument(help="Folder with a folder for each case.")],
    to: To,
    pattern: Pattern = None,
    manifest: Manifest = None,
    preset: Preset = None,
    modality: Modalities = None,
    spacing: Annotated[tuple[float, float, float] | None, typer.Option(help="Resample all to x y z in mm.")] = None,
    resample: Annotated[bool, typer.Option("--resample", help="Bring other grids to the case's first one.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of the split by patient, where no manifest gives one.")] = 0,
    as_json: Json = False,
) -> None:
    """Check a cohort, split it by patient, and write it in the form that training reads."""
    from voxlate.data.manifest import manifest_in
    from voxlate.data.prepare import prepare as run

    found = manifest_in(cohort) if manifest is None and cohort.is_dir() else None
    with bar(err) as shown:
        bars = Bars(shown)
        ready = run(
            cohort,
            to,
            pattern=pattern,
            manifest=manifest,
            preset=preset,
            modalities=modality,
            spacing_mm=(spacing[2], spacing[1], spacing[0]) if spacing else None,
            resample=resample,
            seed=seed,
            progress=lambda done, total, _: bars("prepare", done, total),
        )
    splits = {name: len(members) for name, members in ready.splits.items()}
    if as_json:
        facts = {"cases": splits, "modalities": list(ready.modalities), "warnings": list(ready.warnings)}
        print(json.dumps({"out": str(to), **facts}))
        return
    if found:
        err.print(f"[dim]cases and splits from {found}[/]")
    for warning in ready.warnings:
        err.print(f"[yellow]note:[/] {warning}")
    counts = ", ".join(f"{count} {name}" for name, count in splits.items())
    out.print(f"{to}: {counts} cases; modalities {', '.join(ready.modalities)}.")
    out.print(f"Next:  voxlate train RECIPE --data {to} --out RUN")


@app.command(epilog="Example:  voxlate train t1_to_t2_brain --data PREPARED --out RUN --set train.steps=500")
def train(
    recipe: Annotated[str, typer.Argument(help="A shipped recipe's name (voxlate recipes) or a TOML file.")],
    data: Annotated[Path, typer.Option(help="A prepared cohort.")],
    to: To,
    change: Changes = None,
    start: Annotated[Path | None, typer.Option("--init", help="Weights to begin from, not random ones.")] = None,
    device: Device = "auto",
) -> None:
    """Train a recipe. Stopped or killed, the same command goes on and ends with the same weights."""
    from voxlate import recipe as recipes
    from voxlate.train import train as run

    chosen = recipes.read(recipe, pairs(change))
    head = recipes.header(recipes.text_of(recipe))
    with bar(err) as shown:
        done = run(chosen, data, to, head=head, start=start, device=device, progress=Bars(shown))
    out.print(f"{done.weights()} is the model. Next:  voxlate synth {to} COHORT --out OUT")


@app.command(
    epilog="Examples:  voxlate synth RUN COHORT --out OUT --split val    "
    "voxlate synth RUN t1=scan.nii.gz --out OUT --samples 10"
)
def synth(
    run: Annotated[Path, typer.Argument(help="A run folder, or a weights file.")],
    inputs: Annotated[
        list[str],
        typer.Argument(metavar="INPUT", help="A cohort, a case, a DICOM series, a file, or modality=path pairs."),
    ],
    to: To,
    sampler: Annotated[str | None, typer.Option(help="Another sampler than the recipe's.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Times at which the network denoises.")] = None,
    eta: Annotated[float | None, typer.Option(min=0, max=1, help="Noise that ddim puts back; 1 as DDPM.")] = None,
    samples: Samples = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the noise.")] = 0,
    batch: Annotated[int | None, typer.Option(min=1, help="Slices at a time: memory, not results.")] = None,
    split: Split = None,
    missing: Annotated[list[str] | None, typer.Option(help="Leave this modality out and make it.")] = None,
    pattern: Pattern = None,
    manifest: Manifest = None,
    preset: Preset = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Make the target modalities of one case or of a cohort, on the input's own grid and in physical units."""
    from voxlate.cases import find_scans, synthesise_cases
    from voxlate.synthesise import load

    model = load(run, device).with_options(sampler=sampler, steps=steps, eta=eta, samples=samples, batch=batch)
    scans = find_scans(inputs, model, split=split, missing=missing, pattern=pattern, manifest=manifest, preset=preset)
    with bar(err) as shown:
        folders = synthesise_cases(model, scans, to, seed=seed, progress=Bars(shown))
    if as_json:
        cases = [folder.name for folder in folders]
        print(json.dumps({"out": str(to), "cases": cases, "targets": model.recipe.data.target}))
        return
    out.print(f"{len(folders)} cases in {to}. Next:  voxlate evaluate {to} --truth COHORT")


@app.command(epilog="Example:  voxlate evaluate OUT --truth COHORT --mask body")
def evaluate(
    to: Annotated[Path, typer.Argument(metavar="OUT", help="What synth wrote.")],
    truth: Annotated[Path, typer.Option(help="The cohort with the true scans.")],
    mask: Annotated[
        str | None, typer.Option(help="body, brain, cohort (its mask files) or a file; else the whole image.")
    ] = None,
    value_range: Annotated[
        tuple[float, float] | None, typer.Option("--range", help="Range of PSNR and SSIM, in the target's unit.")
    ] = None,
    split: Split = None,
    trivial: Annotated[Path | None, typer.Option(help="A run's trivial.safetensors; else the one behind OUT.")] = None,
    pattern: Pattern = None,
    manifest: Manifest = None,
    preset: Preset = None,
    as_json: Json = False,
) -> None:
    """Score syntheses against the truth, beside the trivial answers: metrics.csv and metrics.json."""
    from voxlate.evaluate import evaluate as run

    with bar(err) as shown:
        bars = Bars(shown)
        scores = run(
            to,
            truth,
            mask=mask,
            value_range=value_range,
            trivial=trivial,
            split=split,
            pattern=pattern,
            manifest=manifest,
            preset=preset,
            progress=lambda done, total, _: bars("evaluate", done, total),
        )
    if as_json:
        print(json.dumps(scores.document()))
    else:
        out.print(scores.table())


@app.command(epilog="Example:  voxlate report OUT")
def report(
    path: Annotated[Path, typer.Argument(help="A run, or what synth wrote.")],
    to: Annotated[Path | None, typer.Option("--out", help="The file; PATH/report.html by default.")] = None,
) -> None:
    """Write one HTML file with pictures, curves, tables and provenance; it opens offline."""
    from voxlate.report import report as run

    print(run(path, to))


@app.command(name="recipes", epilog="Example:  voxlate recipes t1_to_t2_brain")
def list_recipes(
    name: Annotated[str | None, typer.Argument(help="Print this one, and every key with default and meaning.")] = None,
    as_json: Json = False,
) -> None:
    """List the recipes that come with voxlate, or print one."""
    from voxlate import recipe as recipes
    from voxlate.keys import explain

    if name:
        chosen = recipes.read(name)
        values = {"name": name, **recipes.to_dict(chosen)}
        print(json.dumps(values) if as_json else recipes.text_of(name) + "\n" + explain(chosen))
        return
    found = [{"name": one, "title": recipes.read(one).title} for one in recipes.names()]
    if as_json:
        print(json.dumps(found))
        return
    width = max(len(one["name"]) for one in found)
    for one in found:
        out.print(f"[bold]{one['name']:{width}}[/]  {one['title']}", highlight=False)


@app.command(epilog="Examples:  voxlate info scan.nii.gz    voxlate info RUN")
def info(
    path: Annotated[Path, typer.Argument(help="A scan, a DICOM folder, a run, weights, or a prepared cohort.")],
    as_json: Json = False,
) -> None:
    """Say what a file or folder is: grid, unit and range of a scan; title, data and training of a model."""
    from voxlate.info import describe_path

    facts = describe_path(path)
    if as_json:
        print(json.dumps(facts))
        return
    width = max(len(key) for key in facts)
    for key, value in facts.items():
        out.print(f"[bold]{key:{width}}[/]  {value}", highlight=False)


@app.command(epilog="Example:  voxlate demo --out demo")
def demo(
    to: Annotated[Path, typer.Option("--out", help="Folder for everything that the demo makes.")] = Path("demo"),
) -> None:
    """The whole way on a made-up cohort: phantom, prepare, train, synth, evaluate, report. CPU, a few minutes."""
    from voxlate.demo import demo as run

    with bar(err) as shown:
        scores, page, picture = run(to, Bars(shown))
    out.print(scores.table())
    print(f"picture: {picture}\nreport:  {page}")
