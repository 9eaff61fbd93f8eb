"""Write the label maps of heads that come with the package: of 2 and 4 mm, in the tissues' own codes.

    python benchmarks/shipped_maps.py MAPS

MAPS: head_01.nii.gz and so on, SynthSeg's training label maps of 1 mm (github.com/BBillot/SynthSeg, Apache-2.0).
"""

import sys
from pathlib import Path

import numpy as np
from scipy import ndimage

from voxlate.anatomy import mapped_head
from voxlate.anatomy.label_map import CODES, read_label_map, read_table
from voxlate.anatomy.tissue import BRAIN, OTHER_BRAIN, Label
from voxlate.base.array_types import AnyArray

INSIDE = (*BRAIN, *OTHER_BRAIN, Label.VENTRICLE, Label.ARTERY, Label.VEIN, CODES["fluid"])
OUTSIDE = (Label.SINUS, Label.MUCOSA, Label.MUSCLE, Label.SKIN, CODES["soft"])
# What is thin counts for more in a larger voxel, so that its volume stays.
WEIGHTS = {
    CODES["fluid"]: 1.15,
    CODES["cancellous"]: 1.2,
    int(Label.DEEP_GREY): 1.1,
    int(Label.CHOROID): 1.3,
    int(Label.PALLIDUM): 1.2,
    int(Label.LEUKOARAIOSIS): 1.3,
}


def halved(codes: AnyArray) -> AnyArray:
    """A map with voxels twice as large, each with the code that most of its eight parts have, and with a closed skull."""
    even = np.pad(codes, [(0, length % 2) for length in codes.shape])
    d, h, w = (length // 2 for length in even.shape)
    parts = even.reshape(d, 2, h, 2, w, 2)
    out = np.zeros((d, h, w), np.uint8)
    most = np.zeros((d, h, w), np.float32)
    for code in np.unique(codes):
        votes = (parts == code).sum((1, 3, 5)) * np.float32(WEIGHTS.get(int(code), 1))
        wins = votes > most
        out[wins] = code
        most[wins] = votes[wins]
    return with_closed_skull(out)


def with_closed_skull(codes: AnyArray) -> AnyArray:
    """A map with bone where soft tissue or air lies beside the fluid of the brain: maps have holes where bone is thin."""
    inside = np.isin(codes, INSIDE)
    # without nerves and vessels that leave the skull
    inside = ndimage.binary_opening(inside, iterations=2)
    around = ndimage.binary_dilation(inside, np.ones((3, 3, 3)))
    holes = around & np.isin(codes, OUTSIDE)
    lowest = np.flatnonzero(np.isin(codes, BRAIN).any((1, 2)))[0]
    holes[:lowest] = False
    return np.where(holes, np.uint8(Label.BONE), codes)


def main() -> None:
    table = read_table(mapped_head.TABLE)
    for name in mapped_head.SHIPPED_HEADS:
        codes = read_label_map(Path(sys.argv[1]) / f"{name}.nii.gz", table, name).codes
        for spacing_mm in mapped_head.SPACINGS_MM:
            codes = halved(codes)
            to = mapped_head.file_of(name, spacing_mm)
            np.savez_compressed(to, codes=codes)
            print(f"{to}: {to.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
