"""voxlate-run: synthesise with a model folder, without torch."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from voxlate.base.errors import BadInput, DoNotTrust


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code: 0 done, 2 bad use or bad input, 3 not to be trusted."""
    parser = argparse.ArgumentParser(
        prog="voxlate-run",
        description="Synthesise scans with a model that voxlate export wrote, without torch. Research software, not a medical device.",
    )
    parser.add_argument("model", metavar="MODEL", help="Folder of the model.")
    parser.add_argument(
        "scans",
        metavar="NAME=SCAN",
        nargs="+",
        help="Scan of a modality, such as t1=scan.nii.gz; the name may be left out of a model with one source.",
    )
    parser.add_argument("--out", metavar="OUT", required=True, help="Folder of the images.")
    parser.add_argument("--seed", type=_whole, default=0, help="Random seed of the synthesis.")
    parser.add_argument("--threads", type=_whole, help="Threads of the computation.")
    parser.add_argument(
        "--no-intervals", action="store_true", help="Leave the intervals of a calibrated model out."
    )
    parser.add_argument(
        "--anyway",
        action="store_true",
        help='Also synthesise scans that are graded "do not trust".',
    )
    chosen = parser.parse_args(arguments)
    try:
        grades = _run(chosen)
    except BadInput as error:
        print(f"voxlate-run: {error}", file=sys.stderr)
        return 3 if isinstance(error, DoNotTrust) else 2
    except ModuleNotFoundError as error:
        package = {"PIL": "pillow"}.get(f"{error.name}", error.name)
        print(
            f"voxlate-run: expected the package '{package}' for such a scan, found it not installed. Install it, or convert the scan to NIfTI.",
            file=sys.stderr,
        )
        return 2
    return 3 if "do not trust" in grades else 0


def _run(chosen: argparse.Namespace) -> set[str]:
    """Synthesise, and write the images; returns the grades of all messages."""
    from voxlate.exchange.run import load
    from voxlate.scans.formats.io import without_ending
    from voxlate.synthesis.result import check_earlier, check_free

    model = load(chosen.model, chosen.threads)
    model = model.without_intervals() if chosen.no_intervals else model
    scans, out = _scans(chosen.scans, model.facts.data.source), Path(chosen.out)
    case = without_ending(Path(next(iter(scans.values()))).name)
    model.check_names(scans, case)
    _check_out(out)  # before minutes are spent
    check_free(out, [f"{name}.nii.gz" for name in model.names_of(scans)])
    check_earlier(out, model.plan(scans, chosen.seed))
    notes = model.missing_checks
    try:
        result = model.synthesise(
            scans,
            case=case,
            seed=chosen.seed,
            progress=_show,
            warn=notes.append,
            anyway=chosen.anyway,
        )
    finally:  # a refusal names the codes of messages alone
        if sys.stderr.isatty():
            print(file=sys.stderr)
        for note in notes:
            print(f"{note.grade}: {note.on(case)}", file=sys.stderr)
    for path in result.save(out):
        print(path)
    return {note.grade for note in notes}


def _scans(given: Sequence[str], sources: Sequence[str]) -> dict[str, str]:
    """The paths by modality; raises BadInput for a name that is missing or stands twice."""
    scans = {}
    for text in given:
        name, equals, path = text.partition("=")
        if not equals:
            if len(sources) > 1:
                raise BadInput(
                    f"{text}: expected the name of its modality for a model of {', '.join(sources)}, found none. Write {sources[0]}={text}."
                )
            name, path = sources[0], text
        if name in scans:
            raise BadInput(f"{text}: expected one scan of {name}, found two. Leave one out.")
        scans[name] = path
    return scans


def _check_out(out: Path) -> None:
    """Raise BadInput where a folder cannot be made or written."""
    place = next(path for path in (out.absolute(), *out.absolute().parents) if path.exists())
    if not (place.is_dir() and os.access(place, os.W_OK)):
        raise BadInput(
            f"{out}: expected a folder to write in, found {place}, which is none. Choose another folder."
        )


def _whole(text: str) -> int:
    """A whole number from 0 on, of 63 bits."""
    if not (text.isascii() and text.isdecimal() and int(text) < 2**63):
        raise argparse.ArgumentTypeError(f"expected a whole number from 0 on, found {text!r}")
    return int(text)


def _show(done: int, total: int) -> None:
    """The progress on one line of a terminal."""
    if sys.stderr.isatty():
        print(f"\r{done}/{total}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
