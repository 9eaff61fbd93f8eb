"""Texts of voxlate in the words of the page, which has no command line and states no absolute path.

A refusal is a finding ("expected …, found …") and a fix; a fix that only a command line has is left out.
"""

import re
from collections.abc import Mapping
from typing import Any

from voxlate.base.messages import reworded, without_names
from voxlate.base.option import FLAG
from voxlate.commands.api.entry import HOMES

# What a scan may be.
CONTRASTS = {
    "t1": "T1",
    "t1c": "T1 with contrast agent",
    "t2": "T2",
    "flair": "FLAIR",
    "pd": "Proton density",
    "swi": "Susceptibility (SWI)",
    "tof": "TOF angiography",
    "dwi": "Diffusion (DWI)",
    "adc": "Diffusion map (ADC)",
    "mr": "MR of another contrast",
    "ct": "CT",
    "cta": "CT angiography",
    "mask": "Mask of the body or brain",
}
SAME = {
    "t1w": "t1",
    "t1n": "t1",
    "t1ce": "t1c",
    "t1gd": "t1c",
    "t2w": "t2",
    "t2f": "flair",
    "pdw": "pd",
    "mra": "tof",
    "ncct": "ct",
}
# an option, or a command
ON_LINE = re.compile(rf"(?<![\w-]){FLAG.pattern}|\bvoxlate (?:{'|'.join(HOMES)})\b")
END = re.compile(r"(?<=[.!?]) (?=[A-Z])")
ANYWAY = "Synthesise anyway"  # the only option of the page


def contrast_of(name: str) -> str:
    """The contrast that a modality's name stands for; any other name itself."""
    return SAME.get(name.lower(), name)


def for_page(value: Any, places: Mapping[str, str]) -> Any:
    """A value whose texts name no absolute path, and advise no option or command. places: what stands for some of the paths."""

    def change(text: str) -> str:
        return in_settings(without_names(text, places))

    return reworded(value, change)


def in_settings(text: str) -> str:
    """A text without the sentences that name an option or a command, but for its first, which says what was found."""
    finding, *advice = END.split(text.replace("--anyway", f"“{ANYWAY}”"))
    return " ".join([finding, *(sentence for sentence in advice if not ON_LINE.search(sentence))])
