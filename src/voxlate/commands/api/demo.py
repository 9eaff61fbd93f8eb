"""The demo: the steps from a phantom cohort to a report, each by the function of its command."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxlate.anatomy.options import PhantomOptions
from voxlate.base.errors import BadInput
from voxlate.base.files import HIGH, LOW
from voxlate.commands.api.cohorts import phantom, prepare
from voxlate.commands.api.demo_scan import SHOWN_HU, RealDemo, demo_on_scan
from voxlate.commands.api.entry import command
from voxlate.commands.api.images import load, synthesise
from voxlate.commands.api.progress import Feedback, Reporter, report_to
from voxlate.commands.api.scores import compare, evaluate, report
from voxlate.commands.api.training import calibrate, train
from voxlate.evaluation.compare import Comparison
from voxlate.evaluation.scoring.scores import Scores
from voxlate.scans.formats.io import read_volume
from voxlate.scans.images.grid import canonical
from voxlate.scans.images.pictures import montage, palette, shades

SOURCE, TARGET = "t1", "ct"
SYNTHESIS = "synthesis"  # the answer of rows that are no naive baseline
RECIPE = "phantom_t1_to_ct"  # of fixed steps: a plan would depend on this machine's speed
CASES, SIZE = 15, (128, 152, 24)  # pixels of 1.6 mm in the plane show both tables of the skull
CALIBRATION_HEADS = 9  # the fewest that bound the error of a new head with 90 %
TEST_HEADS = 3  # held-out heads that are scored
BETWEEN = 0.5  # sharpness of the image between the regression (0) and the sample (1)
ROWS = 2
ZOOM = 3  # the last row enlarges a piece of skull so much
LARGEST_HU = 300  # upper end of the colour scale of spread and error


@dataclass(frozen=True)
class Demo:
    """The results of the demo: the comparison, its reports, a picture, and a sentence that sums them up."""

    compared: Comparison
    pages: list[Path]
    picture: Path
    sentence: str


@command
def demo(
    out: Path | str = "demo",
    *,
    real: Path | str | None = None,
    starter: str | None = None,
    progress: Feedback = True,
) -> Demo | RealDemo:
    """Run every step on a phantom cohort (a few minutes on a CPU), or a starter on a scan of your own.

    out: output folder; the same call resumes.
    real: scan of which a starter's synthesis is shown as a picture, in seconds.
    starter: starter for `real`, as starter:NAME; by default by the scan's name.
    """
    if real is None and starter is not None:
        raise BadInput(f"--starter: expected --real SCAN with it, found {starter} alone. Add it.")
    with report_to(progress) as reporter:
        if real is not None:
            return demo_on_scan(Path(real), Path(out), starter, reporter)
        return _demo_on_phantoms(Path(out), reporter)


def _demo_on_phantoms(out: Path, reporter: Reporter) -> Demo:
    """Write heads with tumours, train CT from T1 on most of them, calibrate on additional heads, score the others.

    Three predictions are compared: the regression, which has a report with its intervals and the naive baselines, one
    sample of the diffusion of its residual, and the image halfway between them. Finished steps are kept, so that a
    second call resumes.
    """
    cohort, ready, run = out / "cohort", out / "prepared", out / "run"
    reporter = replace(reporter, say=lambda _: None)  # bars alone
    heads = PhantomOptions(cases=CASES, size=SIZE, lesion="tumour", modalities=[SOURCE, TARGET])
    phantom(cohort, heads, progress=reporter)
    prepared = prepare(cohort, ready, modalities=[SOURCE, TARGET], progress=reporter)
    train(RECIPE, ready, run, progress=reporter)
    if load(run, answer="mean").calibration() is None:
        further = replace(heads, cases=CALIBRATION_HEADS, seed=1)
        phantom(out / "further", further, progress=reporter)
        calibrate(run, out / "further", answer="mean", progress=reporter)
    held_out = sorted({*prepared.splits["val"], *prepared.splits["test"]})[:TEST_HEADS]
    others = [entry.case for entry in prepared.cases if entry.case not in held_out]
    regression, between, sample = out / "regression", out / "between", out / "one_sample"
    shared: Any = {
        "exclude": others,
        "anyway": True,
        "progress": reporter,
    }  # all compare the same heads
    synthesise(run, cohort, regression, answer="mean", **shared)
    synthesise(run, cohort, between, sharpness=BETWEEN, intervals=False, **shared)
    synthesise(run, cohort, sample, intervals=False, **shared)
    folders = [regression, between, sample]
    scores = [evaluate(folder, cohort, progress=reporter) for folder in folders]
    page = out / "report.html"
    compared = compare(folders, report=page)
    own_page = report(regression)  # with intervals and naive baselines
    picture = _picture(cohort, folders, held_out[:ROWS], out / "picture.png")
    return Demo(compared, [page, own_page], picture, _sum_up(scores[0], scores[-1]))


def _sum_up(regression: Scores, sample: Scores) -> str:
    """The errors of both predictions on held-out heads, next to the best naive baseline."""
    ours, (mae, *naive) = regression.by_case("ct"), _errors(regression)
    return f"CT from T1 on {len(ours)} held-out phantom heads: mean absolute error {mae:.1f} HU (regression), {_errors(sample)[0]:.1f} HU (one sharp sample), {min(naive):.1f} HU (best naive baseline); {ours['coverage'].mean():.1%} of the body lies within the regression's 90 % intervals."


def _errors(scores: Scores) -> list[float]:
    """The mean absolute error of the synthesis, and then of each baseline."""
    return [means["mae"]["mean"] for means in scores.means["ct"].values()]


def _picture(cohort: Path, folders: Sequence[Path], cases: Sequence[str], path: Path) -> Path:
    """A row a head, at the slice with most tumour, and a last row with the back of the last head's skull, enlarged."""
    rows = [_row(cohort, folders, case) for case in cases]
    height, width = rows[-1][0].shape[:2]
    side, left = height // ZOOM, width // 6
    rows.append([image[:side, left : left + side] for image in rows[-1]])
    names = [
        SOURCE.upper(),
        "regression",
        f"sharpness {BETWEEN:g}",
        "one sample",
        f"true {TARGET.upper()}",
    ]
    maps = ["90 % interval's half", "regression's error", "truth outside"]
    titles = [*names, *(f"{title}, 0-{LARGEST_HU} HU" for title in maps)]
    montage(rows, titles, path)
    return path


def _row(cohort: Path, synthesised: Sequence[Path], case: str) -> list[NDArray[np.uint8]]:
    """Source, predictions by sharpness, truth, how far it may lie from the regression, and does; cut to the head."""
    truth, folders = cohort / case, [folder / case for folder in synthesised]
    tumour = canonical(read_volume(truth / "lesion.nii.gz")).data[0] > 0
    level = int(np.argmax(tumour.sum((1, 2))))
    predictions = [_slice(folder / f"{TARGET}.nii.gz", level) for folder in folders]
    regression = predictions[0]
    true, given = (_slice(truth / f"{name}.nii.gz", level) for name in (TARGET, SOURCE))
    least, most = (_slice(folders[0] / f"{TARGET}{end}.nii.gz", level) for end in (LOW, HIGH))
    low, high = SHOWN_HU
    grey = [
        _colours(given, 0, float(given.max())),
        *(_colours(image, low, high) for image in (*predictions, true)),
    ]
    error = np.abs(regression.clip(low, high) - true.clip(low, high))
    outside = np.maximum(least - true, 0) + np.maximum(true - most, 0)
    maps = ((most - least) / 2, error, outside)
    hot = [_colours(values, 0, LARGEST_HU, "inferno") for values in maps]
    box = tuple(slice(max(at.min() - 4, 0), at.max() + 5) for at in np.nonzero(true > low))
    return [image[box] for image in (*grey, *hot)]


def _slice(path: Path, level: int) -> NDArray[np.float32]:
    return canonical(read_volume(path)).data[0, level]


def _colours(
    image: NDArray[np.floating], low: float, high: float, name: str = "gray"
) -> NDArray[np.uint8]:
    """Values [H, W] as an RGB picture [H, W, 3] through a window and a colour map."""
    return palette(name)[shades(image, low, high)]
