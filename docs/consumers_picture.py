"""The picture of docs/guides/consumers.md: one slice of a phantom's CT for each of its users, synthesised above, true below.

python docs/consumers_picture.py FOLDER     (a new folder for cohort and images); writes docs/guides/consumers.png and
prints the errors that the guide states.
"""

import sys
from pathlib import Path

import numpy as np

import voxlate
from voxlate.scans.formats.io import read_volume
from voxlate.scans.images.grid import canonical
from voxlate.scans.images.pictures import (
    pixel_mm,
    plane_of,
    shades,
    sheet_with_labels,
    square_pixels,
)

PICTURE = Path(__file__).parent / "guides" / "consumers.png"
TILE = 200  # pixels along each side of a slice
# By consumer: the map, its title, and the values that are black and white.
MAPS = {
    "planning": ("electron_density", "electron density, 0 to 1.6", 0.0, 1.6),
    "proton": ("wepl", "protons, 0 to 200 mm", 0.0, 200.0),
    "ultrasound": ("sound_speed", "sound, 1500 to 3000 m/s", 1500.0, 3000.0),
    "pet": ("mu", "511 keV, 0 to 0.16 /cm", 0.0, 0.16),
}


def tile(folder: Path, name: str, low: float, high: float) -> np.ndarray:
    """The axial slice at 60 % of the height of a map."""
    volume = canonical(read_volume(folder / f"{name}.nii.gz"))
    plane = plane_of(volume.data[0], "axial", int(0.6 * volume.data.shape[1]))
    return square_pixels(shades(plane, low, high), pixel_mm(volume.grid.spacing_mm, "axial"))


def main(folder: Path) -> None:
    cohort = folder / "cohort"
    voxlate.phantom(
        cohort,
        cases=4,
        size=(160, 192, 144),
        modalities=["t1", "ct"],
        lesion="none",
        seed=48,
    )
    scans = {path.parent.name: path for path in sorted(cohort.glob("*/t1.nii.gz"))}
    for name, scan in scans.items():
        alone = folder / "scans" / name / "t1.nii.gz"
        alone.parent.mkdir(parents=True, exist_ok=True)
        alone.write_bytes(scan.read_bytes())
    voxlate.synthesise("starter:head-mr-to-ct", folder / "scans", folder / "out")
    scores = voxlate.evaluate(
        folder / "out",
        cohort,
        consumers="proton,pet,ultrasound",
        mask="body",
        scopes=["synthrad2023"],
    )
    answers = scores.document()["modalities"]["ct"]["answers"]
    for key, summary in answers["synthesis"].items():
        print(key, summary["mean"])
    case = next(iter(scans))
    rows: dict[str, list[np.ndarray]] = {"synthesised from T1": [], "true CT": []}
    for consumer, (name, _, low, high) in MAPS.items():
        sources = {"synthesised from T1": folder / "out", "true CT": cohort / case / "ct.nii.gz"}
        for row, source in sources.items():
            to = folder / consumer / row.split()[0]
            beam = {"beam": "90"} if consumer == "ultrasound" else {}
            voxlate.export_for(source, to, consumer=consumer, **beam)
            written = to / (case if (to / case).is_dir() else "ct")
            rows[row].append(tile(written, name, low, high))
    titles = [title for _, title, _, _ in MAPS.values()]
    sheet_with_labels([*rows.items()], titles, TILE).convert("L").save(PICTURE, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
