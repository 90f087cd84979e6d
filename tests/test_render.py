"""The renderer: every method draws what the float64 reference draws, for any shape, and its closed-form gradients are those of the numbers."""
import pytest
import torch
from hypothesis import given, settings, strategies as st
from stpt2imc.grid import InputError
from stpt2imc.render import render_points

tries = settings(max_examples=40, deadline=None)
shapes = st.fixed_dictionaries(dict(b=st.integers(0, 3), c=st.integers(0, 5), n=st.integers(0, 40), size=st.tuples(st.integers(1, 40), st.integers(1, 40)), oval=st.booleans(), seed=st.integers(0, 2**31)))


def draw_points(b, c, n, size, oval, seed, spread=6., dtype=torch.float32):
    "Positions in the image and around it, spreads of both signs, weights; (arguments, keywords)."
    rng = torch.Generator().manual_seed(seed)
    position = (torch.rand(b, n, 2, generator=rng, dtype=dtype)*1.6-.3)*torch.tensor(size, dtype=dtype)
    z = (torch.rand(b, n, *([2] if oval else []), generator=rng, dtype=dtype)*2-1)*spread
    return [position, z, torch.randn(b, c, n, generator=rng, dtype=dtype)], dict(angle=torch.randn(b, n, generator=rng, dtype=dtype)*3) if oval else {}


def with_gradients(points, extra, size, upstream, method, **how):
    "The image, and the gradients of all inputs."
    leaves = [t.detach().clone().requires_grad_() for t in (*points, *extra.values())]
    image = render_points(*leaves[:3], size, method, **dict(zip(extra, leaves[3:])), **how)
    return [image.detach(), *torch.autograd.grad(image, leaves, upstream.to(image.dtype))]


def off(got, exact): return float((got.double()-exact).norm()/exact.norm().clamp(min=1e-12)) if exact.numel() else 0.


@tries
@given(shapes, st.sampled_from(['separable', 'tiled', 'auto']), st.sampled_from([None, 1, 5, 8, 40]))
def test_all_methods_agree_with_the_reference(shape, method, tile):
    size, oval = shape['size'], shape['oval']
    points, extra = draw_points(**shape)
    if oval and method == 'separable': method = 'auto'
    upstream = torch.randn(shape['b'], shape['c'], *size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    double = [t.double() for t in points], {k: t.double() for k, t in extra.items()}
    exact = with_gradients(*double, size, upstream, 'naive')
    # float64 leaves nothing but the cut-off; with none to speak of, nothing
    for got, true in zip(with_gradients(*double, size, upstream, method, tile=tile, cutoff=1e-30), exact): assert got.shape == true.shape and off(got, true) < 1e-11
    for k, (got, true) in enumerate(zip(with_gradients(points, extra, size, upstream, method, tile=tile), exact)):
        assert got.dtype == torch.float32 and off(got, true) < (1e-5 if k else 2e-6)
