"""A store against whole images: the same by one process, several, or a cluster; valid for other readers; behind URLs."""
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
import zarr

from stpt2imc.align import Fit
from stpt2imc.grid import InputError
from stpt2imc.layout import level_shapes
from stpt2imc.phantom import Phantom
from stpt2imc.section import find_sections
from stpt2imc.store import convert, open_store


def contents(path): return {p.relative_to(path).as_posix(): p.read_bytes() for p in sorted(Path(path).rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    "A section of which STPT is 10/9 as large as IMC, and its store."
    folder = tmp_path_factory.mktemp("pair")
    rng = np.random.default_rng(0)
    (folder / "raw" / "SECTION_01" / "TIF").mkdir(parents=True)
    stpt, imc = rng.integers(0, 30000, (8, 1300, 700), dtype=np.uint16), rng.poisson(.4, (5, 1170, 630)).astype(np.uint16)
    for z in (0, 1): tifffile.imwrite(folder / "raw" / f"S001_Z0{z}.tif", np.moveaxis(stpt[4 * z:4 * z + 4], 0, -1), photometric="minisblack", planarconfig="contig")
    for m in range(5): tifffile.imwrite(folder / "raw" / "SECTION_01" / "TIF" / f"{141 + m}Pr_M{m}.tif", imc[m], compression="zlib", rowsperstrip=300)
    sections = find_sections(folder / "raw")
    return folder, sections, stpt, imc, convert(sections, folder / "one.zarr", fit="resize", pyramid=True)


def test_equal_to_the_whole_image(pair):
    _, _, stpt, imc, store = pair
    assert (store[1].read("targets") == imc).all()
    whole = torch.nn.functional.interpolate(torch.tensor(stpt[None].astype(np.float64)), (1170, 630), mode="bilinear", antialias=True, align_corners=False)[0].numpy()
    assert np.abs(store[1].read("inputs") - whole).max() <= 1
    assert (store[1].histogram("inputs").sum(1) == 1170 * 630).all()


def test_several_processes_write_the_same_bytes(pair):
    folder, sections, *_ = pair
    assert contents(convert(sections, folder / "two.zarr", fit="resize", pyramid=True, workers=2).path) == contents(folder / "one.zarr")


def test_a_cluster_writes_the_same_bytes(pair):
    folder, sections, *_ = pair
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None) as cluster, distributed.Client(cluster) as client:
        assert contents(convert(sections, folder / "dask.zarr", fit="resize", pyramid=True, client=client).path) == contents(folder / "one.zarr")


def test_a_pyramid_added_later_is_the_same(pair):
    folder, sections, _, imc, store = pair
    later = convert(sections, folder / "later.zarr", fit="resize")
    assert "targets/1" not in later[1].group
    later[1].write_pyramid()
    assert contents(folder / "later.zarr") == contents(folder / "one.zarr")
    level = open_store(folder / "later.zarr")[1].group["targets/1"]
    assert level.shape[1:] == level_shapes(1170, 630)[0] and np.abs(level[:] - imc.reshape(5, 585, 2, 315, 2).mean((2, 4))).max() <= .5


def test_a_cluster_or_process_passes_on_what_is_wrong(pair):
    folder, sections, *_ = pair
    path = folder / "raw" / "S001_Z01.tif"
    saved = path.read_bytes()
    from stpt2imc import store as module
    real = module.check_sections
    try:
        module.check_sections = lambda s: path.write_bytes(saved[:5000])   # cut short after the check
        with pytest.raises(InputError, match="S001_Z01.tif"): convert(sections, folder / "bad.zarr", fit="resize", workers=1)
    finally:
        module.check_sections = real
        path.write_bytes(saved)


@pytest.mark.parametrize("role", ["inputs", "targets"])
def test_the_metadata_validates(pair, role):
    models = pytest.importorskip("ome_zarr_models.v05.image")
    folder, *_, store = pair
    group = zarr.open_group(folder / "one.zarr" / "section_001" / role, mode="r")
    image = models.Image.from_zarr(group)
    assert [a.name for a in image.ome_attributes.multiscales[0].axes] == ["c", "y", "x"]
    assert len(image.ome_attributes.multiscales[0].datasets) == 2
    if role == "targets": assert [c["label"] for c in zarr.open_group(folder / "one.zarr" / "section_001" / role, mode="r").attrs["ome"]["omero"]["channels"]] == store.panel.names


def test_behind_a_url_it_continues_and_verifies(pair):
    _, sections, _, imc, _ = pair
    import fsspec
    url, fs = "memory://bucket/tumour.zarr", fsspec.filesystem("memory")
    store = convert(sections, url, fit="resize", pyramid=True)
    assert (store[1].read("targets") == imc).all() and store.verify().files.sum() > 10
    fs.rm_file("/bucket/tumour.zarr/section_001/targets/0/c/0/2/0")
    with pytest.raises(InputError, match="rows 512 to 767"): open_store(url).verify()
    whole = {p: fs.cat_file(p) for p in fs.find("/bucket/tumour.zarr")}
    fs.rm_file("/bucket/tumour.zarr/section_001/zarr.json")   # as if it had never been finished
    with pytest.raises(InputError, match="no complete section"): open_store(url)
    convert(sections, url, fit="resize", pyramid=True)
    assert set(whole) < {p for p in fs.find("/bucket/tumour.zarr")}
    assert open_store(url).verify().files.sum() > 10


def test_the_measured_fit_is_used_and_kept(tmp_path, caplog):
    phantom = Phantom(sections=1, height=640, width=640)
    phantom.write(tmp_path / "raw")
    store = convert(find_sections(tmp_path / "raw"), tmp_path / "s.zarr", fit="auto")
    assert store[1].meta["report"]["evidence"] in ("strong", "weak", "none") and store[1].fit == Fit(**store[1].meta["alignment"])
    assert json.dumps(store[1].meta["report"]["table"])
    assert convert(find_sections(tmp_path / "raw"), tmp_path / "s.zarr", fit="auto").numbers == [1]


def test_a_store_of_another_layout_is_refused(pair, tmp_path):
    folder, sections, *_ = pair
    old = shutil.copytree(folder / "one.zarr", tmp_path / "old.zarr")
    attributes = json.loads((old / "zarr.json").read_text())
    attributes["attributes"]["stpt2imc"]["format"] = 1
    (old / "zarr.json").write_text(json.dumps(attributes))
    with pytest.raises(InputError, match="layout 1 of another version"): open_store(old)
    with pytest.raises(InputError, match="other format"): convert(sections, old, fit="resize")
