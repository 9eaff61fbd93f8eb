"""Synthesis of many cases into a folder; finished cases are kept, so that a stopped command resumes."""

import contextlib
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from voxlate.data.case import MASK
from voxlate.data.find import find_cohort, load_preset
from voxlate.data.grades import grade_of
from voxlate.data.manifest import TABLES
from voxlate.data.presets import CaseFiles
from voxlate.errors import BadInput, CannotWrite, did_you_mean
from voxlate.files import locked, safe_name, seen_from, write_json
from voxlate.images.formats.dicom import is_dicom_folder
from voxlate.images.io import is_picture, is_there, location_of
from voxlate.images.units import UNITS
from voxlate.scoring.provenance import difference, is_fold, provenance_of, read_provenance, recorded_splits
from voxlate.synthesis.calls import PatchProgress, Warn, no_report, warned
from voxlate.synthesis.ensemble import Ensemble
from voxlate.synthesis.model import COST, Model
from voxlate.synthesis.result import check_folder, check_free, is_unchanged, stated_synthesis

NamedProgress = Callable[[str, int, int], None]
OTHER = "other"  # the split of a case that has the name of a training case, and is another patient's
SHARED_SECONDS = 60.0  # that one of several processes waits for another to write what they share


@dataclass(frozen=True)
class Scans:
    """One case to synthesise: its name, where its scans are, and names of others that the model does not know.

    truths: the modalities that are made although the case has them.
    """

    case: str
    files: dict[str, Path]
    others: tuple[str, ...] = ()
    truths: tuple[str, ...] = ()


@dataclass(frozen=True)
class Part:
    """One of several jobs that synthesise the cases of one cohort into one folder: the number of this one, from 1."""

    number: int
    of: int

    def __call__(self, scans: Sequence[Scans]) -> tuple[list[Scans], list[str]]:
        """The cases of this part, and the names of all others; neighbours, which are often alike, are shared out."""
        own = list(scans[self.number - 1 :: self.of])
        names = {one.case for one in own}
        return own, [one.case for one in scans if one.case not in names]


def part_of(text: str) -> Part:
    """The part that "3/8" names; raises BadInput where it is none."""
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text.strip())
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise BadInput(f"--part: expected the number of a part and how many there are, such as 3/8, found {text!r}.")
    return Part(int(found[1]), int(found[2]))


def find_scans(
    inputs: list[str],
    model: Model | Ensemble,
    *,
    split: str | None = None,
    missing: list[str] | None = None,
    **layout: Any,
) -> list[Scans]:
    """The scans that the inputs name: `modality=path` pairs, a file or DICOM series, a case folder, or a cohort.

    missing: modalities to leave out although they are there (to complete them). Raises BadInput where nothing fits.
    """
    left_out = {name.lower() for name in missing or ()}
    if unknown := sorted(left_out - {name.lower() for name in model.recipe.data.source}):
        sources = model.recipe.data.source
        hint = did_you_mean(unknown[0], sources) or "Choose one of these."
        raise BadInput(f"--missing: expected some of {', '.join(sources)}, found {unknown[0]}. {hint}")
    wanted = {name for name in model.scan_names if name.lower() not in left_out}
    known = {*model.scan_names, *model.recipe.data.source, *model.recipe.data.target, MASK}
    return [
        Scans(
            one.case,
            {name: path for name, path in one.files.items() if name in wanted},
            tuple(sorted(one.files.keys() - known)),
            tuple(sorted(one.files.keys() & set(model.recipe.data.target) - wanted)),
        )
        for one in _named(inputs, model, split, layout)
    ]


def _named(inputs: list[str], model: Model | Ensemble, split: str | None, layout: Mapping[str, Any]) -> Iterator[Scans]:
    sources = model.recipe.data.source
    if all("=" in text and not is_there(Path(text)) for text in inputs):  # 'mr.h5#slice=3' is a scan, not a pair
        pairs = [text.split("=", 1) for text in inputs]
        names = {name.lower(): name for name in (*sources, MASK)}
        if unknown := [name for name, _ in pairs if name.lower() not in names]:
            hint = did_you_mean(unknown[0], names) or "Choose one of these."
            raise BadInput(f"INPUT: expected scans of {', '.join(sources)}, or a mask, found '{unknown[0]}'. {hint}")
        if len(files := {names[name.lower()]: Path(path) for name, path in pairs}) < len(pairs):
            raise BadInput(
                f"INPUT: expected each modality once, found one twice ({' '.join(inputs)}). Give one scan of each."
            )
        yield Scans(_case_of(files), files)
        return
    if len(inputs) != 1:
        raise BadInput(
            f"INPUT: expected one folder or modality=path pairs, found {' '.join(inputs)}. Give one or the other."
        )
    path = Path(inputs[0])
    if not is_there(path):
        raise BadInput(f"{path}: expected a case, a cohort or a file, found nothing there. Check the path.")
    if _is_one_scan(path, layout):
        if len(sources) != 1:
            raise BadInput(
                f"{path}: expected {' and '.join(sources)}, found one scan. Give pairs such as {sources[0]}={path}."
            )
        yield Scans(_case_of({sources[0]: path}), {sources[0]: path})
        return
    recorded, found = _splits(model), find_cohort(path, **layout)
    for case in in_split(model, found.cases, split):
        yield Scans(case.case, case.files | ({MASK: case.mask} if case.mask else {}))
    yield from (
        Scans(name, {}) for name in found.without_scan if split is None or recorded.get(name) == split
    )  # said to lack scans


def in_split(model: Model | Ensemble, cases: Iterable[CaseFiles], split: str | None) -> list[CaseFiles]:
    """The cases of a split, or all; a fold of the model's training says more than the cohort does."""
    recorded, in_fold = _splits(model), any(map(is_fold, _runs_of(model)))

    def stated(case: CaseFiles) -> str | None:
        known = recorded.get(case.case)
        return (known or case.split) if in_fold else (case.split or known)

    return [case for case in cases if split is None or stated(case) == split]


def _case_of(files: Mapping[str, Path]) -> str:
    """A name for scans that are given one by one: that of the first one's file, or of its folder if that says more."""
    path = location_of(next(iter(files.values())))
    stem = path.name.split(".")[0]
    generic = stem.lower() in {name.lower() for name in files} or stem.lower() in UNITS
    name = path.absolute().parent.name if generic else stem
    return re.sub(r"[^\w.-]+", "_", name).lstrip(".") or "case"


def _is_one_scan(path: Path, layout: Mapping[str, Any]) -> bool:
    """Whether a path is a file or a DICOM series, not a manifest, nor several series for a preset to choose from."""
    if not path.is_dir():
        return path.suffix.lower() not in TABLES
    by_series = layout.get("preset") is not None and load_preset(layout["preset"]).series
    return is_dicom_folder(path) and not by_series


def _runs_of(model: Model | Ensemble) -> list[list[Path]]:
    """Where the run of each member lies: a weights file lies in its run."""
    return [[one if one.is_dir() else one.parent] for one in model.origins]


def _splits(model: Model | Ensemble) -> dict[str, str]:
    """The split of each case in the model's training; what any member trained on is no held-out case."""
    found: dict[str, str] = {}
    for run in _runs_of(model):
        for split, cases in recorded_splits(run).items():
            found |= {case: split for case in cases if split == "train" or case not in found}
    return found


def sort_out(model: Model | Ensemble, scans: list[Scans]) -> tuple[list[Scans], dict[str, str], list[str]]:
    """The cases that can be made, a sentence for each that lacks a scan, and those in which nothing is missing.

    Raises BadInput where there is none to make; for a single case with the sentence on it.
    """
    fitting, lacking, complete = [], dict[str, str](), []
    for one in scans:
        try:
            model.check_names(one.files, one.case)
            fitting.append(one)
        except BadInput as error:
            if len(scans) == 1:
                raise
            if model.recipe.task.completes and set(model.recipe.data.source) <= set(one.files):
                complete.append(one.case)
            else:
                lacking[one.case] = str(error)
    if not fitting:
        first = f" ({next(iter(lacking.values()))})" if lacking else ""
        raise BadInput(
            f"INPUT: expected cases to synthesise, found {len(lacking)} that lack scans{first} and "
            f"{len(complete)} that lack none. Check INPUT, --split and --missing."
        )
    return fitting, lacking, complete


def synthesise_cases(
    model: Model | Ensemble,
    scans: list[Scans],
    out: Path,
    *,
    seed: int = 0,
    lacking: Mapping[str, str] | None = None,
    others: Sequence[str] | None = None,
    progress: NamedProgress = no_report,
    warn: Warn = warned,
    say: Warn = no_report,
) -> tuple[list[Path], dict[str, str]]:
    """Write OUT/<case>/<modality>.nii.gz, <modality>_std.nii.gz and provenance.json for each case.

    Images that complete a case are called desc-synthetic_<modality>.
    lacking: why other cases cannot be made; an image of them that lies in OUT is recorded as one of an earlier run.
    others: cases that other processes write into OUT at the same time (see Part); None where there are none.
    warn: is called with a sentence for each case whose scans look unlike the training's; say: where they cannot be
    compared with it, and on how many images of an earlier run are kept, how many are made again that were made in
    another way, and how many are removed. Returns the folders and, where several cases are asked for, a sentence for
    each that could not be made; one alone raises
    BadInput.
    """
    if not scans:
        raise BadInput(f"{out}: expected cases to synthesise, found none. Check INPUT and --split.")
    check_folder(out)
    folders, failed, kept, lost, removed = list[Path](), dict[str, str](), 0, list[str](), list[str]()
    if model.unchecked:
        say(model.unchecked)
    with contextlib.ExitStack() as held:
        if others is not None:
            with locked(out, SHARED_SECONDS):  # a process that writes all cases would hold it
                _agree(model, [*(one.case for one in scans), *others], out, seed)
        else:
            held.enter_context(locked(out))
            if other := _other_ways(model, {one.case for one in scans}, out, seed):
                say(f"{len(other)} images in {out} made in another way ({other[0]}) are made again.")
        for number, one in enumerate(scans):
            progress("cases", number, len(scans))
            try:
                folder = out / safe_name(one.case, "case")
                made = _was_made(model, one, folder, seed)
                if made and is_unchanged(folder):
                    kept += 1
                else:
                    lost += [one.case] if made else []
                    with contextlib.nullcontext() if others is None else locked(folder):
                        removed += _synthesise_case(model, one, folder, seed, partial(progress, "slices"), warn)
                folders.append(folder)
            except BadInput as error:
                if len(scans) == 1 or isinstance(error, CannotWrite):
                    raise
                failed[one.case] = str(error)
            progress("cases", number + 1, len(scans))
        if folders:
            with contextlib.nullcontext() if others is None else locked(out, SHARED_SECONDS):
                _write_shared(model, folders[0], [one.case for one in scans], lacking or {}, failed, others or ())
    if lost:
        say(f"{len(lost)} cases are made again: their images are gone, changed, or not recorded ({lost[0]}).")
    if kept:
        say(f"{kept} of {len(scans)} cases were made before and are kept.")
    if removed:
        say(f"{len(removed)} images of an earlier synthesis, which is not this one, are removed ({removed[0]}).")
    return folders, failed


def graded_warnings(folder: Path) -> list[dict[str, str]]:
    """The warnings that the provenance of a case's images states, each with its grade."""
    return [{"grade": grade_of(one), "sentence": one} for one in provenance_of(folder).get("warnings", ())]


def _other_ways(model: Model | Ensemble, cases: Collection[str], out: Path, seed: int) -> list[str]:
    """In what images of these cases in OUT differ made in another way; raises BadInput for those of other cases."""
    plan, found = model.plan({}, seed), list[str]()
    for path in sorted(out.glob("*/provenance.json")):
        stated = stated_synthesis(path)
        if not stated or not (other := _unlike(stated, plan)):
            continue
        if path.parent.name not in cases:
            raise BadInput(
                f"{out}: expected images made in one way, found that of {path.parent.name}, which is not to be made "
                f"now, to differ in {other}. Choose another --out, or remove that folder."
            )
        found.append(other)
    return found


def _unlike(stated: Mapping[str, Any], plan: Mapping[str, Any]) -> str:
    """The first thing in which images differ from what is planned, in words: their way, or their calibration."""
    theirs, ours = (one.get("calibration") for one in (stated, plan))
    if (other := difference(stated, plan)) or theirs == ours:
        return other
    return " and ".join(
        f"calibration {one.get('sha256', '')[:8]}" if one else "no calibration" for one in (theirs, ours)
    )


def _agree(model: Model | Ensemble, cases: Sequence[str], out: Path, seed: int) -> None:
    """Raise BadInput where OUT has, or other processes are to make, images in another way; else state ours there.

    cases: those of all parts. Stated before the first image is made, it reaches processes that start at the same time;
    it stays after a crash, and then keeps nobody of the same way off.
    """
    _other_ways(model, (), out, seed)  # a part makes nothing again that another job may have made
    path, plan = out / "provenance.json", model.plan({}, seed)
    if not path.is_file():
        shared = {key: value for key, value in plan.items() if key != "inputs"}
        write_json(path, {**shared, **_runs(model, out), "cases": list(cases), "failed": {}})
    elif other := _unlike(stated_synthesis(path), plan):
        raise BadInput(
            f"{path}: expected the way in which this part is to be made, found one that differs in {other}. Give all "
            f"parts the same options, choose another --out, or remove {out}."
        )


def _write_shared(
    model: Model | Ensemble,
    folder: Path,
    cases: Sequence[str],
    lacking: Mapping[str, str],
    failed: Mapping[str, str],
    others: Sequence[str],
) -> None:
    """Write OUT/provenance.json: what all cases share, as this case's folder has it, and why others have no image."""
    out, shared = folder.parent, read_provenance(folder / "provenance.json")
    own = (
        "case",
        "bounds",
        "familiar",
        "peaks",
        "split",
        "inputs",
        "prepared",
        "warnings",
        "empty",
        "images",
        "in_training",
        *COST,
    )
    before = provenance_of(out)
    old = {case: why for case, why in lacking.items() if (out / case).is_dir()}
    still = {case: why for case, why in before.get("failed", {}).items() if case not in cases}
    stated = {
        **{key: shared[key] for key in shared if key not in own},
        **_runs(model, out),
        "cases": list(dict.fromkeys([*before.get("cases", []), *cases, *others])),  # scores miss those without an image
        "failed": {**still, **old, **failed},
    }
    write_json(out / "provenance.json", stated)


def _was_made(model: Model | Ensemble, scans: Scans, folder: Path, seed: int) -> bool:
    """Whether a case's images were made by this model, with its options and the seed, from the content of these scans.

    Raises BadInput where those in the folder are of other scans.
    """
    check_folder(folder)
    if not (folder / "provenance.json").exists():
        return False
    provenance_of(folder.parent, folder.name)  # refuses what synth did not write
    found, plan = read_provenance(folder / "provenance.json"), model.plan(scans.files, seed)
    ours, theirs = ({name: one.get("sha256") for name, one in way.get("inputs", {}).items()} for way in (plan, found))
    places = {name: one.get("path") for name, one in found.get("inputs", {}).items()}
    elsewhere = places and all(places.get(name) != place_from(path, folder) for name, path in scans.files.items())
    if elsewhere and theirs != ours:
        raise BadInput(
            f"{folder}: expected no image of another scan, found that of {' and '.join(map(str, places.values()))}. "
            "Choose another --out, or remove the folder."
        )
    alike = found.get("calibration") == plan.get("calibration")  # none in the plan is a difference, too
    return alike and theirs == ours and all(found.get(key) == value for key, value in plan.items() if key != "inputs")


def _synthesise_case(
    model: Model | Ensemble, scans: Scans, folder: Path, seed: int, progress: PatchProgress, warn: Warn
) -> list[str]:
    """Make the images of a case; gives those of an earlier synthesis that are removed."""
    check_free(folder, model.files_of(scans.files))
    made = model.synthesise(
        scans.files, case=scans.case, seed=seed, progress=progress, warn=lambda text: warn(f"{scans.case}: {text}")
    )
    if scans.others and model.recipe.task.completes:  # a scan by another name would count as missing
        warn(f"{scans.case}: {', '.join(scans.others)} was not used: no modality of this model has that name.")
    inputs = made.provenance["inputs"]
    stated = {
        **made.provenance,
        **_runs(model, folder),
        "inputs": {name: {**one, "path": place_from(scans.files[name], folder)} for name, one in inputs.items()},
    }
    split, seen = _splits(model).get(scans.case), made.provenance.get("in_training")
    if split == "train" and seen is False:
        split = OTHER
        warn(f"{scans.case} has the name of a training case and other voxels: it counts as another patient.")
    elif seen:
        split = "train"
    if split:  # said here, so that it travels with the image
        stated["split"] = split
    pictures = all(is_picture(path) for path in scans.files.values())  # pictures in, pictures out
    removed = replace(made, provenance=stated).write(folder, (".nii.gz", ".png") if pictures else (".nii.gz",))
    return [f"{folder.name}/{name}" for name in removed]


def _runs(model: Model | Ensemble, folder: Path) -> dict[str, Any]:
    """Where the model lies, of an ensemble the first and all: the first has the naive baselines that scores take."""
    places = [place_from(one, folder) for one in model.origins]
    return {"run": places[0], **({"runs": places} if len(places) > 1 else {})}


def place_from(path: Path, folder: Path) -> str:
    """Where a path lies as seen from a folder: provenance holds no absolute path, and moves with both."""
    return seen_from(folder, path.resolve() if path.exists() else path.absolute())
