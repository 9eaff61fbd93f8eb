"""The phantom's tissues and their constants: MR relaxation, Hounsfield units, perfusion.

Relaxation at 3 T, in ms:
  grey and white matter T1, T2, T2*   Wansapura et al. 1999, J Magn Reson Imaging 9:531 (1331/110/42-52, 832/80/45-48)
  blood, muscle                       Stanisz et al. 2005, Magn Reson Med 54:507 (1932/275, 1412/50)
  fat                                 Gold et al. 2004, Am J Roentgenol 183:343 (371/133)
  CSF                                 Lin et al. 2001, J Comput Assist Tomogr 25:192 (T1 about 4300); T2 about 2000 by
                                      Spijkerman et al. 2018, Magn Reson Mater Phy 31:415
  deep grey (iron shortens T2, T2*)   Gelman et al. 1999, Radiology 210:759
  vein T2* (Y about 0.55)             Zhao et al. 2007, Magn Reson Med 58:592
  tumour, oedema                      order of magnitude as in Badve et al. 2017, Am J Neuroradiol 38:1100
Proton density is relative to water: Tofts 2003, "Quantitative MRI of the Brain", ch. 4. Dense bone has hardly any.
Hounsfield units: Osborn 2012, "Osborn's Brain"; Schneider et al. 1996, Phys Med Biol 41:111 (bone); Phan et al. 2013,
Stroke 44:1442 and its kind for grey 37-41, white 28-32; thrombus above 60.
Perfusion: Leenders et al. 1990, Brain 113:27 (grey CBF 55, CBV 5; white 22, 2.7), in ml/100 g(/min); mean transit times
CBV / CBF by the central volume principle (Meier and Zierler 1954, J Appl Physiol 6:731).
"""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np


class Label(IntEnum):
    """The values of `seg.nii.gz`."""

    AIR = 0
    SKIN = 1
    FAT = 2
    MUSCLE = 3
    BONE = 4
    DIPLOE = 5
    CSF = 6
    GREY = 7
    WHITE = 8
    VENTRICLE = 9
    DEEP_GREY = 10
    EYE = 11
    SINUS = 12
    ARTERY = 13
    VEIN = 14
    ARTERY_BEYOND_CLOT = 15
    CLOT = 16
    NECROSIS = 17
    ENHANCING = 18
    OEDEMA = 19


BRAIN = (Label.GREY, Label.WHITE, Label.DEEP_GREY)
TUMOUR = (Label.NECROSIS, Label.OEDEMA, Label.ENHANCING)
VESSEL = (Label.ARTERY, Label.VEIN, Label.ARTERY_BEYOND_CLOT, Label.CLOT)
FLUID = (Label.CSF, Label.VENTRICLE, Label.EYE)
# These tissues remain after skull stripping.
INTRACRANIAL = (*BRAIN, *TUMOUR, *VESSEL, Label.CSF, Label.VENTRICLE)

# label: PD, T1 ms, T2 ms, T2* ms, HU, CBF ml/100g/min, MTT s, Tmax s, gadolinium mM some minutes after 0.1 mmol/kg
_ROWS: dict[Label, tuple[float, ...]] = {
    Label.AIR: (0.0, 1000, 50, 20, -1000, 0, 0, 0, 0),
    Label.SKIN: (0.70, 1100, 40, 25, 40, 0, 0, 0, 0.15),
    Label.FAT: (0.90, 371, 133, 40, -90, 0, 0, 0, 0.0),
    Label.MUSCLE: (0.75, 1412, 50, 25, 55, 0, 0, 0, 0.08),
    Label.BONE: (0.05, 500, 10, 1, 1300, 0, 0, 0, 0.0),
    Label.DIPLOE: (0.45, 450, 60, 8, 550, 0, 0, 0, 0.03),
    Label.CSF: (1.00, 4300, 2000, 1000, 8, 0, 0, 0, 0.0),
    Label.GREY: (0.82, 1331, 110, 47, 38, 55, 4.9, 1.5, 0.03),
    Label.WHITE: (0.70, 832, 80, 47, 30, 22, 6.0, 2.4, 0.015),
    Label.VENTRICLE: (1.00, 4300, 2000, 1000, 6, 0, 0, 0, 0.0),
    Label.DEEP_GREY: (0.80, 1150, 85, 32, 37, 48, 4.9, 1.4, 0.03),
    Label.EYE: (1.00, 4000, 1500, 600, 10, 0, 0, 0, 0.0),
    Label.SINUS: (0.0, 1000, 50, 20, -990, 0, 0, 0, 0),
    Label.ARTERY: (0.85, 1932, 275, 60, 42, 150, 4.5, 0.3, 1.0),
    Label.VEIN: (0.85, 1932, 180, 18, 46, 110, 6.0, 3.0, 1.0),
    Label.ARTERY_BEYOND_CLOT: (0.85, 1932, 275, 45, 44, 40, 9.0, 3.5, 0.9),
    Label.CLOT: (0.80, 1300, 60, 12, 66, 0, 0, 3.5, 0.0),
    Label.NECROSIS: (0.95, 2200, 260, 120, 18, 5, 6.0, 3.2, 0.0),
    Label.ENHANCING: (0.85, 1500, 130, 50, 40, 75, 6.4, 1.8, 0.45),
    Label.OEDEMA: (0.86, 1500, 170, 70, 22, 17, 6.5, 2.8, 0.01),
}


@dataclass(frozen=True)
class Tissue:
    """One patient's constants, each an array with one value per `Label`."""

    pd: np.ndarray
    t1_ms: np.ndarray
    t2_ms: np.ndarray
    t2star_ms: np.ndarray
    hu: np.ndarray
    cbf: np.ndarray
    mtt_s: np.ndarray
    tmax_s: np.ndarray
    gadolinium_mm: np.ndarray


def patient(rng: np.random.Generator) -> Tissue:
    """Constants of one patient, which vary by 3-10 % between patients; free water and air do not vary."""
    table = np.array([_ROWS[label] for label in Label], dtype=np.float32)
    spread = np.array([0.01, 0.03, 0.04, 0.05, 0.0, 0.10, 0.05, 0.10, 0.10], dtype=np.float32)
    factors = np.exp(spread * rng.standard_normal(table.shape)).astype(np.float32)
    factors[list(FLUID)] = 1
    # Age and cardiac output affect grey and white matter in the same way, so one draw keeps their contrast.
    factors[list(BRAIN), 5:8] = factors[Label.GREY, 5:8]
    shifts = rng.standard_normal(len(table)).astype(np.float32)
    table *= factors
    bone = np.isin(np.arange(len(table)), (Label.BONE, Label.DIPLOE))
    spread_hu = np.where(bone, 60, 0.7).astype(np.float32)
    spread_hu[[Label.AIR, Label.SINUS, *FLUID]] = 0
    table[:, 4] += spread_hu * shifts
    return Tissue(*(column.copy() for column in table.T))
