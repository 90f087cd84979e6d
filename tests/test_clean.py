"What `04a_clean.ipynb` cannot hold: any banding, JSON and pickles of every step, bad matrices, the real oracles, bounded reads."
import json, pickle

import numpy as np, pandas as pd, pytest, tifffile
from hypothesis import given, settings, strategies as st
from scipy.ndimage import maximum_filter
from scipy.optimize import nnls

from stpt2imc.clean import (ArrayImage, CleanedImage, HotPixels, MissingTiles, Shading, Spillover, Stripes, clean, nnls_pixels, read_spillover, spillover_for,
                            step_from_dict)
from stpt2imc.grid import InputError
from stpt2imc.section import TiffImage, data_folder

NAMES = ['141Pr_aSMA', '142Nd_CD19', '143Nd_Vimentin', '159Tb_CD68']
MATRIX = pd.DataFrame([[1, .02, .005, .01], [.01, 1, .03, 0], [0, .02, 1, .015], [0, 0, 0, 1]], ['Pr141Di', 'Nd142Di', 'Nd143Di', 'Tb159Di'], ['Pr141Di', 'Nd142Di', 'Nd143Di', 'Tb159Di'])


def mosaic(seed=0, h=150, w=170, c=4):
    "Bright tissue in tiles of 37 px on a dark frame, striped, with hot pixels."
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:h, :w]
    light = 400*(1-.3*(y % 37)/37)*(1-.3*(x % 37)/37)*rng.normal(1, .03, (c, h, 1))*rng.normal(1, .03, (c, 1, w))
    image = rng.poisson(np.where((y > 8) & (x > 8), light, 20)+100)
    image[:, rng.integers(0, h, 20), rng.integers(0, w, 20)] += 3000
    return np.minimum(image, 65535).astype(np.uint16)


def chains(): return [[HotPixels()], [Spillover(MATRIX)], [Spillover(MATRIX, rounding='nearest'), HotPixels(20)], [Stripes('both')], [Stripes('horizontal', window=5), Shading(tile=37)], [Shading(tile=37.5, offset=(3, 4.5))],
                      [MissingTiles(), Stripes('vertical'), Shading(tile=37), HotPixels()], []]


# ---------------------------------------------------------------- bands, JSON, pickles
@pytest.mark.parametrize('k', range(8))
@pytest.mark.parametrize('kind', ['uint16', 'float32'])
def test_bands_equal_the_whole(k, kind):
    image = mosaic().astype(kind)
    whole = CleanedImage(ArrayImage(image, NAMES), chains()[k])
    out = whole.read()
    assert out.shape == image.shape and out.dtype == image.dtype
    assert k in (6, 7) or (out != image).any()
    again = CleanedImage(whole.source, [step_from_dict(json.loads(json.dumps(s.to_dict()))) for s in whole.steps], prepare=False)
    for rows in (1, 13, 64, 149):
        for source in (pickle.loads(pickle.dumps(whole)), again):
            bands = np.concatenate([source.read(a, min(a+rows, 150)) for a in range(0, 150, rows)], 1)
            np.testing.assert_array_equal(bands, out)
    np.testing.assert_array_equal(whole.read(5, 99, ['Vimentin', 0]), out[[2, 0], 5:99])


@given(cuts=st.lists(st.integers(1, 149), max_size=6, unique=True), k=st.integers(0, 6))
@settings(max_examples=25, deadline=None)
def test_any_banding(cuts, k):
    whole = PREPARED.setdefault(k, CleanedImage(ArrayImage(mosaic(), NAMES), chains()[k]))
    at = [0, *sorted(cuts), 150]
    np.testing.assert_array_equal(np.concatenate([whole.read(a, b) for a, b in zip(at, at[1:])], 1), whole.read())


PREPARED = {}


def test_slabs_do_not_show(monkeypatch):
    image = mosaic()
    for steps in chains(): 
        one = CleanedImage(ArrayImage(image, NAMES), steps)
        out = one.read()
        with monkeypatch.context() as m:
            m.setattr('stpt2imc.clean._SLAB', 1)
            np.testing.assert_array_equal(one.read(), out)


def test_source_like_any_other(tmp_path):
    tifffile.imwrite(tmp_path/'a.ome.tif', mosaic(), ome=True, photometric='minisblack', metadata={'axes': 'CYX', 'Channel': {'Name': NAMES}, 'PhysicalSizeX': .5, 'PhysicalSizeY': .5})
    source = TiffImage(tmp_path/'a.ome.tif')
    c = CleanedImage(source, HotPixels())
    assert (c.names, c.shape, c.dtype, c.pixel_um, c.path, c.files) == (source.names, source.shape, source.dtype, source.pixel_um, source.path, source.files)
    assert 'CleanedImage' in repr(c) and c.missing == []
    c.check()
    (tmp_path/'a.ome.tif').unlink()
    with pytest.raises(InputError): c.check()


def test_one_channel_reads_one_channel():
    class Counting(ArrayImage):
        def _read(self, y0, y1, channels): seen.append((y0, y1, list(channels))); return super()._read(y0, y1, channels)
    seen = []
    source = Counting(mosaic(), NAMES)
    CleanedImage(source, HotPixels()).read(40, 50, [2])
    assert seen == [(39, 51, [2])]
    seen.clear()
    CleanedImage(source, [Spillover(MATRIX).prepare(source), HotPixels()], prepare=False).read(40, 50, [2])
    assert seen == [(39, 51, [0, 1, 2, 3])]


# ---------------------------------------------------------------- hot pixels
@given(st.integers(0, 10**6), st.integers(1, 9), st.integers(1, 9), st.sampled_from(['uint16', 'float32']))
@settings(max_examples=60, deadline=None)
def test_hot_pixels_are_steinbocks(seed, h, w, kind):
    image = (np.random.default_rng(seed).random((1, h, w))**6*300).astype(kind)
    ring = np.ones((1, 3, 3), bool); ring[0, 1, 1] = False
    brightest = maximum_filter(image, footprint=ring, mode='mirror').astype(float)
    if min(h, w) > 1: np.testing.assert_array_equal(clean(image, HotPixels(50)), np.where(image.astype(float)-brightest > 50, brightest.astype(kind), image))


def test_hot_pixels_of_a_real_acquisition():
    folder = data_folder()
    if not folder or not (folder/'imc_mock_mcd').is_dir(): pytest.skip('imc_mock_mcd is not in STPT2IMC_DATA')
    regions = sorted((folder/'imc_mock_mcd').glob('steinbock_img/*.tiff'))
    assert len(regions) == 9
    for filtered in regions:
        run, number = filtered.stem.rsplit('_', 1)
        raw = TiffImage(next((folder/'imc_mock_mcd').glob(f'imctools_ometiff/{run}/*_a{int(number)}_ac.ome.tiff')))
        source = CleanedImage(raw, HotPixels(50))
        np.testing.assert_array_equal(np.concatenate([source.read(y, min(y+5, raw.shape[1])) for y in range(0, raw.shape[1], 5)], 1), tifffile.imread(filtered))


# ---------------------------------------------------------------- spillover
@pytest.mark.parametrize('most', [.02, .1, .5])
def test_nnls_is_scipys(most):
    rng = np.random.default_rng(int(100*most))
    share = np.eye(20)+(rng.random((20, 20)) < .4)*rng.uniform(0, most, (20, 20))*(1-np.eye(20))
    y = rng.poisson(rng.gamma(.3, 8, (20, 500)))
    y[:, ::7] = 0; y[3, 5] = 60000
    direct = np.stack([nnls(share.T, p)[0] for p in y.T.astype(float)], 1)
    np.testing.assert_allclose(nnls_pixels(share, y), direct, atol=1e-5, rtol=1e-8)


def test_spillover_is_undone_exactly_without_noise():
    rng = np.random.default_rng(0)
    x = rng.gamma(.5, 20, (4, 30, 40))*(rng.random((4, 30, 40)) < .5)
    y = np.einsum('ij,ihw->jhw', MATRIX.to_numpy(), x).astype(np.float32)
    np.testing.assert_allclose(clean(y, Spillover(MATRIX), NAMES), x, atol=2e-3)
    order = [2, 0, 3, 1]                                                   # by metal, never by position
    np.testing.assert_allclose(clean(y[order], Spillover(MATRIX), [NAMES[i] for i in order]), x[order], atol=2e-3)


def test_matrix_from_csv(tmp_path, caplog):
    MATRIX.to_csv(tmp_path/'spill.csv')
    share, unknown = spillover_for(read_spillover(tmp_path/'spill.csv'), [*NAMES, '191Ir_DNA1'])
    np.testing.assert_array_equal(share[:4, :4], MATRIX)
    assert unknown == ['191Ir_DNA1'] and share[4].tolist() == [0, 0, 0, 0, 1]
    image = np.random.default_rng(0).poisson(3, (5, 20, 20)).astype(np.uint16)
    out = clean(image, Spillover(tmp_path/'spill.csv'), [*NAMES, '191Ir_DNA1'])
    np.testing.assert_array_equal(out[4], image[4])
    assert '191Ir_DNA1' in caplog.text
    part, _ = spillover_for(read_spillover(MATRIX.iloc[:2]), NAMES)      # single stains of some metals only
    np.testing.assert_array_equal(part[2:], np.eye(4)[2:])


@pytest.mark.parametrize('change,message', [
    (lambda m: m.iloc.__setitem__((1, 2), -.1), "row 'Nd142Di', column 'Nd143Di' is negative"), (lambda m: m.iloc.__setitem__((0, 3), np.nan), "row 'Pr141Di', column 'Tb159Di' is not a number"),
    (lambda m: m.iloc.__setitem__((2, 2), .5), "row 'Nd143Di', column 'Nd143Di' is 0.5, but the diagonal"), (lambda m: m.iloc.__setitem__((0, 1), 2.), "row 'Pr141Di', column 'Nd142Di' is above 1")])
def test_bad_matrices(change, message):
    bad = MATRIX.astype(float).copy(); change(bad)
    with pytest.raises(InputError) as e: clean(mosaic(), Spillover(bad), NAMES)
    assert message in str(e.value)


def test_matrices_of_something_else(tmp_path):
    with pytest.raises(InputError, match='knows none of the channels'): clean(mosaic(), Spillover(MATRIX), ['a', 'b', 'c', 'd'])
    with pytest.raises(InputError, match='no file'): Spillover(tmp_path/'none.csv')
    twice = pd.concat([MATRIX, MATRIX.iloc[:1].rename(index={'Pr141Di': '141Pr'})])
    with pytest.raises(InputError, match="2 rows for channel '141Pr_aSMA'"): clean(mosaic(), Spillover(twice), NAMES)
    with pytest.raises(InputError, match='cannot be undone'): clean(mosaic(), Spillover(pd.DataFrame([[1, 1.], [1, 1]], NAMES[:2], NAMES[:2])), NAMES)


# ---------------------------------------------------------------- shading, stripes, missing tiles
def test_shading_finds_its_grid_and_only_then_acts(caplog):
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:370, :400]
    texture = 300*np.exp(rng.normal(0, .1, (370, 400)))
    shaded = texture*np.exp(-.3*((x-9) % 40)/40-.25*((y-11) % 40)/40)
    step = Shading().prepare(ArrayImage(shaded.astype(np.float32)))
    np.testing.assert_allclose(step.tile, 40, atol=.3)
    np.testing.assert_allclose(step.offset, (11, 9), atol=1)
    error = np.log(clean(shaded.astype(np.float32), step)/texture)
    assert error.std() < .25*np.log(shaded/texture).std()
    assert np.array_equal(clean(texture.astype(np.float32), Shading()), texture.astype(np.float32)) and 'no tile grid' in caplog.text
    black = np.zeros((1, 100, 100), np.uint16)
    assert np.array_equal(clean(black, [MissingTiles(), Stripes('both'), Shading()]), black)


def test_missing_tiles_to_the_pixel():
    rng = np.random.default_rng(0)
    image = rng.poisson(300, (2, 500, 600)).astype(np.uint16)
    assert CleanedImage(ArrayImage(image), MissingTiles()).missing == []
    image[:, 120:330, 215:430] = 7
    image[:, :, 77] = 0; image[:, 400:402] = 0
    assert CleanedImage(ArrayImage(image), MissingTiles()).missing == [(120, 330, 215, 430)]
    noisy = rng.poisson(300, (1, 500, 600)).astype(np.uint16)
    noisy[0, :, :205] = rng.poisson(4, (500, 205))                        # dark, not constant, ends at one column
    found = CleanedImage(ArrayImage(noisy), MissingTiles()).missing
    assert len(found) == 1 and found[0][2:] == (0, 205) and found[0][0] == 0 and found[0][1] >= 496


@pytest.mark.parametrize('bad', [lambda: HotPixels(-1), lambda: Stripes('diagonal'), lambda: Stripes(window=1), lambda: Shading(tile=2), lambda: MissingTiles(3), lambda: Spillover(MATRIX, rounding='up'),
                                 lambda: clean(mosaic(), ['hot']), lambda: clean(mosaic(), [HotPixels]), lambda: step_from_dict({'kind': 'X'}), lambda: ArrayImage(np.zeros(3)), lambda: Stripes().apply(mosaic().astype(float), 0, (4, 150, 170))])
def test_refusals(bad):
    with pytest.raises(InputError): bad()
