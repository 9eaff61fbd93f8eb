"""The commands in Python: voxlate.prepare, train, synthesise and so on; their results show themselves in notebooks.

Each function takes what its command takes, and progress: True shows bars on stderr and in notebooks, and notes, False
nothing, and a function is called with (name, done, total, numbers).
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from voxlate.batches.slice_filter import SliceFilter
from voxlate.cases import prepare as _prepare
from voxlate.cases.naive import Baselines
from voxlate.cases.prepared import Cohort
from voxlate.cli import demo as _demo
from voxlate.cli import resume
from voxlate.cli.arguments import checked, takes
from voxlate.cli.demo_real import RealDemo, demo_on_scan
from voxlate.cli.info import describe_path
from voxlate.cli.progress import Shown, noted, shown
from voxlate.cli.starters import starter_facts
from voxlate.cohorts.choice import as_names
from voxlate.cohorts.deidentify import Deidentified, deidentify_folder
from voxlate.cohorts.pseudonyms import check_outside, read_key, write_key
from voxlate.delivery.archive import fetch_inputs, store_answers
from voxlate.delivery.delivery import deliver
from voxlate.delivery.dicom_out import Exported, export_dicom
from voxlate.delivery.serving import serve as serve_archive
from voxlate.executors.choose import choose_executor, workers_of
from voxlate.formats.io import read_volume
from voxlate.options.evaluate import EvaluateOptions
from voxlate.options.executors import ExecutorOptions
from voxlate.options.layout import Layout, allow_volumes
from voxlate.options.prepare import PrepareOptions
from voxlate.options.synthesise import RunOptions, SynthOptions
from voxlate.phantoms import write_cohort
from voxlate.phantoms.cohort import CohortLesion
from voxlate.planning.adapt import adapt as _adapt
from voxlate.planning.fit import fits
from voxlate.planning.other_machine import machine_of
from voxlate.planning.pace import kept_pace
from voxlate.planning.plan import Mode, Plan, check_same, plan_training, planned_once
from voxlate.planning.probe import FREE, Limits, free_memory
from voxlate.recipe import Recipe, read, read_with_head, to_dict
from voxlate.recipe import text as recipe_text
from voxlate.reports.page import report as _report
from voxlate.reports.prepared import report_prepared
from voxlate.scoring import evaluate as _evaluate
from voxlate.scoring.compare import compare as _compare
from voxlate.scoring.features import Features
from voxlate.scoring.provenance import provenance_of
from voxlate.scoring.scored_images import images_in, is_map
from voxlate.scoring.tables import Scores
from voxlate.synthesis import likelihood as _likelihood
from voxlate.synthesis.calibrate import calibrate as _calibrate
from voxlate.synthesis.calibrate import find_calibration_cases, own_copy
from voxlate.synthesis.cohort import warnings_in
from voxlate.synthesis.ensemble import Ensemble
from voxlate.synthesis.likelihood import Likelihood
from voxlate.synthesis.missing import score_run
from voxlate.synthesis.model import Model, Synthesised
from voxlate.synthesis.model import load as _load
from voxlate.synthesis.selection import select
from voxlate.system.errors import BadInput, first_of
from voxlate.system.messages import Message
from voxlate.training.pretrained import import_autoencoder
from voxlate.training.published import import_run
from voxlate.training.run import Run
from voxlate.training.train import train as _train
from voxlate.trust.calibration_file import Answer
from voxlate.trust.summary import sentences
from voxlate.web.offering import offer
from voxlate.web.offering import serve as serve_page

Split = Literal["train", "val", "test"]
Setting = str | float | bool | None
Source = Literal["xmodality", "kl-f4", "kl-f8"]
compare, load = checked(_compare), checked(_load)


def _taken(table: Any, options: dict[str, Any]) -> dict[str, Any]:
    """Takes the options that are fields of a dataclass from all options."""
    return {
        field.name: options.pop(field.name)
        for field in dataclasses.fields(table)
        if field.name in options
    }


def _texts(changes: Mapping[str, Setting] | None) -> dict[str, str]:
    """Changes of a recipe's keys as texts of the command line."""
    plain = {True: "true", False: "false", None: "none"}
    return {
        key: plain[value] if value is None or isinstance(value, bool) else str(value)
        for key, value in (changes or {}).items()
    }


@takes()
def phantom(
    out: Path | str,
    cases: int = 24,
    size: tuple[int, int, int] = (96, 96, 48),
    *,
    seed: int = 0,
    lesion: CohortLesion = "mixed",
    modalities: Sequence[str] | None = None,
    stripped: bool = False,
    anatomy: int = 1,
    progress: Shown = True,
) -> list[Path]:
    """Write a cohort of head phantoms and return the folders of its cases; size: voxels in x, y and z.

    See phantom.write_cohort.
    """
    with shown(progress) as step:
        return write_cohort(
            Path(out),
            cases,
            size,
            seed,
            lesion,
            modalities,
            stripped,
            anatomy,
            progress=lambda done, total: step("phantom", done, total, {}),
        )


@takes(_prepare.prepare, PrepareOptions, ExecutorOptions)
def prepare(
    root: Path | str,
    out: Path | str,
    *,
    progress: Shown = True,
    **options: Any,
) -> Cohort:
    """Prepare a cohort for training; options: the fields of PrepareOptions and ExecutorOptions, and say."""
    options.setdefault("say", noted(progress))
    by = ExecutorOptions(**_taken(ExecutorOptions, options))
    with shown(progress) as step:
        return _prepare.prepare(
            root,
            out,
            progress=lambda done, total, _: step("prepare", done, total, {}),
            **workers_of(by),
            **options,
        )


@takes(plan_training)
def plan(
    data: Path | str,
    *,
    minutes: float = 60,
    source: str | Sequence[str] = (),
    target: str | Sequence[str] = (),
    memory_bytes: float | None = None,
    mode: Mode = "both",
    plan_for: str | None = None,
    device: str = "auto",
    progress: Shown = True,
    **options: Any,
) -> Plan:
    """A recipe for a prepared cohort, with a reason for each key; memory_bytes: by default most of what is free.

    plan_for: a machine that is not this one, such as "24GB, 80 TFLOPS" (memory and peak in bfloat16); options: as of
    planning.plan.plan_training.
    """
    elsewhere = None if plan_for is None else machine_of(plan_for)
    if memory_bytes is None:
        memory_bytes = elsewhere.memory_bytes * FREE if elsewhere else free_memory(device)
    limits = Limits(float(minutes), memory_bytes)
    inputs, outputs = as_names(source), as_names(target)
    options.setdefault("say", noted(progress))
    options |= {"device": device, "elsewhere": elsewhere}
    return plan_training(data, source=inputs, target=outputs, limits=limits, mode=mode, **options)


@takes(_train)
def train(
    recipe: Plan | Recipe | Path | str,
    data: Path | str | None = None,
    out: Path | str | None = None,
    *,
    changes: Mapping[str, Setting] | None = None,
    minutes: float | str | None = None,
    steps: str | None = None,
    source: str | Sequence[str] = (),
    target: str | Sequence[str] = (),
    memory_bytes: float | None = None,
    mode: Mode = "both",
    from_scratch: bool = False,
    small: bool = False,
    device: str = "auto",
    allow_code: bool = False,
    progress: Shown = True,
    **options: Any,
) -> Run:
    """Train a plan, a recipe (shipped, or a file) or "auto", planned for so many minutes (60); the same call resumes.

    changes: keys of the recipe, as {"train.steps": 500}; source, target, memory_bytes, mode, from_scratch: of "auto", as of plan;
    small: train the small variant of the recipe; options: as of training.train.train (start, reuse, fold). A finished run alone, without `out`, is trained further:
    train("RUN", steps="+2000") or minutes="+30". allow_code: import the code outside voxlate that the recipe or run names.
    """
    say = options.setdefault("say", noted(progress))
    if out is None and not isinstance(recipe, Plan | Recipe) and Path(recipe).is_dir():
        lengths = {"--steps": steps, "--minutes": None if minutes is None else str(minutes)}
        unfit = [*options.keys() - {"say"}, *(["changes"] if changes else [])]
        with shown(progress) as step:
            prepared = None if data is None else Path(data)
            own = {"data": prepared, "device": device, "allow_code": allow_code}
            return resume.go_on(Path(recipe), lengths, unfit, **own, progress=step, say=say)
    named = recipe if isinstance(recipe, str) else "the recipe"
    cohort = None if data is None else Path(data)
    folder = None if out is None else Path(out)
    data, out = resume.required(named, cohort, folder, {"--steps": steps})
    if small:
        if recipe == "auto" or isinstance(recipe, Plan | Recipe):
            raise BadInput(
                "small: expected the name or the file of a recipe with a table [small], found another. Drop it."
            )
        recipe = recipe_text.small_variant(str(recipe))
    if recipe == "auto":
        of_plan: dict[str, Any] = {
            "source": source,
            "target": target,
            "memory_bytes": memory_bytes,
            "mode": mode,
            "minutes": 60 if minutes is None else minutes,
            "from_scratch": from_scratch,
            "fold": options.get("fold"),
            "say": say,
        }

        def make() -> Plan:
            return plan(data, device=device, **of_plan).changed(_texts(changes), allow_code)

        chosen, head, new_plan = planned_once(out, make, device, allow_code)
        if new_plan is None:
            check_same(out, chosen, as_names(source), as_names(target))
            say(
                f"{out / 'recipe.toml'} is resumed as it was planned; other options change nothing."
            )
        options.setdefault("pace", kept_pace(out, chosen, say))
    elif isinstance(recipe, Recipe):
        chosen, head = recipe, ""
    elif isinstance(recipe, Plan):
        chosen, head = recipe.changed(_texts(changes), allow_code).with_head
    else:
        chosen, head = read_with_head(str(recipe), _texts(changes), allow_code)
    with shown(progress) as step:
        return _train(chosen, data, out, head=head, device=device, progress=step, **options)


@takes(_adapt)
def adapt(
    run: Path | str, data: Path | str, out: Path | str, *, progress: Shown = True, **options: Any
) -> Run:
    """Continue a run or starter on a prepared cohort of another site; options: as of planning.adapt.adapt."""
    options.setdefault("say", noted(progress))
    with shown(progress) as step:
        return _adapt(run, data, out, progress=step, **options)


@takes()
def list_starters(check: bool = False) -> list[dict[str, Any]]:
    """The weights that come with voxlate, as a list of tables; check: compare each with its hash and self-test."""
    return starter_facts(check)


@dataclass(frozen=True)
class Syntheses:
    """A folder of synthesised images: its cases, a sentence for each that was left out, and each case's warnings."""

    folder: Path
    cases: tuple[str, ...]
    left_out: Mapping[str, str] = field(default_factory=dict)

    @property
    def warnings(self) -> dict[str, list[Message]]:
        """The warnings of each case that has any."""
        by_case = {case: warnings_in(self.folder / case) for case in self.cases}
        return {case: said for case, said in by_case.items() if said}

    def __repr__(self) -> str:
        text = f"Syntheses({len(self.cases)} cases in {self.folder}, {len(self.left_out)} left out)"
        lines = [f"  {one.on(case)}" for case, some in self.warnings.items() for one in some]
        return "\n".join([text, *lines])

    def show(self, case: str | None = None) -> Image.Image:
        """Middle slices of the images of a case, by default of the first, with its warnings."""
        if not self.cases or (case is not None and case not in self.cases):
            known = first_of(self.cases) or "none"
            raise BadInput(
                f"case: expected a synthesised case ({known}), found {case!r}. Choose one of these."
            )
        folder = self.folder / (case or self.cases[0])
        images = images_in(folder)
        volumes = {
            name: read_volume(path) for name, path in images.items() if not is_map(name, images)
        }
        return Synthesised(volumes, {}, provenance_of(folder)).show()

    def _repr_png_(self) -> bytes:
        return self.show()._repr_png_() or b""


@takes(SynthOptions, ExecutorOptions, others=True)
def synthesise(
    run: Model | Ensemble | Path | str | Sequence[Path | str],
    inputs: Path | str | Sequence[str],
    out: Path | str,
    *,
    progress: Shown = True,
    **options: Any,
) -> Syntheses:
    """Synthesise the targets of a cohort, a case or modality=path pairs; of several runs their mean and spread.

    options: the fields of SynthOptions and ExecutorOptions, and any other key of the recipe's synth table (overlap=0.25).
    """
    by = ExecutorOptions(**_taken(ExecutorOptions, options))
    own = _taken(SynthOptions, options)
    synth = {**(own.pop("synth", None) or {}), **options}
    asked = SynthOptions(**own, synth=synth)
    if isinstance(run, Model | Ensemble):  # which is on a device already
        asked = dataclasses.replace(asked, device=f"{run.device}")
    runs = [run] if isinstance(run, Path | str) else run
    texts = [str(inputs)] if isinstance(inputs, Path | str) else list(inputs)
    fetched = fetch_inputs(texts, Path(out), asked)
    selected = select(runs, fetched.inputs, asked)
    if not selected.scans:
        return Syntheses(Path(out), (), selected.lacking)
    with shown(progress) as step:
        note = noted(progress)
        folders, failed = deliver(
            selected,
            Path(out),
            asked,
            progress=step,
            say=note,
            executor=choose_executor(by, asked.device, note),
        )
    if asked.store:
        store_answers(fetched, folders, noted(progress))
    return Syntheses(
        Path(out), tuple(folder.name for folder in folders), {**selected.lacking, **failed}
    )


@takes(
    EvaluateOptions,
    RunOptions,
    _evaluate.evaluate,
    ExecutorOptions,
    objects={
        "naive": Baselines | Path | str | None,
        "features": Features | Path | str | None,
        "slices": SliceFilter | str | None,
    },
)
def evaluate(
    out: Path | str, truth: Path | str, *, progress: Shown = True, **options: Any
) -> Scores:
    """Score images; with run: first synthesise each modality from the others.

    options: the fields of EvaluateOptions, RunOptions and ExecutorOptions; without a run also cases.
    """
    by = ExecutorOptions(**_taken(ExecutorOptions, options))
    by_run = RunOptions(**_taken(RunOptions, options))
    with shown(progress) as step:
        if by_run.run is None:
            by_run.refuse_without_run()
            return _evaluate.evaluate(
                out,
                truth,
                progress=lambda done, total, _: step("evaluate", done, total, {}),
                executor=choose_executor(by),
                **options,
            )
        if "cases" in options:
            raise BadInput(
                "cases: expected no cases with a run, which synthesises those of the split, found some. Leave them out, or use exclude."
            )
        asked = EvaluateOptions(**options)
        return score_run(
            Path(truth), Path(out), by_run, asked, progress=step, say=noted(progress), by=by
        ).scores


@takes(_calibrate, Layout, ExecutorOptions)
def calibrate(
    run: Model | Path | str,
    cohort: Path | str,
    *,
    out: Path | str | None = None,
    split: Split | None = None,
    answer: Answer | None = None,
    device: str = "auto",
    samples: int | None = None,
    synth: Mapping[str, Setting | Mapping[str, Setting]] | None = None,
    allow_code: bool = False,
    progress: Shown = True,
    **options: Any,
) -> list[str]:
    """Fit prediction intervals on held-out patients; returns what they state, a sentence each.

    synth: changes of the recipe's synth table, such as {"steps": 8}. options: coverage, confidence, bound, regions, seed
    (see synthesis.calibrate), how the cohort is laid out, and the fields of ExecutorOptions. The calibration is written into the run, or into `out`, a
    copy of a starter.
    """
    layout = Layout(**_taken(Layout, options)).layout
    by = ExecutorOptions(**_taken(ExecutorOptions, options))
    if not isinstance(run, Model):
        run = own_copy(run, None if out is None else Path(out))
    model = (run if isinstance(run, Model) else load(run, device, allow_code, answer)).with_options(
        allow_code, samples=samples, **(synth or {})
    )
    cases = find_calibration_cases(model, Path(cohort), split, **layout)
    with shown(progress) as step:
        name = f"{model.device}" if isinstance(run, Model) else device
        executor = choose_executor(by, name, noted(progress))
        _, fitted = _calibrate(
            model, cases, split=split, progress=step, executor=executor, device=name, **options
        )
    return sentences(fitted.header)


@takes(_likelihood.likelihood)
def likelihood(
    run: Path | str, cohort: Path | str, *, progress: Shown = True, **options: Any
) -> Likelihood:
    """Bits per dimension of true images under a diffusion; options: as of synthesis.likelihood."""
    with shown(progress) as step:
        return _likelihood.likelihood(
            run, cohort, progress=lambda done, total: step("likelihood", done, total, {}), **options
        )


@takes()
def report(path: Path | str, out: Path | str | None = None) -> Path:
    """Write one HTML page on a run, a folder of images or a prepared cohort, and return its path."""
    write = report_prepared if (Path(path) / "cohort.json").is_file() else _report
    return write(Path(path), None if out is None else Path(out))


@takes()
def export(
    out: Path | str,
    dicom: Path | str,
    like: Path | str | None = None,
    *,
    enhanced: bool = False,
    progress: Shown = True,
) -> Exported:
    """Write synthesised images as derived DICOM series in the study of their source. See synthesis.dicom_out."""
    with shown(progress) as step:
        return export_dicom(
            Path(out),
            Path(dicom),
            None if like is None else Path(like),
            lambda number, total: step("images", number, total, {}),
            enhanced,
        )


@takes()
def info(path: Path | str, *, max_volume: str | None = None) -> dict[str, Any]:
    """Facts about a scan, a cohort, a synthesis, a run or weights; max_volume: as that of `prepare`."""
    if max_volume is not None:
        allow_volumes(max_volume)
    return describe_path(Path(path))


@takes()
def recipes(
    name: str | None = None, *, cohort: Path | str | None = None, allow_code: bool = False
) -> Any:
    """The shipped recipes as a list of tables; the keys of one by its name; or which fit a prepared cohort, and why.

    allow_code: import the code outside voxlate that a recipe's file names.
    """
    if cohort is not None:
        return [asdict(one) for one in fits(cohort)]
    if name is not None:
        return {"name": name, **to_dict(read(name, allow_code=allow_code))}
    return recipe_text.table_of_recipes()


@takes()
def pseudonym_key(file: Path | str, *, of: Sequence[str] | None = None) -> dict[str, str]:
    """Write a new random key for synthesise's `pseudonymise`; of: patients, whose pseudonyms by an existing key return."""
    if of is None:
        write_key(Path(file))
        return {}
    pseudonyms = read_key(Path(file))
    return {name: pseudonyms.case(name) for name in of}


@takes()
def pseudonymise(folder: Path | str, out: Path | str, *, key: Path | str) -> Deidentified:
    """Copy DICOM images under pseudonyms, by the basic profile of DICOM PS3.15; key: a file of pseudonym_key."""
    check_outside(Path(key), Path(out))
    return deidentify_folder(Path(folder), Path(out), read_key(Path(key)))


@takes()
def listen(
    run: Path | str,
    out: Path | str,
    *,
    allow: Sequence[str],
    to: str,
    port: int = 11112,
    title: str = "VOXLATE",
    host: str = "127.0.0.1",
    idle: float = 10.0,
    device: str = "auto",
    progress: Shown = True,
) -> None:
    """Receive studies by C-STORE, synthesise one at a time, and send the images by C-STORE, until interrupted.

    out: folder of the queue; allow: AE titles of senders; to: TITLE@HOST:PORT; host: own address, which the senders reach; idle: seconds
    without an image or an open association after which a study is complete.
    """
    say = noted(progress)
    serve_archive(
        run,
        Path(out),
        allow,
        to,
        port=port,
        title=title,
        host=host,
        idle=idle,
        device=device,
        say=say,
    )


@takes()
def serve(
    runs: Sequence[Path | str] | Path | str = (),
    *,
    data: Path | str | None = None,
    root: Path | str | None = None,
    port: int = 8765,
    host: str = "127.0.0.1",
    name: Sequence[str] = (),
    token: str | None = None,
    keep: float = 24.0,
    max_upload: str = "2GB",
    max_disk: str = "20GB",
    device: str = "auto",
    progress: Shown = True,
) -> None:
    """Serve a page on this machine, on which scans are chosen and synthesised, until interrupted.

    runs: without any, the installed starters; data: folder of uploads and results; root: folder below which the page may
    read scans; name: further host names of the page; keep: hours after which uploads and results are removed.
    """
    offered = offer(
        [runs] if isinstance(runs, Path | str) else runs,
        data=data,
        root=root,
        port=port,
        host=host,
        names=name,
        token=token,
        keep=keep,
        max_upload=max_upload,
        max_disk=max_disk,
        device=device,
    )
    serve_page(offered, print, noted(progress))


@takes()
def import_weights(
    source: Source,
    weights: Path | str,
    out: Path | str,
    *,
    changes: Mapping[str, Setting] | None = None,
) -> Run:
    """Turn published weights into a run: a network that synthesise accepts, or an autoencoder for train's `reuse`.

    source: "xmodality"; "kl-f4" or "kl-f8" of latent diffusion, which take no changes.
    """
    if source == "xmodality":
        return import_run(Path(weights), Path(out), _texts(changes))
    if changes:
        raise BadInput(
            f"changes: expected none with {source}, whose file states all keys, found {changes}. Drop them."
        )
    return import_autoencoder(source, Path(weights), Path(out))


@takes()
def demo(
    out: Path | str = "demo",
    *,
    real: Path | str | None = None,
    starter: str | None = None,
    progress: Shown = True,
) -> _demo.Demo | RealDemo:
    """Run every step on a phantom cohort; the same call resumes. real: a scan, of which a starter's synthesis is shown."""
    with shown(progress) as step:
        if real is not None:
            return demo_on_scan(Path(real), Path(out), starter, step, noted(progress))
        return _demo.demo(Path(out), step)
