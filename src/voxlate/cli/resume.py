"""`voxlate train RUN`: a run's folder in place of a recipe."""

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from voxlate.system.errors import BadInput

if TYPE_CHECKING:
    from voxlate.training.run import Run

MINUTES = r"(\d+\.?\d*|\.\d+)"
NUMBERS = {"--steps": r"\+[1-9]\d{0,7}", "--minutes": rf"\+{MINUTES}"}


def required(
    recipe: str, data: Path | None, to: Path | None, lengths: Mapping[str, str | None]
) -> tuple[Path, Path]:
    """The cohort and the folder that a recipe needs; raises BadInput without them, or if a length is given."""
    for option, text in lengths.items():
        if text is not None:
            number = text.lstrip("+") if option == "--steps" else "2000"
            raise BadInput(
                f"{option}: expected a run's folder to train further, found the recipe {recipe}, whose length is a key: --set train.steps={number}, say. Write it so, or give the folder."
            )
    if data is None:
        raise BadInput(
            f"--data: expected a prepared cohort to train {recipe} on, found none. Add --data PREPARED."
        )
    if to is None:
        raise BadInput(
            f"--out: expected a folder for the run of {recipe}, found none. Add --out RUN."
        )
    return data, to


def go_on(
    run: Path, lengths: Mapping[str, str | None], unfit: Sequence[str], **options: Any
) -> "Run":
    """Continue a run by `--steps +N` or `--minutes +M`, or resume it; unfit: given options that no run takes."""
    from voxlate.training.continuing import train_further

    if unfit:
        raise BadInput(
            f"{unfit[0]}: expected a recipe with it, found the run {run}, which keeps its recipe. Drop it, or begin a new run with it from these weights: voxlate train {shlex.quote(str(run / 'recipe.toml'))} --data PREPARED --init {shlex.quote(str(run))} --out NEW."
        )
    asked = {option: text for option, text in lengths.items() if text is not None}
    if len(asked) > 1:
        raise BadInput(
            f"--steps: expected --steps or --minutes, found both ({', '.join(asked.values())}). Drop one."
        )
    for option, text in asked.items():
        if not re.fullmatch(NUMBERS[option], text) or float(text) == 0:
            digits = "of at most 8 digits, " if option == "--steps" else ""
            what = (
                f"a number above 0 after a +, {digits}of {option[2:]} in addition to those of {run}"
            )
            raise BadInput(f"{option}: expected {what}, found {text}. Write {option} +30, say.")
    steps, minutes = lengths.get("--steps"), lengths.get("--minutes")
    return train_further(
        run,
        steps=None if steps is None else int(steps),
        minutes=None if minutes is None else float(minutes),
        **options,
    )
