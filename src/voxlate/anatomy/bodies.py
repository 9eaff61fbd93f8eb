"""What a cohort of phantoms is drawn from: simulated heads, or variations of label maps."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from voxlate.anatomy.anatomy import LesionKind
from voxlate.anatomy.diseases import LesionShape
from voxlate.anatomy.head import FIELD_MM, Head, make_head
from voxlate.anatomy.label_map import LEAST_MM, MOST_MM, read_label_map, read_lesion
from voxlate.anatomy.label_table import LabelTable, read_table
from voxlate.anatomy.mapped_head import make_mapped_head
from voxlate.anatomy.options import PhantomOptions, tables
from voxlate.anatomy.tissue import BRAIN, Label
from voxlate.base.errors import BadInput
from voxlate.base.files import safe_name
from voxlate.scans.formats.io import content_hash, is_picture, scan_endings, without_ending

SIZE = (96, 96, 48)  # of simulated heads
KEPT_MAPS = 4
LESION_MAP = {
    "tumour": {"necrosis": 1, "oedema": 2, "enhancing rim": 3, "other": 4},
    "stroke": {"core": 1, "penumbra": 2},
    "none": {},
}
MIXED: tuple[LesionKind, ...] = ("tumour", "stroke", "none")  # a small cohort has each of them
_SOURCES = "Constants and equations with their literature: voxlate.anatomy.tissue and .signal."


@dataclass(frozen=True)
class Bodies:
    """The bodies of a cohort.

    make: a body by the case's number and the kind of its lesion; name: its folder; kind: its lesion where kinds are mixed;
    patient: of which label map it is, None where each is another body. settings: what a cohort that is continued must have
    in common; description: further facts for `phantom.json`.
    """

    make: Callable[[int, LesionKind], Head]
    name: Callable[[int], str]
    kind: Callable[[int], LesionKind]
    settings: dict[str, Any]
    description: dict[str, Any]
    patient: Callable[[int], str] | None = None


def simulated(asked: PhantomOptions) -> Bodies:
    """Heads that are drawn from seeds; raises BadInput for a size that cannot be drawn, and options of label maps."""
    size = asked.size or SIZE
    if len(size) != 3 or min(size) < 8 or max(size) > 1024:
        given = " ".join(map(str, size))
        raise BadInput(
            f"size: expected three numbers of voxels (x y z) from 8 to 1024, found {given}. Try 128 128 64."
        )
    for name, value in (("--tissues", asked.tissues), ("--spacing", asked.spacing_mm)):
        if value is not None:
            raise BadInput(
                f"{name}: expected --labels with it, found none. Name the label maps, or remove {name}."
            )
    lesions = _Lesions(asked)
    return Bodies(
        lambda case, lesion: make_head(asked.seed, case, size, lesion, lesions.of(case, lesion)),
        lambda case: f"phantom_{case:03d}",
        lambda case: MIXED[case % len(MIXED)],
        {"size": list(size), **lesions.settings},
        {
            "what": "Simulated heads, computed from equations without data of any patient.",
            "field_mm": list(FIELD_MM),
            "spacing_mm": [field / n for field, n in zip(FIELD_MM, size)],
            "seg": {label.name.lower(): int(label) for label in Label},
            "lesion_map": LESION_MAP,
            "sources": _SOURCES,
        },
    )


def label_bodies(asked: PhantomOptions) -> Bodies:
    """Variations of label maps; raises BadInput where there are none, or without a table of their tissues."""
    table, maps = _table(asked), _find_maps(Path(asked.labels or ""), "--labels")
    names = list(maps)
    lesions = _Lesions(asked)
    # few maps are read once for all their variations; many are not kept
    read = lru_cache(KEPT_MAPS)(lambda name: read_label_map(maps[name], table, name))

    def _make(case: int, lesion: LesionKind) -> Head:
        name = names[case % len(names)]
        body = read(name)
        shape = lesions.of(case, lesion)
        head = make_mapped_head(body, asked.seed, case, asked.spacing_mm, lesion, shape)
        if asked.stripped and not np.isin(head.labels, BRAIN).any():
            raise BadInput(
                f"{maps[name]}: expected a brain for --stripped, found none. Remove --stripped."
            )
        return head

    return Bodies(
        _make,
        lambda case: f"{names[case % len(names)]}_{case // len(names):03d}",
        # Each map has each kind in turn, also where their numbers have a common factor.
        lambda case: MIXED[(case + case // len(names)) % len(MIXED)],
        {
            "label_maps": {name: content_hash(path)[:16] for name, path in maps.items()},
            "tissues": table.name,
            "table": table.digest,
            "spacing_mm": list(asked.spacing_mm) if asked.spacing_mm else None,
            **lesions.settings,
        },
        {
            "what": "Simulated scans, computed from equations on the anatomy of label maps.",
            "seg": table.names,
            "lesion_map": LESION_MAP,
            "sources": _SOURCES,
        },
        lambda case: names[case % len(names)],
    )


class _Lesions:
    """The label maps of --lesions, of which a case with a tumour takes one."""

    def __init__(self, asked: PhantomOptions) -> None:
        given = asked.lesions
        if given is not None and asked.lesion not in ("tumour", "mixed"):
            raise BadInput(
                f"--lesions: expected --lesion tumour or mixed with it, found {asked.lesion}. Change it, or remove --lesions."
            )
        self.seed = asked.seed
        self.maps = {} if given is None else _find_maps(Path(given), "--lesions")
        self.table = None if given is None else read_table(asked.lesion_tissues)

    @property
    def settings(self) -> dict[str, Any]:
        """What a cohort that is continued must have in common."""
        hashes = {name: content_hash(path)[:16] for name, path in self.maps.items()}
        return {"lesions": hashes, "lesion_table": self.table.digest if self.table else None}

    def of(self, case: int, lesion: LesionKind) -> LesionShape | None:
        """The lesion of a case; None where a drawn one, or none, is asked for."""
        if self.table is None or lesion != "tumour":
            return None
        number = np.random.default_rng([self.seed, case, 2]).integers(len(self.maps))
        return read_lesion(list(self.maps.values())[number], self.table)


def _table(asked: PhantomOptions) -> LabelTable:
    """The table that the options name; raises BadInput for options of simulated heads."""
    if asked.tissues is None:
        raise BadInput(
            f"--labels: expected --tissues with the tissues of the labels, found none. Add --tissues with one of {', '.join(tables())}, or a TOML file."
        )
    if asked.size is not None:
        raise BadInput(
            "--size: expected no --size with --labels, whose maps have a size, found it. Remove it; --spacing sets the voxels."
        )
    spacing = asked.spacing_mm
    if spacing is not None and not (LEAST_MM <= min(spacing) <= max(spacing) <= MOST_MM):
        given = " ".join(f"{step:g}" for step in spacing)
        raise BadInput(
            f"--spacing: expected three voxel sizes from {LEAST_MM:g} to {MOST_MM:g} mm, found {given}. Try 1 1 1."
        )
    return read_table(asked.tissues)


def _find_maps(folder: Path, option: str) -> dict[str, Path]:
    """The label maps of a folder, or the one that a path names, by names for their cases; hidden files and pictures do not count."""
    if not folder.exists():
        raise BadInput(
            f"{option}: expected a label map or a folder, found no {folder}. Correct it."
        )
    if folder.is_file():
        return {safe_name(without_ending(folder.name), folder): folder}
    endings = tuple(scan_endings())
    maps = dict[str, Path]()
    for path in sorted(folder.rglob("*")):
        hidden = path.name.startswith(".") or is_picture(path)
        if hidden or not path.name.lower().endswith(endings):
            continue
        parts = "_".join(path.relative_to(folder).parts)
        name = safe_name(without_ending(parts), path)
        if name in maps:
            raise BadInput(
                f"{path}: expected a name of its own for each label map, found that of {maps[name]} ({name}). Rename one."
            )
        maps[name] = path
    if not maps:
        raise BadInput(
            f"{folder}: expected label maps ({', '.join(endings)}), found none. Name the folder that holds them."
        )
    return maps
