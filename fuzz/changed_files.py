"""Valid files of seven formats with something changed, each read by a command in a process of its own."""

import json
import shutil
from pathlib import Path

import numpy as np

import kinds
from children import Child
from disturb import FAULT, MOST_BYTES
from fuzz import attempt
from kinds import KINDS, Kind

FORMATS = {
    "NIfTI": (".nii", ".nii.gz", ".hdr"),
    "DICOM": (".dcm",),
    "PNG": (".png",),
    "safetensors": (".safetensors",),
    "TOML": (".toml",),
    "CSV": (".csv",),
    "JSON": (".json",),
}
RIGHT = "right.json"  # what commands print about unchanged files, beside the folder of these
OUTCOMES = {
    "refused": "one sentence, exit code 2",
    "accepted": "a correct result",
    "no checksum": "a result of the changed file, whose format has no checksum",
}


def make_files(kept: Path) -> None:
    """Write the files to change, and what `info` prints about them."""
    kept.mkdir(parents=True)

    def make() -> int:
        kinds.prepare_files()
        shown = {one.name: kinds.run(one.command)[1] for one in KINDS if _is_shown(one)}
        (kept.parent / RIGHT).write_text(json.dumps(shown))
        return 0

    ended = Child(make, kept).wait()
    if ended.code:
        shutil.rmtree(kept)
        raise SystemExit(f"expected to make files of every format, found: {ended.err}")


def _is_shown(kind: Kind) -> bool:
    return not kind.form and kind.command[0] == "info" and Path(kind.file).is_file()


def try_changed(kept: Path, work: Path, form: str, number: int, draw: np.random.Generator) -> str:
    """Change a file of a format, and run a command that reads it. Returns the outcome."""
    if not work.is_dir():
        shutil.copytree(kept, work)
    suffixes = FORMATS[form]
    fitting = [one for one in KINDS if one.file.endswith(suffixes) and _exists(one, kept)]
    if not fitting:
        return "skipped: the packages that write this format are not installed"
    kind = fitting[number % len(fitting)]
    right = json.loads((kept.parent / RIGHT).read_text()).get(kind.name)

    def change() -> int:
        print(json.dumps(attempt(kind, draw, right)))
        return 0

    ended = Child(change, work).wait()
    where = f"{kind.name} ({' '.join(kind.command)})"
    if ended.code or ended.hung:
        shutil.rmtree(work)  # it may hold the changed file
        return (
            f"{FAULT}: {where}: exit code {ended.code}, {ended.seconds:.0f} s: {ended.err[-800:]}"
        )
    outcome, said = json.loads(ended.out.splitlines()[-1])
    if outcome not in OUTCOMES:
        return f"{FAULT}: {where}: {outcome}: {said[-800:]}"
    if ended.peak_bytes > MOST_BYTES:
        return f"{FAULT}: {where}: {ended.peak_bytes / 2**20:.0f} MiB of memory"
    return OUTCOMES[outcome]


def _exists(kind: Kind, folder: Path) -> bool:
    return next(folder.glob(kind.file), None) is not None
