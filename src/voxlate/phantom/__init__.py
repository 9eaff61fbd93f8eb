"""Phantoms: heads made up from anatomy and physics, seeded, with every modality computed from one anatomy.

Nothing here reads a scan, or knows how cohorts are prepared.
"""

from voxlate.phantom.cohort import write_cohort
from voxlate.phantom.head import Head, make_head
from voxlate.phantom.scanner import image
from voxlate.phantom.signal import MODALITIES, signal
from voxlate.phantom.tissue import Label

__all__ = ["MODALITIES", "Head", "Label", "image", "make_head", "signal", "write_cohort"]
