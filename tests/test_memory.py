"""Conversion and imputation stream: memory grows with the width of a section, not with its height."""
import tracemalloc

import numpy as np
import tifffile
import torch

from stpt2imc.data import fit_scales
from stpt2imc.impute import impute
from stpt2imc.section import find_sections
from stpt2imc.store import convert, open_store
from stpt2imc.train import ImputationModel
from stpt2imc.unet import UNet


def write_section(folder, height, width=128, markers=6):
    """Two depths of STPT and a few markers, uniform noise, in the laboratory's layout."""
    rng = np.random.default_rng(0)
    (folder / "SECTION_01" / "TIF").mkdir(parents=True)
    for z in (0, 1): tifffile.imwrite(folder / f"S001_Z0{z}.tif", rng.integers(0, 4000, (height, width, 4), dtype=np.uint16), photometric="minisblack", planarconfig="contig")
    for m in range(markers): tifffile.imwrite(folder / "SECTION_01" / "TIF" / f"{141 + m}Pr_M{m}.tif", rng.integers(0, 9, (height, width), dtype=np.uint16))


def peak(work):
    tracemalloc.start()
    try: work(); return tracemalloc.get_traced_memory()[1]
    finally: tracemalloc.stop()


def test_memory_does_not_grow_with_the_height_of_a_section(tmp_path):
    peaks = {}
    for height in (1024, 8192):
        write_section(tmp_path / str(height), height)
        sections = find_sections(tmp_path / str(height))
        converting = peak(lambda: convert(sections, tmp_path / f"{height}.zarr"))
        store = open_store(tmp_path / f"{height}.zarr")
        if height == 1024:
            torch.manual_seed(0)
            model = ImputationModel(UNet(8, 6, (4, 8)), fit_scales(store, [1]), store.input_names, store.panel,
                                    dict(model="UNet", train_sections=[1], targets=store.meta["targets"]))
        imputing = peak(lambda: impute(model, store[1], tmp_path / f"{height}.ome.zarr", device="cpu"))
        peaks[height] = converting, imputing
        assert (store[1].read("targets", height - 5) == np.stack([tifffile.imread(tmp_path / str(height) / "SECTION_01" / "TIF" / f"{141 + m}Pr_M{m}.tif")[-5:] for m in range(6)])).all()
    for small, large, what in zip(peaks[1024], peaks[8192], ("convert", "impute")):
        assert large < 1.6 * small + 2e6, f"{what}: {small / 1e6:.1f} MB at 1024 rows, {large / 1e6:.1f} MB at 8192"
