"""A study that two processes share."""
import json
import os
import subprocess
import sys

import pytest

from stpt2imc.phantom import Phantom
from stpt2imc.section import find_sections
from stpt2imc.store import convert

pytest.importorskip("optuna")

RUN = """
import json, logging, sys
import torch
torch.set_num_threads(1)
from stpt2imc.data import HeldOutSections
from stpt2imc.store import open_store
from stpt2imc.tune import tune
store, storage, trials = sys.argv[1], sys.argv[2], int(sys.argv[3])
settings = dict(space=dict(lr=(1e-3, 3e-2, 'log'), widths=[(4,), (4, 8)]), fixed=dict(size=32, bs=4, loss='MSE'), steps=4, epochs=2, device='cpu')
tuned = tune(open_store(store), HeldOutSections([3], guard=0), trials, storage, **settings)
print('RESULT', json.dumps([[t.number, t.state.name, t.value, t.params['lr']] for t in tuned.study.trials]))
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tune")
    return convert(find_sections(Phantom(sections=3, height=128, width=128).write(folder / "tumour")), folder / "tumour.zarr", progress=False).path


def process(store, storage, trials):
    """Start a worker."""
    env = {**os.environ, "IN_TEST": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-W", "ignore", "-c", RUN, str(store), str(storage), str(trials)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)


def result(run):
    out, err = run.communicate(timeout=600)
    assert run.returncode == 0, err[-3000:]
    return json.loads(next(line for line in out.splitlines() if line.startswith("RESULT"))[7:])


@pytest.mark.slow
@pytest.mark.parametrize("file", ["study.journal", "study.db"])
def test_two_workers_share_a_study(store, tmp_path, file):
    workers = [process(store, tmp_path / file, 6) for _ in range(2)]
    both = [result(w) for w in workers]
    last = max(both, key=len)
    assert len({t[0] for t in last}) == len(last) >= 6 and len(last) <= 8  # each trial once, and at most one too many per worker
    assert len({t[3] for t in last}) == len(last)  # they do not try the same
    assert all(state in ("COMPLETE", "PRUNED", "RUNNING") for _, state, *_ in last)
