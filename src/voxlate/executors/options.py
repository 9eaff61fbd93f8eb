"""Options of the commands that say where cases are worked on. This module imports nothing heavy."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from voxlate.executors.job import Executor, InProcess, Warn, nothing
from voxlate.executors.worker import say_crowded
from voxlate.system.errors import BadInput
from voxlate.system.machine import cores
from voxlate.system.options import ADVANCED, Option


@dataclass(frozen=True, kw_only=True)
class ExecutorOptions:
    """Where cases are worked on, and by how many workers; 0 and None stand for as many as fit."""

    executor: Annotated[
        Literal["local", "ray"] | None,
        Option("Workers: local (processes) or ray.", panel=ADVANCED),
    ] = None
    workers: Annotated[int | None, Option("Number of workers.", panel=ADVANCED, least=0)] = None
    address: Annotated[
        str | None, Option("Ray cluster: HOST:PORT or auto.", panel=ADVANCED, metavar="HOST")
    ] = None

    @property
    def stated(self) -> bool:
        """Whether an executor is asked for."""
        return self.executor is not None or self.workers is not None

    @property
    def of_preparation(self) -> dict[str, Any]:
        """The arguments `workers` and `executor` of data.prepare, whose processes need no executor."""
        executor = None if self.executor is None and self.address is None else self.chosen()
        return {"workers": self.workers, "executor": executor}

    def chosen(self, device: str | None = None, say: Warn = nothing) -> Executor:
        """The executor that the options state, by default this process.

        device: of the command's networks, None where the workers need none; say: is called where workers have more
        threads than cores.
        """
        if self.address is not None and self.executor != "ray":
            raise BadInput(
                f"--address: expected --executor ray with it, found {self.executor or 'none'}. Add --executor ray, or drop --address."
            )
        if not self.stated:
            return InProcess()
        here = 1 if device is None else _threads_here()
        if self.executor == "ray":
            from voxlate.executors.ray_cluster import RayExecutor

            return RayExecutor(self.address, self.workers, here, device in ("auto", "cuda"), say)
        from voxlate.executors.local import LocalExecutor

        if device is None:
            return LocalExecutor(self.workers or cores())
        gpus = _gpus_for(device)
        workers = self.workers or max(1, gpus)
        if device in ("auto", "cpu") and not gpus:
            say_crowded(here, max(1, cores() // workers), say)
        return LocalExecutor(workers, here, gpus)


HERE = ExecutorOptions()  # this process


def _threads_here() -> int:
    """The threads of torch in this process."""
    import torch  # heavy

    return torch.get_num_threads()


def _gpus_for(device: str) -> int:
    """The number of GPUs among which workers are distributed: all where the device leaves it open."""
    import torch  # heavy

    several = device in ("auto", "cuda") and torch.cuda.is_available()
    return torch.cuda.device_count() if several else 0
