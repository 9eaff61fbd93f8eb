"""A cohort of phantom patients as files, in the layout that `prepare` reads without any option."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from voxlate.anatomy.bodies import SOURCES, bodies_of
from voxlate.anatomy.contrast import PROTOCOLS
from voxlate.anatomy.head import Head
from voxlate.anatomy.label_anatomy import LEAST_BRAIN_ML
from voxlate.anatomy.phantom_options import PhantomOptions
from voxlate.anatomy.signal import MAPS, MODALITIES, image, tissue_map
from voxlate.anatomy.tissue import BRAIN, INTRACRANIAL
from voxlate.base.array_types import AnyArray
from voxlate.base.errors import BadInput, first_of, known_name
from voxlate.base.executors.case_work import Progress, no_report
from voxlate.base.files import PHANTOMS, lock, read_json, write_json, write_text
from voxlate.base.machine import cores
from voxlate.base.messages import Say, message
from voxlate.base.option import merge
from voxlate.scans.cohorts.split import check_size
from voxlate.scans.formats.io import write_volume
from voxlate.scans.images.grid import Volume
from voxlate.scans.images.mask import largest
from voxlate.scans.images.units import unit_of

TABLE = "cases.csv"  # which `prepare` reads
AIR_HU = -1000
ALL_MAPS = "maps"
OF_REAL_CT = (*PROTOCOLS, "ct")
MOST_THREADS = 4  # each thread holds one head in memory


def write_cohort(
    out: Path,
    options: PhantomOptions | None = None,
    *,
    progress: Progress = no_report,
    say: Say = no_report,
    **changes: Any,
) -> list[Path]:
    """Write `OUT/phantom_000/t1.nii.gz` and so on, the label maps `seg` and `lesion`, and `phantom.json`.

    changes: fields of the options. size: voxels in x, y, z. modalities: None stands for all images; maps of tissue
    parameters (maps.MAPS) are written where they are named, "maps" stands for all of them. stripped: set voxels outside the brain to 0, as BraTS
    does. labels: label maps, each of which becomes several cases by
    variation (anatomy.mapped_head); `cases.csv` states from which map each case is. ct: real CTs, whose MR is drawn
    (anatomy.real_ct). progress is called with (cases done, cases), say with a message on what was not drawn. Cases that exist are kept. Returns the case folders.
    Raises BadInput if `out` holds another cohort or a setting is wrong.
    """
    asked = merge(PhantomOptions, options, changes)
    images = MODALITIES if asked.ct is None else OF_REAL_CT
    named = asked.modalities or images
    expanded = chain.from_iterable(MAPS if name == ALL_MAPS else [name] for name in named)
    wanted = tuple(dict.fromkeys(expanded))
    for name in wanted:
        known_name("--modalities", "an image or a map", name, (*images, *MAPS, ALL_MAPS))
    bodies = bodies_of(asked, say)
    cases = asked.cases or bodies.cases

    def _write(case: int) -> Path:
        folder = out / bodies.name(case)
        names = (*wanted, "seg", "lesion")
        missing = [name for name in names if not (folder / f"{name}.nii.gz").exists()]
        if missing:
            lesion = bodies.kind(case) if asked.lesion == "mixed" else asked.lesion
            head = bodies.make(case, lesion)
            if not np.isin(head.labels, BRAIN).any():
                if asked.stripped:
                    raise BadInput(
                        f"{folder.name}: expected a brain for --stripped, found none in its label map. Remove --stripped."
                    )
                if asked.lesion in ("tumour", "stroke"):
                    without_brain.append(folder.name)
            brain = largest(np.isin(head.labels, INTRACRANIAL)) if asked.stripped else None
            _write_case(folder, head, missing, brain)
        return folder

    folders = []
    without_brain = list[str]()
    with lock(out):
        own = {name: getattr(asked, name) for name in ("seed", "lesion", "stripped")}
        _claim(out, {**own, **bodies.settings}, bodies.description)
        if bodies.files:
            patients = {bodies.name(k): bodies.patient(k) for k in range(cases)}
            _list_cases(out, patients)
            if len({*patients.values()}) == 1:
                for warning in check_size(dict.fromkeys(patients.values(), "train")):
                    say(warning)
        # Threads suffice because numpy and gzip release the GIL.
        with ThreadPoolExecutor(min(cores(), MOST_THREADS)) as pool:
            for folder in pool.map(_write, range(cases)):
                folders.append(folder)
                progress(len(folders), cases)
    if without_brain:
        text = f"{first_of(without_brain)}: no lesion was drawn, because the label map shows no brain of {LEAST_BRAIN_ML:g} ml or more."
        say(message("no-brain", text))
    return folders


def _list_cases(out: Path, patients: dict[str, str]) -> None:
    """Write the label map of each case, before the first one, so that a stopped command leaves it; earlier rows stay."""
    path = out / TABLE
    rows = path.read_text().splitlines()[1:] if path.is_file() else []
    rows = list(
        dict.fromkeys([*rows, *(f"{case},{patient}" for case, patient in patients.items())])
    )
    write_text(path, "\n".join(["case,patient", *rows, ""]))


def _claim(out: Path, settings: dict[str, Any], description: dict[str, Any]) -> None:
    """Write `phantom.json`; raises BadInput if there are cases with other settings."""
    note = out / PHANTOMS
    if not note.exists() or not any(out.glob("*/seg.nii.gz")):
        write_json(note, {**settings, **description, "sources": SOURCES})
        return
    stated = read_json(note)
    for name, value in settings.items():
        if stated.get(name) != value:
            raise BadInput(
                f"{note}: expected a cohort with {name} {value}, found {name} {stated.get(name)}. Choose another folder, or the same settings to continue this one."
            )


def _write_case(folder: Path, head: Head, names: Sequence[str], inside: AnyArray | None) -> None:
    """Write images and label maps of a case; inside: outside of it images are empty."""
    for name in names:
        unit = unit_of(name)
        if name in ("seg", "lesion"):
            data = head.labels if name == "seg" else head.lesion_map
        else:
            data = tissue_map(head, name) if name in MAPS else image(head, name)
            if inside is not None:
                data = np.where(inside, data, AIR_HU if unit == "HU" else 0)
        volume = Volume(data[None].astype(np.float32), head.affine, unit, name)
        write_volume(folder / f"{name}.nii.gz", volume)
