"""Texts of voxlate in the words of the page, which has no command line and states no absolute path.

A refusal is a finding ("expected …, found …") and a fix. Where the fix names an option that the page has as a setting, it
names the setting; what only a command line can do is left out.
"""

import re
from collections.abc import Mapping
from typing import Any

from voxlate.base.messages import reworded, without_names
from voxlate.base.option import FLAG
from voxlate.commands.api.entry import HOMES

# The settings of the page by the options that they are on the command line.
LABELS = {"--anyway": "Synthesise anyway"}
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
OPTION = re.compile(rf"(?<![\w-]){FLAG.pattern}")
ON_LINE = re.compile(rf"{OPTION.pattern}|\bvoxlate (?:{'|'.join(HOMES)})\b")  # or a command
PARENTHESIS = re.compile(r" ?\([^()]*\)")

REFUSAL = re.compile(r"(.*?\bfound:? .*?[.?]) ([^a-z].*)", re.DOTALL)  # a finding and its fix
END = re.compile(r"(?<=[.!?]) (?=[A-Z])")
LEAST_WORDS = 4  # fewer are a name, not a sentence
ADVICE = "Choose other files or settings."


def contrast_of(name: str) -> str:
    """The contrast that a modality's name stands for; any other name itself."""
    return SAME.get(name.lower(), name)


def for_page(value: Any, places: Mapping[str, str]) -> Any:
    """A value whose texts name no absolute path, option or command. places: what stands for some of the paths."""

    def change(text: str) -> str:
        return in_settings(without_names(text, places))

    return reworded(value, change)


def in_settings(text: str) -> str:
    """A text that names settings of the page in place of options, without what only a command line can do."""
    if len(text.split()) < LEAST_WORDS or not ON_LINE.search(text):
        return text
    text = PARENTHESIS.sub(lambda part: "" if ON_LINE.search(part[0]) else part[0], text)
    refusal = REFUSAL.fullmatch(text)
    finding, *advice = [refusal[1], *END.split(refusal[2])] if refusal else END.split(text)
    advice = [OPTION.sub(_setting, sentence) for sentence in advice]
    advice = [sentence for sentence in advice if not ON_LINE.search(sentence)]
    finding = ON_LINE.sub("voxlate", OPTION.sub(lambda part: part[0][2:], finding))
    if not advice and "expected" in finding:
        advice = [ADVICE]
    return " ".join([finding, *advice])


def _setting(option: re.Match[str]) -> str:
    """The setting of an option, or the option itself where the page has none."""
    name = LABELS.get(option[0])
    return f"“{name}”" if name else option[0]
