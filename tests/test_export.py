"Exported sections: valid by the specification, in bounded memory, and read back by others."
import json, tracemalloc

import numpy as np
import pytest
import tifffile
import zarr

from stpt2imc.export import export_ome_tiff, export_ome_zarr
from stpt2imc.impute import Imputed
from stpt2imc.layout import ome_attributes

LABELS = ["141Pr_PanCK", "152Sm_CD45", "168Er_Ki67"]
NAMES = ["imputed: PanCK", "imputed: CD45", "imputed: Ki67"]


def imputed(height, width, pixel_um=.56, value=None):
    "An imputed section of three markers in memory, whose pixels are known."
    group = zarr.group(zarr.storage.MemoryStore())
    array = group.create_array("0", shape=(3, height, width), dtype="float32", chunks=(3, 256, 256))
    if value is None: array[:] = np.random.default_rng(0).gamma(1, 3, (3, height, width)).astype(np.float32)
    model = dict(model="UNet", train_sections=[1, 2], targets=LABELS)
    group.attrs.update(dict(ome_attributes("imputed: section 4", NAMES, pixel_um, [(0, 9)]*3),
                            stpt2imc=dict(kind="imputed", format=1, version="0.1.0", section=4, name="S004", units="expected counts per pixel", targets=LABELS, pixel_um=pixel_um, store="tumour.zarr",
                                          model=model, weights_sha256="0"*64)))
    return Imputed(group)


@pytest.mark.parametrize("version, module", [("0.4", "v04"), ("0.5", "v05")])
def test_the_description_validates(tmp_path, version, module):
    models = pytest.importorskip(f"ome_zarr_models.{module}.image")
    section = imputed(1100, 1300)
    export_ome_zarr(section, tmp_path / "view.ome.zarr", version=version, progress=False)
    group = zarr.open_group(tmp_path / "view.ome.zarr", mode="r")
    assert group.metadata.zarr_format == (2 if version == "0.4" else 3)
    image = models.Image.from_zarr(group)
    found = image.attributes if version == "0.4" else image.ome_attributes
    assert [(a.name, a.type) for a in found.multiscales[0].axes] == [("c", "channel"), ("y", "space"), ("x", "space")]
    assert [d.path for d in found.multiscales[0].datasets] == ["0", "1"]
    omero = group.attrs["omero"] if version == "0.4" else group.attrs["ome"]["omero"]
    assert [c["label"] for c in omero["channels"]] == NAMES and all(set(c["window"]) == {"min", "max", "start", "end"} for c in omero["channels"])
    assert (group["0"][:] == section.read()).all()
    if version == "0.4":
        assert json.loads((tmp_path / "view.ome.zarr/0/.zarray").read_text())["dimension_separator"] == "/"
        assert (tmp_path / "view.ome.zarr/0/2/2/2").exists()          # marker 2, row 2, column 2 of tiles


def test_levels_lie_on_each_other(tmp_path):
    section = imputed(1101, 1303)
    export_ome_zarr(section, tmp_path / "view.ome.zarr", progress=False)
    group = zarr.open_group(tmp_path / "view.ome.zarr", mode="r")
    whole, half = section.read(), group["1"][:]
    assert half.shape == (3, 551, 652)
    assert np.allclose(half[:, :550, :651], whole[:, :1100, :1302].reshape(3, 550, 2, 651, 2).mean((2, 4)), atol=1e-4)
    steps = group.attrs["multiscales"][0]["datasets"][1]["coordinateTransformations"]
    assert np.allclose(steps[0]["scale"], [1, 1.12, 1.12]) and np.allclose(steps[1]["translation"], [0, .28, .28])


def test_tiff_is_read_by_its_own_library(tmp_path):
    section = imputed(1100, 1300)
    export_ome_tiff(section, tmp_path / "view.ome.tif")
    with tifffile.TiffFile(tmp_path / "view.ome.tif") as file:
        series = file.series[0]
        assert file.is_ome and series.axes == "CYX" and [l.shape for l in series.levels] == [(3, 1100, 1300), (3, 550, 650)]
        assert (series.asarray() == section.read()).all()
        assert file.pages[0].is_tiled and file.pages[0].compression.name == "ADOBE_DEFLATE" and file.pages[0].photometric.name == "MINISBLACK"
        said = tifffile.xml2dict(file.ome_metadata)["OME"]
    pixels = said["Image"]["Pixels"]
    assert [c["Name"] for c in pixels["Channel"]] == NAMES and pixels["Type"] == "float" and pixels["PhysicalSizeXUnit"] == "µm"
    assert [c["Color"] for c in pixels["Channel"]] == [-16776961, 16711935, 65535]     # red, green, blue as signed RGBA
    assert sorted(p.name for p in tmp_path.iterdir()) == ["view.ome.tif"]             # nothing is left over


def test_without_a_pixel_size_none_is_claimed(tmp_path):
    export_ome_tiff(imputed(300, 300, None), tmp_path / "view.ome.tif")
    export_ome_zarr(imputed(300, 300, None), tmp_path / "view.ome.zarr")
    with tifffile.TiffFile(tmp_path / "view.ome.tif") as file: assert "PhysicalSize" not in file.ome_metadata
    assert "unit" not in json.dumps(zarr.open_group(tmp_path / "view.ome.zarr", mode="r").attrs["multiscales"])


def test_memory_does_not_grow_with_the_section(tmp_path):
    "Four times the pixels, the same memory."
    def peak(height, width):
        section = imputed(height, width, value=0)
        tracemalloc.start()
        export_ome_tiff(section, tmp_path / f"{height}.ome.tif", overwrite=True)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most
    peak(600, 600)                                                                     # what is loaded once
    small, large = peak(1536, 1536), peak(3072, 3072)
    assert large < 3*3072*3072*4/2 and large < 1.5*small, (small, large)
