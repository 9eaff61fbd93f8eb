"""The command line. Heavy imports wait until a command needs them, so that --help is instant."""

import io
import os
import signal
import sys
import threading

from voxlate.base import machine

BUSY_CORES, LOOK_SECONDS = 0.5, 0.3


def _wait_as_the_load_asks() -> None:
    """Let threads that wait for each other sleep where cores are busy already, and spin where they are free.

    Spinning gains a quarter on a free machine; next to a busy process it makes steps ten times slower. OpenMP reads
    this when torch is imported; a value that the user gave stays. The load average looks a minute back, to commands
    that have ended: where it is high, a look at the cores decides.
    """
    if "OMP_WAIT_POLICY" not in os.environ and machine.load_average() > BUSY_CORES:
        import psutil

        if psutil.cpu_percent(LOOK_SECONDS) / 100 * (os.cpu_count() or 1) > BUSY_CORES:
            os.environ["OMP_WAIT_POLICY"] = "PASSIVE"


def _computes(words: list[str]) -> bool:
    """Whether a command line may import torch: what only shows something need not look at the cores first."""
    return (
        bool(words)
        and words[0] not in ("info", "recipes", "starters", "--version")
        and not {"--help", "-h"} & {*words}
        and "_VOXLATE_COMPLETE" not in os.environ  # set where a shell asks for completions
    )


def main() -> None:
    """Run the command line: exit code 0 done, 2 bad use or bad input (one sentence), 3 a case was left out or is not to be trusted, 130 stopped, 1 else."""
    pressed = []

    def stop(number: int, _: object) -> None:
        """Remember Ctrl-C, which code that is interrupted may turn into any other error."""
        pressed.append(number)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, stop)
    if _computes(sys.argv[1:]):
        _wait_as_the_load_asks()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names of files need not be text
    try:
        from voxlate.commands.cli.terminal import command_line, in_sentences, thread_failed

        threading.excepthook = thread_failed
        with in_sentences():
            command_line(sys.argv[1:])()
    except BaseException as error:
        if pressed:
            print("voxlate: stopped.", file=sys.stderr)
            raise SystemExit(130) from error
        from voxlate.commands.cli.terminal import fail

        fail(error)
    finally:
        signal.signal(signal.SIGINT, before)
