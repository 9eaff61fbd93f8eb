"""The physical unit of a modality's voxels, which its name states."""

import re

HOUNSFIELD = ("ct", "ncct", "cect", "cta", "ctv")
# Maps of tissue parameters at 3 T, from which MR contrasts are computed: their units ("1" for shares).
TISSUE_MAPS: dict[str, str] = {
    "pd_map": "1",
    **dict.fromkeys(("t1_map", "t2_map", "t2star_map"), "ms"),
    "chi_map": "ppm",
    "fluid_map": "1",
    "fat_map": "1",
    "gd_map": "mM",
    "flow_map": "cm/s",
    "inflow_map": "1/s",
    **dict.fromkeys(("skin_map", "vault_map"), "mm"),
}
MR = ("t1", "t1c", "t1n", "t1ce", "t2", "t2w", "t2f", "flair", "pd", "swi", "tof", "mra", "mr")
UNITS: dict[str, str] = {
    **dict.fromkeys(HOUNSFIELD, "HU"),
    "cbf": "ml/100g/min",
    "cbv": "ml/100g",
    **dict.fromkeys(("tmax", "mtt", "ttp", "tmip"), "s"),
    **dict.fromkeys(MR, "a.u."),
    **TISSUE_MAPS,
}


def unit_of(modality: str) -> str:
    """The unit of a modality. The first letters of its name suffice: "cta2" has the unit of "cta"; else "a.u."."""
    name = modality.lower()
    letters = re.split("[^a-z]", name)[0]
    return UNITS.get(name) or UNITS.get(letters, "a.u.")
