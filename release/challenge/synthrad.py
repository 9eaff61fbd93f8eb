"""Run a model as the container of a SynthRAD challenge: /input/images/{mri,cbct,body} to /output/images/synthetic-ct.

usage: python synthrad.py RUN [--input /input] [--output /output]

Layout: SynthRAD2023/algorithm-template (base_algorithm.py, 12cc778). The scan is in images/mri (task 1) or images/cbct
(task 2), the body mask, if any, in images/body, and each synthetic CT has the name of its scan. Outside the mask it is
-1024 HU; results.json lists the files. It needs no network.
"""

import argparse
import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

import voxlate
from voxlate.base.errors import BadInput
from voxlate.scans.formats.io import read_volume, write_volume
from voxlate.scans.images.grid import same_grid
from voxlate.synthesis.model import Model

AIR_HU = -1024.0
SUFFIXES = (".mha", ".nii.gz")


def scans_of(folder: Path) -> list[Path]:
    """The scans of a challenge's input; raises BadInput where there is none."""
    for name in ("mri", "cbct"):
        found = images_in(folder / "images" / name)
        if found:
            return found
    raise BadInput(
        f"{folder}: expected scans (.mha or .nii.gz) in images/mri or images/cbct, found none. Mount the challenge's input there."
    )


def images_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*") if path.name.endswith(SUFFIXES))


def mask_for(scan: Path, masks: list[Path], scans: list[Path]) -> Path | None:
    """The mask of a scan's name, or the only mask of the only scan; None where there are no masks."""
    same = [mask for mask in masks if mask.name == scan.name]
    if same or not masks:
        return same[0] if same else None
    if len(masks) == len(scans) == 1:
        return masks[0]
    raise BadInput(
        f"{masks[0].parent}: expected a mask named {scan.name}, found {', '.join(mask.name for mask in masks)}. Name each mask as its scan."
    )


def synthesise(model: Model, scan: Path, mask: Path | None, target: Path) -> None:
    """Write the synthetic CT of a scan on its grid, -1024 HU outside the mask."""
    (source,), (name,) = model.facts.data.source, model.facts.data.target
    with tempfile.TemporaryDirectory() as folder:
        made = voxlate.synthesise(model, {source: scan}, folder, anyway=True, progress=False)
        image = read_volume(made.folders[0] / f"{name}.nii.gz", name)
    if mask is not None:
        inside = read_volume(mask, "mask")
        if not same_grid(inside.grid, image.grid):
            raise BadInput(
                f"{mask}: expected the grid of {scan.name} ({image.grid}), found {inside.grid}. Give the mask of this scan."
            )
        image = replace(image, data=np.where(inside.data > 0, image.data, np.float32(AIR_HU)))
    write_volume(target, image)


def entry(path: Path) -> dict[str, str]:
    """A file in results.json."""
    return {"type": "metaio_image", "filename": str(path)}


def main(arguments: list[str] | None = None) -> int:
    """The exit code: 0, or 1 with a sentence on what was expected."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", help="folder of the model, or starter:NAME")
    parser.add_argument("--input", type=Path, default=Path("/input"))
    parser.add_argument("--output", type=Path, default=Path("/output"))
    asked = parser.parse_args(arguments)
    try:
        scans = scans_of(asked.input)
        masks = images_in(asked.input / "images" / "body")
        model = voxlate.load(asked.run)
        written = []
        for scan in scans:
            mask = mask_for(scan, masks, scans)
            target = asked.output / "images" / "synthetic-ct" / scan.name
            target.parent.mkdir(parents=True, exist_ok=True)
            synthesise(model, scan, mask, target)
            inputs = [entry(path) for path in (scan, mask) if path]
            outputs = [entry(target)]
            written.append({"outputs": outputs, "inputs": inputs, "error_messages": []})
        (asked.output / "results.json").write_text(json.dumps(written, indent=1) + "\n")
    except BadInput as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
