"""`python -m voxlate` is the voxlate command."""

from voxlate.commands.cli import main

main()
