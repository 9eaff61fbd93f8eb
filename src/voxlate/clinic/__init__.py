"""Images for those who use them: derived DICOM and picture archives.

No wing but `commands` and `page` names this one; nothing here changes how an image is made.
"""
