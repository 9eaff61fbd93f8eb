"""Phantoms: heads made up from anatomy and physics, seeded, with every modality computed from one anatomy.

Nothing here reads a scan, or knows how cohorts are prepared.
"""

from voxlate.phantoms.cohort import write_cohort
from voxlate.phantoms.head import Head, make_head
from voxlate.phantoms.scanner import image
from voxlate.phantoms.signal import MODALITIES, signal
from voxlate.phantoms.tissue import Label

__all__ = ["MODALITIES", "Head", "Label", "image", "make_head", "signal", "write_cohort"]
