"""The command line. Heavy imports wait until a command needs them, so that --help is instant."""

import atexit
import contextlib
import io
import os
import signal
import sys


def main() -> None:
    """Run the command line: exit code 0 done, 2 bad use or bad input (one sentence), 3 a case was left out or is not to be trusted, 130 stopped, 1 else."""
    pressed = []

    def stop(number: int, _: object) -> None:
        """Remember Ctrl-C, which code that is interrupted may turn into any other error."""
        pressed.append(number)
        raise KeyboardInterrupt

    def end() -> None:
        """Keep the code 130: where Ctrl-C came in code that an extension ran, Python would end by the signal itself."""
        if pressed:
            with contextlib.suppress(OSError):  # nobody reads it any more
                sys.stdout.flush()
            os._exit(130)

    atexit.register(end)  # before the imports, after whose own ends it is called
    before = signal.signal(signal.SIGINT, stop)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names of files need not be text
    try:
        from voxlate.commands.cli.terminal import command_line

        command_line(sys.argv[1:])()
    except BaseException as error:
        if pressed:
            print("voxlate: stopped.", file=sys.stderr)
            raise SystemExit(130) from error
        from voxlate.commands.cli.terminal import fail

        fail(error)
    finally:
        signal.signal(signal.SIGINT, before)
