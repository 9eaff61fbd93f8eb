"""The codes of all messages: what each means, what to do, and the grades that it may have. They are stated in codes.toml."""

import functools
from pathlib import Path
from typing import Literal, NamedTuple, get_args

Grade = Literal["note", "caution", "do not trust"]
GRADES: tuple[Grade, ...] = get_args(Grade)


class Code(NamedTuple):
    """What a code means, what to do, and its grades, the usual one first; detail: printed with --verbose only.

    page: what to do on the page of `voxlate serve`, where that is another action."""

    meaning: str
    action: str = ""
    grades: tuple[Grade, ...] = ("note",)
    detail: bool = False
    page: str = ""

    @property
    def sentence(self) -> str:
        """The meaning as a sentence; the name of the scan that another one is compared with is left open."""
        text = self.meaning.format(partner="reference scan")
        return f"{text[0].upper()}{text[1:]}."


@functools.cache
def codes() -> dict[str, Code]:
    """Every code by its name."""
    import tomllib  # here, because --help needs none of it

    text = Path(__file__).with_name("codes.toml").read_text(encoding="utf-8")
    return {name: Code(**entry) for name, entry in tomllib.loads(text).items()}
