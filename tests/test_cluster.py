"""The Slurm scripts of docs/slurm, run by a scheduler that is imitated: arrays, dependencies, signals, requeuing."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rows import slow
from voxlate.base.files import read_json
from voxlate.training.run import Run

SCRIPTS = Path(__file__).parents[1] / "docs" / "slurm"
pytestmark = pytest.mark.skipif(os.name == "nt", reason="Slurm scripts are for bash")


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """A folder with imitated Slurm commands, first on PATH: srun runs its command, scontrol notes its words."""
    commands = {
        "srun": 'exec "$@"',
        "scontrol": f'echo "$@" >> {tmp_path}/scontrol.log',
        "voxlate": f'exec {sys.executable} -m voxlate "$@"',
        "torchrun": f'exec {sys.executable} -m torch.distributed.run "$@"',
    }
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, line in commands.items():
        (folder / name).write_text(f"#!/bin/sh\n{line}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def echo(cluster):
    """In place of voxlate, a command that prints its words."""
    (cluster / "bin" / "voxlate").write_text('#!/bin/sh\necho "$@"\n')


def submitted(name, tasks=(), **values):
    """The jobs that a script is submitted as, all at the same time: one, or one for each task of its array."""
    jobs = []
    for task in tasks or [None]:
        values |= {"SLURM_JOB_ID": 17}
        if task is not None:
            array = {"ID": task, "MIN": tasks[0], "MAX": tasks[-1], "COUNT": len(tasks)}
            values |= {f"SLURM_ARRAY_TASK_{key}": value for key, value in array.items()}
        env = os.environ | {key: str(value) for key, value in values.items()}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        jobs.append(subprocess.Popen(["bash", SCRIPTS / name], env=env, **pipes))
    return jobs


def ended(jobs):
    """What the jobs printed; they must have ended well."""
    said = [job.communicate(timeout=240) for job in jobs]
    assert [job.returncode for job in jobs] == [0] * len(jobs), said
    return [out for out, _ in said]


def stopped(job, begun):
    """Ends a job, once it has begun to write, as at its time limit; it must queue itself again."""
    end = time.monotonic() + 120
    while not begun.exists() and time.monotonic() < end:
        time.sleep(0.05)
    time.sleep(0.5)
    job.send_signal(signal.SIGTERM)
    _, err = job.communicate(timeout=30)
    assert Path("scontrol.log").read_text() == "requeue 17\n", err


def test_every_script_names_its_submission_and_is_valid_bash():
    for path in sorted(SCRIPTS.glob("*.sh")):
        text = path.read_text(encoding="utf-8")
        assert re.search(rf"^#   sbatch .*docs/slurm/{path.name}( .*)?$", text, re.MULTILINE), (
            path.name
        )
        assert subprocess.run(["bash", "-n", path], check=False).returncode == 0


def test_each_task_makes_its_own_part_and_an_array_with_gaps_needs_their_number(echo):
    words = {"RUN": "run", "COHORT": "cohort", "OUT": "out"}
    line = "synth run cohort --out out --part"
    assert ended(submitted("synth.sh", (7, 8), **words)) == [f"{line} 1/2\n", f"{line} 2/2\n"]
    said = ended(submitted("synth.sh", (3, 5), PARTS=8, **words))
    assert [line.split()[-1] for line in said] == ["3/8", "5/8"]
    refused, _ = submitted("synth.sh", (3, 5), **words)
    out, err = refused.communicate(timeout=60)
    assert (refused.returncode, out) == (2, "")
    assert "PARTS: expected how many parts there are" in err


def test_scores_have_their_report_although_a_case_is_missing(cluster):
    (cluster / "bin" / "voxlate").write_text('#!/bin/sh\necho "$@"\n[ "$1" = report ] || exit 3\n')
    (job,) = submitted("score.sh", COHORT="cohort", OUT="out")
    out, _ = job.communicate(timeout=60)
    assert out.splitlines() == ["evaluate out --truth cohort", "report out"]
    assert job.returncode == 3


@pytest.mark.parametrize("script", ["one_gpu.sh", "several_gpus.sh", "folds.sh"])
def test_a_training_job_that_is_stopped_queues_itself_again(cluster, script):
    stub = "#!/bin/bash\ntrap 'exit 143' TERM\ntouch begun\nwhile :; do sleep 0.05; done\n"
    for name in ("voxlate", "torchrun"):
        (cluster / "bin" / name).write_text(stub)
    words = {"PREPARED": "prepared", "RUN": "run", "RUNS": "runs", "SLURM_ARRAY_TASK_ID": 3}
    words["SLURM_GPUS_ON_NODE"] = 2
    (job,) = submitted(script, **words)
    stopped(job, Path("begun"))


@slow
def test_each_job_of_an_array_trains_a_fold_and_their_mean_is_synthesised(
    cluster, prepared, cohort
):
    ended(submitted("folds.sh", range(2), PREPARED=prepared, RUNS="runs", MINUTES=1))
    for fold in (0, 1):
        stated = read_json(Run(Path(f"runs/fold{fold}")).provenance)
        assert stated["data"]["fold"] == fold
    both = "runs/fold0 runs/fold1"
    ended(submitted("synth.sh", range(1, 2), RUN=both, COHORT=cohort, OUT="out", SPLIT="test"))
    assert len(list(Path("out").glob("*/t2.nii.gz"))) == 1


@slow
def test_the_processes_of_one_node_train_one_plan(cluster, prepared):
    words = {"PREPARED": prepared, "RUN": "run", "MINUTES": 0.4, "DEVICE": "cpu"}
    words["SLURM_GPUS_ON_NODE"] = 2
    ended(submitted("several_gpus.sh", **words))
    assert Run(Path("run")).weights().exists()
