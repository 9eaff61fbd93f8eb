"""Whether images can be used: the sentence with which a report and the page begin."""

from collections.abc import Mapping, Sequence
from itertools import chain

from voxlate.base.errors import first_of, plural
from voxlate.base.groups import grouped
from voxlate.base.messages import Message
from voxlate.base.statistics import too_few
from voxlate.training.verdict import Outcome, Verdict


def usability(
    warnings: Mapping[str, Sequence[Message]], verdicts: Sequence[Verdict] = ()
) -> tuple[Outcome, str]:
    """The outcome, and a sentence such as "Not usable because …" or "Usable with care: …".

    warnings: of the images by case, {} where there are no images; verdicts: on their scores.
    """
    refused, careful = (
        grouped(
            (case, warning.text)
            for case, of_case in warnings.items()
            for warning in of_case
            if warning.grade == grade
        )
        for grade in ("do not trust", "caution")
    )
    if failed := [verdict for verdict in verdicts if verdict.outcome == "worse"]:
        names = ", ".join(verdict.modality for verdict in failed)
        why = f"the error of {names} is higher than that of a naive baseline ({failed[0].baseline})"
        lacks = next((verdict.lacks for verdict in failed if verdict.lacks), "")
        return "worse", f"Not usable because {lacks or why}."
    if refused and len(refused) == len(warnings):
        return "worse", f"Not usable because the model does not take such scans. {_join(refused)}"
    if refused:
        some = f"{plural(len(refused), 'case')} of {len(warnings)} cannot be used ({first_of(list(refused))})"
        return "unclear", f"Usable with care: {some}. {_join(refused)}"
    if careful:
        of = f" ({first_of(list(careful))})" if len(warnings) > 1 else ""
        return "unclear", f"Usable with care{of}: {_join(careful)}"
    if unclear := [verdict for verdict in verdicts if verdict.outcome == "unclear"]:
        doubt = _not_shown(unclear[0])
    elif any(verdict.outcome == "better" for verdict in verdicts):
        return "better", "Usable in research: more accurate than each naive baseline."
    elif verdicts:
        doubt = "it is unknown whether a naive baseline is as accurate, because none was scored"
    else:
        doubt = "the error was not measured, because no true image was compared"
    return "unclear", f"Usable with care: {doubt}."


def _not_shown(verdict: Verdict) -> str:
    """That images are not shown to be better than a baseline, and by how many patients."""
    said = "the images are not shown to be more accurate than a naive baseline"
    if not verdict.patients:
        return said
    if few := too_few(verdict.patients):
        said = f"{few} cannot show that the images are more accurate than a naive baseline"
    return f"{said}; their error is lower for {verdict.lower_on} of {plural(verdict.patients, 'patient')}"


def _join(reasons: Mapping[str, Sequence[str]]) -> str:
    """The reasons of a case, or the first one of several cases, which states how many others there are."""
    several = list(dict.fromkeys(chain.from_iterable(reasons.values())))
    if len(reasons) == 1 or len(several) == 1:
        return " ".join(several)
    return f"{several[0]} {plural(len(several) - 1, 'other reason')} below."
