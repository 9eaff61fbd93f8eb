"""Scans from and images to a picture archive (PACS), by DICOMweb and by C-STORE; knows no model."""
