"""Commands on models: recipes, train, import, synth."""

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from rich.text import Text
from typer import Argument, Option

from voxlate.cli.app import app, end, err, note, out, say
from voxlate.cli.options import (
    AllowCode,
    Answer,
    Changes,
    Device,
    Json,
    Layout,
    Noise,
    Samples,
    Split,
    Steps,
    SynthChanges,
    To,
    pairs,
    synth_table,
    with_tables,
)
from voxlate.cli.planning import (
    AUTO,
    Memory,
    Mode,
    PlanFor,
    Source,
    Target,
    auto_recipe,
    given,
    minutes_of,
    show_fits,
    write_planned,
)
from voxlate.cli.progress import progress_on
from voxlate.cli.warning_lines import by_grade
from voxlate.errors import BadInput
from voxlate.recipe import text as recipe_text

if TYPE_CHECKING:
    from voxlate.training.run import Run


def _completed(begun: str) -> list[str]:
    return [name for name in (AUTO, *recipe_text.names()) if name.startswith(begun)]


def _samplers(begun: str) -> list[str]:
    from voxlate.diffusion.sample import SAMPLERS

    return [name for name in SAMPLERS if name.startswith(begun)]


@app.command(name="recipes", epilog="Examples:  voxlate recipes t1_to_t2_brain    voxlate recipes --for PREPARED")
def list_recipes(
    name: Annotated[
        str | None,
        Argument(help="Print this one, and every key with default and meaning.", autocompletion=_completed),
    ] = None,
    cohort: Annotated[
        Path | None, Option("--for", help="Which fit this prepared cohort, and why others do not.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List the recipes that come with voxlate by what they make of what, or print one."""
    if cohort is not None:
        show_fits(cohort, as_json)
        return
    if name:
        from voxlate import recipe as recipes
        from voxlate.cli.explain import explain

        chosen = recipes.read(name)
        values = {"name": name, **recipes.to_dict(chosen)}
        print(json.dumps(values) if as_json else recipe_text.text_of(name) + "\n" + explain(chosen))
        return
    found = recipe_text.titles()
    if as_json:
        listed = {one: recipe_text.values_of(one) for one in recipe_text.names()}
        sides = {one: {side: values["data"][side] for side in ("source", "target")} for one, values in listed.items()}
        print(json.dumps([{"name": one, "title": listed[one]["title"], **sides[one]} for one in listed]))
        return
    width = max(len(one) for pair in found.values() for one in pair)
    cut: Any = {"no_wrap": True, "overflow": "ellipsis"} if out.is_terminal else {"soft_wrap": True}
    for pair, members in found.items():
        say(f"\n{pair}", style="bold")
        for one, title in members.items():
            out.print(f"  {one:{width}}  {title}", highlight=False, **cut)


@app.command(
    epilog="Examples:  voxlate train auto --data PREPARED --out RUN --minutes 60    "
    "voxlate train t1_to_t2_brain --data PREPARED --out RUN --set train.steps=500    "
    "voxlate train RUN --steps +2000"
)
def train(
    recipe: Annotated[
        str,
        Argument(
            help="auto: one planned for the cohort (voxlate plan). Else a shipped recipe's name (voxlate recipes) or a "
            "TOML file; or a run, to go on with it.",
            autocompletion=_completed,
        ),
    ],
    data: Annotated[
        Path | None, Option(help="A prepared cohort; of a run: where it lies now, if it was moved.")
    ] = None,
    to: Annotated[Path | None, Option("--out", help="Folder for what this command makes; of a run none.")] = None,
    steps: Annotated[str | None, Option(help="Of a finished run: so many further steps (+2000).")] = None,
    minutes: Annotated[
        str | None,
        Option(help="Of auto: how long it may take (60). Of a finished run: about so many further ones (+30)."),
    ] = None,
    change: Changes = None,
    start: Annotated[Path | None, Option("--init", help="Weights, or a run, to begin from, not random ones.")] = None,
    reuse: Annotated[
        list[Path] | None, Option(help="A run whose earlier stages to take where they are the same (repeat it).")
    ] = None,
    fold: Annotated[
        int | None,
        Option(min=0, max=4, help="Validate on this fifth of the patients that are not for test, train on the rest."),
    ] = None,
    memory: Memory = None,
    mode: Mode = None,
    source: Source = None,
    target: Target = None,
    plan_for: PlanFor = None,
    device: Device = "auto",
) -> None:
    """Train a recipe. After a stop or a crash, the same command resumes and ends with the same weights."""
    from voxlate.cli import resume
    from voxlate.planning.pace import kept_pace
    from voxlate.recipe import read_with_head
    from voxlate.training.train import train as run

    lengths = {"--steps": steps, "--minutes": minutes}
    wishes = given(source=source, target=target, memory=memory, mode=mode, plan_for=plan_for)
    if to is None and Path(recipe).is_dir():
        unfit = [f"--{name}" for name in given(set=change, init=start, reuse=reuse, fold=fold, **wishes)]
        unfit = [name.replace("_", "-") for name in unfit]
        with progress_on(err) as bars:
            resume.go_on(Path(recipe), lengths, unfit, data=data, device=device, progress=bars, say=note)
        _say_next(Path(recipe))
        return
    data, to = resume.required(recipe, data, to, {"--steps": steps} if recipe == AUTO else lengths)
    changes = pairs(change)
    made, began = None, time.monotonic()
    if recipe == AUTO:
        wishes |= {} if minutes is None else {"minutes": minutes_of(minutes)}
        if plan_for is not None:
            write_planned(data, to, changes, wishes, device=device, fold=fold)
            return
        chosen, head, made = auto_recipe(data, to, changes, wishes, device=device, fold=fold)
    elif wishes:
        option = next(iter(wishes)).replace("_", "-")
        raise BadInput(f"--{option}: expected the recipe auto, which is planned, found {recipe}. Drop it.")
    else:
        chosen, head = read_with_head(recipe, changes)
    own = sorted({key.split(".")[0] for key in changes} & {"train", "net", "method", "opponent"})
    if own and chosen.stages and (recipe != AUTO or made is not None):
        others = ", ".join(f"stages.{stage.name}.{own[0]}" for stage in chosen.stages)
        note(f"--set {own[0]}… changes the last stage alone; the others are {others}.")
    with progress_on(err) as bars:
        pace = kept_pace(to, chosen, note) if recipe == AUTO else None
        options: dict[str, Any] = {"pace": pace, "start": start, "reuse": reuse or (), "fold": fold, "device": device}
        done = run(chosen, data, to, head=head, **options, progress=bars, say=note)
    if made is not None:
        note(made.outcome(done, time.monotonic() - began, device))
    _say_next(to)


def _say_next(run: Path) -> None:
    """Name a finished run's weights, and the command that makes images of cases that it did not see."""
    from voxlate import recipe as recipes
    from voxlate.cli.next_steps import after_training
    from voxlate.training.run import Run, read_header

    weights = Run(run).weights()
    recipe = recipes.from_dict(read_header(weights)["recipe"], f"{weights}", allow_code=True)
    after = after_training(run, recipe.data, recipe.task.completes)
    say(f"{weights} is the model. Next:  voxlate {after}")
    _say_verdicts(Run(run))


def _say_verdicts(run: "Run") -> None:
    """Say whether each stage of a run is better than naive baselines on its validation items, the model last."""
    from voxlate.scoring.verdict import coloured, logged

    by_stage = logged(run.log)
    for stage, found in by_stage.items():
        if stage != "final":
            say(Text.assemble(f"stage '{stage}': ", coloured(found)))
    if final := by_stage.get("final"):
        say(coloured(final))
    else:
        say("– no verdict: no case of the validation has what the model makes and what it is made of")


@app.command(
    name="import",
    epilog="Examples:  voxlate import xmodality adm.safetensors --out RUN    "
    "voxlate import kl-f4 vae.safetensors --out KL",
)
def import_weights(
    source: Annotated[
        Literal["xmodality", "kl-f4", "kl-f8"],
        Argument(
            metavar="SOURCE",
            help="Whose weights: xmodality; kl-f4 or kl-f8, an autoencoder of latent diffusion (CompVis or diffusers).",
        ),
    ],
    weights: Annotated[Path, Argument(help="The published file (safetensors).")],
    to: To,
    change: Changes = None,
) -> None:
    """Turn published weights into a run: a network that synth accepts, or an autoencoder for `train --reuse`."""
    if source != "xmodality":
        from voxlate.training.pretrained import import_autoencoder, net_changes

        if change:
            raise BadInput(f"--set: expected none with {source}, whose file says all, found {change[0]!r}. Drop it.")
        taken = import_autoencoder(source, weights, to)
        say(f"{taken.weights()} is the autoencoder. Next:")
        say(f"  voxlate train LATENT_RECIPE --data PREPARED --out RUN --reuse {to} {net_changes(taken)}")
        return
    from voxlate.training.published import import_run

    run = import_run(weights, to, pairs(change))
    say(f"{run.weights()} is the model. Next:  voxlate synth {to} SCANS --out OUT")


@app.command(
    epilog="Examples:  voxlate synth RUN COHORT --out OUT --split val    "
    "voxlate synth RUN t1=scan.nii.gz --out OUT --samples 10 (of a diffusion)    "
    "voxlate synth RUN COHORT --out MEANS --answer mean (least error; sample: sharp)    "
    "voxlate synth FOLD0 FOLD1 FOLD2 COHORT --out OUT (their mean and spread)"
)
@with_tables
def synth(
    run: Annotated[Path, Argument(help="A run folder, or a weights file.")],
    inputs: Annotated[
        list[str],
        Argument(
            metavar="[RUN...] INPUT",
            help="A cohort, a case, a DICOM series, a file, or modality=path pairs; after more runs: their mean.",
        ),
    ],
    to: To,
    answer: Answer = None,
    sampler: Annotated[str | None, Option(help="Another sampler than the recipe's.", autocompletion=_samplers)] = None,
    steps: Steps = None,
    eta: Annotated[float | None, Option(min=0, max=1, help="Noise that ddim puts back; 1 as DDPM.")] = None,
    schedule: Annotated[str | None, Option(help="Noise over time: another than in training (cosine, …).")] = None,
    like: Annotated[
        str | None, Option(help="Sample as this recipe does, which trains the same method (mr_to_ct_ode_m).")
    ] = None,
    samples: Samples = None,
    seed: Annotated[int, Option(min=0, help="Of the noise.")] = 0,
    batch: Annotated[
        int | None,
        Option(min=1, help="Slices at a time: memory, and rounding (in bfloat16 up to 1 % of the range)."),
    ] = None,
    exact: Annotated[
        bool, Option("--exact", help="float32, one slice at a time: bit-identical whatever --batch (slower).")
    ] = False,
    split: Split = None,
    slices: Annotated[
        Literal["whole", "tiled", "resized"] | None, Option(help="How a model sees the slices of a volume.")
    ] = None,
    crop: Annotated[
        int | None, Option(min=0, help="Synthesise only in the box of the mask and so many voxels around it.")
    ] = None,
    noise: Noise = None,
    change: SynthChanges = None,
    missing: Annotated[list[str] | None, Option(help="Leave this modality out and make it.")] = None,
    part: Annotated[
        str | None,
        Option(metavar="I/N", help="Synthesise only every N-th case, from the I-th on: N jobs may share one OUT."),
    ] = None,
    intervals: Annotated[
        bool,
        Option("--intervals/--no-intervals", help="Of a calibrated run: <modality>_low and _high, too."),
    ] = True,
    *,
    layout: Layout,
    device: Device = "auto",
    allow_code: AllowCode = False,
    as_json: Json = False,
) -> None:
    """Make the target modalities of one case or of a cohort, on the input's own grid and in physical units."""
    from voxlate import recipe as recipes
    from voxlate.cli.bounds import bound_lines, bounds_of
    from voxlate.cli.next_steps import after_completing, after_synthesis
    from voxlate.synthesis.cohort import find_scans, graded_warnings, part_of, sort_out, synthesise_cases
    from voxlate.synthesis.ensemble import load_members, members_and_scans

    named: dict[str, Any] = {"sampler": sampler, "steps": steps, "eta": eta, "samples": samples, "batch": batch}
    named["exact"] = exact or None
    kinds = {"schedule": schedule, "slices": slices, "noise": noise}
    named |= {key: {"kind": kind} for key, kind in kinds.items() if kind is not None}
    if crop is not None:
        named["slices"] = {"kind": slices or "whole", "crop": crop}
    members, inputs = members_and_scans(inputs)
    model = load_members([run, *members], device, allow_code, answer)
    model = model if intervals else model.without_intervals()
    model = model if like is None else model.with_synthesis_of(recipes.read(like))
    model = model.with_options(**{**named, **synth_table(change)})
    scans = find_scans(inputs, model, split=split, missing=missing, **vars(layout))
    fitting, lacking, complete = sort_out(model, scans)
    fitting, others = (fitting, None) if part is None else part_of(part)(fitting)
    if not fitting and not as_json:
        say(f"--part {part} holds none of the {len(others or ())} cases: nothing to do.")
        return
    with progress_on(err) as bars:
        folders, failed = synthesise_cases(
            model, fitting, to, seed=seed, lacking=lacking, others=others, progress=bars, warn=by_grade, say=note
        )
    left_out = {**lacking, **failed}
    if as_json:
        done = {"out": str(to), "cases": [folder.name for folder in folders], "targets": model.recipe.data.target}
        said = {one.name: graded for one in folders if (graded := graded_warnings(one))}
        found = {"left_out": left_out, "complete": complete, "bounds": bounds_of(folders), "warnings": said}
        print(json.dumps({**done, **found}))
    else:
        for line in bound_lines(folders):
            say(line)
        truths = {one.case for one in fitting if one.truths} & {folder.name for folder in folders}
        after = after_synthesis(to, inputs[0], vars(layout), bool(truths))
        if complete:
            say(f"{len(complete)} cases lack nothing and are left as they are: {', '.join(complete)}")
        say(f"{len(folders)} cases in {to}.{f' Next:  voxlate {after}' if folders else ''}")
        if complete and folders:  # what was missing has no truth, these cases have
            say(f"To score what the model makes:  voxlate {after_completing(run, inputs[0], vars(layout), split)}")
    end(f"left out {sentence}" for sentence in left_out.values())
