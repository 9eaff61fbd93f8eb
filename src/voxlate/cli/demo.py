"""The demo: the steps from a phantom cohort to a report."""

from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import numpy as np
from numpy.typing import NDArray

from voxlate.cases.prepare import prepare
from voxlate.formats.io import read_volume
from voxlate.images.grid import canonical
from voxlate.images.pictures import montage, palette, shades
from voxlate.phantoms import write_cohort
from voxlate.recipe import read_with_head
from voxlate.reports.comparison import write_page
from voxlate.reports.page import report
from voxlate.scoring.compare import Comparison, compare
from voxlate.scoring.evaluate import evaluate
from voxlate.scoring.tables import Scores
from voxlate.synthesis.calibrate import calibrate, find_calibration_cases
from voxlate.synthesis.cohort import synthesise_cases
from voxlate.synthesis.model import Model, load
from voxlate.synthesis.scans import find_scans
from voxlate.system.files import HIGH, LOW
from voxlate.training.log import StepCallback
from voxlate.training.train import train

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


def demo(out: Path, progress: StepCallback) -> Demo:
    """Write heads with tumours, train CT from T1 on most of them, calibrate on additional heads, score the others.

    Two predictions are compared: the regression, which has a report with its intervals and the naive baselines, and one
    sample of the diffusion of its residual. Finished steps are kept, so that a second call resumes.
    """
    cohort, ready, run = out / "cohort", out / "prepared", out / "run"
    wanted = [SOURCE, TARGET]
    write_cohort(
        cohort,
        CASES,
        SIZE,
        lesion="tumour",
        modalities=wanted,
        progress=lambda done, total: progress("phantom", done, total, {}),
    )
    prepared = prepare(
        cohort,
        ready,
        modalities=wanted,
        progress=lambda done, total, _: progress("prepare", done, total, {}),
    )
    recipe, head = read_with_head(RECIPE)
    train(recipe, ready, run, head=head, progress=progress)
    held_out = sorted({*prepared.splits["val"], *prepared.splits["test"]})[:TEST_HEADS]
    _calibrate(load(run, answer="mean"), out / "further", progress)
    regression, diffusion = load(run, answer="mean"), load(run).without_intervals()
    models = {
        "regression": regression,
        "one sample": diffusion,
    }
    folders = [out / name.replace(" ", "_") for name in models]
    scored = {
        name: _synthesise(name, models[name], cohort, held_out, folder, progress)
        for name, folder in zip(models, folders)
    }
    compared, page = compare(folders), out / "report.html"
    write_page(compared.document, page)
    pages = [
        page,
        report(folders[0]),
    ]  # the second with intervals and naive baselines, of one method alone
    picture = _picture(cohort, folders, held_out[:ROWS], out / "picture.png")
    return Demo(compared, pages, picture, _reached(scored["regression"], scored["one sample"]))


def _reached(regression: Scores, sample: Scores) -> str:
    """The errors of both predictions on held-out heads, next to the best naive baseline."""
    naive = min(
        _mean(regression, "mae", name)
        for name in {row.answer for row in regression.rows} - {SYNTHESIS}
    )
    return f"CT from T1 on {len({row.case for row in regression.rows})} held-out phantom heads: mean absolute error {_mean(regression, 'mae'):.1f} HU (regression), {_mean(sample, 'mae'):.1f} HU (one sharp sample), {naive:.1f} HU (best naive baseline); {_mean(regression, 'coverage'):.1%} of the body lies within the regression's 90 % intervals."


def _mean(scores: Scores, key: str, answer: str = SYNTHESIS) -> float:
    return mean(row.scores[key] for row in scores.rows if row.answer == answer)


def _calibrate(model: Model, cohort: Path, progress: StepCallback) -> None:
    """Fit intervals on additional heads, unless the run is calibrated already."""
    if model.calibration_file.is_file():
        return

    def drawn(done: int, total: int) -> None:
        progress("further heads", done, total, {})

    write_cohort(
        cohort,
        CALIBRATION_HEADS,
        SIZE,
        lesion="tumour",
        modalities=[SOURCE, TARGET],
        seed=1,
        progress=drawn,
    )
    cases = find_calibration_cases(model, cohort, None)

    def known(name: str, done: int, total: int) -> None:
        progress(f"calibrate: {name}", done, total, {})

    calibrate(
        model, cases, progress=known, warn=lambda _: None
    )  # that names are those of other heads


def _synthesise(
    name: str, model: Model, cohort: Path, cases: list[str], out: Path, progress: StepCallback
) -> Scores:
    """Synthesise some cases with one model, and score them."""
    scans = [case for case in find_scans([str(cohort)], model) if case.case in cases]
    synthesise_cases(
        model,
        scans,
        out,
        progress=lambda case, done, total: progress(f"{name} {case}", done, total, {}),
    )
    return evaluate(out, cohort)


def _picture(cohort: Path, folders: list[Path], cases: list[str], path: Path) -> Path:
    """A row a head, at the slice with most tumour, and a last row with the back of the last head's skull, enlarged."""
    rows = [_row(cohort / case, [folder / case for folder in folders]) for case in cases]
    height, width = rows[-1][0].shape[:2]
    side, left = height // ZOOM, width // 6
    rows.append([image[:side, left : left + side] for image in rows[-1]])
    names = [SOURCE.upper(), "regression", "one sample", f"true {TARGET.upper()}"]
    maps = ["90 % interval's half", "regression's error", "truth outside"]
    titles = [*names, *(f"{one}, 0-{LARGEST_HU} HU" for one in maps)]
    montage(rows, titles, path)
    return path


def _row(truth: Path, folders: list[Path]) -> list[NDArray[np.uint8]]:
    """Source, regression, one sample, truth, how far it may lie from the regression, and does; cut to the head."""
    tumour = canonical(read_volume(truth / "lesion.nii.gz")).data[0] > 0
    level = int(np.argmax(tumour.sum((1, 2))))
    regression, sample = (_slice(folder / f"{TARGET}.nii.gz", level) for folder in folders)
    true, given = (_slice(truth / f"{name}.nii.gz", level) for name in (TARGET, SOURCE))
    least, most = (_slice(folders[0] / f"{TARGET}{end}.nii.gz", level) for end in (LOW, HIGH))
    low, high = SHOWN_HU
    grey = [
        colours(given, 0, float(given.max())),
        *(colours(one, low, high) for one in (regression, sample, true)),
    ]
    error = np.abs(regression.clip(low, high) - true.clip(low, high))
    outside = np.maximum(least - true, 0) + np.maximum(true - most, 0)
    hot = [colours(one, 0, LARGEST_HU, "inferno") for one in ((most - least) / 2, error, outside)]
    box = tuple(slice(max(at.min() - 4, 0), at.max() + 5) for at in np.nonzero(true > low))
    return [image[box] for image in (*grey, *hot)]


def _slice(path: Path, level: int) -> NDArray[np.float32]:
    return canonical(read_volume(path)).data[0, level]


def colours(
    image: NDArray[np.floating], low: float, high: float, name: str = "gray"
) -> NDArray[np.uint8]:
    """Values [H, W] as an RGB picture [H, W, 3] through a window and a colour map."""
    return palette(name)[shades(image, low, high)]
