"""Options of the commands: one frozen dataclass for each, from which --help, the checks and the functions in Python are made."""
