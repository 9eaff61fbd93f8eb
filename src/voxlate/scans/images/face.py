"""Whether a scan shows a brain without its skull, or a head that may be recognised by its face."""

from voxlate.base.errors import BadInput
from voxlate.scans.images.grid import Volume
from voxlate.scans.images.mask import BONE_HU, body_box_mm, brain, foreground

LEAST_BONE = 0.01  # of a head's voxels in CT; real heads have 0.08 or more
BRAIN_ALONE = 0.9  # share of the brain in the body, above which there is little else
# Brains are 125 to 145 mm wide, heads with skin 150 mm or more. Thick slices of a head without noise pass for a brain
# by their intensities alone.
WIDEST_BRAIN_MM = 148.0
LEAST_HEAD_MM = 100.0  # extent along every axis; brain slabs and crops around an artery are thinner


def is_stripped(volume: Volume) -> bool:
    """Whether next to nothing but a brain is shown: in CT no bone, elsewhere no scalp around the brain."""
    least, most = body_box_mm(volume)
    if most[0] - least[0] > WIDEST_BRAIN_MM:
        return False
    body = foreground(volume)
    if volume.unit == "HU":
        bone = (volume.data[0] > BONE_HU) & body
        return bool(bone.sum() < LEAST_BONE * body.sum())
    try:
        inside = brain(volume)
    except BadInput:
        return False
    return bool((inside & body).sum() > BRAIN_ALONE * body.sum())


def may_show_face(volume: Volume) -> bool:
    """Whether a whole head is shown with its skin; a head that was defaced counts, too, since nothing states it."""
    least, most = body_box_mm(volume)
    whole = bool(((most - least) >= LEAST_HEAD_MM).all())
    return whole and not is_stripped(volume)
