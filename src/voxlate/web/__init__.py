"""The page of `voxlate serve`: a web server on this machine, and the processes that work on its jobs."""
