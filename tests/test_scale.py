"""Scales: for any counts, transform, cofactor and clip the round trip is exact after rounding, order is kept, JSON loses nothing, and no scale judges a section that it has seen."""
import json
import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from hypothesis.extra import numpy as hnp
from stpt2imc.data import HeldOutSections, chunk_dataloaders, fit_scales
from stpt2imc.grid import InputError
from stpt2imc.phantom import Phantom
from stpt2imc.scale import BINS, TRANSFORMS, CountScale, ReportScale, histogram, histogram_digest, load_scales, percentile, save_scales, scale_from_dict
from stpt2imc.section import find_sections
from stpt2imc.store import convert

tries = settings(max_examples=40, deadline=None)
images = hnp.arrays(np.uint16, hnp.array_shapes(min_dims=3, max_dims=3, max_side=6), elements=st.one_of(st.integers(0, 30), st.integers(0, 65535)))
count_scales = dict(transform=st.sampled_from(sorted(TRANSFORMS)), cofactor=st.floats(.01, 1e4), centre=st.booleans(), clip=st.sampled_from([50., 99., 99.99, 100.]))


def both(scale, counts):
    "Encoded by numpy and by torch, which agree."
    y, t = scale.encode(counts), scale.encode(torch.from_numpy(counts))
    assert y.dtype == np.float32 and t.dtype == torch.float32
    away = np.abs(scale.parameters['shift']/scale.parameters['unit']).max() if 'shift' in scale.parameters else 0 # what was subtracted: its last bits remain
    np.testing.assert_allclose(t.numpy(), y, rtol=2e-5, atol=2e-5*max(np.abs(y).max(), 1e-3)+4e-7*away)
    return y, t


@tries
@given(images, st.fixed_dictionaries(count_scales))
def test_count_scale_gives_every_count_back(counts, how):
    scale = CountScale.fit(histogram(counts), **how)
    y, t = both(scale, counts)
    expected = np.minimum(counts, scale.parameters['clip'][:, None, None])
    for decoded in (scale.decode(y), scale.decode(t).numpy()):
        np.testing.assert_allclose(decoded, expected, rtol=4e-6, atol=max(1e-3, 2e-7*counts.max()))    # float32, in which a centred value is exact to the last bit of its mean
        np.testing.assert_array_equal(np.rint(decoded), expected)                      # and exactly, once rounded
    assert json.loads(json.dumps(scale.to_dict())) == scale.to_dict()
    assert scale_from_dict(json.loads(json.dumps(scale.to_dict()))) == scale


@tries
@given(st.fixed_dictionaries(count_scales), st.integers(1, 65535))
def test_order_is_kept_up_to_the_clip(how, top):
    ladder = np.arange(BINS, dtype=np.uint16).reshape(1, 256, 256)
    scale = CountScale([1.], 0., top, how['transform'], how['cofactor'])
    y = scale.encode(ladder).ravel()
    assert (np.diff(y[:top+1]) > 0).all() and (y[top:] == y[top]).all()
    np.testing.assert_array_equal(np.rint(scale.decode(y.reshape(1, 256, 256)))[0].ravel(), np.minimum(np.arange(BINS), top))


@tries
@given(images)
def test_report_scale_is_exact_but_for_its_8_bits(counts):
    smooth, rounded = (ReportScale.fit(histogram(counts), eight_bit) for eight_bit in (False, True))
    np.testing.assert_array_equal(np.rint(smooth.decode(both(smooth, counts)[0])), counts)
    low, high = (v.astype(np.int64)[:, None, None] for v in smooth.parameters.values())
    whole = (counts.astype(np.int64)-low)*255//(high-low)                              # what 8 bits keep, in whole numbers
    y = rounded.encode(counts)
    np.testing.assert_allclose(y, 255/np.log(256)*np.log1p(whole), rtol=1e-5, atol=1e-5)
    off = counts-rounded.decode(y)
    assert (off > -.01).all() and (off < (high-low)/255+.01).all()
    for scale in (smooth, rounded): assert scale_from_dict(json.loads(json.dumps(scale.to_dict()))) == scale


@tries
@given(images, st.floats(0, 100))
def test_percentiles_are_those_of_the_pixels(counts, q):
    np.testing.assert_array_equal(percentile(histogram(counts), q), np.percentile(counts, q, axis=(1, 2), method='inverted_cdf'))


@tries
@given(st.lists(st.floats(1e-300, 1e300), min_size=1, max_size=4), st.floats(1e-6, 1e6))
def test_json_keeps_every_bit(units, cofactor):
    scale = CountScale(units, cofactor=cofactor, fitted_on={3: 'ab'})
    again = scale_from_dict(json.loads(json.dumps(scale.to_dict())))
    assert again == scale and again.fitted_on == {3: 'ab'} and (again.parameters['unit'] == units).all() and again.cofactor == cofactor


@pytest.fixture(scope='module')
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp('scale')
    return convert(find_sections(Phantom(sections=3, height=192, width=160).write(folder/'phantom', progress=False)), folder/'phantom.zarr', progress=False)


def test_fits_are_on_training_sections_only(store):
    dls = chunk_dataloaders(store, HeldOutSections([3], guard=0), size=64, device='cpu')
    for scale, role in zip(dls.scales, ('inputs', 'targets')):
        assert scale.fitted_on == {n: histogram_digest(store[n].histogram(role)) for n in (1, 2)}
        total = sum(store[n].histogram(role) for n in (1, 2))
        assert (CountScale.fit(total, scale.transform, centre=role == 'inputs').parameters['unit'] == scale.parameters['unit']).all()


@pytest.mark.parametrize('role', [0, 1])
@pytest.mark.parametrize('numbers', [[3], [1, 3], [1, 2, 3]])
def test_leaky_scale_is_refused(store, tmp_path, role, numbers):
    clean, leaky = fit_scales(store, [1]), fit_scales(store, numbers)
    scales = tuple(leaky[i] if i == role else clean[i] for i in range(2))
    saved = load_scales(save_scales(scales, tmp_path/'scale.json'))                    # it does not forget on the way
    for s in (scales, saved):
        with pytest.raises(InputError, match=r'among them the held-out \[3\]'): chunk_dataloaders(store, HeldOutSections([3], guard=0), size=64, scales=s)
    chunk_dataloaders(store, HeldOutSections([3], guard=0), size=64, scales=clean)


def test_scale_of_another_store_is_welcome(store, tmp_path, caplog):
    other = convert(find_sections(Phantom(seed=5, sections=2, height=96, width=96).write(tmp_path/'other', progress=False)), tmp_path/'other.zarr', progress=False)
    chunk_dataloaders(store, HeldOutSections([3], guard=0), size=64, scales=fit_scales(other, [1, 2]))
    assert not caplog.records                                                          # its sections 1 and 2 are not the held-out section 3
    chunk_dataloaders(store, HeldOutSections([2], guard=0), size=64, scales=fit_scales(other, [1, 2]))
    assert 'other counts under the same number' in caplog.text                         # a section 2 it knows: the same tissue, or another store?


def test_scale_file_of_version_0_1(tmp_path):
    (tmp_path/'scale.json').write_text('{"inputs": {"kind": "CountScale", "transform": "log1p", "cofactor": 1.0, "unit": [0.5, 2.0], "shift": [5.0, 4.0], "clip": [900.0, 65535.0]},'
                                       ' "targets": {"kind": "ReportScale", "eight_bit": true, "low": [0.0], "high": [7764.0]}}')
    inputs, targets = load_scales(tmp_path)
    assert (inputs.fitted_on, targets.fitted_on, len(inputs), targets.eight_bit) == (None, None, 2, True)
    assert inputs.encode(np.zeros((2, 1, 1), np.uint16)).ravel().tolist() == [-10, -2]
