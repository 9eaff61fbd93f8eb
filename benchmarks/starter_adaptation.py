"""The table of another site, on phantoms: 0, 1, 3 and 10 of its cases with `adapt`, and 10 from random weights."""

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from starter_measures import (
    HEAD_CT,
    SCORES,
    Clock,
    Job,
    Setup,
    images_of,
    means,
    pairs_of,
    planned,
    processor_time,
    trained,
)
from voxlate.cases.drawn import Drawn
from voxlate.cases.physics import Contrast, PhysicsSettings
from voxlate.cases.prepare import prepare
from voxlate.cohorts.find import CaseFiles, find_cohort
from voxlate.formats.io import write_volume
from voxlate.phantoms import write_cohort
from voxlate.planning.adapt import adapt as adapt_run
from voxlate.scoring.evaluate import evaluate
from voxlate.starters.names import PREFIX
from voxlate.synthesis.model import load
from voxlate.training.run import Run

OLD, NEW = "old_site", "new_site"
# The same weighting by T1 with other sequences, fields, slices, resolutions and noise.
SITES = {
    OLD: PhysicsSettings(
        contrasts={"mr": Contrast(sequence="mprage")},
        field_t=(3.0, 3.0),
        bias=0.15,
        slice_mm=0.0,
        resolution=1.0,
        motion=0.0,
        noise=0.02,
    ),
    NEW: PhysicsSettings(
        contrasts={"mr": Contrast(sequence="spin_echo", tr_ms=(400, 600), te_ms=(10, 20))},
        field_t=(0.5, 1.0),
        slice_mm=6.0,
        resolution=0.6,
        motion=0.0,
        noise=0.05,
    ),
}
PHANTOMS = {OLD: (22, 1001), NEW: (17, 1002)}  # numbers of heads, and seeds that no starter has
SCORED = 6  # heads of the new site, the last ones
STARTER, RUN, SCRATCH = "starter, adapted", "run of the old site, adapted", "from scratch"


def adapt(setup: Setup) -> Iterator[Job]:
    """Each base with more and more cases of the new site; one further case validates in all rows."""
    if not setup.has(HEAD_CT):
        return
    (minutes,) = setup.minutes_of(5)
    rows = [(base, number) for base in (STARTER, RUN) for number in (0, 1, 3, 10)]
    for seed in setup.seeds:
        for row, number in [*rows, (SCRATCH, 10)]:
            starter = HEAD_CT if row == STARTER else ""
            key = setup.key(
                "adapt",
                starter,
                row=row,
                cases=number,
                minutes=minutes,
                seed=seed,
                size=[*setup.size],
            )
            yield Job(key, partial(_adapted, setup, row, number, minutes, seed))


def _adapted(setup: Setup, row: str, number: int, minutes: float, seed: int) -> dict[str, Any]:
    label = f"adapt_{row}_{number}_{minutes:g}_{seed}".replace(",", "").replace(" ", "_")
    stated: Mapping[str, Any] = {}
    if row == SCRATCH:
        prepared = _taught(setup, number, seed)
        made, _ = planned(prepared, minutes, starter=False)
        run, stated = trained(made, prepared, setup.folder("runs", label), seed)
        weights = run.folder
    else:
        base, name = _base(setup, row, minutes, seed)
        weights = base
        if number:
            out = setup.folder("runs", label)
            shutil.rmtree(out, ignore_errors=True)
            clock = Clock()
            with processor_time():
                weights = adapt_run(
                    name,
                    _taught(setup, number, seed),
                    out,
                    minutes=minutes,
                    device="cpu",
                    progress=clock,
                ).folder
            stated = {"minutes_taken": round(clock.seconds / 60, 2), "steps": clock.steps}
    return {**stated, **_scored(setup, weights, label)}


def _base(setup: Setup, row: str, minutes: float, seed: int) -> tuple[Path, Path | str]:
    """The folder of the weights that are adapted, and their name for `adapt`; a run of the old site is trained once."""
    if row == STARTER:
        return setup.starters / HEAD_CT, f"{PREFIX}{HEAD_CT}"
    out = setup.folder("runs", f"old_site_{minutes:g}_{seed}_{setup.grid}")
    if not Run(out).weights().is_file():
        cases = _site(setup, OLD)
        prepared = pairs_of(setup, f"{OLD}_{setup.grid}", cases, splits={cases[-1].patient: "val"})
        made, _ = planned(prepared, 2 * minutes, starter=False)
        trained(made, prepared, out, seed)
    return out, out


def _taught(setup: Setup, number: int, seed: int) -> Path:
    """Prepared cases of the new site: so many that teach, others for each seed, and the one that validates."""
    *learners, validates = _site(setup, NEW)[:-SCORED]
    first = 3 * seed % len(learners)
    chosen = [*learners[first:], *learners[:first]][:number]
    label = f"{NEW}_{setup.grid}_{number}_{seed}"
    return pairs_of(setup, label, [*chosen, validates], splits={validates.patient: "val"})


def _site(setup: Setup, site: str) -> list[CaseFiles]:
    """The scans of a site, drawn from phantoms once."""
    scans = setup.folder(f"{site}_{setup.grid}_scans")
    number, seed = PHANTOMS[site]
    if not scans.is_dir():
        phantoms = scans.with_name(f"{scans.name}_maps")
        physics = SITES[site]
        write_cohort(
            phantoms, number, setup.size, seed=seed, modalities=["ct", *sorted(physics.needs)]
        )
        cohort = prepare(phantoms, phantoms.with_name(f"{phantoms.name}_prepared"), audit=False)
        drawn = replace(cohort, drawn=Drawn(physics, ("ct",)))
        begun = scans.with_name(f"{scans.name}_begun")
        for entry in cohort.cases:
            case = drawn.case(entry.case)
            folder = begun / entry.case
            folder.mkdir(parents=True, exist_ok=True)
            for modality in ("mr", "ct"):
                write_volume(folder / f"{modality}.nii.gz", case.volume(modality))
        begun.rename(scans)
    return find_cohort(scans).cases


def _scored(setup: Setup, weights: Path, label: str) -> dict[str, float]:
    """Mean scores of the scored heads of the new site; MAE in HU."""
    scans = _site(setup, NEW)
    names = [case.case for case in scans[-SCORED:]]
    root = setup.folder(f"{NEW}_{setup.grid}_scans")
    images = images_of(load(weights, "cpu"), root, names, setup.folder("images", label))
    table = evaluate(images, root, cases=names)
    return means(table, {**SCORES, "hu": "mae"})
