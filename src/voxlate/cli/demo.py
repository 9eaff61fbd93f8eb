"""The demo: every step from a phantom cohort to a report."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from voxlate.data.prepare import prepare
from voxlate.files import HIGH, LOW
from voxlate.images.grid import canonical
from voxlate.images.pictures import montage, palette, shades
from voxlate.images.volume import read_volume
from voxlate.phantom import write_cohort
from voxlate.planning.plan import Plan, begun, plan
from voxlate.planning.probe import Limits, free_memory
from voxlate.report.comparison import write_page
from voxlate.report.page import report
from voxlate.scoring.compare import Comparison, compare
from voxlate.scoring.evaluate import evaluate
from voxlate.synthesis.calibrate import calibrate, held_back
from voxlate.synthesis.folder import find_scans, synthesise_cases
from voxlate.synthesis.model import Model, load
from voxlate.training.log import StepCallback
from voxlate.training.train import train

SOURCE, TARGET = "t1", "ct"
MINUTES = 2.8  # of planning and training
DRAWN = {"synth.steps": "6", "synth.end": "0.12"}  # later steps of so short a training smooth edges, measured by hand
CASES, SIZE = 15, (128, 152, 24)  # pixels of 1.6 mm in the plane show both tables of the skull
SAMPLES = 3
KNOWN = 9  # heads that intervals are calibrated on: the fewest that bound a new one's error with 90 %
HEADS = 3  # that are scored, of those that training does not see
ROWS = 2
ZOOM = 3  # the last row enlarges a piece of skull so much
LARGEST_HU = 300  # upper end of the colour scale of spread and error
SHOWN_HU = (-200, 1200)


def demo(out: Path, progress: StepCallback) -> tuple[Comparison, list[Path], Path]:
    """Make heads with tumours, plan and learn CT from T1 on most, calibrate on further ones, score the others.

    Returns table, reports and picture.

    Three methods are compared: the regression that the diffusion starts from, one sample of the diffusion, and the
    mean of several, which a report of its own shows next to the naive baselines.
    Finished steps are kept, so that a second call resumes.
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
    recipe, head = begun(run) or _plan(ready).with_head
    train(recipe, ready, run, head=head, progress=progress)
    held_out = sorted({*prepared.splits["val"], *prepared.splits["test"]})[:HEADS]
    _calibrate(load(run, answer="mean"), out / "further", progress)
    regression, diffusion = load(run, answer="mean"), load(run).without_intervals()
    models = {
        "regression": regression,
        "one sample": diffusion,
        f"mean of {SAMPLES}": diffusion.with_options(samples=SAMPLES),
    }
    folders = [out / name.replace(" ", "_") for name in models]
    for name, folder in zip(models, folders):
        _synthesise(name, models[name], cohort, held_out, folder, progress)
    compared, page = compare(folders), out / "report.html"
    write_page(compared.document, page)
    pages = [page, report(folders[0])]  # the second with intervals and naive baselines, of one method alone
    return compared, pages, _picture(cohort, folders, held_out[:ROWS], out / "picture.png")


def _plan(ready: Path) -> Plan:
    limits = Limits(MINUTES, free_memory("auto"))
    return plan(ready, source=(SOURCE,), target=(TARGET,), limits=limits).changed(DRAWN)


def _calibrate(model: Model, cohort: Path, progress: StepCallback) -> None:
    """Let further heads say between which values the truth lies; kept where it is done."""
    if model.calibration_file.is_file():
        return

    def drawn(done: int, total: int) -> None:
        progress("further heads", done, total, {})

    write_cohort(cohort, KNOWN, SIZE, lesion="tumour", modalities=[SOURCE, TARGET], seed=1, progress=drawn)
    cases = held_back(model, cohort, None)

    def known(name: str, done: int, total: int) -> None:
        progress(f"calibrate: {name}", done, total, {})

    calibrate(model, cases, progress=known, warn=lambda _: None)  # that names are those of other heads


def _synthesise(name: str, model: Model, cohort: Path, cases: list[str], out: Path, progress: StepCallback) -> None:
    """Make one model's images of some cases, and score them."""
    scans = [one for one in find_scans([str(cohort)], model) if one.case in cases]
    synthesise_cases(model, scans, out, progress=lambda case, done, total: progress(f"{name} {case}", done, total, {}))
    evaluate(out, cohort)


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


def _row(truth: Path, made: list[Path]) -> list[NDArray[np.uint8]]:
    """Source, regression, one sample, truth, how far it may lie from the regression, and does; cut to the head."""
    tumour = canonical(read_volume(truth / "lesion.nii.gz")).data[0] > 0
    level = int(np.argmax(tumour.sum((1, 2))))
    regression, sample, _ = (_slice(folder / f"{TARGET}.nii.gz", level) for folder in made)
    true, given = (_slice(truth / f"{name}.nii.gz", level) for name in (TARGET, SOURCE))
    least, most = (_slice(made[0] / f"{TARGET}{end}.nii.gz", level) for end in (LOW, HIGH))
    low, high = SHOWN_HU
    grey = [colours(given, 0, float(given.max())), *(colours(one, low, high) for one in (regression, sample, true))]
    error = np.abs(regression.clip(low, high) - true.clip(low, high))
    outside = np.maximum(least - true, 0) + np.maximum(true - most, 0)
    hot = [colours(one, 0, LARGEST_HU, "inferno") for one in ((most - least) / 2, error, outside)]
    box = tuple(slice(max(at.min() - 4, 0), at.max() + 5) for at in np.nonzero(true > low))
    return [image[box] for image in (*grey, *hot)]


def _slice(path: Path, level: int) -> NDArray[np.float32]:
    image: NDArray[np.float32] = canonical(read_volume(path)).data[0, level]
    return image


def colours(image: NDArray[np.floating], low: float, high: float, name: str = "gray") -> NDArray[np.uint8]:
    """Values [H, W] as an RGB picture [H, W, 3] through a window and a colour map."""
    return palette(name)[shades(image, low, high)]
