"""The lines of starter_tables.jsonl as Markdown: mean over seeds and, in brackets, the range."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from ingredients import finished

Line = Mapping[str, Any]
TITLES = {
    "mae": "MAE",
    "ssim": "SSIM",
    "gradient": "gradient ratio",
    "bone_dice": "bone Dice, aligned",
    "aligned_mae": "MAE, aligned",
    "aligned_ssim": "SSIM, aligned",
    "aligned_gradient": "gradient ratio, aligned",
    "vessels_dice": "Dice above 150 HU",
    "arteries_dice": "Dice, 150 to 600 HU",
    "hu": "MAE, HU",
}
KEYS = {
    "tune": ("mae", "ssim", "gradient"),
    "patients": ("mae", "ssim", "gradient"),
    "through": ("mae", "aligned_mae", "ssim", "aligned_ssim", "gradient", "aligned_gradient"),
    "adapt": ("hu", "ssim", "gradient"),
}
SCRATCH = "from scratch"


def print_tables(path: Path, names: Sequence[str]) -> None:
    for name in names:
        lines = _newest([line for line in finished(path) if line["table"] == name])
        if not lines:
            continue
        print(f"\n**{name}**\n")
        for row in _zero(lines) if name == "zero" else _trainings(name, lines):
            print(row)


def _newest(lines: Sequence[Line]) -> list[Line]:
    """The lines of the weights and phantoms that were measured last, row by row, and without those of trials."""
    whole = [line for line in lines if "limit" not in line]
    last = {line["row"]: (line["weights"], line.get("size")) for line in whole}
    return [line for line in whole if (line["weights"], line.get("size")) == last[line["row"]]]


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [
        f"| {' | '.join(heads)} |",
        "|---" * len(heads) + "|",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]


def _zero(lines: Sequence[Line]) -> list[str]:
    """The starters on real scans: one table of cohorts, and one of the brains by patient and answer."""
    keys = [key for key in TITLES if any(key in line for line in lines)]
    rows = [
        [line["row"], f"{line['images']}", *(_cell([line], key) for key in keys)]
        for line in lines
        if "images" in line
    ]
    heads = ["cohort", "images", *(TITLES[key] for key in keys)]
    made = _table(heads, rows) if rows else []
    for line in lines:
        if "patients" in line:
            made += ["", *_brains(line["patients"])]
    return made


def _brains(patients: Mapping[str, Any]) -> list[str]:
    """The error of each patient and target in the body: of the starter, and of each naive baseline."""
    answers = list(
        dict.fromkeys(
            answer
            for targets in patients.values()
            for scores in targets.values()
            for answer in scores
        )
    )
    rows = []
    for patient, targets in patients.items():
        for target, scores in targets.items():
            errors = {answer: one["mae"] for answer, one in scores.items()}
            best = min(errors.values())
            cells = [
                f"**{errors[one]:.3f}**"
                if errors.get(one) == best
                else f"{errors[one]:.3f}"
                if one in errors
                else ""
                for one in answers
            ]
            rows.append([patient, target, *cells, f"{scores['synthesis']['gradient']:.2f}"])
    return _table(["patient", "T1 to", *answers, "gradient ratio"], rows)


def _trainings(name: str, lines: Sequence[Line]) -> list[str]:
    """A row for each way and setting; the difference is that of the MAE with `from scratch`, seed by seed."""
    settings = ("minutes", "patients", "cases")
    shown = [key for key in settings if any(key in line for line in lines)]
    groups: dict[tuple[Any, ...], list[Line]] = {}
    for line in lines:
        groups.setdefault((*(line.get(key) for key in shown), line["row"]), []).append(line)
    rows = []
    for group in sorted(groups, key=lambda one: one[:-1]):
        own = groups[group]
        taken = sum(line.get("taken", False) for line in own)
        steps = f"{mean(line.get('steps', 0) for line in own):,.0f}"
        took = f"{mean(line.get('minutes_taken', 0) for line in own):.1f}"
        cells = [_cell(own, key) for key in KEYS[name]]
        where = [f"{value:g}" for value in group[:-1]]
        rows.append(
            [
                group[-1],
                *where,
                f"{len(own)}",
                steps,
                took,
                *cells,
                _difference(own, lines),
                f"{taken}",
            ]
        )
    heads = ["row", *shown, "seeds", "steps", "minutes taken"]
    heads += [TITLES[key] for key in KEYS[name]]
    return _table([*heads, f"MAE against {_reference(name)}", "planner's own choice"], rows)


def _reference(name: str) -> str:
    return "pairs as they are" if name == "through" else SCRATCH


def _difference(own: Sequence[Line], lines: Sequence[Line]) -> str:
    """The relative difference of the MAE to the reference's of the same seed, minutes and patients, in percent."""
    errors = {
        (line["seed"], line["minutes"], line.get("patients")): line["mae"]
        for line in lines
        if line["row"] in (SCRATCH, "as they are")
    }
    found = []
    for line in own:
        error = errors.get((line["seed"], line["minutes"], line.get("patients")))
        if error is not None and line["row"] not in (SCRATCH, "as they are"):
            found.append(100 * (line["mae"] / error - 1))
    if not found:
        return ""
    return f"{mean(found):+.1f} % ({min(found):+.1f} to {max(found):+.1f})"


def _cell(lines: Sequence[Line], key: str) -> str:
    values = [line[key] for line in lines if key in line]
    if not values:
        return ""
    digits = 1 if max(values) > 5 else 2 if "gradient" in key else 4
    text = f"{mean(values):.{digits}f}"
    if len(values) < 2:
        return text
    return f"{text} ({min(values):.{digits}f} to {max(values):.{digits}f})"
