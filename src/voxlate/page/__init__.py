"""The page of `voxlate serve`: a web server on this machine, its viewer, and the processes that work on its jobs.

The page calls commands; no other wing names it.
"""
