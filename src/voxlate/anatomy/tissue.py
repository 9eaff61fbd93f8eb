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

Susceptibility is in ppm (SI) relative to water at -9.05 ppm:
  air, titanium, cobalt alloys        Schenck 1996, Med Phys 23:815 (air 0.36, titanium 182, both absolute)
  cortical bone                       Hopkins and Wehrli 1997, Magn Reson Med 37:494 (-11.3 absolute); enamel likewise
  fat                                 Szczepaniak et al. 2002, Magn Reson Med 47:607 and its kind: 0.6 to 1.1
  deep grey, pallidum                 Langkammer et al. 2012, NeuroImage 62:1593 (iron: 0.05 to 0.2)
  veins                               Spees et al. 2001, Magn Reson Med 45:533, 4 pi · 0.27 ppm · haematocrit 0.42 · (1 - saturation 0.55)
  haemorrhage by its age              Chang et al. 2016, J Magn Reson Imaging 44:420 (order of magnitude: about 1)
  calcification                       Schweser et al. 2010, Med Phys 37:5165 (diamagnetic; order of magnitude)
Fat fraction (of protons): marrow of the spine grows from 0.3 to 0.6 with age: Griffith et al. 2012, J Magn Reson
Imaging 36:225; marrow of the skull is fatter, and the parotid gland has 0.2 to 0.3 (orders of magnitude).
Tissues from CARTILAGE on:
  cartilage, disc, tooth, dura        Robson et al. 2003, J Comput Assist Tomogr 27:825 (short T2: hardly any signal)
  cord                                Smith et al. 2008, Magn Reson Med 60:213 (T1 about 900, T2 about 75)
  haemorrhage                         Bradley 1993, Radiology 189:15 (T1 and T2 by age); HU by Bergstroem et al. 1977,
                                      J Comput Assist Tomogr 1:57 (falls by about 1 to 2 HU a day)
  leukoaraiosis, gliosis, infarcts    order of magnitude as oedema; HU between white matter and CSF
  metal, shunt, table, foam           HU beyond 3000 are clipped by scanners; barium-loaded silicone about 500 HU
Where no source is named for one of their values, it is an order of magnitude, chosen to look right on real scans.
"""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from voxlate.base.array_types import AnyArray

Rng = np.random.Generator
# The tissues in the order of their values in `seg.nii.gz`, from 0 on.
Label = IntEnum(
    "Label",
    """
    AIR SKIN FAT MUSCLE BONE DIPLOE CSF GREY WHITE VENTRICLE DEEP_GREY EYE SINUS ARTERY VEIN
    ARTERY_BEYOND_CLOT CLOT NECROSIS ENHANCING OEDEMA
    CARTILAGE DISC TOOTH METAL DURA CALCIFICATION LENS MUCOSA SINUS_FLUID CORD SPINAL_FLUID MARROW GLAND
    PITUITARY CHOROID PALLIDUM LEUKOARAIOSIS LOW_GRADE INFARCT OLD_CAVITY GLIOSIS HAEMORRHAGE_ACUTE
    HAEMORRHAGE_SUBACUTE HAEMOSIDERIN RESECTION SHUNT PLATE
    """,
    start=0,
)
BRAIN = (Label.GREY, Label.WHITE, Label.DEEP_GREY)
TUMOUR = (Label.NECROSIS, Label.OEDEMA, Label.ENHANCING)
VESSEL = (Label.ARTERY, Label.VEIN, Label.ARTERY_BEYOND_CLOT, Label.CLOT)
FLUID = (Label.CSF, Label.VENTRICLE, Label.EYE, Label.SPINAL_FLUID, Label.OLD_CAVITY)
HAEMORRHAGE = (Label.HAEMORRHAGE_ACUTE, Label.HAEMORRHAGE_SUBACUTE, Label.HAEMOSIDERIN)
# Further tissues of the brain.
OTHER_BRAIN = (
    Label.PALLIDUM,
    Label.CHOROID,
    Label.LEUKOARAIOSIS,
    Label.LOW_GRADE,
    Label.INFARCT,
    Label.GLIOSIS,
    *HAEMORRHAGE,
)
# These tissues remain after skull stripping.
INTRACRANIAL = (
    *(*BRAIN, *TUMOUR, *VESSEL, Label.CSF, Label.VENTRICLE),
    *(*OTHER_BRAIN, Label.OLD_CAVITY, Label.RESECTION),
    *(Label.DURA, Label.CALCIFICATION, Label.SHUNT),
)
SKULL = (Label.BONE, Label.DIPLOE, Label.MARROW)
METAL = (Label.METAL, Label.PLATE)

# Relative proton density, T1, T2, T2* in ms, Hounsfield units, CBF in ml/100g/min, MTT and Tmax in s, gadolinium in mM some
# minutes after 0.1 mmol/kg, susceptibility in ppm relative to water, fat fraction.
_TABLE = """
label                   PD    T1    T2   T2*     HU  CBF  MTT  Tmax     Gd    chi   fat
AIR                      0  1000    50    20  -1000    0    0     0      0    9.4     0
SKIN                  0.70  1100    40    25     40    0    0     0   0.15      0  0.05
FAT                   0.90   371   133    40    -90    0    0     0      0   0.65  0.92
MUSCLE                0.75  1412    50    25     55    0    0     0   0.08      0  0.04
BONE                  0.05   500    10     1   1300    0    0     0      0   -2.2  0.05
DIPLOE                0.45   450    60     8    550    0    0     0   0.03   -0.5  0.65
CSF                   1.00  4300  2000  1000      8    0    0     0      0      0     0
GREY                  0.82  1331   110    47     38   55  4.9   1.5   0.03   0.01     0
WHITE                 0.70   832    80    47     30   22  6.0   2.4  0.015  -0.02     0
VENTRICLE             1.00  4300  2000  1000      6    0    0     0      0      0     0
DEEP_GREY             0.80  1150    85    32     37   48  4.9   1.4   0.03   0.06     0
EYE                   1.00  4000  1500   600     10    0    0     0      0      0     0
SINUS                    0  1000    50    20   -990    0    0     0      0    9.4     0
ARTERY                0.85  1932   275    60     42  150  4.5   0.3    1.0   0.02     0
VEIN                  0.85  1932   180    18     46  110  6.0   3.0    1.0   0.64     0
ARTERY_BEYOND_CLOT    0.85  1932   275    45     44   40  9.0   3.5    0.9    0.2     0
CLOT                  0.80  1300    60    12     66    0    0   3.5      0    0.9     0
NECROSIS              0.95  2200   260   120     18    5  6.0   3.2      0      0     0
ENHANCING             0.85  1500   130    50     40   75  6.4   1.8   0.45      0     0
OEDEMA                0.86  1500   170    70     22   17  6.5   2.8   0.01      0     0
CARTILAGE             0.65  1100    25    12    110    0    0     0   0.02      0     0
DISC                  0.75  1200    70    30     90    0    0     0   0.02      0     0
TOOTH                 0.03   500     5   0.5   1900    0    0     0      0   -2.5     0
METAL                    0  1000     1   0.1   8000    0    0     0      0    900     0
DURA                  0.55   900    30    15     60    0    0     0    0.5      0     0
CALCIFICATION         0.45   800    40     6    260    0    0     0   0.02   -1.5     0
LENS                  0.65  1100    30    20     65    0    0     0      0      0     0
MUCOSA                0.88  1500   130    60     30    0    0     0    0.5      0     0
SINUS_FLUID           0.97  2200   600   250     14    0    0     0      0      0     0
CORD                  0.75   950    78    42     35   30  5.5   2.0  0.015  -0.02     0
SPINAL_FLUID          1.00  4300  1800   800      8    0    0     0      0      0     0
MARROW                0.70   550    80    14    270    0    0     0   0.06   -0.2  0.45
GLAND                 0.82   850    75    40     20    0    0     0    0.3    0.1  0.25
PITUITARY             0.80  1100    80    45     42   60  5.0   1.5    0.8      0     0
CHOROID               0.90  1700   180    80     42   60  5.5   2.0    0.8      0     0
PALLIDUM              0.76  1000    65    24     40   45  4.9   1.4   0.03   0.16     0
LEUKOARAIOSIS         0.80  1250   140    65     24   14  6.5   2.8  0.015      0     0
LOW_GRADE             0.87  1600   190    90     24   25  6.0   2.4  0.015      0     0
INFARCT               0.87  1700   180    85     20    6  6.5   4.0   0.05      0     0
OLD_CAVITY            1.00  4000  1500   700      9    0    0     0      0      0     0
GLIOSIS               0.85  1500   160    75     22   12  6.5   3.0  0.015      0     0
HAEMORRHAGE_ACUTE     0.82  1400    60    10     68    0    0     0      0    0.9     0
HAEMORRHAGE_SUBACUTE  0.88   420   190    30     44    0    0     0      0    0.9     0
HAEMOSIDERIN          0.75  1100    30     5     30    0    0     0      0    1.1     0
RESECTION             0.98  3200  1100   500     12    0    0     0      0      0     0
SHUNT                    0  1000     1   0.5    450    0    0     0      0    0.5     0
PLATE                    0  1000     1   0.1   4500    0    0     0      0    190     0
"""
_VARYING = 9  # the first columns, which differ between patients
_VALUES = {
    Label[name]: list(map(float, values))
    for name, *values in map(str.split, _TABLE.strip().splitlines()[1:])
}


@dataclass(frozen=True)
class Tissue:
    """One patient's constants, each an array with one value per `Label`."""

    pd: AnyArray
    t1_ms: AnyArray
    t2_ms: AnyArray
    t2star_ms: AnyArray
    hu: AnyArray
    cbf: AnyArray
    mtt_s: AnyArray
    tmax_s: AnyArray
    gadolinium_mm: AnyArray
    chi_ppm: AnyArray
    fat: AnyArray


def patient(rng: Rng) -> Tissue:
    """Constants of one patient, which vary by 3-10 % between patients; free water and air do not vary."""
    table = np.array(list(_VALUES.values()), dtype=np.float32)
    varying = table[:, :_VARYING]
    spread = np.array([0.01, 0.03, 0.04, 0.05, 0.0, 0.10, 0.05, 0.10, 0.10], dtype=np.float32)
    factors = np.exp(spread * rng.standard_normal(varying.shape)).astype(np.float32)
    factors[list(FLUID)] = 1
    # Age and cardiac output affect grey and white matter in the same way, so one draw keeps their contrast.
    factors[list(BRAIN), 5:8] = factors[Label.GREY, 5:8]
    varying *= factors
    spread_hu = np.full(len(table), 0.7, dtype=np.float32)
    spread_hu[[Label.BONE, Label.DIPLOE, Label.TOOTH, Label.MARROW]] = 60
    spread_hu[[Label.AIR, Label.SINUS, *FLUID]] = 0
    varying[:, 4] += spread_hu * rng.standard_normal(len(table)).astype(np.float32)
    return Tissue(*(column.copy() for column in table.T))
