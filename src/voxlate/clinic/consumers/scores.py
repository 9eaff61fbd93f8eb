"""Errors of a CT in the units of its users as further scopes of an evaluation: `evaluate --for proton,pet,ultrasound`."""

from collections.abc import Mapping

from voxlate.base.arrays import Bool
from voxlate.clinic.consumers.errors import FROM, attenuation_errors, range_errors, skull_errors
from voxlate.clinic.consumers.tissues import default_table
from voxlate.evaluation.scoring.evaluators import add_consumer
from voxlate.scans.images.grid import Volume

# The scores, in the columns of scoring.metrics.
_PROTON = """
key                   label                    unit  better  digits  where  reduction
proton.error          Range error              mm    lower   2       table  mean |difference of water-equivalent depths| over beams
proton.error_95       Range error, 95 %        mm    lower   2       table  95th percentile over beams
proton.bias           Range bias               mm    truth   2       table  mean difference of water-equivalent depths over beams
proton.error_share    Range error, share       %     lower   2       table  sum of |difference| over the sum of true depths
proton.bias_share     Range bias, share        %     truth   2       table  the same with signs: what all beams have in common
proton.coverage       Range coverage           %     truth   1       table  share of beams whose range is within its interval
proton.interval       Range interval           mm    lower   2       table  mean width, all voxels of a beam at one end of their intervals at once
proton.range          True range               mm    truth   1       file   mean over beams
proton.beams          Beams                    –     truth   0       file   number of beams
"""
_PET = """
key                   label                    unit  better  digits  where  reduction
pet.air_error         µ error, air             %     lower   1       table  mean absolute error of attenuation, share of water's
pet.air_bias          µ bias, air              %     truth   1       file   mean error of attenuation, share of water's
pet.air_coverage      µ coverage, air          %     truth   1       table  share of voxels within their intervals
pet.soft_error        µ error, soft tissue     %     lower   1       table  mean absolute error of attenuation, share of the true one
pet.soft_bias         µ bias, soft tissue      %     truth   1       file   mean error of attenuation, share of the true one
pet.soft_coverage     µ coverage, soft tissue  %     truth   1       table  share of voxels within their intervals
pet.bone_error        µ error, bone            %     lower   1       table  mean absolute error of attenuation, share of the true one
pet.bone_bias         µ bias, bone             %     truth   1       file   mean error of attenuation, share of the true one
pet.bone_coverage     µ coverage, bone         %     truth   1       table  share of voxels within their intervals
"""
_ULTRASOUND = """
key                   label                    unit  better  digits  where  reduction
ultrasound.thickness  Skull thickness error    mm    lower   2       table  mean |difference along rays|, over sides
ultrasound.ratio      Density ratio error      –     lower   2       table  |difference of the mean ratio of rays|, over sides
"""
_OF_A_SIDE = """
key                               label                          unit  better  digits  where  reduction
ultrasound.thickness_{side}       Skull thickness error, {side}  mm    lower   2       file   mean |difference along rays|
ultrasound.bias_{side}            Skull thickness bias, {side}   mm    truth   2       file   mean difference along rays
ultrasound.true_thickness_{side}  True skull thickness, {side}   mm    truth   2       file   mean along rays
ultrasound.ratio_{side}           Density ratio error, {side}    –     lower   2       file   |difference of the mean ratio of rays|
ultrasound.true_ratio_{side}      True density ratio, {side}     –     truth   2       file   mean over rays
ultrasound.unmatched_{side}       Rays without a pair, {side}    –     lower   0       file   number of rays that meet the skull in one CT alone
"""


def _proton(
    truth: Volume, image: Volume, ends: Mapping[str, Volume], counted: Bool | None
) -> Mapping[str, float]:
    return range_errors(truth, image, default_table("rsp"), ends, counted)


def _ultrasound(
    truth: Volume, image: Volume, _: Mapping[str, Volume], counted: Bool | None
) -> Mapping[str, float]:
    return skull_errors(truth, image, counted)


add_consumer(
    "proton",
    "water-equivalent depths at the plane through the body's centre, on rays 10 mm apart from 36 gantry angles, by the default table of stopping power",
    _proton,
    _PROTON,
)
add_consumer(
    "pet",
    "attenuation at 511 keV and 120 kVp in the body: air below -300 HU, soft tissue, bone from 300 HU of the truth",
    attenuation_errors,
    _PET,
)
add_consumer(
    "ultrasound",
    "thickness and density ratio (on rays that show marrow) of the skull on rays 2 mm apart within 60 mm from left, right, front, back and vertex; mean over these sides, without those on which a scan ends before the skull",
    _ultrasound,
    _ULTRASOUND,
    *(_OF_A_SIDE.format(side=side) for side in FROM),
)
