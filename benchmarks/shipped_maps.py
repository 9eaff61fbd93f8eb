"""Write the label maps of heads that come with the package: of 2 mm, in the tissues' own codes.

    python benchmarks/shipped_maps.py MAPS

MAPS: head_01.nii.gz and so on, SynthSeg's training label maps of 1 mm (github.com/BBillot/SynthSeg, Apache-2.0).
"""

import sys
from pathlib import Path

import numpy as np

from voxlate.anatomy import shipped_heads
from voxlate.anatomy.label_map import read_label_map
from voxlate.anatomy.label_table import read_table

table = read_table(shipped_heads.TABLE)
for name in shipped_heads.SHIPPED_HEADS:
    codes = read_label_map(Path(sys.argv[1]) / f"{name}.nii.gz", table, name).codes
    to = Path(shipped_heads.__file__).with_name("heads") / f"{name}.npz"
    np.savez_compressed(to, codes=shipped_heads.halved(codes))
    print(f"{to}: {to.stat().st_size:,} bytes")
