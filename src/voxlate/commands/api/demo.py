"""The demo: the steps from a phantom cohort to a report, each by the function of its command."""

from collections.abc import Iterator
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

RECIPE = "phantom_t1_to_ct"  # of fixed steps: a plan would depend on this machine's speed
MODALITIES = ["t1", "ct"]
CASES, SIZE = 15, (128, 152, 24)  # pixels of 1.6 mm in the plane show both tables of the skull
CALIBRATION_HEADS = 9  # the fewest that bound the error of a new head with 90 %
TEST_HEADS = 3  # held-out heads that are scored


@dataclass(frozen=True)
class Demo:
    """The results of the demo, as `voxlate.demo` returns them.

    Args:
        compared: the comparison of two predictions.
        pages: the HTML reports.

    Example:
        >>> import voxlate
        >>> demo = voxlate.demo("demo")  # doctest: +SKIP
        >>> demo.compared.frame  # doctest: +SKIP
    """

    compared: "Comparison"
    pages: list[Path]


def _demo_lines(done: Demo, _: Any) -> Iterator[Any]:
    yield f"Trained: CT from T1 on phantom heads, by the recipe {RECIPE}."
    yield done.compared.table("main")
    yield f"Reports with pictures, intervals and all scores: {', '.join(map(str, done.pages))}."


@Command("demo --out demo", lines=_demo_lines)
def demo(out: Out = "demo", *, progress: Reporter) -> Demo:
    """Run every step on a phantom cohort (a few minutes on a CPU).
    \f
    Returns:
        Demo: The `compared` scores of two predictions, and the report `pages`.

    Raises:
        BadInput: the folder has other files.

    Example:
        >>> import voxlate
        >>> demo = voxlate.demo("demo")  # doctest: +SKIP
        >>> demo.pages[0]  # doctest: +SKIP
        PosixPath('demo/regression/report.html')
    """
    optional_package("torch", "train", "demo", "torch to train")
    return _demo_on_phantoms(Path(out), replace(progress, say=lambda _: None))  # bars alone


def _demo_on_phantoms(out: Path, reporter: Reporter) -> Demo:
    """Write heads with tumours, train CT from T1 on most of them, calibrate on additional heads, score the others.

    Two predictions are compared: the regression, whose report has its intervals, and one sample of the diffusion of its
    residual. Finished steps are kept, so that a second call resumes.
    """
    cohort, ready, run, further = (out / name for name in ("cohort", "prepared", "run", "further"))
    shared: Any = {"progress": reporter}
    heads: Any = {"size": SIZE, "lesion": "tumour", "modalities": MODALITIES, **shared}
    phantom(cohort, cases=CASES, **heads)
    prepared = prepare(cohort, ready, modalities=MODALITIES, **shared)
    train(RECIPE, ready, run, **shared)
    if load(run, answer="mean").calibration() is None:
        phantom(further, cases=CALIBRATION_HEADS, seed=1, **heads)
        calibrate(run, further, answer="mean", **shared)
    held_out = sorted({*prepared.splits["val"], *prepared.splits["test"]})[:TEST_HEADS]
    others = [entry.case for entry in prepared.cases if entry.case not in held_out]
    regression, sample = folders = [out / "regression", out / "one_sample"]
    shared |= {"exclude": others, "anyway": True}  # both compare the same heads
    synthesise(run, cohort, regression, answer="mean", **shared)
    synthesise(run, cohort, sample, intervals=False, **shared)
    for folder in folders:
        evaluate(folder, cohort, progress=reporter)
    return Demo(compare(folders), [report(folder) for folder in folders])
