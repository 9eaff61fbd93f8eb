"""Compressed transfer syntaxes: each decoder gives the values of the uncompressed image."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from voxlate.scans.formats.io import read_volume

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("gdcm")
from pydicom.data import get_testdata_file  # noqa: E402 - needs pydicom


def copied(name, folder):
    """A test file that is part of pydicom."""
    source = get_testdata_file(name, download=False)
    if source is None:
        pytest.skip(f"pydicom has no {name}")
    return Path(shutil.copy(source, folder / name))


PACKED = ("MR_small_RLE.dcm", "MR_small_jpeg_ls_lossless.dcm", "MR_small_jp2klossless.dcm")


@pytest.mark.parametrize("name", PACKED)
def test_lossless_images_have_the_values_of_the_uncompressed_one(tmp_path, name):
    plain = read_volume(copied("MR_small.dcm", tmp_path))
    packed = read_volume(copied(name, tmp_path))
    np.testing.assert_array_equal(packed.data, plain.data)
    np.testing.assert_array_equal(packed.affine, plain.affine)
