"""The work of the jobs that read cohorts, train, calibrate and compare: each calls what the command line calls."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from voxlate.cases.prepare import prepare as prepare_cohort
from voxlate.cases.survey import survey as survey_cohort
from voxlate.delivery.delivery import deliver
from voxlate.options.layout import layout_of
from voxlate.options.prepare import PrepareOptions
from voxlate.options.synthesise import SynthOptions
from voxlate.planning.pace import kept_pace
from voxlate.planning.plan import begun, plan_training
from voxlate.planning.probe import Limits, free_memory
from voxlate.recipe import from_dict, read_with_head
from voxlate.reports.comparison import write_page
from voxlate.reports.page import report
from voxlate.reports.prepared import report_prepared
from voxlate.scoring.compare import compare as compare_scores
from voxlate.scoring.comparison_tables import comparison_tables
from voxlate.scoring.evaluate import evaluate
from voxlate.scoring.tables import Tables, score_tables
from voxlate.scoring.verdict import read_verdicts, verdict_lines
from voxlate.synthesis.calibrate import calibrate as fit_intervals
from voxlate.synthesis.calibrate import find_calibration_cases
from voxlate.synthesis.model import load
from voxlate.synthesis.selection import select
from voxlate.system.errors import BadInput
from voxlate.system.files import write_json
from voxlate.system.messages import Message, message
from voxlate.training.continuing import train_further
from voxlate.training.run import Run
from voxlate.training.train import train as train_recipe
from voxlate.trust.summary import sentences
from voxlate.web.hiding import cleaned
from voxlate.web.looking import cohort_of
from voxlate.web.places import ROOT, check_links
from voxlate.web.shown import FOUND, OUT, PLANNED, REPORT

Progress = Callable[[str, int, int], None]
Facts = dict[str, Any]
Request = Mapping[str, Any]
Work = Callable[[Path, dict[str, Any], Any], Facts]


def survey(folder: Path, request: Request, progress: Progress) -> Facts:
    """What `voxlate prepare --dry-run` shows of a cohort."""
    options = PrepareOptions(**request["options"])
    cohort = Path(request["cohort"])
    check_links(Path(request["root"]), cohort)
    seen = survey_cohort(cohort, options, lambda done, total, _: progress("scans", done, total))
    facts = {**seen.facts, "small": " ".join(map(str, seen.small))}
    facts["files"] = [
        {**vars(file), "path": _below(seen.root, file.path)} for file in seen.checked.files
    ]
    return facts


def _below(root: Path, place: str) -> str:
    path = Path(place)
    return str(path.relative_to(root)) if path.is_relative_to(root) else path.name


def prepare(folder: Path, request: Request, progress: Progress) -> Facts:
    """Prepare a cohort as `voxlate prepare` does, with the page of its overlays."""
    said, cohort = list[Message](), Path(request["cohort"])
    check_links(Path(request["root"]), cohort)
    prepared = prepare_cohort(
        cohort,
        Path(request["prepared"]),
        progress=lambda done, total, _: progress("cases", done, total),
        say=said.append,
        **request["options"],
    )
    report_prepared(prepared.folder, folder / REPORT, places={request["root"]: ROOT})
    return {"said": _texts(said), "unread": list(prepared.provenance["unread"])}


def plan(folder: Path, request: Request, progress: Progress) -> Facts:
    """Plan a training as `voxlate plan` does; the plan is written as the folder of a planned run."""
    progress("probe", 0, 1)
    memory = request["memory_bytes"] or free_memory(request["device"])
    said = list[Message]()
    chosen = plan_training(
        Path(request["prepared"]),
        source=tuple(request["source"]),
        target=tuple(request["target"]),
        limits=Limits(float(request["minutes"]), memory),
        mode=request["mode"],
        device=request["device"],
        from_scratch=request["from_scratch"],
        say=said.append,
    ).changed(request["changes"])
    from_dict(dict(chosen.tables), "the plan")  # raises BadInput where a change names code
    for earlier in (folder / PLANNED).glob("*"):  # of an attempt that was interrupted
        earlier.unlink()
    chosen.write_run(folder / PLANNED)
    return {
        "title": chosen.tables["title"],
        "reasons": [list(pair) for pair in chosen.why.items()],
        "minutes": chosen.seconds / 60,
        "memory_gib": chosen.memory / 2**30,
        "of_minutes": chosen.limits.minutes,
        "of_memory_gib": chosen.limits.memory_bytes / 2**30,
        "said": _texts(said),
    }


def train(folder: Path, request: Request, progress: Progress) -> Facts:
    """Train a planned run, a recipe or a further part of a run, or resume it, as `voxlate train` does."""
    run, said = Path(request["run"]), list[Message]()
    options: dict[str, Any] = {
        "device": request["device"],
        "progress": lambda name, done, total, _: progress(f"training, stage {name}", done, total),
        "say": said.append,
    }
    if request["how"] == "further":
        train_further(run, steps=request["steps"], minutes=request["minutes"], **options)
    elif request["how"] == "planned":
        planned = begun(run)
        if planned is None:
            raise BadInput("run: expected a planned run, found none. Plan it again.")
        recipe, head = planned
        pace = kept_pace(run, recipe, said.append)
        train_recipe(recipe, Path(request["prepared"]), run, head=head, pace=pace, **options)
    else:
        name = request["recipe"]
        recipe, head = read_with_head(name, request["changes"])
        train_recipe(recipe, Path(request["prepared"]), run, head=head, **options)
    return {
        "said": _texts(said),
        "verdicts": verdict_lines(read_verdicts(Run(run).log).get("final", [])),
    }


def calibrate(folder: Path, request: Request, progress: Progress) -> Facts:
    """Calibrate a run as `voxlate calibrate` does."""
    said = list[Message]()
    run, cohort = Path(request["run"]), Path(request["cohort"])
    model = load(run, request["device"], answer=request["answer"])
    model = model.with_options(samples=request["samples"])
    cases = find_calibration_cases(model, cohort, request["split"], **_layout(run, cohort))
    _, fitted = fit_intervals(
        model, cases, split=request["split"], progress=progress, warn=said.append
    )
    return {"said": _texts(said), "lines": sentences(fitted.header)}


def compare(folder: Path, request: Request, progress: Progress) -> Facts:
    """Synthesise and score the same held-out cases with each run, then compare as `voxlate compare` does."""
    cohort, said = Path(request["cohort"]), list[Message]()
    scored = list[Path]()
    documents = []
    for label, place in request["runs"].items():
        out = folder / OUT / label
        layout = _layout(Path(place), cohort)
        options = SynthOptions(
            split=request["split"],
            samples=request["samples"],
            device=request["device"],
            **layout,
        )
        selected = select([Path(place)], [str(cohort)], options)
        shown = partial(_of_run, progress, label)
        _, failed = deliver(selected, out, options, progress=shown, say=said.append)
        left_out = {**selected.lacking, **failed}
        for why in left_out.values():
            said.append(message("case-left-out", f"{label}: left out {why}"))
        scores = evaluate(out, cohort, split=request["split"], **layout)
        documents.append(scores.document())
        scored.append(out)
    places = {place: label for label, place in request["runs"].items()}
    places |= {str(out): out.name for out in scored} | {request["root"]: ROOT}
    if len(scored) == 1:
        report(scored[0], folder / REPORT, places=places)
        tables = score_tables(documents[0])
    else:
        comparison = compare_scores(scored)
        write_page(comparison.document, folder / REPORT, places)
        tables = comparison_tables(comparison.document, "main")
    return {"said": _texts(said), "tables": _plain(tables)}


def _texts(said: Sequence[Message]) -> list[str]:
    return [str(one) for one in said]


def _of_run(progress: Progress, label: str, stage: str, done: int, total: int) -> None:
    progress(f"{label}: {stage}", done, total)


def _plain(tables: Tables) -> Facts:
    """Tables for the page, by modality."""
    found = [
        {"modality": name, "lines": [asdict(line) for line in part]}
        for name, part in tables.lines.items()
    ]
    return {
        "title": tables.title,
        "methods": list(tables.methods),
        "parts": found,
        "caption": list(tables.caption),
    }


def _layout(run: Path, cohort: Path) -> Facts:
    """The layout of a cohort, which is known where the run was trained on it."""
    prepared = cohort_of(run)
    stated = {} if prepared is None else prepared.provenance
    if not stated.get("root") or Path(stated["root"]).resolve() != cohort.resolve():
        return {}
    return layout_of(stated)


def _written(work: Work) -> Callable[[Path, dict[str, Any], Any], None]:
    """A work that writes what it has found for the page, without places of this machine."""

    def do(folder: Path, request: dict[str, Any], progress: Progress) -> None:
        found = work(folder, request, progress)
        write_json(folder / FOUND, cleaned(found, {request["root"]: ROOT, str(folder): "the job"}))

    return do


TRAINING = {
    "survey": _written(survey),
    "prepare": _written(prepare),
    "plan": _written(plan),
    "train": _written(train),
    "calibrate": _written(calibrate),
    "compare": _written(compare),
}
