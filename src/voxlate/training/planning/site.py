"""Whether the scans of another site are in the units of a run: what adaptation refuses, and what it cautions about."""

from collections.abc import Mapping
from pathlib import Path

from voxlate.base.errors import BadInput
from voxlate.base.executors.case_work import StepCallback
from voxlate.base.messages import Message, Say, message
from voxlate.checks.truths import SketchedTruth, fault_messages, judge, sketch_of
from voxlate.scans.cases.case import PROTONS
from voxlate.scans.cases.prepared import Cohort
from voxlate.training.log_file import lines_of
from voxlate.training.planning.cohort_facts import AIR_RANGE_HU, Scan
from voxlate.training.recipe import Recipe, ranges_of
from voxlate.training.run import Run

# Times the run's own validation error: on phantoms, a CT with an offset of 1000 had 7.9 times the error.
FAR = 3.0
IN_ADAPT = (
    "The adaptation learns from it all the same: prepare the cohort without it (--exclude CASE)."
)


def check_units(recipe: Recipe, units: Mapping[str, str], cohort: Cohort) -> None:
    """Raise BadInput if a scan of the cohort has another unit than in the run; units: the run's, by its modalities."""
    for name, unit in units.items():
        cohort_unit = cohort.units.get(name, unit)
        if cohort_unit != unit:
            raise BadInput(
                f"{cohort.folder}: expected {name} in the unit of the run '{recipe.title}' ({unit}), found {cohort_unit}. Convert the scans and prepare them again, or plan a training of its own with voxlate train auto."
            )


def check_names(recipe: Recipe, cohort: Cohort) -> None:
    """Raise BadInput if the cohort has no scan of a name of the run, and no maps of which it could be drawn."""
    unknown = [name for name in recipe.data.modalities if name not in cohort.modalities]
    if unknown and PROTONS not in cohort.modalities:
        raise BadInput(
            f"{cohort.folder}: expected the scans of the run '{recipe.title}' by its names ({', '.join(recipe.data.modalities)}), found {', '.join(cohort.modalities)} (no {', '.join(unknown)}). Name the files as the run does, such as CASE/{unknown[0]}.nii.gz, and prepare them again."
        )


def check_held_out(cohort: Cohort) -> None:
    """Raise BadInput if the cohort holds out no case, by whose error the weights are chosen."""
    if cohort.splits["val"]:
        return
    patients = len({entry.patient for entry in cohort.cases})
    advice = "Add a second patient and prepare again."
    if patients > 1:
        advice = f"Prepare into another folder with --shares {patients - 1} 1 0 (numbers of patients to train on, to validate on, to test on), or name the split of each case in a manifest."
    raise BadInput(
        f"{cohort.folder}: expected a held-out case (split val), by whose error adapt chooses which weights are kept, found none among {len(cohort.cases)} cases of {patients} patients. {advice}"
    )


def check_values(
    recipe: Recipe, units: Mapping[str, str], scans: Mapping[str, Scan], where: Path
) -> None:
    """Raise BadInput if a CT of the run is no CT in the cohort: it holds pictures of 8 bits, or another scan does."""
    for name, (low, high) in ranges_of(recipe).items():
        if name not in scans or units.get(name) != "HU" or low >= 0:
            continue
        scan = scans[name]
        expected = f"{where}: expected {name} in Hounsfield units, as in the run (its window is {low:g} to {high:g}), found {scan.least:g} to {scan.most:g}"
        # A scan that is no CT in the run and yet holds the values of air in Hounsfield units.
        like_ct = [
            other
            for other in scans.values()
            if units.get(other.name, "HU") != "HU" and other.least < AIR_RANGE_HU[0]
        ]
        if like_ct and scan.least > AIR_RANGE_HU[1]:
            other = like_ct[0]
            raise BadInput(
                f"{expected} as of an MR scan, and {other.least:g} to {other.most:g} as of a CT in {other.name}: {name} and {other.name} seem to be swapped. Name the files correctly and prepare them again."
            )
        if scan.pictures:
            raise BadInput(
                f"{expected}: it looks like an MR scan or pictures of 8 bits. Is {name} another modality? Prepare the original CT, or plan a training on pictures with voxlate train auto."
            )


def compare_truths(recipe: Recipe, units: Mapping[str, str], cohort: Cohort) -> list[Message]:
    """A message for each kind of target scans that cannot be those of their sources; units: the run's, by its modalities."""
    cautions = list[Message]()
    for name in recipe.data.target:
        truths = dict[str, SketchedTruth]()
        for entry in cohort.cases:
            case = cohort.case(entry.case)
            known = case.header.units
            sources = [source for source in recipe.data.source if source != name]
            shown = next((source for source in sources if source in known), None)
            if name not in known or shown is None:
                continue
            truth = case.volume(name)
            sketch = sketch_of(truth, None, case.volume(shown), truth.grid)
            unit = units.get(name, truth.unit)
            truths[entry.case] = SketchedTruth(entry.patient, truth.unit, unit, sketch)
        faults, odd = judge(truths, name)
        cautions += [*fault_messages(faults, len(truths), IN_ADAPT), *odd]
    return cautions


def validation_errors(run: Run) -> dict[str, float]:
    """The last validation error of each stage by the run's log, in network units; none of training items."""
    return {
        line["stage"]: line["validation"]["mae"]
        for _, line in lines_of(run.log)
        if "mae" in line.get("validation", {})
    }


def watch(
    progress: StepCallback,
    own: Mapping[str, float],
    scans: Mapping[str, Scan],
    say: Say,
) -> StepCallback:
    """A callback that also says after the first step of each stage if the error before it was far above the run's own.

    own: the run's validation errors by stage, as far as they are known; scans: those of the run's modalities in the
    new cohort.
    """
    levels = [f"{name} {scan.least:g} to {scan.most:g} {scan.unit}" for name, scan in scans.items()]

    def compare(stage: str, step: int, steps: int, latest: Mapping[str, float]) -> None:
        """State an error that is far above the run's own, and report the step."""
        before, usual = latest.get("mae", 0.0), own.get(stage)
        if step == 1 and usual is not None and before > FAR * usual:
            text = f"before adapting, the mean absolute error on held-out cases of the new site is {before:.3g}, which is {before / usual:.2g} times that of the run on its own held-out cases ({usual:.3g}, network units). Check the new scans ({', '.join(levels)}): unit, offset, inverted scale, swapped modalities, alignment (voxlate report PREPARED)."
            say(message("other-site", text, error=before, own=usual))
        progress(stage, step, steps, latest)

    return compare
