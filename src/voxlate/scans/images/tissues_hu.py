"""Tissues of CT by ranges of Hounsfield units.

Sources: air, lung, fat, soft tissue and bone by the borders of the materials of Schneider, Bortfeld and Schlegel 2000
(Phys. Med. Biol. 45:459, table 6); cortical from trabecular bone at 600 HU by Aamodt et al. 1999 (J. Bone Joint Surg. Br.
81:143). A voxel that holds two materials counts as the one between them: the rim of air as lung, for example. Contrast
agent counts as bone.
"""

import math

# From the first value to below the second.
TISSUES_HU: dict[str, tuple[float, float]] = {
    "air": (-math.inf, -950.0),
    "lung": (-950.0, -120.0),
    "fat": (-120.0, -22.0),
    "soft_tissue": (-22.0, 120.0),
    "trabecular": (120.0, 600.0),
    "cortical": (600.0, math.inf),
    "bone": (120.0, math.inf),  # trabecular and cortical
}
# The values that separate tissues, bone as its two parts.
BORDERS_HU = sorted({low for low, _ in TISSUES_HU.values() if math.isfinite(low)})
