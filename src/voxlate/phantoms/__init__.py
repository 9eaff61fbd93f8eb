"""Phantoms: simulated heads. A seed draws the anatomy, and equations compute every modality from it.

Nothing here reads a scan, or depends on how cohorts are prepared.
"""

from voxlate.phantoms.cohort import write_cohort
from voxlate.phantoms.head import Head, make_head
from voxlate.phantoms.scanner import image
from voxlate.phantoms.signal import MODALITIES, signal
from voxlate.phantoms.tissue import Label

__all__ = ["MODALITIES", "Head", "Label", "image", "make_head", "signal", "write_cohort"]
