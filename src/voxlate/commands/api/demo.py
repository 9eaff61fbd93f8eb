"""The demo: the steps from a phantom cohort to a report, each by the function of its command."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from voxlate.anatomy.phantom_options import PhantomOptions
from voxlate.base.optional import optional_package
from voxlate.commands.api.cohorts import phantom, prepare
from voxlate.commands.api.entry import Command, Out
from voxlate.commands.api.images import load, synthesise
from voxlate.commands.api.progress import Reporter
from voxlate.commands.api.scoring import compare, evaluate, report
from voxlate.commands.api.training import calibrate, train

if TYPE_CHECKING:
    from voxlate.evaluation.compare import Comparison
    from voxlate.evaluation.scoring.scores import Scores

SOURCE, TARGET = "t1", "ct"
RECIPE = "phantom_t1_to_ct"  # of fixed steps: a plan would depend on this machine's speed
CASES, SIZE = 15, (128, 152, 24)  # pixels of 1.6 mm in the plane show both tables of the skull
CALIBRATION_HEADS = 9  # the fewest that bound the error of a new head with 90 %
TEST_HEADS = 3  # held-out heads that are scored
BETWEEN = 0.5  # sharpness of the image between the regression (0) and the sample (1)
ROWS = 2


@dataclass(frozen=True)
class Demo:
    """The results of the demo, as `voxlate.demo` returns them.

    Args:
        compared: the comparison of three predictions.
        pages: the HTML reports.
        picture: the PNG file.
        sentence: what sums them up.

    Example:
        >>> import voxlate
        >>> demo = voxlate.demo("demo")  # doctest: +SKIP
        >>> demo.compared.to_frame()  # doctest: +SKIP
    """

    compared: "Comparison"
    pages: list[Path]
    picture: Path
    sentence: str


def _demo_lines(done: Demo) -> Iterator[Any]:
    yield done.compared.short_table()
    compared_page, own = done.pages
    yield f"picture: {done.picture}\nreport:  {compared_page}\nnaive baselines: {own}\n"
    yield done.sentence
    yield "Next, on scans of your own (a folder for each case):"
    yield "  voxlate prepare COHORT --out PREPARED"
    yield "  voxlate train auto --data PREPARED --out RUN --minutes 60"


@Command("demo --out demo", lines=_demo_lines)
def demo(out: Out = "demo", *, progress: Reporter) -> Demo:
    """Run every step on a phantom cohort (a few minutes on a CPU).
    \f
    Returns:
        Demo: The `compared` scores, the report `pages`, a `picture`, and a `sentence` that sums them up.

    Raises:
        BadInput: the folder has other files.

    Example:
        >>> import voxlate
        >>> demo = voxlate.demo("demo")  # doctest: +SKIP
        >>> demo.picture  # doctest: +SKIP
        PosixPath('demo/picture.png')
    """
    optional_package("torch", "train", "demo", "torch to train")
    return _demo_on_phantoms(Path(out), progress)


def _demo_on_phantoms(out: Path, reporter: Reporter) -> Demo:
    """Write heads with tumours, train CT from T1 on most of them, calibrate on additional heads, score the others.

    Three predictions are compared: the regression, which has a report with its intervals and the naive baselines, one
    sample of the diffusion of its residual, and the image halfway between them. Finished steps are kept, so that a
    second call resumes.
    """
    from voxlate.commands.api.demo_picture import picture_of

    cohort, ready, run = out / "cohort", out / "prepared", out / "run"
    reporter = replace(reporter, say=lambda _: None)  # bars alone
    heads = PhantomOptions(cases=CASES, size=SIZE, lesion="tumour", modalities=[SOURCE, TARGET])
    phantom(cohort, heads, progress=reporter)
    prepared = prepare(cohort, ready, modalities=[SOURCE, TARGET], progress=reporter)
    train(RECIPE, ready, run, progress=reporter)
    if load(run, answer="mean").calibration() is None:
        further = out / "further"
        phantom(further, replace(heads, cases=CALIBRATION_HEADS, seed=1), progress=reporter)
        calibrate(run, further, answer="mean", progress=reporter)
    held_out = sorted({*prepared.splits["val"], *prepared.splits["test"]})[:TEST_HEADS]
    others = [entry.case for entry in prepared.cases if entry.case not in held_out]
    regression, between, sample = out / "regression", out / "between", out / "one_sample"
    # all compare the same heads
    shared: Any = {"exclude": others, "anyway": True, "progress": reporter}
    synthesise(run, cohort, regression, answer="mean", **shared)
    synthesise(run, cohort, between, sharpness=BETWEEN, intervals=False, **shared)
    synthesise(run, cohort, sample, intervals=False, **shared)
    folders = [regression, between, sample]
    scores = [evaluate(folder, cohort, progress=reporter) for folder in folders]
    page = out / "report.html"
    compared = compare(folders, report=page)
    pages = [page, report(regression)]  # the second with intervals and naive baselines
    picture = picture_of(cohort, folders, held_out[:ROWS], BETWEEN, out / "picture.png")
    return Demo(compared, pages, picture, _sum_up(scores[0], scores[-1]))


def _sum_up(regression: "Scores", sample: "Scores") -> str:
    """The errors of both predictions on held-out heads, next to the best naive baseline."""
    ours, (mae, *naive) = regression.by_case("ct"), _errors(regression)
    return f"CT from T1 on {len(ours)} held-out phantom heads: mean absolute error {mae:.1f} HU (regression), {_errors(sample)[0]:.1f} HU (one sharp sample), {min(naive):.1f} HU (best naive baseline); {ours['coverage'].mean():.1%} of the body lies within the regression's 90 % intervals."


def _errors(scores: "Scores") -> list[float]:
    """The mean absolute error of the synthesis, and then of each baseline."""
    return [means["mae"]["mean"] for means in scores.means["ct"].values()]
