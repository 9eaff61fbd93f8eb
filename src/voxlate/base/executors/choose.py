"""The executor that the options of a command ask for."""

from voxlate.base.errors import BadInput
from voxlate.base.executors.case_work import Executor, InProcess, no_report
from voxlate.base.machine import cores
from voxlate.base.messages import Say
from voxlate.base.option import ExecutorOptions


def choose_executor(
    options: ExecutorOptions, device: str | None = None, say: Say = no_report
) -> Executor:
    """The executor that the options state, by default this process.

    device: of the command's networks, None where the workers need none; say: is called where workers have more
    threads than cores.
    """
    if options.address is not None and options.executor != "ray":
        raise BadInput(
            f"--address: expected --executor ray with it, found {options.executor or 'none'}. Add --executor ray, or drop --address."
        )
    if options.executor is None and options.workers is None:
        return InProcess()
    threads, gpus, several = 1, 0, device in ("auto", "cuda")
    if device is not None:
        import torch  # heavy

        threads = torch.get_num_threads()
        gpus = torch.cuda.device_count() if several and torch.cuda.is_available() else 0
    if options.executor == "ray":
        from voxlate.base.executors.ray_cluster import RayExecutor

        return RayExecutor(options.address, options.workers, threads, several, say)
    from voxlate.base.executors.local import LocalExecutor

    if device is None:
        return LocalExecutor(options.workers or cores())
    workers = options.workers or max(1, gpus)
    if device in ("auto", "cpu") and not gpus:
        from voxlate.base.executors.pool import say_crowded

        say_crowded(threads, max(1, cores() // workers), say)
    return LocalExecutor(workers, threads, gpus)
