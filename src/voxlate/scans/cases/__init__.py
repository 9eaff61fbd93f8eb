"""Prepared cases: a grid each, checked, with masks, statistics and the naive baselines."""

import sys

if not sys.modules.keys() & {"nibabel", "pydicom"}:
    # nibabel imports pydicom for a part of NIfTI headers that nothing here reads, which takes longer than nibabel itself
    sys.modules["pydicom"] = None  # type: ignore[assignment]
    import nibabel as nibabel

    del sys.modules["pydicom"]
