"""How right the bone and the air of head-mr-to-ct are: the rulers by which its weights are chosen, as a table.

    python benchmarks/starter_heads.py [--starter starter:head-mr-to-ct] [--maps FOLDER] [--pair FOLDER] [--variations N]

--maps: label maps of whole heads (SynthSeg's labels) that trained nothing. Each is drawn N times, and imaged as T1, T2, FLAIR
and PD in thin slices and in slices of 5 mm. --pair: a folder with mr_t1.nii.gz and ct_on_mr.nii.gz, a real head whose CT shows
bone and air rightly, whatever its HU, and its drawn twins as T2 and FLAIR. Bone is what has more than 250 HU, air what has less than
-300 HU inside the body, cortical the densest third of true bone. Each error has its opposite beside it: air that became bone, and bone that became air.
"""

import argparse
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import chain, product
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage
from skimage.morphology import convex_hull_image

from voxlate.anatomy.contrast import FULL_SCALE, Protocol, magnitude
from voxlate.anatomy.label_map import read_label_map, read_table
from voxlate.anatomy.mapped_head import make_mapped_head
from voxlate.anatomy.physics import rician
from voxlate.anatomy.shapes import Triple
from voxlate.anatomy.signal import MAPS, image, tissue_map
from voxlate.scans.formats.io import read_volume
from voxlate.scans.images.grid import Volume, canonical
from voxlate.scans.images.mask import foreground
from voxlate.synthesis.model import Model
from voxlate.synthesis.provenance import Synthesised
from voxlate.training.load import load

PROTOCOLS = {
    "t1": Protocol("mprage", 2300, 3, 900, 9),
    "t2": Protocol("spin_echo", 5000, 100, 0, 90),
    "flair": Protocol("flair", 9000, 120, 2500, 90),
    "pd": Protocol("spin_echo", 3000, 15, 0, 90),
}
# By contrast the signal at values of T1 over the brain's median, of the brain (fluid has 0.55, white matter 1.15) and of all else
# (muscle has 0.9, fat 1.8).
TWINS = {
    "t2": (
        ([0, 0.2, 0.55, 0.9, 1.15, 1.5], [0.05, 0.3, 1, 0.5, 0.35, 0.4]),
        ([0, 0.3, 0.9, 1.3, 1.8, 2.5], [0.03, 0.1, 0.2, 0.35, 0.6, 0.75]),
    ),
    "flair": (
        ([0, 0.2, 0.55, 0.7, 0.9, 1.15, 1.5], [0.05, 0.1, 0.12, 0.4, 0.6, 0.5, 0.4]),
        ([0, 0.3, 0.9, 1.3, 1.8, 2.5], [0.03, 0.1, 0.25, 0.35, 0.5, 0.6]),
    ),
}
HULL_PIXELS = 6  # from the hull of the vault to the brain
STEPS = (1, 4)  # slices that are averaged into one: 1.333 and 5.3 mm
SPACING_MM = (1.0, 1.0, 1.333)
BONE_HU, AIR_HU = 250.0, -300.0
CORTICAL = 200 / 3  # percentile of true bone from which it is the densest third
BASE_MM = -25.0  # height of the orbits in the phantoms' coordinates, below which the base of the skull and the face lie
BASE_SLICE = 13  # the same of the real head
NOISE = 0.02  # of the brightest tissue
SEED = 7  # no starter was trained with it


def drawn_pairs(
    maps: Path, variations: int = 2, protocols: Mapping[str, Protocol] = PROTOCOLS
) -> Iterator[tuple[str, Volume, Volume, int]]:
    """Name, MR, CT and the first slice of the vault of variations of label maps."""
    for path, number in product(sorted(maps.glob("*.nii.gz")), range(variations)):
        body = read_label_map(path, read_table("synthseg"), path.name)
        head = make_mapped_head(body, SEED, number, SPACING_MM)
        tissues = {name: tissue_map(head, name) for name in MAPS}
        clean = image(head, "ct")
        for (contrast, protocol), step in product(protocols.items(), STEPS):
            signal = np.where(tissues["pd_map"] > 0, FULL_SCALE * magnitude(protocol, tissues), 0)
            signal, ct = (thick(values.astype(np.float32), step) for values in (signal, clean))
            rng = np.random.default_rng([head.case, step])
            mr = rician(signal, NOISE * float(np.percentile(signal, 99)), rng)
            affine = head.affine.copy()
            affine[:3, 3] += (step - 1) / 2 * affine[:3, 2]
            affine[:3, 2] *= step
            first = int((BASE_MM - affine[2, 3]) / affine[2, 2])
            name = f"{path.name[:7]}.{number} {contrast} {step * SPACING_MM[2]:.1f} mm"
            yield (
                name,
                Volume(mr[None], affine, "a.u.", "mr"),
                Volume(ct[None], affine, "HU", "ct"),
                max(first, 1),
            )


def thick(values: np.ndarray, step: int) -> np.ndarray:
    """Means of `step` slices each."""
    count = len(values) // step
    return values[: count * step].reshape(count, step, *values.shape[1:]).mean(1)


def real_pair(folder: Path) -> tuple[str, Volume, Volume, int]:
    """The real head."""
    mr = canonical(read_volume(folder / "mr_t1.nii.gz", "mr"))
    ct = canonical(read_volume(folder / "ct_on_mr.nii.gz", "ct"))
    return f"{folder.name} t1", mr, ct, BASE_SLICE


def twins(
    name: str, mr: Volume, ct: Volume, first: int
) -> Iterator[tuple[str, Volume, Volume, int]]:
    """The real head as drawn T2 and FLAIR: another signal for each value of its T1, in the brain and beyond.

    The brain is what the hull of the vault holds; bone, air, edges and thickness of slices stay the real ones.
    """
    t1, bone = mr.data[0], ct.data[0] > BONE_HU
    inside = np.zeros(t1.shape)
    for z in range(first, len(t1)):
        if bone[z].any():
            hull = ndimage.binary_erosion(convex_hull_image(bone[z]), iterations=HULL_PIXELS)
            inside[z] = hull & ~bone[z]
    relative = t1 / np.median(t1[inside > 0])
    share = ndimage.gaussian_filter(inside, (0, 1, 1))
    for contrast, (of_brain, of_others) in TWINS.items():
        brain, others = (np.interp(relative, *of) for of in (of_brain, of_others))
        signal = share * brain + (1 - share) * others
        image = rician(signal.astype(np.float32), NOISE, np.random.default_rng(SEED))
        yield f"{name.split()[0]} {contrast}-like", replace(mr, data=1000 * image[None]), ct, first


def dice(a: np.ndarray, b: np.ndarray) -> float:
    """The Dice coefficient of two masks."""
    return float(2 * (a & b).sum() / max(a.sum() + b.sum(), 1))


def synthesised(model: Model, name: str, mr: Volume) -> Synthesised:
    """The images of a head, whatever its checks say."""
    case = name.split()[0]
    return model.synthesise({"mr": mr}, case=case, warn=lambda _: None, anyway=True)


def scores_of(made: Synthesised, mr: Volume, ct: Volume, first: int) -> dict[str, float]:
    """The scores of a head in the body that both show; first: the first slice of the vault."""
    image, truth = made.volumes["ct"].data[0], ct.data[0]
    body = (foreground(mr) & foreground(ct)).reshape(truth.shape)
    bone, air = (truth > BONE_HU) & body, (truth < AIR_HU) & body
    found = (image > BONE_HU) & body
    vault, base = slice(first, None), slice(0, first)
    tissues = {"bone": bone, "soft": body & ~bone & ~air, "air": air}
    error = np.abs(image - truth)
    scores = {
        "bone": dice(found, bone),
        "vault": dice(found[vault], bone[vault]),
        "base": dice(found[base], bone[base]),
        "vault volume": float(found[vault].sum() / max(bone[vault].sum(), 1)),
        "base volume": float(found[base].sum() / max(bone[base].sum(), 1)),
        "air called bone": float((found & air).sum() / max(air.sum(), 1)),
        "bone called air": float((bone & (image < AIR_HU)).sum() / max(bone.sum(), 1)),
        "MAE": float(error[body].mean()),
    }
    scores |= {f"MAE {name}": float(error[part].mean()) for name, part in tissues.items()}
    cortical = bone & (truth >= np.percentile(truth[bone], CORTICAL))
    scores["cortical"] = float(image[cortical].mean() / truth[cortical].mean())
    scores["surface mm"], scores["surface 95 % mm"] = surface_mm(found, bone, ct.grid.spacing_mm)
    if made.low:
        low, high = made.low["ct"].data[0], made.high["ct"].data[0]
        holds = (low <= truth) & (truth <= high)
        scores |= {
            f"holds {name}": float(holds[part].mean())
            for name, part in ({"body": body} | tissues).items()
        }
    return scores


def surface_mm(found: np.ndarray, true: np.ndarray, spacing_mm: Triple) -> tuple[float, float]:
    """The mean and the 95th percentile of the distances of both surfaces' voxels to the other surface."""
    surfaces = [mask & ~ndimage.binary_erosion(mask) for mask in (found, true)]
    if not all(surface.any() for surface in surfaces):
        return float("nan"), float("nan")
    away = [ndimage.distance_transform_edt(~one, sampling=spacing_mm) for one in surfaces]
    distances = np.concatenate([away[1][surfaces[0]], away[0][surfaces[1]]])
    return float(distances.mean()), float(np.percentile(distances, 95))


def table(rows: list[dict[str, Any]]) -> str:
    """The scores as Markdown, with the mean over drawn heads last."""
    keys = [key for key in rows[0] if key != "head"]
    lines = [f"| head | {' | '.join(keys)} |", "|---" * (len(keys) + 1) + "|"]
    drawn = [row for row in rows if row["head"].endswith("mm")]
    if drawn:
        rows = [*rows, {"head": "drawn", **{k: np.mean([r[k] for r in drawn]) for k in keys}}]
    for row in rows:
        lines.append(f"| {row['head']} | {' | '.join(f'{row[key]:.3f}' for key in keys)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--starter", default="starter:head-mr-to-ct")
    parser.add_argument("--maps", type=Path)
    parser.add_argument("--pair", type=Path)
    parser.add_argument("--variations", type=int, default=2)
    arguments = parser.parse_args()
    model = load(arguments.starter)
    real = real_pair(arguments.pair) if arguments.pair else None
    heads = [real, *twins(*real)] if real else []
    drawn = drawn_pairs(arguments.maps, arguments.variations) if arguments.maps else iter(())
    rows = []
    for name, mr, ct, first in chain(heads, drawn):
        rows.append({"head": name, **scores_of(synthesised(model, name, mr), mr, ct, first)})
        print(json.dumps(rows[-1]), flush=True)
    print(table(rows))


if __name__ == "__main__":
    main()
