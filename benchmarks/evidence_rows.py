"""The rows of `make evidence`: what each trains, for how many steps, and which patients report. See evidence.py.

Which patients train and validate where a scanner is left out is what `prepare` chooses for the others by default: with fewer
than six patients one validates. evidence_scores.py says how a row is measured.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from voxlate.scans.cohorts.case_files import CaseFiles
from voxlate.scans.cohorts.split import split_patients
from voxlate.training.training_options import Mode

WORKERS = 2
SPEED = 70.0  # GFLOP/s that rows state; one quiet core of a server has about as many
HEADS = ("case02", "case16", "case20", "case32", "case34", "case37", "case41")
REPORTING = ("case37", "case41")
SCANNERS: Mapping[str, tuple[str, ...]] = {
    "openMS": ("openMS-cs-patient07", "openMS-cs-patient26"),
    "TCGA": ("TCGA-DU-7294",),
    "GLI": ("BraTS-GLI-00001",),
}
BRAINS = tuple(name for several in SCANNERS.values() for name in several)
CONTRASTS = ("t1", "t1c", "t2", "flair")
# The folder of DATA of each cohort that is prepared once, the scans that are read, and the seconds of one quiet core.
COHORTS: Mapping[str, tuple[str, tuple[str, ...], float]] = {
    "heads": ("harvard_ct_mr", ("mr", "ct"), 100),
    "brains": ("brats_like", CONTRASTS, 40),
}
# A plan has a second stage from 200 of its steps on, which are there in 13 minutes; these are too many for one row.
TWO_STAGES = {"stages.regression.train.steps": "160", "train.steps": "150"}
# The row of each paper's table (tables.toml), and the steps of its stages.
PAPERS: Mapping[str, tuple[str, tuple[int, ...]]] = {
    "mrdpm": ("tmax/MRDPM", (60, 20)),
    "xmodality": ("cta/U-ViT,_DDIM", (20, 30)),
    "lyu_wang": ("ct/ODE", (150,)),
    "umm_csgm": ("flair+t1+t1c+t2/UMM-CSGM", (40,)),
    "make_a_volume": ("tof/Make-A-Volume", (36, 21, 4)),
}


@dataclass(frozen=True)
class Row:
    """A training or a starter, and the patients on which it reports.

    group: of rows whose mean is compared; kind: of evidence_scores.KINDS; subject: patients, scanner, starter, phantoms or
    paper; target: of brains; minutes: of training at SPEED; mode: of its plan; cost: seconds of one quiet core in all;
    cohort: of COHORTS that is prepared first; answers: results of their own; changes: of keys of its plan; extra: whether
    it follows the clock, so that it is measured where it is named alone and never compared.
    """

    group: str
    kind: str
    subject: str
    cost: float
    minutes: float = 0.0
    mode: Mode | None = "mean"
    target: str = ""
    cohort: str = ""
    answers: tuple[str, ...] = ()
    changes: Mapping[str, str] = field(default_factory=dict)
    extra: bool = False

    @property
    def name(self) -> str:
        """The name, without the answer, and that of the row's folder."""
        mode = "" if self.mode == "mean" else self.mode
        return "-".join(part for part in (self.kind, self.subject, self.target, mode) if part)

    @property
    def results(self) -> tuple[str, ...]:
        """The names of the results that the row gives."""
        return tuple(f"{self.name}-{answer}" for answer in self.answers) or (self.name,)


def all_rows() -> list[Row]:
    """Every row, those that follow the clock last."""
    return [*brain_rows(), *head_rows(), *phantom_rows(), *timed_rows()]


def brain_rows() -> list[Row]:
    """The rows on brains of a scanner that no training saw."""
    targets = (("openMS", "t2"), ("TCGA", "t2"), ("GLI", "t2"), ("openMS", "flair"))
    both = ("t2", "flair")
    return [
        *(
            Row("brains", "brain", name, 190, minutes=1.5, target=target, cohort="brains")
            for name, target in targets
        ),
        Row("brains", "complete", "TCGA", 205, 0.8, mode=None, cohort="brains", answers=both),
        Row("starters", "starter", "brain-mr-to-mr", 100, cohort="brains", answers=both),
    ]


def head_rows() -> list[Row]:
    """The rows on slices of the heads that report."""
    one, other = REPORTING
    both = ("mean", "sample")
    return [
        Row("heads", "heads", one, 165, minutes=2.2, cohort="heads"),
        Row(
            "heads",
            "heads",
            other,
            335,
            minutes=13.0,
            mode="both",
            cohort="heads",
            answers=both,
            changes=TWO_STAGES,
        ),
        Row("heads", "intervals", other, 145, minutes=1.0, cohort="heads"),
        Row(
            "starters", "starter", "head-mr-to-ct", 50, cohort="heads", answers=("slices", "whole")
        ),
    ]


def phantom_rows() -> list[Row]:
    """The rows on phantoms, which need no scans."""
    return [
        Row("phantoms", "phantoms", "tof-cta", 115, minutes=0.8),
        Row("phantoms", "volumes", "t1-ct", 58, minutes=0.4),
        *(Row("papers", "paper", name, 58) for name in PAPERS),
        Row("resumed", "resumed", "t1-ct", 35, minutes=0.1),
    ]


def timed_rows() -> list[Row]:
    """The rows of minutes of this machine, which differ with its load."""
    return [
        Row("", kind, REPORTING[1], 240, minutes=3.0, cohort="heads", extra=True)
        for kind in ("timed", "peer")
    ]


def planned_minutes(rows: Iterable[Row]) -> float:
    """About how long the rows take, some of them side by side, on quiet cores."""
    several = list(rows)
    cohorts = {row.cohort for row in several if row.cohort}
    prepared = sum(COHORTS[name][2] for name in cohorts)
    return (prepared + sum(row.cost for row in several)) / WORKERS / 60


def in_order(rows: Iterable[Row]) -> list[Row]:
    """The rows as they are measured: the longest first, after one whose cohort is prepared first."""
    ordered = sorted(rows, key=lambda row: -row.cost)
    waiting = [row for row in ordered if row.cohort]
    if waiting:
        first = min(waiting, key=lambda row: COHORTS[row.cohort][2])
        ordered.remove(first)
        ordered.insert(0, first)
    return ordered


def parts_of_heads(head: str) -> dict[str, str]:
    """The split of each head where one is left out: the other one that reports validates, five train."""
    training = [one for one in HEADS if one not in REPORTING]
    return dict.fromkeys(REPORTING, "val") | {head: "test"} | dict.fromkeys(training, "train")


def parts_of_intervals(head: str) -> dict[str, str]:
    """The split of each head where one is left out: three heads calibrate and three train."""
    others = [one for one in HEADS if one != head]
    return {head: "test", **dict.fromkeys(others[:3], "val"), **dict.fromkeys(others[3:], "train")}


def parts_without(scanner: str, cases: Sequence[CaseFiles]) -> dict[str, str]:
    """The split of each brain where the patients of a scanner report: the others as `prepare` splits them by default."""
    held_out = SCANNERS[scanner]
    others = [case for case in cases if case.patient in BRAINS and case.patient not in held_out]
    return dict.fromkeys(held_out, "test") | split_patients(others)
