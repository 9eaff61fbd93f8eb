"""The rows of the evidence ledger: what each trains, on which scans, and how it is scored. See evidence.py."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

import voxlate
from evidence_peer import cases_of, rows_of, train_peer, write_images
from trust import means, write_manifest
from voxlate.anatomy.phantom_cohort import write_cohort
from voxlate.base.groups import grouped
from voxlate.evaluation.scoring.scored_truth import read_canonical, shows_a_window
from voxlate.scans.cohorts.find import find_cohort
from voxlate.scans.images.mask import foreground
from voxlate.scans.images.ranges import WHITE, as_grey, picture_window
from voxlate.synthesis.provenance import provenance_of
from voxlate.training.recipe import read
from voxlate.training.run import Run
from voxlate.training.training_options import Mode
from voxlate.training.verdict import SYNTHESIS

WORKERS = 2
OVERHEAD = 1.0  # minutes of a row for the plan, the synthesis and the scores
HEADS = ("case02", "case16", "case20", "case32", "case34", "case37", "case41")
REPORTING = ("case37", "case41")
BRAINS = ("openMS-cs-patient26", "TCGA-DU-7294", "openMS-cs-patient07", "BraTS-GLI-00001-000")
STARTERS = ("head-mr-to-ct", "brain-mr-to-mr")
FIXED_STEPS = 350  # about three minutes of one core in bfloat16
# Fixed, because the window of a plan may change: that of today's plans of the phantoms.
HU_RANGE = (-1000.0, 1300.0)
BONE_GREY = f"ct>{0.9 * WHITE:g}"
PHANTOMS: dict[str, Any] = {"cases": 24, "size": (72, 88, 14), "lesion": "mixed", "seed": 31}
TRAINING, VALIDATING = 16, 2  # phantoms; the others report
FILES = {"heads": {"mr": "mr", "ct": "ct"}, "brains": {"t1": "t1", "t2": "t2"}}
COMMON: dict[str, Any] = {"split": "test", "allow_outside": True, "progress": False}
Scores = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """A training or a starter, and the patients on which it reports.

    subject: the held-out patient, the task of phantoms, or the starter; minutes: of training, of a starter about those
    that it takes; answers: predictions that are results of their own.
    """

    kind: str
    subject: str
    minutes: float
    mode: Mode | None = None
    steps: int | None = None
    answers: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The name in the ledger, without the answer, and that of the row's folder."""
        parts = [self.kind, self.subject]
        if self.kind != "starter":
            parts.append(f"{self.steps}steps" if self.steps else f"{self.minutes:g}min")
        if self.answers:
            parts.append(f"{self.mode}")
        return "-".join(parts)

    @property
    def results(self) -> tuple[str, ...]:
        """The names of the results that the row gives."""
        return tuple(f"{self.name}-{answer}" for answer in self.answers) or (self.name,)


@dataclass(frozen=True)
class Place:
    """Where the scans are, and the folder of a row."""

    data: Path
    folder: Path


def all_rows() -> list[Row]:
    """The set that every change ends with."""
    return [
        *(Row("heads", head, 3) for head in REPORTING),
        *(Row("peer", head, 3) for head in REPORTING),
        Row("heads", "case37", 20, mode="both", answers=("mean", "sample")),
        Row("heads", "case37", 3, mode="mean", steps=FIXED_STEPS),
        *(Row("brain", patient, 6) for patient in BRAINS[:2]),
        *(Row("phantoms", task, 3) for task in ("t1-ct", "tof-cta")),
        *(Row("starter", name, 1) for name in STARTERS),
        *(Row("intervals", head, 3, mode="mean") for head in REPORTING),
    ]


def planned_minutes(rows: Sequence[Row]) -> float:
    """About how long the rows take, some of them side by side."""
    return sum(row.minutes + OVERHEAD for row in rows) / WORKERS


def parts_of_heads(head: str) -> dict[str, str]:
    """The split of each head where one is left out: the other one that reports validates, five train."""
    training = [one for one in HEADS if one not in REPORTING]
    return dict.fromkeys(REPORTING, "val") | {head: "test"} | dict.fromkeys(training, "train")


def parts_of_intervals(head: str) -> dict[str, str]:
    """The split of each head where one is left out: three heads calibrate and three train."""
    others = [one for one in HEADS if one != head]
    return {head: "test", **dict.fromkeys(others[:3], "val"), **dict.fromkeys(others[3:], "train")}


def heads(row: Row, place: Place) -> Iterator[Scores]:
    """Scores of a training on slices of heads."""
    table = _table(place, "harvard_ct_mr", parts_of_heads(row.subject), FILES["heads"])
    run, facts = trained(row, place, table)
    for answer in row.answers or (None,):
        yield facts | scored_heads(run.folder, table, place, answer)


def intervals(row: Row, place: Place) -> Iterator[Scores]:
    """Scores of a training on three heads, with intervals of three others."""
    table = _table(place, "harvard_ct_mr", parts_of_intervals(row.subject), FILES["heads"])
    run, facts = trained(row, place, table)
    voxlate.calibrate(
        run.folder, table, split="val", allow_outside=True, device="cpu", progress=False
    )
    yield facts | scored_heads(run.folder, table, place)


def peer(row: Row, place: Place) -> Iterator[Scores]:
    """Scores of MONAI's BasicUNet on slices of heads."""
    table = _table(place, "harvard_ct_mr", parts_of_heads(row.subject), FILES["heads"])
    began = time.monotonic()
    net, steps = train_peer([pair for _, pair in cases_of(table, "train")], row.minutes)
    minutes = (time.monotonic() - began) / 60
    write_images(net, table, out_of(place, None))
    scores = scores_of(out_of(place, None), table, regions={"bone": BONE_GREY})
    yield {"steps": f"{steps}", "minutes": minutes, **scores}


def brain(row: Row, place: Place) -> Iterator[Scores]:
    """Scores of a training on three brains."""
    parts = {name: "test" if name == row.subject else "train" for name in BRAINS}
    table = _table(place, "brats_like", parts, FILES["brains"])
    run, facts = trained(row, place, table, {"source": "t1", "target": "t2"})
    yield facts | scored(run.folder, table, place, mask="body")


def phantoms(row: Row, place: Place) -> Iterator[Scores]:
    """Scores of a training on synthetic heads."""
    source, target = row.subject.split("-")
    scans = place.folder / "scans"
    names = [case.name for case in write_cohort(scans, modalities=[source, target], **PHANTOMS)]
    testing = len(names) - TRAINING - VALIDATING
    parts = ["train"] * TRAINING + ["val"] * VALIDATING + ["test"] * testing
    table = place.folder / "cases.csv"
    files = {source: source, target: target}
    write_manifest(table, find_cohort(scans).cases, dict(zip(names, parts)), files)
    run, facts = trained(row, place, table, {"source": source, "target": target})
    # Contrast in vessels is as bright as thin bone; a table and a holder are in the true CT alone.
    scoring: Scores = {"regions": {"bone": "ct>250"}} if target == "ct" else {}
    yield facts | scored(run.folder, table, place, mask="body", value_range=HU_RANGE, **scoring)


def starter(row: Row, place: Place) -> Iterator[Scores]:
    """Scores of a starter without training."""
    began = time.monotonic()
    model = f"starter:{row.subject}"
    if row.subject == "head-mr-to-ct":
        table = _table(place, "harvard_ct_mr", dict.fromkeys(REPORTING, "test"), FILES["heads"])
        scores = scored_heads(model, table, place)
    else:
        table = _table(place, "brats_like", dict.fromkeys(BRAINS[:2], "test"), FILES["brains"])
        scores = scored(model, table, place, missing=["t2"], mask="body")
    yield {"minutes": (time.monotonic() - began) / 60, **scores}


def trained(
    row: Row, place: Place, table: Path, modalities: Mapping[str, Any] = MappingProxyType({})
) -> tuple[Run, Scores]:
    """The run of `train auto` on the cases of a table, with its steps and minutes; a stopped one resumes."""
    prepared, run = place.folder / "prepared", Run(place.folder / "run")
    voxlate.prepare(table, prepared, allow_outside=True, progress=False)
    changes = {} if row.steps is None else {"train.steps": f"{row.steps}"}
    resumes, began = run.has_begun, time.monotonic()
    voxlate.train(
        "auto",
        prepared,
        run.folder,
        minutes=row.minutes,
        mode=row.mode,
        set=changes,
        device="cpu",
        progress=False,
        **modalities,
    )
    minutes = None if resumes else (time.monotonic() - began) / 60
    stages = read(str(run.recipe)).all_stages
    return run, {"steps": "+".join(f"{stage.train.steps}" for stage in stages), "minutes": minutes}


def scored_heads(model: Path | str, table: Path, place: Place, answer: str | None = None) -> Scores:
    """Mean scores over the held-out patients of grey slices of heads."""
    scores = scored(model, table, place, answer=answer, regions={"bone": BONE_GREY})
    return scores | {"mae_levelled": levelled_mae(out_of(place, answer), table)}


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


def out_of(place: Place, answer: str | None) -> Path:
    """The folder of the images of a prediction."""
    return place.folder / f"out_{answer or 'default'}"


def scored(
    model: Path | str,
    table: Path,
    place: Place,
    answer: str | None = None,
    missing: Sequence[str] | None = None,
    **scoring: Any,
) -> Scores:
    """Mean scores over the held-out patients of a table, from images that are synthesised first."""
    out = out_of(place, answer)
    # "sample" is the default of a model of two stages
    chosen = "mean" if answer == "mean" else None
    chosen_by: dict[str, Any] = {"answer": chosen, "missing": missing, "anyway": True}
    voxlate.synthesise(model, table, out, device="cpu", **chosen_by, **COMMON)
    return scores_of(out, table, **scoring)


def scores_of(out: Path, table: Path, **scoring: Any) -> Scores:
    """Mean scores over the held-out patients of a table."""
    found = voxlate.evaluate(out, table, **{"mask": "whole"} | COMMON | scoring).rows
    rows = [one for one in found if one.method == SYNTHESIS]
    patients = sorted({one.patient for one in rows})
    own = (means([one for one in rows if one.patient == name], "coverage") for name in patients)
    several = [f"{value:.3f}" for value in own if value is not None]
    return {
        "mae": means(rows, "mae_rel"),
        "ssim": means(rows, "ssim_2d"),
        "gradient_ratio": means(rows, "gradient_strength"),
        "bone_dice": means(rows, "bone.dice"),
        "coverage": means(rows, "coverage"),
        "coverages": " ".join(several) if len(several) > 1 else "",
        "interval_r": means(rows, "interval_r"),
    }


KINDS: Mapping[str, Callable[[Row, Place], Iterator[Scores]]] = {
    "heads": heads,
    "peer": peer,
    "intervals": intervals,
    "brain": brain,
    "phantoms": phantoms,
    "starter": starter,
}


def scans_of(row: Row) -> str:
    """The folder of DATA that a row of real scans needs."""
    brains = row.kind == "brain" or row.subject == "brain-mr-to-mr"
    return "brats_like" if brains else "harvard_ct_mr"


def _table(place: Place, scans: str, parts: Mapping[str, str], files: Mapping[str, str]) -> Path:
    """Write the table of a cohort with the split of each patient; other patients are left out."""
    cases = find_cohort(place.data / scans).cases
    split = {case.case: parts[case.patient] for case in cases if case.patient in parts}
    table = place.folder / "cases.csv"
    write_manifest(table, cases, split, files)
    return table
