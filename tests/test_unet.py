"""U-Net: for any options and any size, tiles with a margin of `reach` fit together to what the whole image gives; nothing outside the reach matters; saved configurations rebuild the same network."""
import json
import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from scipy.ndimage import gaussian_filter
from torch import nn
from stpt2imc.blocks import BLOCKS, NORMS, UPS
from stpt2imc.grid import InputError
from stpt2imc.scalespace import TRUNCATE, RidgeSums, ScaleSpace
from stpt2imc.unet import UNet, adapt, describe, fit_shortcut

tries = settings(max_examples=20, deadline=None)
sigmas = st.lists(st.sampled_from([.5, 1., 2., 4., 7.]), min_size=1, max_size=3, unique=True).map(tuple)
options = st.fixed_dictionaries(dict(block=st.sampled_from(list(BLOCKS)), norm=st.sampled_from(list(NORMS)), up=st.sampled_from(list(UPS)), attention=st.booleans(), shortcut=st.none() | sigmas,
                                     context=st.none() | sigmas, dropout=st.sampled_from([0., .3]), widths=st.lists(st.integers(1, 5), min_size=1, max_size=3).map(tuple), in_channels=st.integers(1, 3), out_channels=st.integers(1, 4)))


def awake(net, seed):
    "A network whose every layer matters: random last layers and averages."
    torch.manual_seed(seed)
    for m in (net.last, net.line):
        if m is not None:
            nn.init.normal_(m.weight)
    net.train()
    with torch.no_grad():
        net(torch.randn(2, net.in_channels, 2*net.stride, 3*net.stride))
    return net.eval()


def in_tiles(net, x, tile):
    "Tile by tile, each with `reach` px around it."
    out = torch.empty(len(x), net.out_channels, *x.shape[-2:])
    for y0 in range(0, x.shape[-2], tile[0]):
        for x0 in range(0, x.shape[-1], tile[1]):
            top, left = max(y0-net.reach, 0), max(x0-net.reach, 0)
            part = net(x[..., top:y0+tile[0]+net.reach, left:x0+tile[1]+net.reach])
            out[..., y0:y0+tile[0], x0:x0+tile[1]] = part[..., y0-top:, x0-left:][..., :tile[0], :tile[1]]
    return out


@tries
@given(options, st.integers(1, 120), st.integers(1, 120), st.integers(1, 8), st.integers(1, 8), st.integers(0, 99))
def test_tiles_fit_together(options, height, width, rows, columns, seed):
    net = awake(UNet(**options), seed)
    x = torch.randn(1, net.in_channels, height, width)
    tile = tuple(max(n*net.stride, -(-24//net.stride)*net.stride) for n in (rows, columns))     # multiples of the stride, as `impute` takes
    with torch.no_grad():
        whole = net(x)
        assert whole.shape == (1, net.out_channels, height, width) and whole.isfinite().all()
        near = 1e-4 if net.norm != 'group' else 1e-2                                             # a group that hardly varies at a pixel is divided by next to nothing: rounding grows
        torch.testing.assert_close(in_tiles(net, x, tile), whole, rtol=near, atol=near*max(float(whole.abs().max()), 1))


@tries
@given(options, st.integers(0, 99), st.integers(0, 7))
def test_nothing_outside_the_reach_matters(options, seed, shift):
    net = awake(UNet(**options), seed)
    side = 2*net.reach+3*net.stride
    at = side//2+shift % net.stride
    x = torch.randn(1, net.in_channels, side, side, requires_grad=True)
    net(x)[0, :, at, at].sum().backward()
    seen = torch.nonzero(x.grad.abs().sum((0, 1)))
    assert len(seen) == 0 or (seen-at).abs().max() <= net.reach


@tries
@given(options)
def test_config_is_all_there_is(options):
    torch.manual_seed(1)
    net = UNet(**options)
    with torch.no_grad():
        first = net.eval()(torch.randn(1, net.in_channels, 9, 5))
    torch.testing.assert_close(first, first[..., :1, :1].expand_as(first))                        # untrained: a constant
    again = UNet(**json.loads(json.dumps(net.config())))
    assert again.config() == net.config()
    again.load_state_dict(awake(net, 0).state_dict())
    x = torch.randn(1, net.in_channels, 12, 7)
    with torch.no_grad():
        torch.testing.assert_close(again.eval()(x), net(x))
    table = describe(net, 40)
    assert table[["parameters down", "parameters up"]].sum().sum() == sum(p.numel() for p in net.parameters())
    assert net.reach-net.stride < table["reach, px"].max() <= net.reach


@pytest.mark.parametrize("layout, block", [(l, b) for l in ("channels_last", "bfloat16") for b in BLOCKS]+[("compiled", "residual")])  # compiling takes ten seconds: once
def test_other_forms_say_the_same(layout, block):
    net = awake(UNet(2, 3, (4, 6), block=block, norm="group", up="shuffle", attention=True, shortcut=(0, 2), context=(1,)), 0)
    x = torch.randn(1, 2, 22, 17)
    if layout != "bfloat16":  # random weights amplify rounding: in float64 only that of the blurs, which are float32, is left
        net, x = net.double(), x.double()
    with torch.no_grad():
        plain = net(x)
        if layout == "channels_last":
            other = net.to(memory_format=torch.channels_last)(x.contiguous(memory_format=torch.channels_last))
        elif layout == "compiled":
            torch._dynamo.reset()
            other = torch.compile(net, backend="aot_eager")(x)
        else:
            with torch.autocast("cpu", torch.bfloat16):
                other = net(x).float()
            assert other.isfinite().all() and (other-plain).abs().mean() < .05*plain.std()
            return
    torch.testing.assert_close(other, plain, rtol=1e-4, atol=1e-4)


@tries
@given(st.lists(st.floats(.3, 20), min_size=1, max_size=3, unique=True), st.integers(1, 90), st.integers(1, 90), st.integers(0, 99))
def test_blurs_are_scipys(sigmas, height, width, seed):
    x = np.random.default_rng(seed).normal(size=(2, height, width)).astype(np.float32)
    own = ScaleSpace(sigmas)(torch.from_numpy(x)[None])[0].reshape(len(sigmas), 2, height, width).numpy()
    for image, s in zip(own, sigmas):
        radius = int(np.ceil(TRUNCATE*s))
        expected = [gaussian_filter(c.astype(np.float64), s, mode="reflect", radius=radius) for c in x]
        np.testing.assert_allclose(image, expected, atol=1e-5)


@tries
@given(st.integers(0, 99), st.integers(1, 5), st.integers(1, 4), st.floats(1e-6, 10))
def test_ridge_is_the_minimum(seed, features, targets, penalty):
    "At the solution the gradient of the objective is zero, by definition."
    rng = np.random.default_rng(seed)
    f, y = rng.normal(size=(features, 300))*rng.uniform(.1, 50, (features, 1))+3, rng.normal(size=(targets, 300))
    sums = RidgeSums()
    for part in np.array_split(np.arange(300), 7):
        sums.add(torch.tensor(f[:, part]), torch.tensor(y[:, part]))
    w, b = (v.numpy() for v in sums.solve(penalty))
    left = y-w@f-b[:, None]
    np.testing.assert_allclose(left.mean(1), 0, atol=1e-8)
    spread = f.std(1)
    np.testing.assert_allclose(left@(f/spread[:, None]).T/300, penalty*w*spread, atol=1e-8)


@pytest.mark.parametrize("wrong, says", [(dict(block="dubble"), "did you mean 'double'"), (dict(norm="grup"), "did you mean 'group'"), (dict(up="shufle"), "did you mean 'shuffle'"), (dict(shortcut=()), "widths of Gaussians"),
                                         (dict(shortcut=(1, 1)), "none twice"), (dict(context=(0,)), "at least 0.1"), (dict(dropout=-.1), "share of the channels"), (dict(widths=()), "positive numbers"), (dict(block=3), "choose among")])
def test_wrong_options_are_refused(wrong, says):
    with pytest.raises(InputError, match=says):
        UNet(1, 1, **{**dict(widths=(2,)), **wrong})


def test_shortcut_keeps_what_was_trained():
    "Fitting again changes the linear path only."
    net = awake(UNet(1, 1, (2, 2), shortcut=(0, 1)), 0)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    fit_shortcut(net, [(torch.randn(2, 1, 16, 16), torch.randn(2, 1, 16, 16))])
    changed = {k for k, v in net.state_dict().items() if not torch.equal(v, before[k])}
    assert changed == {"line.weight", "line.bias"}


def test_adapted_network_is_ready_to_predict():
    net = awake(UNet(1, 1, (2, 2)), 0)
    x = torch.randn(2, 1, 16, 16)
    adapt(net, [x])
    assert not any(m.training for m in net.modules()) and all(m.momentum == .1 for m in net.modules() if isinstance(m, nn.BatchNorm2d))
    assert torch.equal(net(x), net(x))
