"""The whole way on a made-up cohort: what a new user sees first."""

from pathlib import Path

from voxlate import recipe as recipes
from voxlate.data.find import find_cases
from voxlate.data.prepare import prepare
from voxlate.images.grid import canonical
from voxlate.images.pictures import montage
from voxlate.images.statistics import intensity_statistics
from voxlate.images.volume import read_volume
from voxlate.phantom import write_cohort
from voxlate.recipe import header, text_of
from voxlate.report.page import report
from voxlate.scoring.evaluate import evaluate
from voxlate.scoring.tables import Scores
from voxlate.synthesis.folder import find_scans, synthesise_cases
from voxlate.synthesis.model import load
from voxlate.training.log import StepCallback
from voxlate.training.train import train

RECIPE = "phantom_t1_to_ct"
CASES, SIZE = 12, (96, 96, 48)


def demo(out: Path, progress: StepCallback) -> tuple[Scores, Path, Path]:
    """Make heads with tumours, learn CT from T1 on most of them, score the others; gives scores, report and picture.

    Every step is kept: run again, it goes on where it was.
    """
    cohort, ready, run, result = out / "cohort", out / "prepared", out / "run", out / "out"
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
        cohort, ready, modalities=wanted, progress=lambda done, total, _: progress("prepare", done, total, {})
    )
    train(recipe, ready, run, head=header(text_of(RECIPE)), progress=progress)
    model = load(run)
    held_out = set(prepared.splits["val"]) | set(prepared.splits["test"])
    scans = [one for one in find_scans([str(cohort)], model) if one.case in held_out]
    synthesise_cases(
        model, scans, result, progress=lambda name, done, total: progress(f"synth {name}", done, total, {})
    )
    scores = evaluate(result, cohort)
    picture = _picture(cohort, result, sorted(held_out), recipe)
    return scores, report(result), picture


def _picture(cohort: Path, result: Path, held_out: list[str], recipe: recipes.Recipe) -> Path:
    """Source, synthesis, truth and error of the held-out cases, a middle slice of each."""
    rows = []
    (source,), (target,) = recipe.data.source, recipe.data.target
    window = recipe.intensity[target]
    for case in [one for one in find_cases(cohort) if one.case in held_out][:3]:
        folder = result / case.case
        paths = [case.files[source], folder / f"{target}.nii.gz", case.files[target]]
        t1, made, true = (canonical(read_volume(path)).data[0] for path in paths)
        middle = len(t1) // 2
        scale = window.scale(intensity_statistics(true))
        made, true = ((scale.forward(image[middle]) + 1) / 2 for image in (made, true))
        rows.append([t1[middle] / t1[middle].max(), made, true, abs(made - true) * 2])
    path = result / "picture.png"
    montage(rows, [source.upper(), "synthesis", f"true {target.upper()}", "error, x2"], path)
    return path
