"""The physical unit of a modality's voxels, which its name states."""

import re
from collections.abc import Sequence
from itertools import takewhile

from voxlate.base.errors import BadInput

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
# Maps of which a body without fluid, vessels or a skull has only zeros, as have phantoms of CTs.
MAY_BE_ZERO = TISSUE_MAPS.keys() - {"pd_map", "t1_map", "t2_map", "t2star_map"}
# Units of scans whose place can be seen: a map of seconds seemed 3 mm off.
SHOW_ANATOMY = ("HU", "a.u.", "grey")
TIMES = ("tmax", "mtt", "ttp", "tmip")
MR = ("t1", "t1c", "t1n", "t1ce", "t2", "t2w", "t2f", "flair", "pd", "swi", "tof", "mra", "mr")
UNITS: dict[str, str] = {
    **dict.fromkeys(HOUNSFIELD, "HU"),
    "cbf": "ml/100g/min",
    "cbv": "ml/100g",
    **dict.fromkeys(TIMES, "s"),
    **dict.fromkeys(MR, "a.u."),
    **TISSUE_MAPS,
}

# Words of a scan's name that say its modality in another way, and those that say nothing of it: planes, sequences, copies,
# and the absence of a contrast agent.
SAID = re.compile(
    r"(?<![a-z\d.])(?:(?P<t1>t1[nw]|mprage|f?spgr|bravo)|(?P<t1c>t1ce|t1gd)|(?P<t2>t2w)|(?P<flair>t2f)|(?P<pd>pdw)|(?P<cbf>rcbf)|(?P<cbv>rcbv)|(?P<tmax>t[-_ ]max)"
    r"|(?P<km>(?:mit|nach|with|post)[-_ ]*(?:km|kontrast\w*|gd|gad\w*|contrast)))(?![a-z\d.])"
)
SILENT = re.compile(
    r"(?<![a-z\d.])(?:ax|axial|tra|transversal|cor|coronal|sag|sagittal|obl|oblique|tse|fse|frfse|se|gre|tfe|ffe|fl[23]d|flash|vibe|space"
    r"|cube|tir|tirm|ir|propeller|blade|[23]d|iso|isotropic|mr|native|copy|kopie|copie|copia|(?:ohne|vor|non?|without|pre)[-_ ]*(?:km|kontrast[a-z]*|gd|gad[a-z]*|contrast)|nativ|[\d.]+(?:mm)?)(?![a-z\d.])"
)
AGENT = re.compile(r"post|gd|gad\w*|ce|contrast|kontrast\w*|c|km")
OF_FLOW = re.compile(r"perf(?:usion\w*)?|ctp|maps?|karte")  # beside a map of perfusion
CT_HU = (-2000.0, 4096.0)  # air of the most negative padding, and the end of 12 bits
# Words beside a modality that count: of agents, masks, maps, differences, and images of other contrasts.
COUNTS = re.compile(
    r"ce|c|fa|md|pt|mag|pet|.*(?:km|gd|gad|[ck]ontrast|phase|qsm|asl|bold|perf|target|source|input|output|mask|seg|label|l[aä]sion|lesion|tumou?r|roi|map|diff|dwi|adc|star|struct|dose|sub|minus|ratio|pred|syn|fake|pseudo|ohne|vor|pre|post|\d).*"
)


def unit_of(modality: str) -> str:
    """The unit of a modality. The first letters of its name suffice: "cta2" has the unit of "cta"; else "a.u."."""
    name = modality.lower()
    letters = re.split("[^a-z]", name)[0]
    return UNITS.get(name) or UNITS.get(letters, "a.u.")


def check_window(ends: Sequence[float], where: str = "") -> None:
    """Raise BadInput for a window that no CT has, or whose ends are not in their order; where: what messages begin with."""
    low, high = ends
    least, most = CT_HU
    if not least <= low < high <= most:
        raise BadInput(
            f"{where}expected the HU of black below those of white, both from {least:g} to {most:g}, found {low:g} {high:g}. Change them."
        )


def plain_modality(name: str) -> str:
    """The modality that the words of a scan's name state, such as t1 for ax_t1_mprage_(1); the name where they state none, or several.

    Words before the modality that say nothing of the image's kind do not count: kopf_t2 is t2.
    """
    plain = SAID.sub(lambda said: str(said.lastgroup), name.lower())
    words = re.findall(r"(?:(?!_)[\w.])+", SILENT.sub("", plain))
    stated, rest = {*words} & UNITS.keys(), {*words} - UNITS.keys()
    before = takewhile(lambda word: word not in UNITS, words)
    rest -= {word for word in before if not COUNTS.fullmatch(word)}
    if flows := stated & {"cbf", "cbv", *TIMES}:
        stated, rest = flows, {word for word in rest if not OF_FLOW.fullmatch(word)}
    if "flair" in stated:
        stated -= {"t2"}
    if rest and stated in ({"t1"}, {"t1c"}) and all(map(AGENT.fullmatch, rest)):
        return "t1c"
    return name if rest or len(stated) != 1 else stated.pop()
