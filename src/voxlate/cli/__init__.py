"""The command line. Heavy imports wait until a command needs them, so that --help is instant."""

import os
import signal
import sys
from typing import Any

# Threads that wait for each other sleep: beside another busy process, spinning ones made a step ten times slower.
# OpenMP reads this when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def main() -> None:
    """Run the command line: exit code 0 done, 2 bad use or bad input (one sentence), 130 stopped, 1 else."""
    pressed: list[int] = []

    def stop(number: int, _: Any) -> None:
        pressed.append(number)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, stop)
    try:
        from voxlate.cli import cohort, model, result  # noqa: F401  (they add their commands)
        from voxlate.cli.app import app

        app()
    except BaseException as error:
        if pressed:  # an import that is interrupted may end with any other error
            print("voxlate: stopped.", file=sys.stderr)
            raise SystemExit(130) from error
        from voxlate.cli.app import fail

        fail(error)
    finally:
        signal.signal(signal.SIGINT, before)
