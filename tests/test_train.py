"""Training runs that are killed, resumed and repeated in processes of their own."""
import json
import os
import signal
import subprocess
import sys

import pytest

from stpt2imc.phantom import Phantom
from stpt2imc.section import find_sections
from stpt2imc.store import convert

RUN = """
import json, sys, time
from pathlib import Path
import torch
from fastai.callback.core import Callback
from stpt2imc.callbacks import CSVLog, Checkpoint, KeepBest
from stpt2imc.data import HeldOutSections, chunk_dataloaders
from stpt2imc.store import open_store
from stpt2imc.train import unet_learner
torch.set_num_threads(1)
store, folder, wait, workers = sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4])
class Slow(Callback):
    order = 99
    def after_batch(self):
        if self.training: print('batch', self.epoch, self.iter, flush=True); time.sleep(wait)
dls = chunk_dataloaders(open_store(store), HeldOutSections([2], guard=0), bs=2, size=32, device='cpu', num_workers=workers, least_tissue=0)
learn = unet_learner(dls, widths=(4, 8), dropout=.2, shortcut=(0, 2), ema=.9, path=folder)
learn.fit_one_cycle(3, 1e-2, cbs=[Checkpoint(Path(folder)/'run', batches=3), KeepBest(), CSVLog(), Slow()])
weights = {k: v.double().sum().item() for k, v in learn.model.state_dict().items()}
print('RESULT', json.dumps([[float(l) for l in learn.recorder.losses], [[float(x) for x in v] for v in learn.recorder.values], weights, (Path(folder)/'history.csv').read_text()]))
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("train")
    return convert(find_sections(Phantom(sections=2, height=128, width=128).write(folder / "tumour")), folder / "tumour.zarr", progress=False).path


def process(store, folder, wait=0, workers=0):
    """Start a training run in a process of its own."""
    folder.mkdir(exist_ok=True)
    env = {**os.environ, "IN_TEST": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-W", "ignore", "-c", RUN, str(store), str(folder), str(wait), str(workers)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)


def result(run):
    out, err = run.communicate(timeout=600)
    assert run.returncode == 0, err[-3000:]
    return json.loads(next(line for line in out.splitlines() if line.startswith("RESULT"))[7:])


@pytest.mark.slow  # 14b_callbacks resumes within one process
@pytest.mark.parametrize("workers, after", [(0, (1, 4)), (2, (0, 6))])
def test_a_killed_run_goes_on_to_the_same_losses_in_another_process(store, tmp_path, workers, after):
    whole = result(process(store, tmp_path / "whole", workers=workers))
    assert len(whole[0]) == 24 and len(whole[1]) == 3 and whole[3].count("\n") == 4
    run = process(store, tmp_path / "killed", wait=.2, workers=workers)
    for line in run.stdout:
        if line.split() == ["batch", *map(str, after)]:
            break
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    run.stdout.close(), run.stderr.close()
    assert run.returncode == -signal.SIGKILL
    again = process(store, tmp_path / "killed", workers=workers)
    out, err = again.communicate(timeout=600)
    assert again.returncode == 0, err[-3000:]
    done = [tuple(map(int, line.split()[1:])) for line in out.splitlines() if line.startswith("batch")]
    assert done[0] > (0, 0) and done[-1] == (2, 7)  # not from the beginning, and to the end
    assert json.loads(next(line for line in out.splitlines() if line.startswith("RESULT"))[7:]) == whole
