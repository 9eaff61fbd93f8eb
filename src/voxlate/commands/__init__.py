"""The commands: each described once, by a function of `api`; `cli` is its command line, and `agents` its tools for agents.

What a command does lies in the wing that does the work.
"""
