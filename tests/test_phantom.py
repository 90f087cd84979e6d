"""The phantom: same bytes however it is cut, bounded memory, effects that can be switched off, a tumour that goes on from plane to plane."""
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import tifffile

from stpt2imc.grid import InputError
from stpt2imc.phantom import CELL_CLASS, Phantom
from stpt2imc.section import find_sections


@pytest.fixture(scope="module")
def phantom(): return Phantom(seed=11, sections=3, height=200, width=180)


def files(folder): return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*.tif"))}


def test_same_bytes_for_any_strip_thread_and_layout(phantom, tmp_path):
    one = files(phantom.write(tmp_path / "one", strip=64, workers=1))
    assert files(phantom.write(tmp_path / "three", strip=4096, workers=3)) == one
    assert files(replace(phantom, seed=12).write(tmp_path / "other"))["S001_Z00.tif"] != one["S001_Z00.tif"]
    first = files(phantom.write(tmp_path / "ome", layout="ome", strip=64))
    assert files(phantom.write(tmp_path / "again", layout="ome", workers=1)) == first
    for n, section in enumerate(find_sections(tmp_path / "ome", inputs=phantom.input_names, targets="rest"), 1):
        assert (section.inputs.read() == phantom.stpt(n)).all() and (section.targets.read() == phantom.imc(n)).all()
        assert section.panel.names == phantom.panel.names and section.inputs.pixel_um == pytest.approx(.56)


def test_ome_names_and_pixel_size_are_what_other_programs_read(phantom, tmp_path):
    with tifffile.TiffFile(replace(phantom, sections=1).write(tmp_path, layout="ome") / "phantom_01.ome.tif") as tif:
        assert tif.series[0].axes == "CYX" and tif.series[0].shape == (48, 200, 180)
        assert "113In_HistoneH3" in tif.ome_metadata and "far red Z00" in tif.ome_metadata and 'PhysicalSizeX="0.56"' in tif.ome_metadata


def test_a_strip_deep_in_a_full_size_section_costs_a_strip():
    large = Phantom(sections=1, height=20800, width=256)
    assert (large.imc(1, 20100, 20130) == large.imc(1, 20064, 20160)[:, 36:66]).all()
    assert (large.stpt(1, 20100, 20130) == large.stpt(1, 20064, 20160)[:, 36:66]).all()


def test_memory_of_writing_does_not_grow_with_the_height(tmp_path):
    peaks = []
    for height in (256, 768):
        tracemalloc.start()
        Phantom(sections=1, height=height, width=64).write(tmp_path / str(height), strip=64, workers=1)
        peaks.append(tracemalloc.get_traced_memory()[1]); tracemalloc.stop()
    assert peaks[1] < 1.3 * peaks[0] + 1e6, peaks


EFFECTS = dict(stpt=dict(tears=0, autofluorescence=0, reporter=0, second_harmonic=0, psf=0, scattering=0, photons=np.inf, read_noise=0, stripes=0, shading=0, tile_gain=0, missing_tiles=.9, saturation=500),
               imc=dict(tears=0, spot=0, below=0, background=0, spillover=0, drift=0, hot_pixels=1e-3, dropouts=.5, folds=60))


@pytest.mark.parametrize("image, name", [(i, n) for i, e in EFFECTS.items() for n in e])
def test_each_effect_is_a_parameter_of_its_own_instrument(phantom, image, name):
    wide = replace(phantom, tile=64, sections=1)
    changed, other = replace(wide, **{name: EFFECTS[image][name]}), "imc" if image == "stpt" else "stpt"
    look = lambda p, which: getattr(p, which)(1, 0, 64)
    assert (look(changed, image) != look(wide, image)).any()
    if name != "tears": assert (look(changed, other) == look(wide, other)).all()


def test_without_artefacts_counts_are_poisson_and_the_light_has_no_tiles(phantom):
    clean = replace(phantom, tile=50).clean()
    excess = (clean.imc(2) - clean.expected(2)) / np.sqrt(np.maximum(clean.expected(2), 1e-6))
    bright = clean.expected(2) > 2
    assert abs(excess[bright].mean()) < .02 and abs(excess[bright].std() - 1) < .02
    assert (clean.stpt(2) == replace(clean, tile=70).stpt(2)).all()
    assert (clean.spillover_matrix.to_numpy() == np.eye(40)).all()


def test_spillover_is_undone_by_its_matrix(phantom):
    mixed, pure = replace(phantom, drift=0).expected(1), replace(phantom, drift=0, spillover=0).expected(1)
    solved = np.linalg.solve(phantom.spillover_matrix.to_numpy().T, mixed.reshape(40, -1).astype(float)).reshape(mixed.shape)
    assert np.abs(solved - pure).max() < 1e-3 and np.abs(mixed - pure).max() > .1


def test_hidden_draws_change_types_and_counts_but_not_light_or_oracle(phantom):
    other = replace(phantom, hidden=1)
    a, b = phantom.cells(1), other.cells(1)
    assert (a["y"] == b["y"]).all() and (CELL_CLASS[a["kind"]] == CELL_CLASS[b["kind"]]).all() and (a["kind"] != b["kind"]).any()
    assert (other.stpt(1) == phantom.stpt(1)).all() and (other.oracle(1) == phantom.oracle(1)).all()
    assert (other.expected(1) != phantom.expected(1)).any() and (other.imc(1) != phantom.imc(1)).any()


def test_planes_share_cells_as_far_as_cells_reach():
    phantom = Phantom(seed=2, sections=4, height=400, width=400)
    sites = lambda n, depth=0: set(map(tuple, phantom.cells(n, depth=depth)["site"]))
    share = lambda a, b: len(a & b) / len(a)
    first = sites(1)
    assert share(first, sites(1, 1)) > .15 > share(first, sites(2)) > .005 and share(first, sites(3)) == 0
    assert share(sites(1, 1), sites(2)) > share(first, sites(2))                # the second depth lies nearer to the next section


def test_predictability_belongs_to_the_design_not_to_a_seed():
    p = Phantom().predictability
    assert p.equals(Phantom(seed=9, height=64, width=64, stripes=0).predictability)
    assert p.max() > .98 and p.min() < .01 and ((p > .05) & (p < .6)).sum() >= 8
    one_plane = Phantom(below=0).predictability
    assert one_plane["mCherry"] > .98 and not one_plane.equals(p)


@pytest.mark.parametrize("wrong, words", [(dict(spillover=-1), "spillover=-1"), (dict(photons=float("nan")), "photons=nan"), (dict(height=8), "at least 1 section")])
def test_impossible_values_are_refused_by_name(wrong, words):
    with pytest.raises(InputError, match=words): Phantom(**wrong)
