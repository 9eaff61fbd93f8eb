"""Images for those who use them: derived DICOM, picture archives and BIDS.

No wing but `commands` and `page` names this one; nothing here changes how an image is made.
"""
