"""Cut one aligned pair of scans into blocks of slices, so that a held-back block can be synthesised and scored.

python benchmarks/cut_pair.py --out COHORT --held 13 21 tof=mra.nii.gz cta=cta_on_mra.nii.gz
Writes COHORT/{below,held,above}/<modality>.nii.gz and cases.csv (held is the validation split). One patient is cut into
three, so the blocks count as three patients: this proves that the path works, and says nothing about other patients.
"""

import argparse
from dataclasses import replace
from pathlib import Path

from voxlate.base.files import whole_file
from voxlate.scans.formats.io import read_volume, write_volume
from voxlate.scans.images.grid import Volume, canonical


def block(volume: Volume, first: int, stop: int) -> Volume:
    """Slices first … stop − 1, at their own place in the patient."""
    affine = volume.affine.copy()
    affine[:3, 3] += first * affine[:3, 2]
    return replace(volume, data=volume.data[:, first:stop], affine=affine)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scans", nargs="+", metavar="MODALITY=FILE")
    parser.add_argument(
        "--held",
        nargs=2,
        type=int,
        required=True,
        metavar=("FIRST", "STOP"),
        help="slices, upwards",
    )
    parser.add_argument("--out", type=Path, required=True)
    chosen = parser.parse_args()
    first, stop = chosen.held
    for modality, path in (scan.split("=", 1) for scan in chosen.scans):
        volume = canonical(read_volume(Path(path), modality))
        for name, span in (
            ("below", (0, first)),
            ("held", (first, stop)),
            ("above", (stop, volume.grid.shape[0])),
        ):
            (chosen.out / name).mkdir(parents=True, exist_ok=True)
            write_volume(chosen.out / name / f"{modality}.nii.gz", block(volume, *span))
    with whole_file(chosen.out / "cases.csv") as temporary:
        temporary.write_text(
            "case,patient,split\nbelow,below,train\nheld,held,val\nabove,above,train\n"
        )


if __name__ == "__main__":
    main()
