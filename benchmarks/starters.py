"""Makes the starters that come with the package: `make starters` (hours; resumable).

Of each starter: synthetic heads are written, prepared, trained on, and the run is packed into src/voxlate/training/starters;
then its intervals are fitted on other synthetic heads and widened on real ones (starter_intervals.py), real scans are
synthesised and scored, and the numbers are written into the card. What is done is skipped, so the same command goes on
after a stop.

    python benchmarks/starters.py WORK [STARTER …] [--heads N] [--steps N] [--out FOLDER] [--device auto]

Synthetic heads are variations of label maps of real heads: WORK/head_labels/train (SynthSeg's training_label_maps and one of
lab2im, Apache-2.0) trains, WORK/head_labels/val (head_03, 06, 12 and 16) calibrates; 06 and 16 trained no weights ever.
Real scans are cohorts in WORK: harvard_scans (mr, ct) and brains_scans (t1, t2, flair, …), each with its manifest
WORK/NAME_scans.csv where it has one, and WORK/vhm_pair (see starter_heads.py). Those that are absent are not measured.
"""

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean

import torch

import voxlate
from starter_heads import real_pair, scores_of, synthesised
from starter_intervals import add_intervals, layout
from starter_pack import pack, with_measured
from starter_pair import CREDIT, write_living
from voxlate.anatomy.phantom_cohort import write_cohort
from voxlate.base.files import file_hash, write_text
from voxlate.evaluation.scoring.evaluate import evaluate
from voxlate.synthesis.cohort import Selection, synthesise_cases
from voxlate.synthesis.model import Model
from voxlate.synthesis.scans import find_scans
from voxlate.training.load import load
from voxlate.training.recipe import Recipe, head_of, read
from voxlate.training.starters.card import Card, Measured, read_card
from voxlate.training.starters.names import CARD, FOLDER
from voxlate.training.train import Beginning, train

RECIPES = Path(__file__).with_name("starter_recipes")
TRAINED_ON = "synthetic heads, with the anatomy of 19 real heads (label maps of SynthSeg and lab2im, Apache-2.0)"
VALIDATES = "head_20"  # whose variations validate, and only count
SPACING_MM = (1.333, 1.0, 1.0)  # along z, y, x, to which every scan is resampled in synthesis, too
# Other heads calibrate: learned quantiles of errors need six patients.
CALIBRATION_HEADS, CALIBRATION_SEED = 12, 1000
UNITS = {
    "harvard": "grey levels of 255 that show 0 to 80 HU",
    "brains": "shares of the peak of each image",
}
SCORES = {
    "mae": "MAE",
    "ssim_2d": "SSIM",
    "gradient_strength": "gradient ratio",
    "coverage": "coverage of the intervals",
}
PAIR = "a real head in slices of 5 mm (Visible Human Male, T1), which is in the training"
PAIR_SCORES = {
    "bone": "Dice of bone",
    "vault": "Dice of bone in the vault",
    "base": "Dice of bone in base and face",
    "base volume": "volume of bone in base and face, relative to the true one",
    "air called bone": "share of the air inside that became bone",
    "holds bone": "share of bone in the intervals",
    "holds air": "share of the air inside in the intervals",
}
# The best of three baselines (mean image, copy of T1, intensity table), trained on the real pairs of the other patients:
# mean MAE over the same cases (docs/reference/measured.md has each). By cohort, source, target and score.
BASELINES = {("brains", "t1", "t2", "mae"): 0.171, ("brains", "t1", "flair", "mae"): 0.197}
ANY_MR = ["mr", "t1", "t1w", "t1n", "t1c", "t1ce", "t2", "t2w", "flair", "t2f", "pd", "swi"]
RESEARCH = (
    "Lesions, implants and artefacts of real scanners are shown by few of the synthetic heads."
)


@dataclass(frozen=True)
class Wanted:
    """A starter to make: the number of its heads, the scans that it takes, real cohorts, and limits for the card.

    stripped: whether its scans show the brain alone, which data.physics cuts out; real: names of cohorts in WORK, and the
    mask in which they are scored; widened_on: the one of them whose heads widen the intervals, None for a starter without
    intervals; real_pair: the starter whose soft tissue the CT of WORK/vhm_pair gets, which trains, too. The training continues
    the weights of the package.
    """

    heads: int
    accepts: Mapping[str, Sequence[str]]
    stripped: bool = False
    real: Mapping[str, str | None] = field(default_factory=dict)
    widened_on: str | None = None
    real_pair: str = ""
    limits: Sequence[str] = ()
    target_limits: Mapping[str, str] = field(default_factory=dict)
    trained_on: str = f"{TRAINED_ON} only"


WANTED = {
    "head-mr-to-ct": Wanted(
        heads=34,
        accepts={"mr": ANY_MR, "ct": ["ct", "ncct"]},
        real={"harvard": None},
        widened_on="harvard",
        real_pair="head-mr-to-ct",
        trained_on=f"{TRAINED_ON}, and one real head ({CREDIT})",
        limits=[
            RESEARCH,
            "It takes whole heads with their skull; a stripped brain has no skull to synthesise.",
            "The position of thin bone, such as the walls of the sinuses, is a guess, because MR shows it like air; frontal sinuses, ethmoid and mastoid cells may be filled with bone, and bone of the skull's base is too thick.",
            "Where the edge of the scan cuts the head, bone may appear in the air beside it.",
            "A defaced head has invented bone at the cut.",
            "Fluid and brain may have the same HU, so that ventricles cannot be told from the brain.",
            "Fluid that is much wider than usual, as in old age or hydrocephalus, is unreliable.",
            "Its heads are adults'; a child's, whose face is small for the skull, gets a caution, and streaks at the jaw.",
        ],
    ),
    "brain-mr-to-mr": Wanted(
        heads=34,
        accepts={
            "t1": ["t1", "t1w", "t1n"],
            "t1c": ["t1c", "t1ce"],
            "t2": ["t2", "t2w"],
            "flair": ["flair", "t2f"],
            "pd": ["pd", "pdw"],
        },
        stripped=True,
        real={"brains": "brain"},
        limits=[
            RESEARCH,
            "It takes brains without a skull.",
            "Bright tissue of FLAIR and T1c may show a pattern of a few pixels; an enhancing rim may become dark in other contrasts, and wide ventricles may stay grey in FLAIR.",
        ],
        target_limits={
            "t1c": "Do not trust enhancement in the synthesised T1c: other contrasts do not show it, and it is a guess.",
            "flair": "Do not trust lesions in the synthesised FLAIR: they may be dark, absent or invented.",
        },
    ),
}


def make(
    name: str, work: Path, out: Path, heads: int | None, steps: int | None, device: str
) -> Card:
    """Make one starter, or what is left to do of it."""
    wanted = WANTED[name]
    folder = work / name
    changes = {} if steps is None else {"train.steps": str(steps)}
    path = str(RECIPES / f"{name.replace('-', '_')}.toml")
    recipe, head = read(path, changes), head_of(path)
    prepared = _prepare_heads(wanted, recipe, folder, work, heads or wanted.heads)
    run = folder / "run"
    began = time.monotonic()
    start = FOLDER / name
    done = train(
        recipe, prepared, run, beginning=Beginning(head), init=start, device=device, say=print
    )
    if not done.weights().exists():
        raise SystemExit(f"{run}: the training is not finished; run the same command again.")
    print(f"{name}: trained, {(time.monotonic() - began) / 3600:.2f} hours in this call")
    starter = out / name
    if not (starter / CARD).is_file() or file_hash(done.weights()) != read_card(starter).run:
        pack(
            run,
            starter,
            trained_on=wanted.trained_on,
            accepts=wanted.accepts,
            stripped=wanted.stripped,
            spacing_mm=spacing_range(SPACING_MM[2]),
            limits=wanted.limits,
            target_limits=wanted.target_limits,
        )
    card = read_card(starter)
    real = work / f"{wanted.widened_on}_scans"
    if card.intervals is None and wanted.widened_on is not None and real.is_dir():
        own = folder / "calibration"
        prepared = _prepare_heads(wanted, recipe, own, work, CALIBRATION_HEADS, "val")
        card = add_intervals(starter, prepared, real, work / "vhm_pair", own, device)
    if not card.measured:
        card = with_measured(starter, measured(name, wanted, starter, work, device))
    return card


def _prepare_heads(
    wanted: Wanted, recipe: Recipe, folder: Path, work: Path, heads: int, part: str = "train"
) -> Path:
    """Variations of the label maps of a part (train or val), prepared; those that are there are kept.

    Those that train are validated by the variations of one map; those that calibrate count as a patient each.
    """
    prepared = folder / "prepared"
    if (prepared / "cohort.json").is_file():
        return prepared
    maps = work / "head_labels" / part
    if not maps.is_dir():
        raise SystemExit(f"{maps}: expected label maps of heads, found no folder.")
    made = write_cohort(
        folder / "heads",
        cases=heads,
        labels=maps,
        tissues="synthseg",
        spacing_mm=SPACING_MM[::-1],
        lesion="mixed",
        modalities=sorted(modalities(recipe)),
        seed=CALIBRATION_SEED if part == "val" else 0,
    )
    own = {case: case.name if part == "val" else case.name.rpartition("_")[0] for case in made}
    split = {case: "val" if part == "val" or own[case] == VALIDATES else "train" for case in made}
    further, pair = list[str](), work / "vhm_pair"
    if wanted.real_pair and part == "train" and pair.is_dir():
        further = write_living(pair, load(FOLDER / wanted.real_pair), folder / "vhm")
    manifest = _write_manifest(folder, split, own, further)
    voxlate.prepare(
        folder,
        prepared,
        manifest=manifest,
        spacing_mm=SPACING_MM,
        audit=False,
        progress=False,
    )
    return prepared


def _write_manifest(
    folder: Path,
    split: Mapping[Path, str],
    patient: Mapping[Path, str],
    further: Sequence[str] = (),
) -> Path:
    """Write a table of the scans of all cases with their patients and splits; further: rows of others."""
    rows = ["case,patient,split,modality,path"]
    for case in split:
        for path in sorted(case.glob("*.nii.gz")):
            modality = path.name.removesuffix(".nii.gz")
            place = path.relative_to(folder)
            rows.append(f"{case.name},{patient[case]},{split[case]},{modality},{place}")
    manifest = folder / "heads.csv"
    write_text(manifest, "\n".join([*rows, *further, ""]))
    return manifest


def modalities(recipe: Recipe) -> set[str]:
    """What the phantoms of a recipe need: maps for drawn contrasts, and the other modalities as images."""
    physics = recipe.data.physics
    drawn = set() if physics is None else set(physics.contrasts)
    maps = set() if physics is None else physics.needs
    return (recipe.modalities - drawn) | maps


def spacing_range(pixel: float) -> tuple[float, float]:
    """The finest and coarsest pixels in mm that a starter knows: those of its heads, scaled by augmentation."""
    return round(0.8 * pixel, 2), round(1.25 * pixel, 2)


def measured(name: str, wanted: Wanted, starter: Path, work: Path, device: str) -> list[Measured]:
    """Mean scores on the real cohorts in WORK, next to the naive baselines that were measured there."""
    numbers = measured_pair(load(starter, device), work / "vhm_pair") if wanted.widened_on else []
    for real, mask in wanted.real.items():
        cohort = work / f"{real}_scans"
        if not cohort.is_dir():
            print(f"{name}: {cohort} is not there, so that it is not measured on {real}.")
            continue
        out = work / name / f"scored_{real}"
        model = load(starter, device)
        # A completion is measured where it has the first modality alone.
        first, *others = model.facts.data.source
        missing = others if model.facts.completes else None
        scans = find_scans([str(cohort)], model, missing=missing, **layout(cohort))
        synthesise_cases(Selection(model, scans), out, anyway=True, say=lambda _: None)
        scores = evaluate(out, cohort, mask=mask, **layout(cohort))
        rows = [row for row in scores.rows if row.method == "synthesis"]
        for modality in sorted({row.modality for row in rows}):
            own = [row for row in rows if row.modality == modality]
            for key, title in SCORES.items():
                values = [row.scores[key] for row in own if key in row.scores]
                if values:
                    scans_text = f"{len(values)} {'case' if len(values) == 1 else 'cases'} of {real}, {first} to {modality}"
                    unit = f" in {UNITS[real]}" if key == "mae" else ""
                    baseline = BASELINES.get((real, first, modality, key))
                    value = round(mean(values), 4)
                    error_of = modality if key == "mae" else None
                    numbers.append(Measured(scans_text, title + unit, value, baseline, error_of))
    return numbers


def measured_pair(model: Model, pair: Path) -> list[Measured]:
    """What a starter of heads has on the real head whose CT shows bone and air, where it is there."""
    if not pair.is_dir():
        return []
    name, mr, ct, first = real_pair(pair)
    scores = scores_of(synthesised(model, name, mr), mr, ct, first)
    return [Measured(PAIR, title, round(scores[key], 3)) for key, title in PAIR_SCORES.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("starters", nargs="*", default=[*WANTED])
    parser.add_argument("--heads", type=int, help="instead of the starter's own number")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--out", type=Path, default=FOLDER)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int)
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    unknown = sorted(set(arguments.starters) - set(WANTED))
    if unknown:
        parser.error(f"expected some of {', '.join(WANTED)}, found {unknown[0]}")
    for name in arguments.starters:
        card = make(
            name,
            arguments.work,
            arguments.out,
            arguments.heads,
            arguments.steps,
            arguments.device,
        )
        print(f"{name}: {card.bytes / 1e6:.1f} MB", *card.lines, sep="\n  ")


if __name__ == "__main__":
    main()
