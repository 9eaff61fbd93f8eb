"""The demo: the steps from a phantom cohort to a report, each by the function of its command."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from voxlate.base.optional import optional_package
from voxlate.commands.api.cohorts import phantom, prepare
from voxlate.commands.api.entry import Command, Out
from voxlate.commands.api.images import load, synthesise
from voxlate.commands.api.progress import Reporter
from voxlate.commands.api.scoring import compare, evaluate, report
from voxlate.commands.api.training import calibrate, train

if TYPE_CHECKING:
    from voxlate.evaluation.compare import Comparison

SOURCE, TARGET = "t1", "ct"
RECIPE = "phantom_t1_to_ct"  # of fixed steps: a plan would depend on this machine's speed
CASES, SIZE = 15, (128, 152, 24)  # pixels of 1.6 mm in the plane show both tables of the skull
CALIBRATION_HEADS = 9  # the fewest that bound the error of a new head with 90 %
TEST_HEADS = 3  # held-out heads that are scored


@dataclass(frozen=True)
class Demo:
    """The results of the demo, as `voxlate.demo` returns them.

    Args:
        compared: the comparison of two predictions.
        errors: mean absolute error in HU by prediction, the best naive baseline last.
        coverage: share of the body that lies within the regression's 90 % intervals.
        heads: number of held-out heads that were scored.
        pages: the HTML reports.

    Example:
        >>> import voxlate
        >>> demo = voxlate.demo("demo")  # doctest: +SKIP
        >>> demo.compared.frame  # doctest: +SKIP
    """

    compared: "Comparison"
    errors: Mapping[str, float]
    coverage: float
    heads: int
    pages: list[Path]


def _demo_lines(done: Demo) -> Iterator[str]:
    yield f"Trained: CT from T1 on phantom heads, by the recipe {RECIPE}."
    yield f"Mean absolute error on {done.heads} held-out heads:"
    width = max(map(len, done.errors))
    for name, error in done.errors.items():
        yield f"  {name:{width}}  {error:6.1f} HU"
    yield f"The regression's 90 % intervals contain {done.coverage:.1%} of the body."
    yield f"Reports with pictures and all scores: {', '.join(map(str, done.pages))}."


@Command("demo --out demo", lines=_demo_lines)
def demo(out: Out = "demo", *, progress: Reporter) -> Demo:
    """Run every step on a phantom cohort (a few minutes on a CPU).
    \f
    Returns:
        Demo: The `compared` scores, the `errors` of two predictions and of the best naive baseline, and the report `pages`.

    Raises:
        BadInput: the folder has other files.

    Example:
        >>> import voxlate
        >>> demo = voxlate.demo("demo")  # doctest: +SKIP
        >>> demo.pages[0]  # doctest: +SKIP
        PosixPath('demo/report.html')
    """
    optional_package("torch", "train", "demo", "torch to train")
    return _demo_on_phantoms(Path(out), progress)


def _demo_on_phantoms(out: Path, reporter: Reporter) -> Demo:
    """Write heads with tumours, train CT from T1 on most of them, calibrate on additional heads, score the others.

    Two predictions are compared: the regression, which has a report with its intervals and the naive baselines, and one
    sample of the diffusion of its residual. Finished steps are kept, so that a second call resumes.
    """
    cohort, ready, run = out / "cohort", out / "prepared", out / "run"
    reporter = replace(reporter, say=lambda _: None)  # bars alone
    heads: Any = {"size": SIZE, "lesion": "tumour", "modalities": [SOURCE, TARGET]}
    phantom(cohort, cases=CASES, **heads, progress=reporter)
    prepared = prepare(cohort, ready, modalities=[SOURCE, TARGET], progress=reporter)
    train(RECIPE, ready, run, progress=reporter)
    if load(run, answer="mean").calibration() is None:
        further = out / "further"
        phantom(further, cases=CALIBRATION_HEADS, seed=1, **heads, progress=reporter)
        calibrate(run, further, answer="mean", progress=reporter)
    held_out = sorted({*prepared.splits["val"], *prepared.splits["test"]})[:TEST_HEADS]
    others = [entry.case for entry in prepared.cases if entry.case not in held_out]
    regression, sample = out / "regression", out / "one_sample"
    # all compare the same heads
    shared: Any = {"exclude": others, "anyway": True, "progress": reporter}
    synthesise(run, cohort, regression, answer="mean", **shared)
    synthesise(run, cohort, sample, intervals=False, **shared)
    folders = {"regression": regression, "one sharp sample": sample}
    scores = [evaluate(folder, cohort, progress=reporter) for folder in folders.values()]
    errors = {}
    for name, scored in zip(folders, scores):
        ours, *naive = (means["mae"]["mean"] for means in scored.means[TARGET].values())
        errors[name] = ours
    errors["best naive baseline"] = min(naive)
    page = out / "report.html"
    compared = compare([*folders.values()], report=page)
    pages = [page, report(regression)]  # the second with intervals and naive baselines
    by_case = scores[0].by_case(TARGET)
    return Demo(compared, errors, float(by_case["coverage"].mean()), len(by_case), pages)
