"""voxlate: turn one kind of medical scan into another. Research software, not a medical device."""

__version__ = "0.1.0"
