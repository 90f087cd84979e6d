"""Draws landing.jpg, the picture of the first page: STPT, measured, imputed and difference of a held-out section of the phantom, for a marker that is predictable and for one that is not.

    python nbs/images/landing.py      about two minutes on two CPU cores
"""
import tempfile
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from stpt2imc.all import HeldOutSections, Phantom, as_model, chunk_dataloaders, convert, find_sections, impute, unet_learner

MARKERS, BOX = ("PanCK", "FoxP3"), slice(96, 416)

def draw(section, imputed, path):
    "Two rows of four panels; truth and imputation share their limits, the difference is symmetric about 0."
    light = section.read("inputs")[:, BOX, BOX]
    light = light[int(np.argmax(light.std((1, 2))))]
    fig = Figure(figsize=(9.2, 4.75), dpi=80, layout="constrained")
    for row, marker in zip(fig.subplots(2, 4), MARKERS):
        i = section.store.panel.names.index(marker)
        truth, found = section.read("targets")[i, BOX, BOX].astype(float), imputed.read()[i, BOX, BOX]
        top = max(np.percentile(truth, 99.8), 1)
        panels = (("STPT", light, "gray", None, np.percentile(light, 99.8)), (f"{marker}, measured", truth, "magma", 0, top), (f"{marker}, imputed", found, "magma", 0, top),
                  ("imputed minus measured", found-truth, "PuOr_r", -top, top))
        for ax, (title, image, cmap, low, high) in zip(row, panels):
            drawn = ax.imshow(image, cmap=cmap, vmin=low, vmax=high); ax.set_title(title, fontsize=10); ax.axis("off")
            if cmap != "gray": fig.colorbar(drawn, ax=ax, shrink=.7, label="counts" if "minus" in title else None)
    fig.savefig(path, pil_kwargs=dict(quality=82))

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        phantom = Phantom(seed=0, sections=3, height=512, width=512)
        store = convert(find_sections(phantom.write(f"{folder}/tumour")), f"{folder}/tumour.zarr")
        dls = chunk_dataloaders(store, split=HeldOutSections([3], guard=0), bs=8, size=64, seed=0)
        learn = unet_learner(dls, widths=(16, 32, 64), seed=0)
        learn.fit_one_cycle(16, 1e-2)
        draw(store[3], impute(as_model(learn), store[3]), Path(__file__).with_name("landing.jpg"))
