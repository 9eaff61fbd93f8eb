"""Mutates every kind of file that voxlate reads, and runs the command line on it: a right result or one sentence.

python fuzz/fuzz.py [--seconds 600] [--seed 0] [--only TEXT]     exits with 1 where anything crashed, hung or was wrong
without a word. Files of voxlate's own are also changed in structure, with their checksums stamped anew.
"""

import argparse
import contextlib
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import nibabel as nib
import numpy as np
from rich.console import Console
from rich.table import Table

import structures
from further import FURTHER, prepare_further
from kinds import KINDS, Kind, prepare_files, run

LONGEST = 40  # processor seconds of a command that otherwise takes one
STRUCTURED = 0.8  # share of mutations of a form's content; the others turn bits over
STAMPED = 0.85  # share of those whose checksum is made anew
# Forms without a checksum, or whose file is made again where it is another.
UNSTAMPED = (
    "json",
    "toml",
    "naive",
    "words",
)


class Hung(BaseException):
    """A command took far too long."""


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seconds", type=float, default=600)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--only", default="", help="kinds whose name holds this text")
    options.add_argument("--own", action="store_true", help="only files that voxlate writes")
    options.add_argument(
        "--further", action="store_true", help="also files of further methods (minutes to make)"
    )
    chosen = options.parse_args()
    draw, counts, faults = (
        np.random.default_rng(chosen.seed),
        Counter[tuple[str, str]](),
        list[str](),
    )
    with in_files(chosen.further):
        kinds = [kind for kind in (*KINDS, *FURTHER) if file_of(kind) and chosen.only in kind.name]
        kinds = [kind for kind in kinds if kind.form not in ("", "toml") or not chosen.own]
        right = {
            kind.name: run(kind.command)[1]
            for kind in kinds
            if not kind.form and kind.command[0] == "info"
        }
        end, number = time.monotonic() + chosen.seconds, 0
        while time.monotonic() < end or number < len(kinds):  # each kind at least once
            kind = kinds[number % len(kinds)]
            number += 1
            outcome, said = attempt(kind, draw, right.get(kind.name))
            counts[kind.name, outcome] += 1
            if outcome in ("crashed", "hung", "wrong"):
                faults.append(
                    f"{kind.name} ({' '.join(kind.command)}), try {number}: {outcome}: {said[-1200:]}"
                )
    show(counts)
    for fault in faults[:40]:
        print(fault)
    return 1 if faults else 0


@contextlib.contextmanager
def in_files(further: bool) -> Iterator[None]:
    """Work in a folder of the files to mutate."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        prepare_files()
        if further:
            prepare_further()
        yield


def attempt(kind: Kind, draw: np.random.Generator, right: str | None) -> tuple[str, str]:
    """Mutate one file, run its command, put the file back; what came of it, and what was said."""
    path = file_of(kind)
    assert path is not None
    whole, folder = path.read_bytes(), path.parent
    changed, stamped = whole, True
    while changed == whole:
        changed, stamped = change(kind, whole, draw)
    path.write_bytes(changed)
    before = set(folder.rglob("*"))
    try:
        code, out, err = timed(kind.command)
        strange = [
            str(one) for one in Path("new").rglob("*.nii.gz") if code == 0 and not is_finite(one)
        ]
        left = [one for one in set(folder.rglob("*")) - before if one.name.startswith(".writing-")]
    except Hung:
        return "hung", f"{changes(whole, changed)}"
    except Exception as error:  # past the command line's own net
        return "crashed", repr(error)
    finally:
        put_back(kind, path, whole)
    if left or strange:
        return "wrong", f"{left}, {strange}"
    # of what is not to be trusted (3) the message alone may be said
    starts = ("voxlate: ", "DO NOT TRUST: ") if code == 3 else ("voxlate: ",)
    said = [line for line in err.splitlines() if line.startswith(starts)]
    if code in (2, 3) and said and "Traceback" not in err:
        return "refused", said[0]
    if code != 0:
        return "crashed", err
    if not stamped:
        return "wrong", f"taken in spite of its checksum: {changes(whole, changed)}"
    if "NaN" in out or "Infinity" in out:
        return "wrong", f"{changes(whole, changed)}"
    if right is None or out == right:
        return "accepted", ""
    return ("wrong" if kind.checked else "no checksum"), out


def file_of(kind: Kind) -> Path | None:
    """The file to mutate: names with a digest in them are patterns."""
    return next(Path().glob(kind.file), None)


def change(kind: Kind, whole: bytes, draw: np.random.Generator) -> tuple[bytes, bool]:
    """A file with something changed, and whether its checksum may be that of the changed content."""
    if kind.form and draw.random() < STRUCTURED:
        stamps = draw.random() < STAMPED
        with contextlib.suppress(UnicodeEncodeError, OverflowError):
            changed = structures.mutated(kind.form, whole, draw, stamps)
            if kind.form in structures.STAMPS and changed == structures.Packed.of(whole).bytes():
                return whole, True  # the same in other words
            return changed, stamps or kind.form in UNSTAMPED
        return whole, True
    return flipped(whole, draw), True


def changes(whole: bytes, changed: bytes) -> str:
    """Around the first byte that differs."""
    pairs = enumerate(zip(whole, changed))
    place = next(
        (number for number, (one, other) in pairs if one != other), min(len(whole), len(changed))
    )
    start = max(0, place - 60)
    return f"{whole[start : place + 60]!r} became {changed[start : place + 60]!r}"


def put_back(kind: Kind, path: Path, whole: bytes) -> None:
    shutil.rmtree("new", ignore_errors=True)
    if kind.restored:
        shutil.rmtree(kind.restored)
        shutil.copytree(f"kept/{kind.restored}", kind.restored)
    path.write_bytes(whole)


def is_finite(path: Path) -> bool:
    return bool(np.isfinite(np.asanyarray(nib.nifti1.load(path).dataobj)).all())


def timed(command: tuple[str, ...]) -> tuple[int, str, str]:
    """A command that raises Hung where it takes far too long."""
    rang = list[int]()

    def ring(number: int, frame: FrameType | None) -> None:
        rang.append(number)
        raise Hung

    signal.signal(signal.SIGPROF, ring)
    signal.setitimer(signal.ITIMER_PROF, LONGEST)
    try:
        found = run(command)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    if rang:
        raise Hung
    return found


def flipped(whole: bytes, draw: np.random.Generator) -> bytes:
    """Some bits turned over, a piece cut off, or a block of zeros."""
    data, way = bytearray(whole), draw.integers(4)
    if way == 0:
        return bytes(data[: draw.integers(len(data))])
    if way == 1:
        start = draw.integers(len(data))
        data[start : start + 64] = bytes(len(data[start : start + 64]))
        return bytes(data)
    head = min(len(data), 400) if way == 2 else len(data)  # headers are small, and matter most
    for _ in range(draw.integers(1, 4)):
        data[draw.integers(head)] ^= 1 << draw.integers(8)
    return bytes(data)


def show(counts: Counter[tuple[str, str]]) -> None:
    outcomes = ("refused", "accepted", "no checksum", "wrong", "crashed", "hung")
    table = Table("kind", "tries", *outcomes)
    for name in dict.fromkeys(name for name, _ in counts):
        row = [counts[name, outcome] for outcome in outcomes]
        table.add_row(name, str(sum(row)), *map(str, row))
    Console(width=110).print(table)


if __name__ == "__main__":
    sys.exit(main())
