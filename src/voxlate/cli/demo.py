"""The demo: every step from a phantom cohort to a report."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from voxlate import recipe as recipes
from voxlate.data.prepare import prepare
from voxlate.images.grid import canonical
from voxlate.images.pictures import montage, palette, shades
from voxlate.images.statistics import intensity_statistics
from voxlate.images.volume import read_volume
from voxlate.phantom import write_cohort
from voxlate.recipe import header, text_of
from voxlate.report.comparison import write_page
from voxlate.report.page import report
from voxlate.scoring.compare import Comparison, compare
from voxlate.scoring.evaluate import evaluate
from voxlate.synthesis.folder import find_scans, synthesise_cases
from voxlate.synthesis.model import Model, load
from voxlate.training.log import StepCallback
from voxlate.training.train import train

RECIPE = "phantom_t1_to_ct"
CASES, SIZE = 15, (128, 152, 24)  # pixels of 1.6 mm in the plane show both tables of the skull
SAMPLES = 3
HEADS = 3  # that are scored, of those that training does not see
ROWS = 2
ZOOM = 3  # the last row enlarges a piece of skull so much
LARGEST_HU = 300  # upper end of the colour scale of spread and error


def demo(out: Path, progress: StepCallback) -> tuple[Comparison, list[Path], Path]:
    """Make heads with tumours, learn CT from T1 on most of them, score the others; returns table, reports and picture.

    Three methods are compared: the regression that the diffusion starts from, one sample of the diffusion, and the
    mean of several, which a report of its own shows next to the naive baselines.
    Finished steps are kept, so that a second call resumes.
    """
    cohort, ready, run = out / "cohort", out / "prepared", out / "run"
    recipe = recipes.read(RECIPE)
    wanted = [*recipe.data.source, *recipe.data.target]
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
    trained = train(recipe, ready, run, head=header(text_of(RECIPE)), progress=progress)
    held_out = sorted({*prepared.splits["val"], *prepared.splits["test"]})[:HEADS]
    regression, diffusion = load(trained.weights("regression")), load(run)
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
    pages = [page, report(folders[-1])]  # the second with the naive baselines, which no comparison of methods has
    return compared, pages, _picture(cohort, folders, held_out[:ROWS], recipe, out / "picture.png")


def _synthesise(name: str, model: Model, cohort: Path, cases: list[str], out: Path, progress: StepCallback) -> None:
    """Make one model's images of some cases, and score them."""
    scans = [one for one in find_scans([str(cohort)], model) if one.case in cases]
    synthesise_cases(model, scans, out, progress=lambda case, done, total: progress(f"{name} {case}", done, total, {}))
    evaluate(out, cohort)


def _picture(cohort: Path, folders: list[Path], cases: list[str], recipe: recipes.Recipe, path: Path) -> Path:
    """A row a head, at the slice with most tumour, and a last row with the back of the last head's skull, enlarged."""
    rows = [_row(cohort / case, [folder / case for folder in folders], recipe) for case in cases]
    height, width = rows[-1][0].shape[:2]
    side, left = height // ZOOM, width // 6
    rows.append([image[:side, left : left + side] for image in rows[-1]])
    (source,), (target,) = recipe.data.source, recipe.data.target
    names = [source.upper(), "regression", "one sample", f"true {target.upper()}"]
    titles = [*names, f"spread of {SAMPLES}, 0-{LARGEST_HU} HU", f"error of mean, 0-{LARGEST_HU} HU"]
    montage(rows, titles, path)
    return path


def _row(truth: Path, made: list[Path], recipe: recipes.Recipe) -> list[NDArray[np.uint8]]:
    """Source, regression, one sample, truth, spread of the samples and error of their mean, cut to the head."""
    (source,), (target,) = recipe.data.source, recipe.data.target
    tumour = canonical(read_volume(truth / "lesion.nii.gz")).data[0] > 0
    level = int(np.argmax(tumour.sum((1, 2))))
    regression, sample, mean = (_slice(folder / f"{target}.nii.gz", level) for folder in made)
    true, given = (_slice(truth / f"{name}.nii.gz", level) for name in (target, source))
    spread = _slice(made[-1] / f"{target}_std.nii.gz", level)
    window = recipe.intensity[target].scale(intensity_statistics(true[None]))
    low, high = window.low, window.high
    grey = [colours(given, 0, float(given.max())), *(colours(one, low, high) for one in (regression, sample, true))]
    error = np.abs(mean - true.clip(low, high))
    hot = [colours(one, 0, LARGEST_HU, "inferno") for one in (spread, error)]
    box = tuple(slice(max(at.min() - 4, 0), at.max() + 5) for at in np.nonzero(true > low))
    return [image[box] for image in (*grey, *hot)]


def _slice(path: Path, level: int) -> NDArray[np.float32]:
    image: NDArray[np.float32] = canonical(read_volume(path)).data[0, level]
    return image


def colours(image: NDArray[np.float32], low: float, high: float, name: str = "gray") -> NDArray[np.uint8]:
    """Values [H, W] as an RGB picture [H, W, 3] through a window and a colour map."""
    return palette(name)[shades(image, low, high)]
