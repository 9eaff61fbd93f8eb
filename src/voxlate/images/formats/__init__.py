"""File formats of images: one file each (DICOM has three). The registry of formats is voxlate/images/io.py."""
