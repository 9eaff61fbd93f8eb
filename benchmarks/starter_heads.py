"""How well head-mr-to-ct finds the bone of heads that are drawn on held-out label maps: a table of Dice.

    python benchmarks/starter_heads.py MAPS [--starter starter:head-mr-to-ct] [--variations 1] [--write FILE]

MAPS: label maps of whole heads (SynthSeg's labels) that did not train the starter. Each variation is imaged in four contrasts,
at three fields and in slices of three thicknesses, with noise; CT is synthesised from each image and compared with the
head's own CT. Bone is what has more than 250 HU. Thirds are those of the head's height. Air called bone: the share of internal
air in the lower two thirds that becomes bone.
"""

import argparse
import json
from collections import defaultdict
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from voxlate.anatomy.acquisition import rician
from voxlate.anatomy.contrast import Protocol, magnitude
from voxlate.anatomy.head import Head
from voxlate.anatomy.label_map import read_label_map
from voxlate.anatomy.label_table import read_table
from voxlate.anatomy.mapped_head import make_mapped_head
from voxlate.anatomy.maps import MAPS, tissue_map
from voxlate.anatomy.scanner import image
from voxlate.anatomy.sequences import FREE_WATER_T1_MS, FULL_SCALE, null_time_ms
from voxlate.anatomy.tissue import Label
from voxlate.scans.images.grid import Volume
from voxlate.scans.images.slice_profile import margin, through_plane
from voxlate.synthesis.model import Model
from voxlate.training.load import load

PROTOCOLS = {
    "t1": Protocol("mprage", 2300, 3, 900, 9),
    "t2": Protocol("spin_echo", 5000, 100, 0, 90),
    "flair": Protocol("flair", 9000, 120, null_time_ms(FREE_WATER_T1_MS, 9000), 90),
    "pd": Protocol("spin_echo", 3000, 15, 0, 90),
}
FIELDS_T = (1.5, 3.0, 7.0)
SLICES_MM = (1.333, 3.0, 6.0)
SPACING_MM = (1.0, 1.0, 1.333)
BONE_HU = 250.0
NOISE = 0.02  # of the brightest tissue
SEED = 7  # no starter was trained with it


def mr_of(head: Head, maps: dict[str, np.ndarray], protocol: Protocol, slice_mm: float) -> Volume:
    """The image of a head in a sequence, with noise, in slices of a thickness on the head's own grid."""
    signal = np.where(maps["pd_map"] > 0, FULL_SCALE * magnitude(protocol, maps), 0)
    signal = thick(signal.astype(np.float32), slice_mm, head.spacing_mm[0])
    rng = np.random.default_rng([head.case, round(10 * protocol.field_t), round(10 * slice_mm)])
    noisy = rician(signal, NOISE * float(np.percentile(signal, 99)), rng)
    return Volume(noisy[None], head.affine, "a.u.", "mr")


def thick(values: np.ndarray, slice_mm: float, spacing_mm: float) -> np.ndarray:
    """Means over a slice's thickness around each slice."""
    reach = margin(slice_mm, spacing_mm)
    padded = np.pad(values, ((reach, reach), (0, 0), (0, 0)), mode="edge")
    return through_plane(padded, slice_mm, spacing_mm)


def dice(a: np.ndarray, b: np.ndarray) -> float:
    """The Dice coefficient of two masks."""
    return float(2 * (a & b).sum() / max(a.sum() + b.sum(), 1))


def scores_of(head: Head, ct: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Dice of bone, whole and by third from below, its volume relative to the true one, and the air called bone."""
    made, real = ct > BONE_HU, truth > BONE_HU
    parts = [
        slice(*ends)
        for ends in np.linspace(0, len(ct), 4).astype(int).repeat(2)[1:-1].reshape(3, 2)
    ]
    low, middle, high = (dice(made[part], real[part]) for part in parts)
    lower = slice(0, 2 * len(ct) // 3)
    air = (head.labels[lower] == Label.SINUS) & (truth[lower] < -700)
    return {
        "bone": dice(made, real),
        "low": low,
        "middle": middle,
        "high": high,
        "volume": float(made.sum() / max(real.sum(), 1)),
        "air": float(made[lower][air].mean()) if air.any() else 0.0,
    }


def rows_of(model: Model, path: Path, variation: int) -> list[dict[str, Any]]:
    """A row for each contrast, field and thickness of one head."""
    head = make_mapped_head(
        read_label_map(path, read_table("synthseg"), path.name), SEED, variation, SPACING_MM
    )
    maps = {name: tissue_map(head, name) for name in MAPS}
    clean = image(head, "ct")
    rows = []
    for (name, protocol), field_t, slice_mm in product(PROTOCOLS.items(), FIELDS_T, SLICES_MM):
        own = Protocol(**{**vars(protocol), "field_t": field_t})
        scan = mr_of(head, maps, own, slice_mm)
        made = model.synthesise({"mr": scan}, case=path.stem, warn=lambda _: None, anyway=True)
        truth = thick(clean, slice_mm, head.spacing_mm[0])
        scores = scores_of(head, made.volumes["ct"].data[0], truth)
        row = {
            "head": path.name,
            "contrast": name,
            "field_t": field_t,
            "slice_mm": slice_mm,
            **scores,
        }
        print(json.dumps(row), flush=True)
        rows.append(row)
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Mean Dice by contrast and thickness, over heads and fields, as Markdown."""
    found = defaultdict(list)
    for row in rows:
        found[row["contrast"], row["slice_mm"]].append(row)
    keys = ("bone", "low", "middle", "high", "volume", "air")
    lines = [f"| contrast, slice | {' | '.join(keys)} |", "|---" * 7 + "|"]
    for (contrast, slice_mm), own in found.items():
        values = " | ".join(f"{mean(row[key] for row in own):.3f}" for key in keys)
        lines.append(f"| {contrast}, {slice_mm:g} mm | {values} |")
    total = " | ".join(f"{mean(row[key] for row in rows):.3f}" for key in keys)
    return "\n".join([*lines, f"| all | {total} |"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("maps", type=Path)
    parser.add_argument("--starter", default="starter:head-mr-to-ct")
    parser.add_argument("--variations", type=int, default=1)
    parser.add_argument("--write", type=Path)
    arguments = parser.parse_args()
    model = load(arguments.starter)
    rows = []
    for path, variation in product(
        sorted(arguments.maps.glob("*.nii.gz")), range(arguments.variations)
    ):
        rows += rows_of(model, path, variation)
    print(table(rows))
    if arguments.write:
        arguments.write.write_text("".join(json.dumps(row) + "\n" for row in rows))


if __name__ == "__main__":
    main()
