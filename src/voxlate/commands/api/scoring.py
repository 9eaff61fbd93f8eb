"""The commands on scores: evaluate, compare, report."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from voxlate.base.errors import as_list
from voxlate.base.messages import read_messages
from voxlate.base.option import MainOption
from voxlate.commands.api.entry import Argument, Command, Place, Undone
from voxlate.commands.api.progress import Reporter
from voxlate.evaluation.evaluation_options import CompareOptions, EvaluateOptions
from voxlate.scans.layout_options import quote_path

if TYPE_CHECKING:
    from voxlate.evaluation.compare import Comparison
    from voxlate.evaluation.scoring.scores import Scores


def _evaluation_lines(scores: "Scores", asked: Any) -> Iterator[Any]:
    from voxlate.evaluation.scoring.tables import not_scored_texts
    from voxlate.training.verdict import colour_lines

    faults = read_messages(scores.header, "truth_messages")
    yield from faults if asked.any_truth else map(Undone, map(str, faults))
    yield scores.short_table()
    yield colour_lines(scores.verdicts)
    for text in not_scored_texts(scores.header["not_synthesised"]):
        yield Undone(f"not scored: {text}")
    graded = read_messages(scores.header, "messages")
    if not asked.any_truth and any(said.grade == "do not trust" for said in graded):
        yield Undone()
    yield f"Next:  voxlate report {quote_path(asked.out)}"


@Command(
    "evaluate OUT --truth COHORT --mask body",
    lines=_evaluation_lines,
    waits=True,
)
def evaluate(
    out: Annotated[Place, Argument("Folder of images.", metavar="OUT")],
    truth: Annotated[Place, MainOption("Cohort with the true scans.")],
    *,
    options: EvaluateOptions,
    progress: Reporter,
) -> "Scores":
    """Score synthesised images and naive baselines against the true scans.

    The scores are written into scores.csv and metrics.json.
    The verdict states whether the images are better than the best baseline.
    \f
    Returns:
        Scores: The scores as a long table (`frame`), with `verdicts` for each modality, and means in `document()`.

    Raises:
        BadInput: the folder has no images; an image and its true scan do not overlap, or cannot be of one patient; or an option
            does not fit the unit.

    Example:
        >>> import voxlate
        >>> scores = voxlate.evaluate("OUT", "COHORT", progress=False)
        >>> set(scores.frame["modality"]), "mae" in set(scores.frame["metric"])
        ({'t2'}, True)
    """
    from voxlate.evaluation.scoring.evaluate import evaluate as score_images

    return score_images(out, truth, options, progress=progress.count("evaluate"))


def _comparison_lines(comparison: "Comparison", asked: Any) -> Iterator[Any]:
    yield comparison.table("main")
    for path in filter(None, (asked.out, asked.report)):
        yield f"Written: {path}"


@Command(
    "compare CNN_OUT DDPM_OUT --reference CNN_OUT --report methods.html",
    lines=_comparison_lines,
)
def compare(
    folders: Annotated[
        Sequence[Place],
        Argument("Scored folders of the same cases.", metavar="OUT...", read=as_list),
    ],
    *,
    options: CompareOptions,
) -> "Comparison":
    """Compare scored methods by paired tests.
    \f
    Returns:
        Comparison: Means, standard deviations and paired tests by modality, metric and method, in `frame`.

    Raises:
        BadInput: fewer than two folders are given; one is not scored; or they are scored on different cases, voxels or options.

    Example:
        >>> import shutil, voxlate
        >>> _ = shutil.copytree("OUT", "AGAIN")  # both were scored
        >>> comparison = voxlate.compare(["OUT", "AGAIN"])
        >>> {"AGAIN", "OUT"} <= set(comparison.frame["method"])
        True
    """
    from voxlate.evaluation.compare import compare as compare_scores

    comparison = compare_scores(folders, reference=options.reference)
    if options.out:
        comparison.write(options.out)
    if options.report:
        from voxlate.evaluation.reports.page import write_comparison  # loads matplotlib

        write_comparison(comparison, options.report)
    return comparison


@Command(
    """
    report OUT
    report PREPARED
    """,
    lines=lambda page, _: [f"{page}"],
)
def report(
    path: Annotated[
        Place, Argument("Run, folder that synth wrote, or prepared cohort.", metavar="PATH")
    ],
    out: Annotated[Place | None, MainOption("HTML file. Default: PATH/report.html.")] = None,
) -> Path:
    """Write an offline HTML page with pictures, curves and tables, and return its path.
    \f
    Returns:
        Path: The HTML file, which needs no network.

    Raises:
        BadInput: the folder is no run, output of synth or prepared cohort.

    Example:
        >>> import voxlate
        >>> voxlate.report("RUN").name
        'report.html'
    """
    from voxlate.evaluation.reports.page import report as write_page

    return write_page(path, out)
