"""Texts of voxlate in the words of the page, which has no command line and states no absolute path.

Refusals and messages are sentences: a finding ("expected …, found …"), then what to do. What to do by an option or a
command is left out here; codes.toml has the page's own advice for codes that need one (Code.page).
"""

import re
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from voxlate.scans.cohorts.pseudonyms import without_names

COMMANDS = (
    "phantom", "prepare", "info", "synth", "evaluate", "compare", "report", "export", "demo", "pseudonym-key",
    "pseudonymise", "push", "listen", "serve", "recipes", "plan", "train", "import", "starters", "adapt", "calibrate",
)  # fmt: skip
NAMED = re.compile(rf"(?<![\w-])--(?=[a-z])|\bvoxlate(?:-run| (?:{'|'.join(COMMANDS)}))\b")
OPTION = re.compile(r"(?<![\w-])--(?=[a-z])")
PARENTHESIS = re.compile(r" ?\([^()]*\)")
END = re.compile(r"(?<=[.!?]) (?=[A-Z])")
LEAST_WORDS = 4  # fewer are a name, not a sentence
ADVICE = "Choose other files or settings on the page."


def for_page(value: Any, places: Mapping[str, str]) -> Any:
    """A value whose texts name no absolute path, option or command. places: what stands for some of the paths."""
    if isinstance(value, Markup):  # a drawing
        return value
    if isinstance(value, str):
        return without_commands(without_names(value, places))
    if isinstance(value, list | tuple):
        return [for_page(inner, places) for inner in value]
    if isinstance(value, dict):
        return {key: for_page(inner, places) for key, inner in value.items()}
    return value


def without_commands(text: str) -> str:
    """A text without the sentences, clauses and parentheses that name an option or a command.

    Where the finding itself names one, the dashes or the command are left out; a refusal keeps an advice.
    """
    if len(text.split()) < LEAST_WORDS or not NAMED.search(text):
        return text
    text = PARENTHESIS.sub(lambda found: "" if NAMED.search(found[0]) else found[0], text)
    finding, *advice = END.split(text)
    kept = [sentence for sentence in advice if not NAMED.search(sentence)]
    clauses = finding.split("; ")
    finding = "; ".join([clause for clause in clauses if not NAMED.search(clause)] or clauses)
    finding = NAMED.sub("voxlate", OPTION.sub("", finding))
    if not kept and "expected" in finding:
        kept = [ADVICE]
    if kept and not finding.endswith((".", "!", "?")):
        finding += "."
    return " ".join([finding, *kept])
