"""What `voxlate synth` loads before it reads a scan and later, and how deep the network lies below it."""

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

# Lower the numbers where the code allows it, and never raise them.
MOST_MODULES = 140
MOST_FRAMES = 14
SLOW = {
    "matplotlib",
    "tensorboard",
    "scipy.stats",
    "scipy.optimize",
    "pandas",
}  # of charts, logs, statistics and tables of scores

SCRIPT = """
import json, sys, torch
from voxlate.commands.cli import main

modules, frames = [], []

def is_own(name):
    return name.partition(".")[0] == "voxlate"

def opened(event, arguments):
    if event == "open" and str(arguments[0]).endswith(".nii.gz") and not modules:
        modules.append(sum(map(is_own, sys.modules)))

def called(module, _):
    frame = sys._getframe()
    if frames or not is_own(type(module).__module__):
        return
    while frame is not None:
        if is_own(frame.f_globals["__name__"]):
            frames.append(f"{frame.f_globals['__name__']}.{frame.f_code.co_name}")
        frame = frame.f_back

sys.addaudithook(opened)
torch.nn.modules.module.register_module_forward_pre_hook(called)
try:
    main()
finally:
    print(json.dumps([modules, frames, [*sys.modules]]))
"""


def test_synth_loads_few_modules_before_it_reads_a_scan_and_calls_the_network_within_few_frames(
    run, small_head, tmp_path
):
    small_head(tmp_path / "head", 3)
    words = ["synth", run, f"t1={tmp_path / 'head' / 't1.nii.gz'}", "--out", tmp_path / "out"]
    command = [sys.executable, "-c", SCRIPT, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    (modules,), frames, all_modules = json.loads(done.stdout.splitlines()[-1])
    assert modules <= MOST_MODULES
    assert 0 < len(frames) <= MOST_FRAMES, frames
    assert not SLOW & {*all_modules}
