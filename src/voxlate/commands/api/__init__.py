"""The commands as functions: each takes one frozen options dataclass, and the command line, the page and Python call it."""
