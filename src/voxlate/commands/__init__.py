"""The commands: each described once, as a function in Python (`api`) and on the command line (`cli`).

What a command does lies in the wing that does the work.
"""
