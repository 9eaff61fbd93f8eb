"""Images in the layouts that others read: derived DICOM series, BIDS, and picture archives."""
