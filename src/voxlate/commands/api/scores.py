"""The commands on scores: evaluate, compare, report."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.text import Text

import voxlate.clinic.consumers.scores  # noqa: F401  adds the users of CTs to the scores
from voxlate.base.errors import BadInput
from voxlate.base.messages import Message, message
from voxlate.base.options.check import check_options
from voxlate.commands.api.entry import command
from voxlate.commands.api.progress import Feedback, report_to
from voxlate.evaluation.compare import Comparison
from voxlate.evaluation.compare import compare as compare_scores
from voxlate.evaluation.missing import Summary, score_run
from voxlate.evaluation.options.evaluate import CompareOptions, EvaluateOptions
from voxlate.evaluation.reports.comparison import write_page
from voxlate.evaluation.reports.page import report as report_images
from voxlate.evaluation.reports.prepared import report_prepared
from voxlate.evaluation.scoring.evaluate import evaluate as score_images
from voxlate.evaluation.scoring.scores import Scores
from voxlate.training.verdict import colour_lines


@command
def evaluate(
    out: Path | str,
    truth: Path | str,
    options: EvaluateOptions | None = None,
    *,
    cases: Sequence[str] | None = None,
    progress: Feedback = True,
    **changes: Any,
) -> Scores:
    """Score synthesised images and naive baselines against the true scans, into scores.csv and metrics.json.

    out: folder that synthesise wrote; with `run` a new one.
    truth: cohort with the true scans.
    cases: the cases to score, instead of those of the split; not with `run`.
    """
    asked = check_options(EvaluateOptions, options, changes)
    return score(Path(out), Path(truth), asked, cases, progress).scores


@dataclass(frozen=True)
class Evaluation:
    """Scores, and what the command line prints of them; with a run the summary of all missing modalities."""

    scores: Scores
    asked: EvaluateOptions
    summary: Summary | None = None

    @property
    def document(self) -> dict[str, Any]:
        """The scores as plain values, as in metrics.json."""
        return self.scores.document()

    @property
    def verdict(self) -> Text:
        """Whether the images are better than the best naive baseline, coloured for a terminal."""
        return colour_lines(self.scores.verdicts)

    @property
    def messages(self) -> list[Message]:
        """What the scores leave out and assume."""
        header = self.scores.header
        absent = {} if self.summary is None else self.summary.incomplete
        found = [message("case-left-out", f"left out {why}") for why in absent.values()]
        if self.asked.align:
            text = f"--align: {header['scopes']['aligned'].rpartition('; ')[2]}."
            found.append(message("aligned", text))
        assumed = [*header["shared_masks"], *header.get("windows", ())]
        return [*found, *(message("assumed", f"assumed: {text}.") for text in assumed)]

    @property
    def undone(self) -> list[str]:
        """Sentences on cases that were not scored."""
        absent = self.scores.header["not_synthesised"]
        failed = {} if self.summary is None else self.summary.failed
        return [
            *(f"not scored: {case} ({why})" for case, why in absent.items()),
            *(f"left out {sentence}" for sentence in failed.values()),
        ]


def score(
    out: Path,
    truth: Path,
    asked: EvaluateOptions,
    cases: Sequence[str] | None = None,
    progress: Feedback = True,
) -> Evaluation:
    """Score images as `evaluate` does."""
    if not asked.run:
        asked.refuse_without_run()
    elif cases is not None:
        raise BadInput(
            "cases: expected no cases with a run, which synthesises those of the split, found some. Leave them out, or use exclude."
        )
    with report_to(progress) as report:
        if asked.run:
            summary = score_run(truth, out, asked, progress=report.step, say=report.say)
            return Evaluation(summary.scores, asked, summary)
        scores = score_images(out, truth, asked, cases=cases, progress=report.count("evaluate"))
        return Evaluation(scores, asked)


@command
def compare(
    folders: Sequence[Path | str], options: CompareOptions | None = None, **changes: Any
) -> Comparison:
    """Compare scored methods by paired tests.

    folders: scored folders of the same cases.
    """
    asked = check_options(CompareOptions, options, changes)
    found = compare_scores(folders, reference=asked.reference, answer=asked.answer)
    if asked.out:
        found.write(asked.out)
    if asked.report:
        write_page(found.document, Path(asked.report))
    return found


@command
def report(path: Path | str, out: Path | str | None = None) -> Path:
    """Write an offline HTML page with pictures, curves and tables, and return its path.

    path: run, folder that synthesise wrote, or prepared cohort.
    out: HTML file; by default PATH/report.html.
    """
    path = Path(path)
    write = report_prepared if (path / "cohort.json").is_file() else report_images
    return write(path, None if out is None else Path(out))
