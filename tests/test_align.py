"What `03_align.ipynb` cannot hold: drawn fits, sections on disk and in a store, big-shift and cross-section cases, a report without background."
import json, pickle

import numpy as np, pytest
from hypothesis import given, settings, strategies as st

from stpt2imc.align import Fit, FittedImage, TurnedImage, check_pair, fit_from_dict, resize_matrix
from stpt2imc.grid import InputError
from stpt2imc.phantom import Phantom
from stpt2imc.section import ImageSource, Section, find_sections


class Array(ImageSource):
    def __init__(self, image, pixel_um=None):
        self.image, self.shape, self.dtype, self.pixel_um, self.names = image, image.shape, image.dtype, pixel_um, [f'channel {i}' for i in range(len(image))]

    def _read(self, y0, y1, channels): return self.image[channels, y0:y1]


def section(inputs, targets, um=(None, None)): return Section(1, 'S001', Array(inputs, um[0]), Array(targets, um[1]), ('STPT', 'IMC'))


# ---------------------------------------------------------------- fits
fits = st.builds(Fit, kind=st.sampled_from(['same', 'origin', 'resize']), turn=st.integers(0, 3), flip=st.booleans(), shift=st.tuples(*[st.floats(-40, 40)]*2)) | st.builds(
    Fit, kind=st.just('scale'), scale=st.tuples(*[st.floats(.5, 2)]*2), turn=st.integers(0, 3), flip=st.booleans(), shift=st.tuples(*[st.floats(-40, 40)]*2))


@settings(max_examples=150, deadline=None)
@given(fits, st.integers(5, 60), st.integers(5, 60), st.integers(5, 60), st.integers(5, 60), st.integers(1, 17))
def test_bands_equal_the_whole(fit, h, w, height, width, step):
    image = np.random.default_rng(0).integers(0, 65536, (2, h, w)).astype(np.uint16)
    one = pickle.loads(pickle.dumps(FittedImage(Array(image), height, width, fit_from_dict(json.loads(json.dumps(fit.to_dict()))))))
    whole = one.read()
    assert (np.concatenate([one.read(y, min(y+step, height)) for y in range(0, height, step)], 1) == whole).all()
    assert (one.read(0, height, [1])[0] == whole[1]).all()
    upright = np.rot90(image, fit.turn, (1, 2))[..., ::-1 if fit.flip else 1].astype(float)
    if fit.kind in ('resize', 'scale'):
        down, across = (resize_matrix(n, m, s, t).astype(float) for n, m, s, t in zip(upright.shape[1:], (height, width), fit.scales((h, w), (height, width)), fit.shift))
        assert np.abs(whole-np.stack([down @ c @ across.T for c in upright])).max() <= 1
    else: # copies: every value of the frame is a value of the file, at its place
        y, x = np.indices((height, width))
        y, x = y-round(fit.shift[0]), x-round(fit.shift[1])
        inside = (y >= 0) & (x >= 0) & (y < upright.shape[1]) & (x < upright.shape[2])
        assert (whole[:, inside] == upright[:, y[inside], x[inside]]).all() and (inside == one.coverage()).all()
    assert not whole[:, ~one.coverage()].any()


@settings(max_examples=100, deadline=None)
@given(fits, st.integers(0, 30), st.integers(0, 30), st.integers(1, 9), st.integers(1, 9))
def test_a_box_is_never_forgotten(fit, y, x, dy, dx):
    image = np.zeros((1, 41, 40), np.uint16)
    image[:, y:y+dy, x:x+dx] = 65535
    rows, cols = np.nonzero(FittedImage(Array(image), 50, 37, fit).read()[0])
    y0, y1, x0, x1 = fit.box(y, y+dy, x, x+dx, (41, 40), (50, 37))
    assert not len(rows) or (y0 <= rows.min() and rows.max() < y1 and x0 <= cols.min() and cols.max() < x1)


def test_floats_and_turned_scratch(tmp_path, monkeypatch):
    image = np.random.default_rng(0).uniform(-5, 70000, (3, 30, 50)).astype(np.float32)
    assert FittedImage(Array(image), 30, 50).read().max() == 65535
    turned = TurnedImage(Array(image), 1)
    assert (turned.read(3, 9, [2, 0]) == np.rot90(image, 1, (1, 2))[[2, 0], 3:9]).all()
    turned.close()
    monkeypatch.setattr('shutil.disk_usage', lambda p: type('U', (), dict(free=10)))
    with pytest.raises(InputError, match='scratch space'): turned.read()


# ---------------------------------------------------------------- pairs
FRAME = Phantom(seed=7, sections=3, height=800, width=800)


@pytest.fixture(scope='module')
def rendered():
    "IMC of section 1, and its STPT on a canvas with a margin of 320 px."
    canvas = Phantom(seed=7, sections=3, height=800, width=800, stpt_shift=(-320, -320), stpt_height=1440, stpt_width=1440)
    return FRAME.imc(1), canvas.stpt(1)


@pytest.mark.parametrize('shift,turn,flip,size', [pytest.param((300, -300), 0, False, 900, marks=pytest.mark.slow), ((-300, 120), 3, True, 850), pytest.param((0, 0), 0, False, 800, marks=pytest.mark.slow)])
def test_planted_shift_and_turn(rendered, shift, turn, flip, size):
    counts, light = rendered
    cut = light[:, 320+shift[0]:320+shift[0]+size, 320+shift[1]:320+shift[1]+size]
    report = check_pair(section(np.rot90(cut[..., ::-1] if flip else cut, -turn, (1, 2)), counts, (.56, .56)))
    assert (report.best.turn, report.best.flip, report.evidence) == (turn, flip, 'strong') and report.best.kind in ('same', 'origin')
    assert np.abs(np.subtract(report.best.shift, shift)).max() < 2
    assert np.allclose(report.shift_um, np.multiply(report.shift_px, .56))
    assert bool(report.warnings) == (any(shift) or turn > 0) and json.dumps(report.to_dict())


@pytest.mark.parametrize('options,um', [(dict(), (.56/.9, .56)), pytest.param(dict(fits=['resize', Fit('scale', .9)]), (None, None), marks=pytest.mark.slow)])
def test_a_scale_that_is_known_is_named(options, um):
    light = Phantom(seed=7, sections=1, height=800, width=800, stpt_scale=.9, stpt_shift=(-50, -50), stpt_height=810, stpt_width=850).stpt(1)
    report = check_pair(section(light, FRAME.imc(1), um), **options)
    assert report.best.kind == 'scale' and report.evidence == 'strong' and np.allclose(report.best.scale, .9, atol=2e-4), report
    assert np.abs(np.subtract(report.best.shift, -50)).max() < 1


def test_from_files_and_errors(tmp_path):
    small = Phantom(seed=7, sections=1, height=520, width=500)
    found = find_sections(small.write(tmp_path))[0]
    report = check_pair(found)
    assert (report.best, report.evidence, report.warnings) == (Fit(), 'strong', [])
    assert 'Evidence strong' in repr(report) and '<table' in report._repr_html_() and report.show()._repr_jpeg_()[:2] == b'\xff\xd8'
    with pytest.raises(InputError, match='nothing to check'): check_pair(Section(2, 'S002', found.inputs))


def test_images_without_anything_in_common():
    rng = np.random.default_rng(0)
    for a, b in ((rng.poisson(5, (4, 200, 210)), rng.poisson(3, (6, 200, 210))), (np.zeros((4, 200, 200)), np.zeros((3, 180, 190)))):
        report = check_pair(section(a.astype(np.uint16), b.astype(np.uint16)))
        assert report.evidence == 'none' and 'do not match' in report.warnings[0] and report.best.shift == (0, 0)
        json.dumps(report.to_dict()); report.show()
