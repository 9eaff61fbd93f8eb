"""Our RK45 next to scipy's on the probability-flow ODE of a trained model: the same picture, and how long each takes.

python benchmarks/bench_ode.py RUN COHORT [--split val] [--slices 2] [--tolerance 1e-7]     writes bench/ode.json
Both see float32 networks and one slice at a time; scipy keeps its state in float64. A target of paper 002's issue: the
pictures agree to 1e-4 (network units, whose range is 2) and ours is faster.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from scipy.integrate import solve_ivp

from voxlate.base.files import write_json
from voxlate.science.batch import Batch
from voxlate.science.diffusion.noise import Noise
from voxlate.science.diffusion.ode import Slope, rk45, velocity
from voxlate.science.methods.diffusion import Diffusion
from voxlate.synthesis.model import Model
from voxlate.synthesis.scans import find_scans
from voxlate.training.batches.patches import read_pair
from voxlate.training.load import load
from voxlate.training.torch_network import network_of


def slices(model: Model, cohort: Path, split: str | None, count: int) -> list[Batch]:
    """The middle slice of the first cases."""
    found, recipe = [], network_of(model).recipe
    for scans in find_scans([str(cohort)], model, split=split)[:count]:
        case = model.check(scans.files).inputs.prepared
        depth, height, width = case.header.shape
        found.append(
            read_pair(case, recipe.data, recipe.intensity, (depth // 2, 0, 0), (1, height, width))
        )
    return found


def counted(asked: Slope, calls: list[int]) -> Slope:
    """The same function of a state and its time, which counts how often it is asked."""

    def one(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        calls[0] += 1
        return asked(x, t)

    return one


def reference(slope: Slope, x: torch.Tensor, end: float, tolerance: float) -> torch.Tensor:
    """scipy.integrate.solve_ivp(method="RK45") on the flattened picture."""

    def flat(t: float, y: np.ndarray) -> np.ndarray:
        state = torch.from_numpy(y.astype(np.float32)).reshape(x.shape)
        return slope(state, torch.tensor([t], dtype=torch.float64)).double().numpy().ravel()

    solved = solve_ivp(
        flat, (1.0, end), x.double().numpy().ravel(), method="RK45", rtol=tolerance, atol=tolerance
    )
    return torch.from_numpy(solved.y[:, -1]).reshape(x.shape)


@torch.inference_mode()
def compare(method: Diffusion, batch: Batch, end: float, tolerance: float) -> dict[str, float]:
    """Seconds, evaluations and the largest difference of one slice."""
    schedule, problem = method.options.schedule, method.task.pose(batch)
    calls = [0]
    denoise = counted(method._denoiser(problem), calls)
    like = problem.mask.new_zeros(1, method.state_channels, *problem.mask.shape[2:])
    x = float(schedule.start_std(torch.tensor(1.0))) * Noise(0, batch.item).normal_like(like)
    row: dict[str, float] = {}
    made = {}
    for name in ("voxlate", "scipy"):
        calls[0] = 0
        start = time.perf_counter()
        if name == "voxlate":
            times = torch.tensor([1.0, 1.0 - 1e-2, end], dtype=torch.float64)
            made[name] = rk45(
                denoise, schedule, x, times, Noise(0, batch.item), tolerance, tolerance
            ).double()
        else:
            made[name] = reference(velocity(denoise, schedule), x, end, tolerance)
        row[f"{name}_seconds"], row[f"{name}_evaluations"] = (
            time.perf_counter() - start,
            float(calls[0]),
        )
    row["difference"] = float((made["voxlate"] - made["scipy"]).abs().max())
    return row


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("cohort", type=Path)
    parser.add_argument("--split", default="val")
    parser.add_argument("--slices", type=int, default=2)
    parser.add_argument(
        "--tolerance", type=float, default=1e-7, help="at 1e-5 either is 1e-3 from the truth"
    )
    parser.add_argument("--end", type=float, default=1e-3, help="time at which both stop")
    parser.add_argument("--out", type=Path, default=Path("bench/ode.json"))
    chosen = parser.parse_args()
    model = load(chosen.run)
    method = network_of(model).method
    if not isinstance(method, Diffusion):
        raise SystemExit(f"{chosen.run}: expected a diffusion model, found another method.")
    batches = slices(model, chosen.cohort, chosen.split, chosen.slices)
    rows = [compare(method, batch, chosen.end, chosen.tolerance) for batch in batches]
    table = Table("slice", *(name.replace("_", " ") for name in rows[0]))
    for number, row in enumerate(rows):
        table.add_row(str(number), *(f"{value:.3g}" for value in row.values()))
    Console().print(table)
    ratio = sum(row["scipy_seconds"] for row in rows) / sum(row["voxlate_seconds"] for row in rows)
    Console().print(
        f"scipy's seconds over ours: {ratio:.2f}; largest difference {max(r['difference'] for r in rows):.2g}"
    )
    write_json(
        chosen.out,
        {"tolerance": chosen.tolerance, "end": chosen.end, "ratio": ratio, "slices": rows},
    )


if __name__ == "__main__":
    main()
