"""A made-up head from which every modality is computed: anatomy-like, seeded, and no patient's."""

from voxlate.images.phantom.anatomy import Lesion, LesionKind
from voxlate.images.phantom.cohort import write_cohort
from voxlate.images.phantom.head import Head, make_head
from voxlate.images.phantom.scanner import image
from voxlate.images.phantom.signal import MODALITIES, signal
from voxlate.images.phantom.tissue import Label, Tissue

__all__ = [
    "MODALITIES",
    "Head",
    "Label",
    "Lesion",
    "LesionKind",
    "Tissue",
    "image",
    "make_head",
    "signal",
    "write_cohort",
]
