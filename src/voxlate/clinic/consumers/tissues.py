"""Tissues of published composition: their CT number, and electron density and stopping power relative to water.

Sources: composition and density: ICRU 44 and 46, Woodard and White 1986. CT number: Schneider, Pedroni and Lomax 1996
(Phys. Med. Biol. 41:111), eq. 8; PHOTO and COHERENT are the ratios to its Klein-Nishina term that reproduce its CT
numbers of fourteen tissues within 1 HU. Stopping power: Bethe's formula as in its eq. 1, with Bragg's rule; excitation energies of
elements in compounds: ICRU 49. Adipose tissue, brain, blood, skin, cartilage and cortical bone have the composition,
density and excitation energy of EGSnrc's density corrections; lung and air the composition of GATE's materials.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from voxlate.clinic.consumers.tables import HuTable

PHOTO, COHERENT = 2.4507e-5, 8.6239e-4
PHOTO_POWER, COHERENT_POWER = 3.62, 1.86
ELECTRON_EV, PROTON_MEV = 510998.95, 938.272  # energies at rest
# the ratio of stopping powers changes by at most 0.9 %, in bone, from 50 to 220 MeV
BEAM_MEV = 100.0
# Number, relative atomic mass, mean excitation energy in eV.
ELEMENTS = {
    "H": (1, 1.008, 19.2),
    "C": (6, 12.011, 81.0),
    "N": (7, 14.007, 82.0),
    "O": (8, 15.999, 106.0),
    "Na": (11, 22.990, 168.4),
    "Mg": (12, 24.305, 176.3),
    "P": (15, 30.974, 195.5),
    "S": (16, 32.06, 203.4),
    "Cl": (17, 35.45, 180.0),
    "Ar": (18, 39.948, 188.0),
    "K": (19, 39.098, 214.7),
    "Ca": (20, 40.078, 215.8),
    "Fe": (26, 55.845, 323.2),
}


@dataclass(frozen=True)
class Tissue:
    """A tissue: density in g/cm3, and its elements in percent of the mass."""

    density: float
    percent: Mapping[str, float]

    def _electrons(self, power: float = 0.0) -> float:
        """Electrons per volume, each weighted by a power of the number of its element."""
        return self.density * sum(
            share * ELEMENTS[name][0] ** (1 + power) / ELEMENTS[name][1]
            for name, share in self.percent.items()
        )

    @property
    def _attenuation(self) -> float:
        """Attenuation in the spectrum of the CT; Schneider et al. 1996, eq. 8, over its Klein-Nishina coefficient."""
        photo = PHOTO * self._electrons(PHOTO_POWER)
        return photo + COHERENT * self._electrons(COHERENT_POWER) + self._electrons()

    @property
    def _stopping_number(self) -> float:
        """Bethe's stopping number without corrections, at BEAM_MEV."""
        beta2 = 1 - 1 / (1 + BEAM_MEV / PROTON_MEV) ** 2
        electrons = self._electrons() / self.density
        log_excitation = sum(
            share * ELEMENTS[name][0] / ELEMENTS[name][1] * math.log(ELEMENTS[name][2])
            for name, share in self.percent.items()
        )
        return math.log(2 * ELECTRON_EV * beta2 / (1 - beta2)) - beta2 - log_excitation / electrons

    @property
    def hu(self) -> float:
        """CT number at the tube voltage of Schneider et al. 1996."""
        return 1000 * (self._attenuation / WATER._attenuation - 1)

    @property
    def electron_density(self) -> float:
        """Electrons per volume relative to water."""
        return self._electrons() / WATER._electrons()

    @property
    def stopping_power(self) -> float:
        """Stopping power for protons relative to water."""
        return self.electron_density * self._stopping_number / WATER._stopping_number


WATER = Tissue(1.0, {"H": 11.19, "O": 88.81})
TISSUES = {
    "air": Tissue(0.001205, {"N": 75.5, "O": 23.2, "Ar": 1.3}),
    "lung": Tissue(0.26, {"H": 10.3, "C": 10.5, "N": 3.1, "O": 74.9, "Na": 0.2, "P": 0.2, "S": 0.3, "Cl": 0.3, "K": 0.2}),
    "adipose": Tissue(0.95, {"H": 11.4, "C": 59.8, "N": 0.7, "O": 27.8, "Na": 0.1, "S": 0.1, "Cl": 0.1}),
    "yellow marrow": Tissue(0.98, {"H": 11.5, "C": 64.4, "N": 0.7, "O": 23.1, "Na": 0.1, "S": 0.1, "Cl": 0.1}),
    "water": WATER,
    "red marrow": Tissue(1.03, {"H": 10.5, "C": 41.4, "N": 3.4, "O": 43.9, "P": 0.1, "S": 0.2, "Cl": 0.2, "K": 0.2, "Fe": 0.1}),
    "brain": Tissue(1.04, {"H": 10.7, "C": 14.5, "N": 2.2, "O": 71.2, "Na": 0.2, "P": 0.4, "S": 0.2, "Cl": 0.3, "K": 0.3}),
    "muscle": Tissue(1.05, {"H": 10.2, "C": 14.3, "N": 3.4, "O": 71.0, "Na": 0.1, "P": 0.2, "S": 0.3, "Cl": 0.1, "K": 0.4}),
    "blood": Tissue(1.06, {"H": 10.2, "C": 11.0, "N": 3.3, "O": 74.5, "Na": 0.1, "P": 0.1, "S": 0.2, "Cl": 0.3, "K": 0.2, "Fe": 0.1}),
    "skin": Tissue(1.09, {"H": 10.0, "C": 20.4, "N": 4.2, "O": 64.5, "Na": 0.2, "P": 0.1, "S": 0.2, "Cl": 0.3, "K": 0.1}),
    "cartilage": Tissue(1.10, {"H": 9.6, "C": 9.9, "N": 2.2, "O": 74.4, "Na": 0.5, "P": 2.2, "S": 0.9, "Cl": 0.3}),
    "spongiosa": Tissue(1.18, {"H": 8.5, "C": 40.4, "N": 2.8, "O": 36.7, "Na": 0.1, "Mg": 0.1, "P": 3.4, "S": 0.2, "Cl": 0.2, "K": 0.1, "Ca": 7.4, "Fe": 0.1}),
    "humerus": Tissue(1.46, {"H": 6.0, "C": 31.4, "N": 3.1, "O": 36.9, "Na": 0.1, "Mg": 0.1, "P": 7.0, "S": 0.2, "Ca": 15.2}),
    "cranium": Tissue(1.61, {"H": 5.0, "C": 21.2, "N": 4.0, "O": 43.5, "Na": 0.1, "Mg": 0.2, "P": 8.1, "S": 0.3, "Ca": 17.6}),
    "mandible": Tissue(1.68, {"H": 4.6, "C": 19.9, "N": 4.1, "O": 43.5, "Na": 0.1, "Mg": 0.2, "P": 8.6, "S": 0.3, "Ca": 18.7}),
    "cortical bone": Tissue(1.92, {"H": 3.4, "C": 15.5, "N": 4.2, "O": 43.5, "Na": 0.1, "Mg": 0.2, "P": 10.3, "S": 0.3, "Ca": 22.5}),
}  # fmt: skip
# Of the default tables: those between which the tissues of a head lie. Neighbours such as blood and muscle would make steps.
KNOTS = (
    "air",
    "lung",
    "adipose",
    "water",
    "brain",
    "skin",
    "spongiosa",
    "cranium",
    "cortical bone",
)
MOST_HU = 3071.0  # of 12 bits; beyond cortical bone the last line goes on
SOURCE = "Schneider et al. 1996, tissues of ICRU 44 and 46"


def default_table(column: str) -> HuTable:
    """The table HU → column ("rsp" or "electron_density") through air, water and tissues of the head."""
    name = {"rsp": "stopping_power"}.get(column, column)
    hu = [TISSUES[tissue].hu for tissue in KNOTS]
    values = [float(getattr(TISSUES[tissue], name)) for tissue in KNOTS]
    slope = (values[-1] - values[-2]) / (hu[-1] - hu[-2])
    hu.append(MOST_HU)
    values.append(values[-1] + slope * (MOST_HU - hu[-2]))
    return HuTable(column, tuple(hu), tuple(values), SOURCE)
