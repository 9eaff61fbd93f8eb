"""`prepare` with the examination that `voxlate.prepare` gives it, and with its keywords of workers and messages."""

from functools import partial

from voxlate.checks.cohort_examination import EXAMINATION
from voxlate.scans.prepare import prepare as prepare_unexamined

prepare = partial(prepare_unexamined, examination=EXAMINATION)
