"""Calibration: what held-back patients, whose truth is known, teach about the errors of a run's images."""

import shutil
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from voxlate.data.find import find_cohort
from voxlate.data.presets import CaseFiles
from voxlate.errors import BadInput
from voxlate.files import locked
from voxlate.images.intensity import network_ends
from voxlate.synthesis.calibration_data import Collector, Trained
from voxlate.synthesis.calls import no_report
from voxlate.synthesis.ensemble import Ensemble
from voxlate.synthesis.model import Model
from voxlate.synthesis.scans import in_split
from voxlate.training.run import made_by
from voxlate.trust.calibration import Calibration, Header, Target
from voxlate.trust.calibration_file import write_calibration
from voxlate.trust.conformal import Bound
from voxlate.trust.fit import Evidence, fit
from voxlate.trust.out_of_distribution import Patches, remember
from voxlate.trust.regions import check_regions, default_regions
from voxlate.trust.widths import Widths

Progress = Callable[[str, int, int], None]

FEWEST, ENOUGH = 2, 10  # patients: at all, and for a margin by Student's t
ODD = 3  # times the median case's error, from which a case is worth a look


def calibrate(
    model: Model | Ensemble,
    cases: Sequence[CaseFiles],
    *,
    split: str | None = None,
    coverage: float = 0.9,
    confidence: float = 0.9,
    bound: Bound | None = None,
    regions: Mapping[str, str] | None = None,
    seed: int = 0,
    progress: Progress = no_report,
    warn: Callable[[str], None] = warnings.warn,
) -> tuple[Path, Calibration]:
    """Make the images of cases with truth, compare ways of intervals, and write the best into the run.

    coverage: share of a new patient's voxels that intervals are to hold, on average over patients, with this
    confidence, counted as conformal.upper_bound says (unset: "normal" from ENOUGH patients on, else "none", for a
    margin from fewer would be most of the range). regions: parts of the body by a rule ("vessels": "cta>150"),
    in addition to those of the unit and of label maps. A stopped calibration goes on where it was. Raises BadInput
    where the model is an ensemble, completes, or was trained on one of the cases, and where there are too few.
    """
    model = _fitting(model)
    _check_levels(coverage, confidence)
    target_names = model.recipe.data.target
    labels = sorted({name for case in cases for name in case.labels})
    texts = {name: _regions(name, model, labels, regions or {}) for name in target_names}
    path = model.calibration_file
    if path.is_file():
        warn(f"{path.name} is there: it is replaced, and images of before name another calibration than the run has.")
    with locked(path.parent):
        collector = Collector(model, texts, 1 - coverage, seed, warn)
        known = _gather(collector, cases, progress)
        if bound is None:
            bound = "normal" if len(known.patients) >= ENOUGH else "none"
        targets, widths = dict[str, Target](), dict[str, Widths]()
        ends = {name: network_ends(model.recipe.intensity[name]) for name in target_names}
        for number, (name, evidence) in enumerate(known.evidence.items()):
            progress("fits", number + 1, len(known.evidence))
            targets[name], learned = fit(evidence, texts[name], coverage, confidence, bound, seed, ends[name])
            widths |= {} if learned is None else {name: learned}
        header = Header(
            weights=model.header["weights_hash"],
            synth=model.synthesis_options,
            coverage=coverage,
            confidence=confidence,
            bound=bound,
            patients=len(known.patients),
            cases=known.contents,
            split=split,
            seed=seed,
            targets=targets,
            units={name: model.header["units"][name] for name in target_names},
            halves={name: (high - low) / 2 for name, (low, high) in model.header["target_scales"].items()},
            made_by=made_by(),
        )
        write_calibration(path, Calibration(header, widths, remember(known.patches, known.whose, seed)))
        shutil.rmtree(collector.folder, ignore_errors=True)
    made = model.calibration()
    assert made is not None
    return path, made


@dataclass
class _Known:
    """What cases teach: by target, what their scans show, whose they are, and the content of their files."""

    evidence: dict[str, list[Evidence]]
    patches: list[Patches] = field(default_factory=list)
    whose: list[str] = field(default_factory=list)
    contents: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def patients(self) -> set[str]:
        return set(self.whose)


def _gather(collector: Collector, cases: Sequence[CaseFiles], progress: Progress) -> _Known:
    """What the cases teach; raises BadInput where they are too few. One that cannot be made is left out, and said."""
    texts, warn = collector.texts, collector.warn
    known, failed = _Known({name: [] for name in texts}), list[str]()
    if (named := len({case.patient or case.case for case in cases})) < FEWEST:
        raise _too_few(texts, f"{named} ({len(cases)} cases)")
    for number, case in enumerate(cases):
        progress("cases", number, len(cases))
        try:
            content = collector.contents(case)
            if twin := next((other for other, theirs in known.contents.items() if theirs == content), None):
                warn(f"{case.case} has the same scans as {twin}: it is left out, for it is no other patient.")
                continue
            evidence, patches = collector.evidence(case, content, partial(progress, "slices"))
        except Trained:
            raise
        except BadInput as error:
            failed.append(f"{case.case} is left out: {error}")
            warn(failed[-1])
            continue
        for name, one in evidence.items():
            known.evidence[name].append(one)
        known.patches.append(patches)
        known.whose.append(case.patient or case.case)
        known.contents[case.case] = content
    progress("cases", len(cases), len(cases))
    if len(known.patients) < FEWEST:
        why = f": {failed[0]}" if failed else ""
        raise _too_few(texts, f"{len(known.patients)} ({len(known.contents)} of {len(cases)} cases{why})")
    for name, mine in known.evidence.items():
        _check_regions(name, mine, texts[name])
        say_odd(name, mine, warn)
    return known


def _too_few(targets: Iterable[str], found: str) -> BadInput:
    return BadInput(
        f"calibrate: expected at least {FEWEST} patients with {' and '.join(targets)} that training did not see, found "
        f"{found}. Hold back more: prepare with other --shares."
    )


def _check_regions(name: str, evidence: Sequence[Evidence], texts: Mapping[str, str]) -> None:
    for region, text in texts.items():
        if text != f"{region}>0.5" and not any(one.truth_parts[region].any() for one in evidence):
            raise BadInput(
                f"region {region}: expected voxels of {text} in the {name} of at least one case, found none. Move the "
                "threshold."
            )


def say_odd(name: str, evidence: Sequence[Evidence], warn: Callable[[str], None]) -> None:
    """A case whose error is many times the others' is seldom a hard one: its unit or its grid is another."""
    errors = {one.case: float(np.abs(one.truth - one.made).mean()) for one in evidence}
    usual = float(np.median([*errors.values()]))
    for case, error in errors.items():
        if error > ODD * usual:
            warn(
                f"{case}: the error of its {name} is {error / usual:.1f} times that of the median case: look at it; a "
                "unit, an offset or a misplaced truth widens the intervals of all."
            )


def _check_levels(coverage: float, confidence: float) -> None:
    if not 0.5 <= coverage < 1 or not 0.5 <= confidence < 1 or abs(100 * coverage - round(100 * coverage)) > 1e-6:
        raise BadInput(
            "calibrate: expected a coverage in whole percents and a confidence, from 0.5 to below 1, found "
            f"{coverage:g} and {confidence:g}. Change them."
        )


def _fitting(model: Model | Ensemble) -> Model:
    if isinstance(model, Ensemble):
        raise BadInput("calibrate: expected one run, found an ensemble. Calibrate a single run.")
    if model.recipe.task.completes or not model.recipe.method.makes_targets:
        raise BadInput(
            f"{model.origin}: expected a model that makes {' and '.join(model.recipe.data.target)} of other scans, "
            f"found '{model.recipe.title}': completions and autoencoders have no calibration."
        )
    return model


def held_back(model: Model | Ensemble, cohort: Path, split: str | None, **layout: Any) -> list[CaseFiles]:
    """The cases of a cohort in a split: of the run's training, where that says more than the cohort's own."""
    found = in_split(model, find_cohort(cohort, **layout).cases, split)
    if not found:
        raise BadInput(
            f"{cohort}: expected cases{f' of the split {split}' if split else ''}, found none. Check --split."
        )
    return found


def _regions(target: str, model: Model, labels: list[str], given: Mapping[str, str]) -> dict[str, str]:
    check_regions(given, target, labels)
    return {**default_regions(target, model.header["units"][target], labels), **given}
