"""How the rows of `make evidence` are measured: their cohorts, trainings, images and scores. See evidence_rows.py."""

import os
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from safetensors.numpy import load_file

import tables
import voxlate
from evidence_peer import cases_of, rows_of, train_peer, write_images
from evidence_rows import (
    BRAINS,
    COHORTS,
    CONTRASTS,
    HEADS,
    PAPERS,
    REPORTING,
    SCANNERS,
    SPEED,
    Row,
    parts_of_heads,
    parts_of_intervals,
    parts_without,
)
from starter_heads import real_pair, synthesised
from starter_heads import scores_of as scores_of_head
from trust import means, write_manifest
from voxlate.anatomy import phantom_cohort
from voxlate.base.errors import Stopped
from voxlate.base.groups import grouped
from voxlate.evaluation.scoring.scored_truth import read_canonical, shows_a_window
from voxlate.scans.cases.prepared import open_cohort, write_cohort
from voxlate.scans.cohorts.find import find_cohort
from voxlate.scans.images.mask import foreground
from voxlate.scans.images.ranges import WHITE, as_grey, picture_window
from voxlate.synthesis.provenance import provenance_of
from voxlate.training.recipe import read
from voxlate.training.run import Run
from voxlate.training.verdict import SYNTHESIS

# Fixed, because the window of a plan may change: that of plans of the phantoms.
HU_RANGE = (-1000.0, 1300.0)
# Bone is what has more than 0.9 of the grey levels; black may be air or outside of a patient's window.
GREY_REGIONS = {"bone": f"ct>{0.9 * WHITE:g}", "soft": f"1<ct<{0.9 * WHITE:g}"}
PHANTOMS: dict[str, Any] = {"cases": 24, "size": (72, 88, 14), "lesion": "mixed", "seed": 31}
NEARLY_CUBIC: dict[str, Any] = {"cases": 8, "size": (64, 76, 56), "lesion": "none", "seed": 32}
SMALL: dict[str, Any] = {"cases": 4, "size": (48, 56, 8), "lesion": "none", "seed": 33}
COMMON: dict[str, Any] = {"split": "test", "allow_outside": True, "progress": False}
# Names of starter_heads.scores_of, and those of scores.
OF_WHOLE_HEADS = {
    "MAE": "mae_hu",
    "bone": "dice_bone",
    "vault": "dice_vault",
    "base": "dice_base",
    "air called bone": "mistaken_air",
    "bone called air": "mistaken_bone",
    "holds body": "coverage",
    "holds bone": "coverage_bone",
    "holds air": "coverage_air",
}
Scores = dict[str, float]


@dataclass(frozen=True)
class Measured:
    """The scores of each result of a row, in their order, and the steps of its stages."""

    scores: Sequence[Scores]
    steps: str = ""


@dataclass(frozen=True)
class Place:
    """Where the scans are, the folder of a row, and that of prepared cohorts.

    changes: of keys of every training, such as another seed.
    """

    data: Path
    folder: Path
    prepared: Path
    changes: Mapping[str, str] = field(default_factory=dict)


def prepare_cohort(name: str, place: Place) -> None:
    """Prepare all cases of a cohort of COHORTS, of which rows take splits of their own."""
    if (place.prepared / name / "cohort.json").is_file():
        return
    _, modalities, _ = COHORTS[name]
    patients = HEADS if name == "heads" else BRAINS
    parts = dict.fromkeys(patients, "train")
    table = _table(place, name, parts, {one: one for one in modalities}, place.prepared)
    voxlate.prepare(table, place.prepared / name, allow_outside=True, progress=False)


def heads(row: Row, place: Place) -> Measured:
    """Scores of a training on slices of heads."""
    parts = parts_of_heads(row.subject)
    run, steps = trained(row, place, split_of(place, row, parts))
    table = _table(place, row.cohort, parts, {"mr": "mr", "ct": "ct"})
    answers = row.answers or ("default",)
    return Measured([scored_heads(run.folder, table, place, answer) for answer in answers], steps)


def intervals(row: Row, place: Place) -> Measured:
    """Scores of a training on three heads, with intervals of three others."""
    parts = parts_of_intervals(row.subject)
    run, steps = trained(row, place, split_of(place, row, parts))
    table = _table(place, row.cohort, parts, {"mr": "mr", "ct": "ct"})
    voxlate.calibrate(
        run.folder, table, split="val", allow_outside=True, device="cpu", progress=False
    )
    return Measured([scored_heads(run.folder, table, place)], steps)


def peer(row: Row, place: Place) -> Measured:
    """Scores of MONAI's BasicUNet on slices of heads, after minutes of this machine."""
    parts = parts_of_heads(row.subject)
    table = _table(place, row.cohort, parts, {"mr": "mr", "ct": "ct"})
    net, steps = train_peer([pair for _, pair in cases_of(table, "train")], row.minutes)
    write_images(net, table, out_of(place, "default"))
    scores = scores_of(out_of(place, "default"), table, regions=GREY_REGIONS)
    return Measured([scores], f"{steps}")


def brain(row: Row, place: Place) -> Measured:
    """Scores of a training on the brains of other scanners."""
    parts = parts_without(row.subject, _cases(place, row.cohort))
    options = {"source": "t1", "target": row.target}
    run, steps = trained(row, place, split_of(place, row, parts), options)
    table = _table(place, row.cohort, parts, {"t1": "t1", row.target: row.target})
    return Measured([scored(run.folder, table, place, mask="body")], steps)


def complete(row: Row, place: Place) -> Measured:
    """Scores of the completion of missing contrasts on the brains of another scanner."""
    parts = parts_without(row.subject, _cases(place, row.cohort))
    run, steps = trained(row, place, split_of(place, row, parts))
    table = _table(place, row.cohort, parts, {one: one for one in CONTRASTS})
    scores = [
        scored(run.folder, table, place, missing, missing=[missing], mask="body")
        for missing in row.answers
    ]
    return Measured(scores, steps)


def phantoms(row: Row, place: Place) -> Measured:
    """Scores of a training on synthetic heads of thick slices: 16 train, 2 validate, 6 report."""
    return _on_phantoms(row, place, PHANTOMS, (16, 2, 6))


def volumes(row: Row, place: Place) -> Measured:
    """Scores of a training in three planes on synthetic heads of nearly cubic voxels."""
    measured = _on_phantoms(row, place, NEARLY_CUBIC, (5, 1, 2))
    planes = read(str(Run(place.folder / "run").recipe)).data.planes
    assert planes == "all", f"expected a plan of three planes, found {planes!r}"
    return measured


def _on_phantoms(
    row: Row, place: Place, made: Mapping[str, Any], shares: tuple[int, int, int]
) -> Measured:
    """Scores of a training on phantoms."""
    source, target = row.subject.split("-")
    table = _phantom_table(row, place, made, shares)
    prepared = place.folder / "prepared"
    voxlate.prepare(table, prepared, allow_outside=True, audit=False, progress=False)
    run, steps = trained(row, place, prepared, {"source": source, "target": target})
    # Contrast in vessels is as bright as thin bone; a table and a holder are in the true CT alone.
    regions = {"bone": "ct>250"} if target == "ct" else {}
    scores = scored(run.folder, table, place, mask="body", value_range=HU_RANGE, regions=regions)
    return Measured([scores], steps)


def _phantom_table(
    row: Row, place: Place, made: Mapping[str, Any], shares: tuple[int, int, int]
) -> Path:
    """Write phantoms and their table, whose first cases train and whose last ones report."""
    names = row.subject.split("-")
    scans = place.folder / "scans"
    folders = phantom_cohort.write_cohort(scans, modalities=names, **made)
    several = zip(("train", "val", "test"), shares, strict=True)
    splits = [split for split, count in several for _ in range(count)]
    parts = dict(zip([folder.name for folder in folders], splits, strict=True))
    table = place.folder / "cases.csv"
    write_manifest(table, find_cohort(scans).cases, parts, {name: name for name in names})
    return table


def resumed(row: Row, place: Place) -> Measured:
    """Whether a training that was stopped and resumed has the weights of an unbroken one."""
    source, target = row.subject.split("-")
    table = _phantom_table(row, place, SMALL, (3, 1, 0))
    prepared = place.folder / "prepared"
    voxlate.prepare(table, prepared, allow_outside=True, audit=False, progress=False)
    options = {"source": source, "target": target}
    unbroken, steps = trained(row, place, prepared, options)
    middle = int(steps) // 2

    def stop(_: str, done: int, *__: Any) -> None:
        """End the training as Ctrl-C does."""
        if done == middle:
            os.kill(os.getpid(), signal.SIGINT)

    stopped = Run(place.folder / "stopped")
    try:
        trained(row, place, prepared, options, stopped, stop)
    except Stopped:
        pass
    else:
        raise RuntimeError(f"expected a training that is stopped at step {middle}, found its end")
    trained(row, place, prepared, options, stopped)
    one, other = (load_file(run.weights()) for run in (unbroken, stopped))
    equal = one.keys() == other.keys() and all(
        np.array_equal(one[name], other[name], equal_nan=True) for name in one
    )
    return Measured([{"equal_weights": float(equal)}], steps)


def starter(row: Row, place: Place) -> Measured:
    """Scores of a starter without training."""
    model = f"starter:{row.subject}"
    if row.subject == "head-mr-to-ct":
        table = _table(
            place, row.cohort, dict.fromkeys(REPORTING, "test"), {"mr": "mr", "ct": "ct"}
        )
        slices = scored_heads(model, table, place)
        name, mr, ct, first = real_pair(place.data / "vhm_pair")
        made = synthesised(
            voxlate.load(model, device="cpu").with_options(precision="float32"), name, mr
        )
        found = scores_of_head(made, mr, ct, first)
        whole = {own: found[theirs] for theirs, own in OF_WHOLE_HEADS.items()}
        return Measured([slices, whole])
    scores = []
    patients = [SCANNERS[name][-1] for name in ("openMS", "TCGA")]
    for target in row.answers:
        files = {"t1": "t1", target: target}
        table = _table(place, row.cohort, dict.fromkeys(patients, "test"), files)
        scores.append(scored(model, table, place, target, missing=[target], mask="body"))
    return Measured(scores)


def paper(row: Row, place: Place) -> Measured:
    """Scores of a row of a paper's table after few steps in float32."""
    table, (key, lengths) = tables.TABLES[row.subject], PAPERS[row.subject]
    of_table = next(one for one in table.rows if one.key == key)
    of_table = replace(
        of_table,
        targets=of_table.targets[:1],
        changes={**of_table.changes, "train.precision": "float32", **place.changes},
    )
    tables.make_cohort(place.folder, table)
    (recipe,) = of_table.recipes
    run = Run(place.folder / "run")
    tables.run_training(recipe, place.folder, run.folder, [*lengths], 1.0, 0)
    (answers,) = tables.scored(place.folder, table, of_table, [run], "test").values()
    own = answers[SYNTHESIS]
    scores = {"mae": own["mae"]["mean"], "ssim": own["ssim_2d"]["mean"]}
    scores |= _naive({method: one["mae"]["mean"] for method, one in answers.items()})
    return Measured([scores], "+".join(map(str, lengths)))


def trained(
    row: Row,
    place: Place,
    prepared: Path,
    options: Mapping[str, Any] = MappingProxyType({}),
    run: Run | None = None,
    progress: Callable[..., None] | bool = False,
) -> tuple[Run, str]:
    """The run of `train auto` at the stated speed, and the steps of its stages; a stopped one resumes."""
    run = run or Run(place.folder / "run")
    voxlate.train(
        "auto",
        prepared,
        run.folder,
        minutes=row.minutes,
        speed=None if row.extra else SPEED,
        mode=row.mode,
        set={**row.changes, **place.changes},
        device="cpu",
        progress=progress,
        **options,
    )
    stages = read(str(run.recipe)).all_stages
    return run, "+".join(f"{stage.train.steps}" for stage in stages)


def split_of(place: Place, row: Row, parts: Mapping[str, str]) -> Path:
    """The row's part of a cohort that was prepared once: its patients, with the row's splits."""
    whole, own = place.prepared / row.cohort, place.folder / "prepared"
    if not (own / "cohort.json").is_file():
        cohort = open_cohort(whole)
        cases = tuple(
            replace(case, split=parts[case.patient])
            for case in cohort.cases
            if case.patient in parts
        )
        own.mkdir(parents=True, exist_ok=True)
        (own / "cases").symlink_to((whole / "cases").resolve())
        write_cohort(replace(cohort, folder=own, cases=cases))
    return own


def scored_heads(model: Path | str, table: Path, place: Place, answer: str = "default") -> Scores:
    """Mean scores over the held-out patients of grey slices of heads; their MAE is compared where it is levelled."""
    scores = scored(model, table, place, answer, regions=GREY_REGIONS)
    unlevelled = {"unlevelled_mae": scores.pop("mae")}
    return {"mae_levelled": levelled_mae(out_of(place, answer), table), **scores, **unlevelled}


def levelled_mae(out: Path, table: Path) -> float:
    """The MAE where each patient's synthesised soft tissue is moved by one offset to the level of the truth.

    The windows of these CTs differ between patients, and no MR shows them. Soft tissue is what the true CT of the body shows
    neither black nor white; the offset is the median difference there.
    """
    errors = []
    for cases in grouped((row["patient"], row) for row in rows_of(table, "test")).values():
        differences, soft = [], []
        for row in cases:
            truth = read_canonical(Path(row["ct"]), "ct")
            image = read_canonical(out / row["case"] / "ct.nii.gz", "ct")
            if shows_a_window(provenance_of(out / row["case"]), "ct", truth.unit):
                image = as_grey(image, picture_window(image))
            grey = truth.data[0]
            differences.append(grey - image.data[0])
            soft.append(foreground(truth) & (grey > 0) & (grey < WHITE))
        offset = np.median(np.concatenate([own[part] for own, part in zip(differences, soft)]))
        left = [np.abs(own - offset * part).mean() for own, part in zip(differences, soft)]
        errors.append(np.mean(left) / WHITE)
    return float(np.mean(errors))


def out_of(place: Place, answer: str) -> Path:
    """The folder of the images of a prediction."""
    return place.folder / f"out_{answer}"


def scored(
    model: Path | str,
    table: Path,
    place: Place,
    answer: str = "default",
    missing: Sequence[str] | None = None,
    **scoring: Any,
) -> Scores:
    """Mean scores over the held-out patients of a table, from images that are synthesised first."""
    out = out_of(place, answer)
    voxlate.synthesise(
        model,
        table,
        out,
        device="cpu",
        answer="mean" if answer == "mean" else None,  # "sample" is the default of two stages
        missing=missing,
        set={"precision": "float32"},
        anyway=True,
        **COMMON,
    )
    return scores_of(out, table, **scoring)


def scores_of(out: Path, table: Path, **scoring: Any) -> Scores:
    """Mean scores over the held-out patients of a table, with the MAE of the best naive baseline."""
    found = voxlate.evaluate(out, table, **{"mask": "whole"} | COMMON | scoring).rows
    by_method = grouped((row.method, row) for row in found)
    rows = by_method[SYNTHESIS]
    scores = {
        "mae": means(rows, "mae_rel"),
        "ssim": means(rows, "ssim_2d"),
        "gradient_ratio": means(rows, "gradient_strength"),
        "dice_bone": means(rows, "bone.dice"),
        "coverage": means(rows, "coverage"),
        "coverage_bone": means(rows, "bone.coverage"),
        "coverage_soft": means(rows, "soft.coverage"),
        "interval_r": means(rows, "interval_r"),
    }
    errors = {method: means(several, "mae_rel") for method, several in by_method.items()}
    return {name: one for name, one in scores.items() if one is not None} | _naive(errors)


def _naive(errors: Mapping[str, float | None]) -> Scores:
    """The MAE of the best naive baseline, from the MAE of each method."""
    naive = [error for method, error in errors.items() if method != SYNTHESIS and error is not None]
    return {"naive_mae": min(naive)} if naive else {}


KINDS: Mapping[str, Callable[[Row, Place], Measured]] = {
    "heads": heads,
    "timed": heads,
    "peer": peer,
    "intervals": intervals,
    "brain": brain,
    "complete": complete,
    "phantoms": phantoms,
    "volumes": volumes,
    "resumed": resumed,
    "starter": starter,
    "paper": paper,
}


def _cases(place: Place, cohort: str) -> Sequence[Any]:
    """The cases of a cohort of COHORTS."""
    return find_cohort(place.data / COHORTS[cohort][0]).cases


def _table(
    place: Place,
    cohort: str,
    parts: Mapping[str, str],
    files: Mapping[str, str],
    folder: Path | None = None,
) -> Path:
    """Write the table of a cohort with the split of each patient; other patients are left out."""
    cases = _cases(place, cohort)
    split = {case.case: parts[case.patient] for case in cases if case.patient in parts}
    table = (folder or place.folder) / f"{cohort}_{'_'.join(files)}.csv"
    table.parent.mkdir(parents=True, exist_ok=True)
    write_manifest(table, cases, split, files)
    return table
