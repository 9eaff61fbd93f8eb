"""A cohort of phantom patients as files, in the layout that `prepare` reads without any option.

It is drawn from the package's own label maps, or those of a user.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from voxlate.anatomy.diseases import LesionKind
from voxlate.anatomy.label_map import LabelMap, read_label_map, read_table
from voxlate.anatomy.mapped_head import SHIPPED_HEADS, make_head, make_mapped_head
from voxlate.anatomy.phantom_options import PhantomOptions, tables
from voxlate.anatomy.signal import MAPS, MODALITIES, Head, image, tissue_map
from voxlate.anatomy.tissue import INTRACRANIAL, Label
from voxlate.base.array_types import AnyArray
from voxlate.base.errors import BadInput, known_name
from voxlate.base.executors.case_work import Progress, no_report
from voxlate.base.files import PHANTOMS, lock, read_json, safe_name, write_json, write_text
from voxlate.base.machine import cores
from voxlate.base.option import flag_of, merge
from voxlate.scans.cohorts.case_files import plain_name
from voxlate.scans.formats.io import (
    content_hash,
    is_picture,
    scan_endings,
    without_ending,
    write_volume,
)
from voxlate.scans.images.grid import Volume
from voxlate.scans.images.mask import largest
from voxlate.scans.images.units import unit_of

SIZE = (96, 96, 48)  # of simulated heads
KEPT_MAPS = 4
LESION_MAP = {
    "tumour": {"necrosis": 1, "oedema": 2, "enhancing rim": 3},
    "stroke": {"core": 1, "penumbra": 2},
    "none": {},
}
MIXED: tuple[LesionKind, ...] = ("tumour", "stroke", "none")  # a small cohort has each of them
SOURCES = "Constants and equations with their literature: voxlate.anatomy.tissue and .signal."
TABLE = "cases.csv"  # which `prepare` reads
AIR_HU = -1000
ALL_MAPS = "maps"
MOST_THREADS = 4  # each thread holds one head in memory


def write_cohort(
    out: Path,
    options: PhantomOptions | None = None,
    *,
    progress: Progress = no_report,
    **changes: Any,
) -> list[Path]:
    """Write `OUT/phantom_000/t1.nii.gz` and so on, the label maps `seg` and `lesion`, and `phantom.json`.

    changes: fields of the options. size: voxels in x, y, z. modalities: None stands for all images; maps of tissue
    parameters (maps.MAPS) are written where they are named, "maps" stands for all of them. stripped: set voxels outside the brain to 0, as BraTS
    does. labels: label maps, each of which becomes several cases by
    variation (anatomy.mapped_head); `cases.csv` states from which map each case is. progress is called with (cases done, cases).
    Cases that exist are kept. Returns the case folders.
    Raises BadInput if `out` holds another cohort or a setting is wrong.
    """
    asked = merge(PhantomOptions, options, changes)
    named = asked.modalities or MODALITIES
    expanded = chain.from_iterable(MAPS if name == ALL_MAPS else [name] for name in named)
    wanted = tuple(dict.fromkeys(expanded))
    for name in wanted:
        known_name("--modalities", "an image or a map", name, (*MODALITIES, *MAPS, ALL_MAPS))
    bodies = bodies_of(asked)

    def _write(case: int) -> Path:
        folder = out / bodies.name(case)
        names = (*wanted, "seg", "lesion")
        missing = [name for name in names if not (folder / f"{name}.nii.gz").exists()]
        if missing:
            lesion = bodies.kind(case) if asked.lesion == "mixed" else asked.lesion
            head = bodies.make(case, lesion)
            brain = largest(np.isin(head.labels, INTRACRANIAL)) if asked.stripped else None
            _write_case(folder, head, missing, brain)
        return folder

    folders = []
    with lock(out):
        own = {name: getattr(asked, name) for name in ("seed", "lesion", "stripped")}
        _claim(out, {**own, **bodies.settings}, bodies.description)
        if bodies.files:
            _list_cases(out, [f"{bodies.name(k)},{bodies.patient(k)}" for k in range(asked.cases)])
        # Threads suffice because numpy and gzip release the GIL.
        with ThreadPoolExecutor(min(cores(), MOST_THREADS)) as pool:
            for folder in pool.map(_write, range(asked.cases)):
                folders.append(folder)
                progress(len(folders), asked.cases)
    return folders


def _list_cases(out: Path, rows: Sequence[str]) -> None:
    """Write the label map of each case, before the first one, so that a stopped command leaves it; earlier rows stay."""
    path = out / TABLE
    earlier = path.read_text().splitlines() if path.is_file() else []
    write_text(path, "\n".join([*dict.fromkeys(["case,patient", *earlier, *rows]), ""]))


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


@dataclass(frozen=True)
class Bodies:
    """The bodies of a cohort.

    make: a body by the case's number and the kind of its lesion. settings: what a cohort that is continued must have in
    common; description: further facts for `phantom.json`; files: the names of the label maps that become bodies in turn, none
    where those of the package do.
    """

    make: Callable[[int, LesionKind], Head]
    settings: dict[str, Any]
    description: dict[str, Any]
    files: tuple[str, ...] = ()

    def name(self, case: int) -> str:
        """The folder of a case."""
        return (
            f"{self.patient(case)}_{self._turn(case):03d}" if self.files else f"phantom_{case:03d}"
        )

    def patient(self, case: int) -> str:
        """The label map of a case."""
        return self.files[case % len(self.files)]

    def kind(self, case: int) -> LesionKind:
        """The lesion of a case where kinds are mixed: each file has each in turn, also where their numbers have a common factor."""
        return MIXED[(case + self._turn(case)) % len(MIXED)]

    def _turn(self, case: int) -> int:
        return case // len(self.files) if self.files else 0


def bodies_of(asked: PhantomOptions) -> Bodies:
    """The bodies that the options name; raises BadInput for options that do not fit together."""
    for name in ("tissues", "spacing_mm") if asked.labels is None else ("size",):
        if getattr(asked, name):
            situation = "without" if asked.labels is None else "with"
            raise BadInput(
                f"{flag_of(name)}: expected none {situation} --labels, found it. Remove it."
            )
    return simulated(asked) if asked.labels is None else label_bodies(asked)


def simulated(asked: PhantomOptions) -> Bodies:
    """Heads of the label maps of the package."""
    size = asked.size or SIZE

    def _make(case: int, lesion: LesionKind) -> Head:
        return make_head(asked.seed, case, size, lesion)

    return Bodies(
        _make,
        {"size": list(size), "heads": list(SHIPPED_HEADS)},
        {
            "what": "Simulated heads, computed from equations on the anatomy of label maps of SynthSeg (Apache-2.0).",
            "seg": {label.name.lower(): int(label) for label in Label},
            "lesion_map": LESION_MAP,
        },
    )


def label_bodies(asked: PhantomOptions) -> Bodies:
    """Variations of label maps; raises BadInput where there are none, or without a table of their tissues."""
    if asked.tissues is None:
        raise BadInput(
            f"--labels: expected --tissues with the tissues of the labels, found none. Add --tissues with one of {', '.join(tables())}, or a TOML file."
        )
    table = read_table(asked.tissues)
    maps = _find_maps(Path(asked.labels or ""))
    names = tuple(maps)

    # few maps are read once for all their variations; many are not kept
    @lru_cache(KEPT_MAPS)
    def _read(name: str) -> LabelMap:
        return read_label_map(maps[name], table, name)

    def _make(case: int, lesion: LesionKind) -> Head:
        body = _read(names[case % len(names)])
        return make_mapped_head(body, asked.seed, case, asked.spacing_mm, lesion)

    return Bodies(
        _make,
        {
            "label_maps": {name: content_hash(path) for name, path in maps.items()},
            "spacing_mm": list(asked.spacing_mm) if asked.spacing_mm else None,
            "table": table.digest,
        },
        {
            "what": "Simulated scans, computed from equations on the anatomy of label maps.",
            "seg": table.names,
            "lesion_map": LESION_MAP,
        },
        names,
    )


def _find_maps(place: Path) -> dict[str, Path]:
    """The label maps of a folder, or the one that a path names, by names for their cases; hidden files do not count."""
    folder = place.parent if place.is_file() else place
    files = [place] if place.is_file() else sorted(place.rglob("*"))
    endings = scan_endings()
    maps = dict[str, Path]()
    for path in files:
        is_map = path.name.lower().endswith(endings) and not is_picture(path)
        if path.name.startswith(".") or not is_map:
            continue
        stem = without_ending("_".join(path.relative_to(folder).parts))
        name = safe_name(plain_name(stem), path)
        if name in maps:
            raise BadInput(
                f"{path}: expected a name of its own for each file, found that of {maps[name]} ({name}). Rename one."
            )
        maps[name] = path
    if not maps:
        raise BadInput(
            f"--labels: expected files ({', '.join(endings)}) in {place}, found none. Name the folder that holds them."
        )
    return maps
