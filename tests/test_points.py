"""Point models over many steps: the report's run became NaN, ours must not."""
import numpy as np

from stpt2imc.data import RandomChunks, chunk_dataloaders
from stpt2imc.phantom import Phantom
from stpt2imc.pointlearn import stress_run
from stpt2imc.section import find_sections
from stpt2imc.store import convert


def test_two_thousand_steps_under_bfloat16_stay_finite_and_learn(tmp_path):
    store = convert(find_sections(Phantom(sections=2, height=64, width=64).write(tmp_path / "files", progress=False)), tmp_path / "store.zarr", progress=False)
    dls = chunk_dataloaders(store, RandomChunks(.1), bs=2, size=16, device="cpu")
    run = stress_run(2000, dls, points=4096, widths=(4, 4, 8), passes=1, branch_points=0)
    assert run["steps"] >= 2000 and run["bad"] == 0 and np.isfinite(run["losses"] + run["norms"] + run["valid"]).all()
    assert np.mean(run["losses"][-200:]) < .95 * np.mean(run["losses"][:200]) and run["valid"][-1] < .95 * run["valid"][0]
