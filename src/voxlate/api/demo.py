"""The demo: the steps from a phantom cohort to a report."""

from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean

import numpy as np
from numpy.typing import NDArray

from voxlate.api.progress import Reporter
from voxlate.cases.prepare import prepare
from voxlate.formats.io import read_volume
from voxlate.images.grid import canonical
from voxlate.images.pictures import montage, palette, shades
from voxlate.options.calibrate import CalibrateOptions
from voxlate.options.phantom import PhantomOptions
from voxlate.phantoms import write_cohort
from voxlate.recipe import head_of, read
from voxlate.reports.comparison import write_page
from voxlate.reports.page import report as write_report
from voxlate.scoring.compare import Comparison, compare
from voxlate.scoring.evaluate import evaluate
from voxlate.scoring.tables import Scores
from voxlate.synthesis.calibrate import calibrate, find_calibration_cases
from voxlate.synthesis.cohort import synthesise_cases
from voxlate.synthesis.model import Model, load
from voxlate.synthesis.scans import find_scans
from voxlate.synthesis.selection import Selection
from voxlate.system.files import HIGH, LOW
from voxlate.training.train import Beginning, train

SOURCE, TARGET = "t1", "ct"
SYNTHESIS = "synthesis"  # the answer of rows that are no naive baseline
RECIPE = "phantom_t1_to_ct"  # of fixed steps: a plan would depend on this machine's speed
CASES, SIZE = 15, (128, 152, 24)  # pixels of 1.6 mm in the plane show both tables of the skull
CALIBRATION_HEADS = 9  # the fewest that bound the error of a new head with 90 %
TEST_HEADS = 3  # held-out heads that are scored
ROWS = 2
ZOOM = 3  # the last row enlarges a piece of skull so much
LARGEST_HU = 300  # upper end of the colour scale of spread and error
SHOWN_HU = (-200, 1200)


@dataclass(frozen=True)
class Demo:
    """The results of the demo: the comparison, its reports, a picture, and a sentence that sums them up."""

    compared: Comparison
    pages: list[Path]
    picture: Path
    sentence: str


def demo(out: Path, report: Reporter) -> Demo:
    """Write heads with tumours, train CT from T1 on most of them, calibrate on additional heads, score the others.

    Two predictions are compared: the regression, which has a report with its intervals and the naive baselines, and one
    sample of the diffusion of its residual. Finished steps are kept, so that a second call resumes.
    """
    cohort, ready, run = out / "cohort", out / "prepared", out / "run"
    heads = PhantomOptions(cases=CASES, size=SIZE, lesion="tumour", modalities=[SOURCE, TARGET])
    write_cohort(cohort, heads, progress=report.count("phantom"))
    prepared = prepare(cohort, ready, modalities=[SOURCE, TARGET], progress=report.count("prepare"))
    recipe, head = read(RECIPE), head_of(RECIPE)
    train(recipe, ready, run, beginning=Beginning(head), progress=report.step)
    held_out = sorted({*prepared.splits["val"], *prepared.splits["test"]})[:TEST_HEADS]
    regression = load(run, answer="mean")
    _calibrate(regression, out / "further", heads, report)
    models = {
        "regression": load(run, answer="mean"),
        "one sample": load(run).without_intervals(),
    }
    folders = {name: out / name.replace(" ", "_") for name in models}
    scored = {
        name: _synthesise(name, model, cohort, held_out, folders[name], report)
        for name, model in models.items()
    }
    places = [*folders.values()]
    compared, page = compare(places), out / "report.html"
    write_page(compared.document, page)
    own_page = write_report(places[0])  # with intervals and naive baselines
    picture = _picture(cohort, places, held_out[:ROWS], out / "picture.png")
    sentence = _sum_up(scored["regression"], scored["one sample"])
    return Demo(compared, [page, own_page], picture, sentence)


def _sum_up(regression: Scores, sample: Scores) -> str:
    """The errors of both predictions on held-out heads, next to the best naive baseline."""
    baselines = {row.answer for row in regression.rows} - {SYNTHESIS}
    naive = min(_mean(regression, "mae", name) for name in baselines)
    heads = len({row.case for row in regression.rows})
    return f"CT from T1 on {heads} held-out phantom heads: mean absolute error {_mean(regression, 'mae'):.1f} HU (regression), {_mean(sample, 'mae'):.1f} HU (one sharp sample), {naive:.1f} HU (best naive baseline); {_mean(regression, 'coverage'):.1%} of the body lies within the regression's 90 % intervals."


def _mean(scores: Scores, key: str, answer: str = SYNTHESIS) -> float:
    return mean(row.scores[key] for row in scores.rows if row.answer == answer)


def _calibrate(model: Model, cohort: Path, heads: PhantomOptions, report: Reporter) -> None:
    """Fit intervals on additional heads, unless the run is calibrated already."""
    if model.calibration_file.is_file():
        return
    further = replace(heads, cases=CALIBRATION_HEADS, seed=1)
    write_cohort(cohort, further, progress=report.count("further heads"))
    cases = find_calibration_cases(model, cohort, CalibrateOptions())
    calibrate(
        model,
        cases,
        progress=lambda name, done, total: report.count(f"calibrate: {name}")(done, total),
        warn=lambda _: None,  # that names are those of other heads
    )


def _synthesise(
    name: str, model: Model, cohort: Path, cases: list[str], out: Path, report: Reporter
) -> Scores:
    """Synthesise some cases with one model, and score them."""
    scans = [scans for scans in find_scans([str(cohort)], model) if scans.case in cases]
    synthesise_cases(
        Selection(model, scans),
        out,
        progress=lambda case, done, total: report.count(f"{name} {case}")(done, total),
    )
    return evaluate(out, cohort)


def _picture(cohort: Path, folders: list[Path], cases: list[str], path: Path) -> Path:
    """A row a head, at the slice with most tumour, and a last row with the back of the last head's skull, enlarged."""
    rows = [_row(cohort, folders, case) for case in cases]
    height, width = rows[-1][0].shape[:2]
    side, left = height // ZOOM, width // 6
    rows.append([image[:side, left : left + side] for image in rows[-1]])
    names = [SOURCE.upper(), "regression", "one sample", f"true {TARGET.upper()}"]
    maps = ["90 % interval's half", "regression's error", "truth outside"]
    titles = [*names, *(f"{title}, 0-{LARGEST_HU} HU" for title in maps)]
    montage(rows, titles, path)
    return path


def _row(cohort: Path, synthesised: list[Path], case: str) -> list[NDArray[np.uint8]]:
    """Source, regression, one sample, truth, how far it may lie from the regression, and does; cut to the head."""
    truth, folders = cohort / case, [folder / case for folder in synthesised]
    tumour = canonical(read_volume(truth / "lesion.nii.gz")).data[0] > 0
    level = int(np.argmax(tumour.sum((1, 2))))
    regression, sample = (_slice(folder / f"{TARGET}.nii.gz", level) for folder in folders)
    true, given = (_slice(truth / f"{name}.nii.gz", level) for name in (TARGET, SOURCE))
    least, most = (_slice(folders[0] / f"{TARGET}{end}.nii.gz", level) for end in (LOW, HIGH))
    low, high = SHOWN_HU
    grey = [
        colours(given, 0, float(given.max())),
        *(colours(image, low, high) for image in (regression, sample, true)),
    ]
    error = np.abs(regression.clip(low, high) - true.clip(low, high))
    outside = np.maximum(least - true, 0) + np.maximum(true - most, 0)
    maps = ((most - least) / 2, error, outside)
    hot = [colours(values, 0, LARGEST_HU, "inferno") for values in maps]
    box = tuple(slice(max(at.min() - 4, 0), at.max() + 5) for at in np.nonzero(true > low))
    return [image[box] for image in (*grey, *hot)]


def _slice(path: Path, level: int) -> NDArray[np.float32]:
    return canonical(read_volume(path)).data[0, level]


def colours(
    image: NDArray[np.floating], low: float, high: float, name: str = "gray"
) -> NDArray[np.uint8]:
    """Values [H, W] as an RGB picture [H, W, 3] through a window and a colour map."""
    return palette(name)[shades(image, low, high)]
