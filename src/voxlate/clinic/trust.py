"""Whether the images of a case may be handed on: none that were changed, and those graded "do not trust" only where the user accepts that."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from voxlate.base.errors import BadInput, DoNotTrust
from voxlate.base.messages import Grade, Message, message, read_messages
from voxlate.evaluation.scoring.interval_scores import is_changed
from voxlate.synthesis.provenance import provenance_of


def why_not(provenance: Mapping[str, Any], grade: Grade = "do not trust") -> str:
    """Why the images of a provenance are not to be trusted, or have another grade; "" where nothing says so."""
    return " ".join(said.text for said in read_messages(provenance) if said.grade == grade)


def refuse_untrusted(case: str, provenance: Mapping[str, Any], accepted: bool) -> None:
    """Raise DoNotTrust for images that are not to be trusted, unless the user accepts them."""
    if not accepted and (reason := why_not(provenance)):
        raise DoNotTrust(
            f'{case}: expected images that may be handed on, found them graded "do not trust": {reason} Synthesise better scans, or add --accept-untrusted.'
        )


def refuse_changed(images: Iterable[Path]) -> None:
    """Raise BadInput for an image that was changed after synth wrote it, by the checksum in the provenance beside it."""
    for image in images:
        if is_changed(image, provenance_of(image.parent)):
            raise BadInput(
                f"{image}: expected the image that synth wrote, found another content (its checksum differs). Synthesise it again."
            )


def withheld(
    case: str, provenance: Mapping[str, Any], accepted: bool, alone: bool
) -> Message | None:
    """A message where one of several cases is not handed on; raises DoNotTrust where it is alone."""
    try:
        refuse_untrusted(case, provenance, accepted)
    except DoNotTrust as refused:
        if alone:
            raise
        return message("not-handed-on", str(refused), case=case)
    return None
