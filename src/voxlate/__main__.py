"""`python -m voxlate` is the voxlate command."""

from voxlate.cli import main

main()
