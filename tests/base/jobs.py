"""Jobs of the tests of executors; workers import them by name, so that they have a module of their own."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from voxlate.base.errors import BadInput
from voxlate.base.executors.case_work import Context


@dataclass(frozen=True)
class Numbers:
    """Doubles numbers; 13 is bad input, 14 an unexpected error, 666 ends its worker."""

    uses_network: bool = False

    def open(self) -> Callable[[int, Context], Any]:
        return self._double

    def _double(self, number: int, context: Context) -> int:
        if number == 13:
            raise BadInput("13: expected a lucky number, found 13. Take another.")
        if number == 14:
            raise ZeroDivisionError("of 14")
        if number == 666:
            os._exit(9)
        context.warn(f"{number} is doubled")
        return 2 * number


@dataclass(frozen=True)
class Unopened:
    """A job that cannot be opened: with an error, or with the end of the worker."""

    dies: bool
    uses_network: bool = False

    def open(self) -> Callable[[int, Context], Any]:
        if self.dies:
            os._exit(9)
        raise BadInput("weights: expected a file, found none. Restore it.")


@dataclass(frozen=True)
class Stages:
    """Takes so many seconds for each number."""

    seconds: float
    uses_network: bool = True

    def open(self) -> Callable[[int, Context], Any]:
        return self._work

    def _work(self, number: int, context: Context) -> int:
        time.sleep(self.seconds)
        return number
