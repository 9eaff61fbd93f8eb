"""Writes the reference of a starter: fingerprints of usual scans, drawn and real, from which a stranger's scan is measured.

    python benchmarks/starter_references.py STARTER PREPARED --maps FOLDER [--real NAME=FILE …]

A starter of any contrast is given label maps drawn as ordinary scans (--maps), because its training holds far stranger ones;
others are given the drawn scans of their training (PREPARED). --real: scans whose licence allows it, by modality.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy import ndimage

from starter_heads import PROTOCOLS, drawn_pairs
from voxlate.anatomy.contrast import Protocol
from voxlate.base.groups import grouped
from voxlate.checks.fingerprint import Fingerprint, fingerprint
from voxlate.scans.cases.prepared import open_cohort
from voxlate.scans.formats.io import read_volume
from voxlate.synthesis.scan_checks import KnownScans, read_known_scans, references_of
from voxlate.training.load import load
from voxlate.training.recipe import Recipe
from voxlate.training.run import Run
from voxlate.training.torch_network import network_of

ORDINARY = PROTOCOLS | {
    "flair": Protocol("flair", 9000, 120, 2400, 90),
    "gre": Protocol("gradient_echo", 30, 5, 0, 25),
}
SHADING = 0.15  # standard deviation of the logarithm of a coil's gain

Scans = Iterator[tuple[str, str, Fingerprint]]


def ordinary(maps: Path) -> Scans:
    """Modality, patient and fingerprint of label maps as ordinary scans of five contrasts and two thicknesses."""
    for name, mr, _, _ in drawn_pairs(maps, protocols=ORDINARY):
        rng = np.random.default_rng([*name.encode()])
        gains = rng.normal(0, SHADING, (3, 4, 4))
        shape = mr.data[0].shape
        field = ndimage.zoom(gains, [n / k for n, k in zip(shape, gains.shape)], order=3)
        mr.data[0] *= np.exp(field)
        yield "mr", name.split()[0], fingerprint(mr)


def trained(recipe: Recipe, prepared: Path) -> Scans:
    """The same of the drawn scans of a training."""
    cohort = recipe.with_maps_of(open_cohort(prepared))
    for case in (*cohort.splits["train"], *cohort.splits["val"]):
        opened = cohort.case(case)
        for name in recipe.data.source:
            yield name, opened.header.patient, fingerprint(opened.volume(name))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("starter", type=Path)
    parser.add_argument("prepared", type=Path)
    parser.add_argument("--maps", type=Path)
    parser.add_argument("--real", nargs="*", default=[])
    arguments = parser.parse_args()
    recipe = network_of(load(arguments.starter, "cpu")).recipe
    scans = [*(ordinary(arguments.maps) if arguments.maps else trained(recipe, arguments.prepared))]
    for pair in arguments.real:
        name, _, file = pair.partition("=")
        scans.append((name, file, fingerprint(read_volume(Path(file), name))))
    references = references_of(grouped((name, (patient, scan)) for name, patient, scan in scans))
    path = Run(arguments.starter).anatomy
    earlier = read_known_scans(path)
    KnownScans(earlier.backgrounds, earlier.beyond, references).save(path)


if __name__ == "__main__":
    main()
