"""The yardstick measures: the oracle scores 1, hidden markers are called so, and what would make scores worthless is caught or refused."""
import gc
import tracemalloc

import numpy as np
import pytest
import tifffile
from scipy.stats import spearmanr

from stpt2imc.baselines import BASELINES, blurred_features
from stpt2imc.card import report_card
from stpt2imc.data import RandomChunks, assert_disjoint, chunk_dataloaders
from stpt2imc.grid import InputError
from stpt2imc.phantom import Phantom
from stpt2imc.score import score, summary
from stpt2imc.section import find_sections
from stpt2imc.store import convert

QUICK = dict(baselines=("mean", "pixel ridge"), metrics=(), boxes=(1, 4))


@pytest.fixture(scope="module")
def tumour(tmp_path_factory):
    """(phantom, store, expected counts and oracle of section 3, its tissue)."""
    folder, phantom = tmp_path_factory.mktemp("tumour"), Phantom(sections=3, height=512, width=512, hot_pixels=0, dropouts=0)
    store = convert(find_sections(phantom.write(folder / "tumour")), folder / "tumour.zarr")
    return phantom, store, phantom.expected(3), phantom.oracle(3), store[3].on_pixels(store[3].tissue())


@pytest.fixture(scope="module")
def oracle_card(tumour): return report_card(tumour[3], tumour[1], 3, train=[1, 2], **QUICK)


def linear_share(section, oracle, on):
    """How much of the visible part of a marker is a linear function of the blurred inputs (R² of the oracle): what a linear model can see."""
    f = blurred_features(section, 0, section.shape[0])[:, on][:, ::5]
    x = np.vstack([f, np.ones(f.shape[1])])
    y = oracle[:, on][:, ::5]
    return 1 - ((y.T - x.T @ np.linalg.lstsq(x.T, y.T, rcond=None)[0]) ** 2).mean(0) / np.maximum(y.var(1), 1e-9)


def test_oracle_explains_everything_and_the_mean_nothing(tumour):
    phantom, store, _, oracle, _ = tumour
    table = score(oracle, store[3], train=[1, 2], phantom=phantom, baselines=("mean",), boxes=(1,))
    explained = summary(table).explained
    assert abs(explained["model"] - 1) < 0.01 and abs(explained["mean"]) < 0.01


@pytest.mark.slow  # 21b_tasks does it on a smaller phantom
def test_the_card_ranks_markers_by_planted_predictability(tumour):
    phantom, store, expected, oracle, on = tumour
    share, seen = phantom.predictability.to_numpy(), linear_share(store[3], oracle, on) > 0.6
    assert seen.sum() >= 8
    for what in ("oracle", "ridge"):
        card = report_card(oracle if what == "oracle" else what, store, 3, train=[1, 2], transform="linear", **QUICK)
        mine = card.table.set_index("marker").share[store.panel.names]
        rank = spearmanr(mine[seen], share[seen])[0]
        assert rank >= 0.95, (what, rank)
        if what == "oracle": assert spearmanr(mine, share)[0] >= 0.95              # for the oracle all 40 are in order


def test_hidden_markers_are_called_unpredictable_and_controls_score_nothing(tumour):
    phantom, store, expected, oracle, on = tumour
    card = report_card("ridge log1p", store, 3, train=[1, 2], baselines=("mean", "lookup", "pixel ridge", "shuffled", "turned"), metrics=(), boxes=(1, 4))
    verdicts, share = card.table.set_index("marker").verdict, phantom.predictability.to_numpy()
    hidden = [m for m, s in zip(store.panel.names, share) if s < 0.08]
    assert hidden and all(verdicts[m] == "not from STPT" for m in hidden), verdicts[hidden]
    assert (verdicts == "predictable").sum() >= 5
    for control in ("shuffled", "turned"):
        r = card.scores[card.scores.method == control].groupby("scale").pearson.median()
        assert (r.abs() < 0.05).all(), (control, r)


def test_thinned_ceilings_equal_the_analytic_ones(tumour):
    _, store, expected, oracle, on = tumour
    table = score(oracle, store[3], train=[1, 2], baselines=(), boxes=(1,), transform="linear", metrics=("ceiling",))
    e = expected[:, on]
    assert np.abs(table.ceiling - np.sqrt(e.var(1) / (e.var(1) + e.mean(1)))).max() < 0.02


def test_leaky_splits_are_refused(tumour, tmp_path):
    phantom, store, _, oracle, _ = tumour
    with pytest.raises(InputError, match="was trained on"): report_card(oracle, store, 3, train=[1, 2, 3], **QUICK)
    with pytest.raises(InputError, match="share pixels"): assert_disjoint([(1, (0, 64, 0, 64))], [(1, (32, 96, 32, 96))])
    dls = chunk_dataloaders(store, RandomChunks(0.5), bs=2, device="cpu")          # the report's split
    class Leaky:
        config = dict(train_sections=dls.train_sections)
        read = staticmethod(lambda y0, y1: oracle[:, y0:y1])
    with pytest.raises(InputError, match="was trained on"): report_card(Leaky(), store, 3, **QUICK)
    twice = Phantom(sections=1, height=96, width=96).write(tmp_path / "once")
    for old in sorted(twice.rglob("*")):                                           # the same section under two numbers
        if old.is_file():
            new = twice.parent / "twice" / str(old.relative_to(twice)).replace("S001", "S002").replace("SECTION_01", "SECTION_02")
            for target in (new, twice.parent / "twice" / old.relative_to(twice)): target.parent.mkdir(parents=True, exist_ok=True); target.write_bytes(old.read_bytes())
    copies = convert(find_sections(tmp_path / "twice"), tmp_path / "twice.zarr")
    with pytest.raises(InputError, match="same pixels"): score(None, copies[2], train=[1])


def test_a_shifted_pair_is_caught(tumour, tmp_path):
    phantom, store, _, oracle, _ = tumour
    card = report_card(np.roll(oracle, 8, 1), store, 3, train=[1, 2], **QUICK)
    assert card.curves["model"].shift == (8, 0) and any("Misaligned" in w for w in card.warnings)
    pair = Phantom(sections=2, height=320, width=320)                              # and where the model has learned the shift: by the baseline that cannot
    sections = find_sections(pair.write(tmp_path / "pair"))
    for file in (tmp_path / "pair").rglob("*/TIF/*.tif"): tifffile.imwrite(file, np.roll(tifffile.imread(file), 8, 0))
    moved = convert(find_sections(tmp_path / "pair"), tmp_path / "moved.zarr")
    card = report_card(np.roll(pair.oracle(2), 8, 1), moved, 2, **QUICK)
    assert card.curves["model"].shift == (0, 0) and card.curves["pixel ridge"].shift == (-8, 0) and any("pixel ridge" in w for w in card.warnings)


def test_exchanged_markers_are_caught(tumour):
    _, store, _, oracle, _ = tumour
    swapped, (i, j) = oracle.copy(), (store.panel.names.index(m) for m in ("PanCK", "CollagenI"))
    swapped[[i, j]] = oracle[[j, i]]
    found = [w for w in report_card(swapped, store, 3, train=[1, 2], **QUICK).warnings if "Exchanged" in w]
    assert len(found) == 1 and "PanCK" in found[0] and "CollagenI" in found[0]


def test_a_scaling_per_image_is_caught(tumour, oracle_card):
    _, store, _, oracle, _ = tumour
    assert not oracle_card.warnings                                                # nothing is said of a good prediction
    scaled = oracle / oracle.max((1, 2), keepdims=True) * 255                      # every image to its own maximum
    assert any("Not on the scale" in w for w in report_card(scaled, store, 3, train=[1, 2], **QUICK).warnings)


def test_a_card_takes_every_baseline_and_is_the_same_twice(tmp_path):
    phantom = Phantom(sections=2, height=128, width=96)
    store = convert(find_sections(phantom.write(tmp_path / "small")), tmp_path / "small.zarr")
    one, two = (report_card(phantom.oracle(2), store, 2, phantom=phantom, boxes=(1, 4), **more) for more in (dict(), dict(baselines=("mean",), metrics=())))
    assert set(BASELINES) | {"model", "oracle"} == set(one.scores.method)
    same = ["marker", "r", "r_low", "r_high", "share", "ceiling"]
    assert one.table[same].sort_values("marker", ignore_index=True).equals(two.table[same].sort_values("marker", ignore_index=True))
    assert {"spearman", "deviance", "r2", "explained"} <= set(one.table) and one.table.deviance.notna().all()


class Gradient:
    """A prediction of any size that costs nothing."""
    def __init__(self, markers, width): self.markers, self.width = markers, width
    def read(self, y0, y1, x0=0, x1=None):
        x1 = self.width if x1 is None else x1
        return np.broadcast_to((np.arange(y0, y1)[:, None] % 7 + np.arange(x0, x1) % 5).astype(np.float32), (self.markers, y1 - y0, x1 - x0))


def test_memory_of_a_card_does_not_grow_with_the_section(tmp_path):
    rng, peaks = np.random.default_rng(0), {}
    for height in (512, 2048):
        folder = tmp_path / str(height)
        for n in (1, 2):
            (folder / f"SECTION_{n:02d}" / "TIF").mkdir(parents=True)
            for z in (0, 1): tifffile.imwrite(folder / f"S{n:03d}_Z{z:02d}.tif", rng.integers(0, 4000, (height, 256, 4), dtype=np.uint16), photometric="minisblack", planarconfig="contig")
            for m in range(4): tifffile.imwrite(folder / f"SECTION_{n:02d}" / "TIF" / f"{141 + m}Pr_M{m}.tif", rng.integers(0, 9, (height, 256), dtype=np.uint16))
        store = convert(find_sections(folder), tmp_path / f"{height}.zarr")
        gc.collect(); tracemalloc.start()
        report_card(Gradient(4, 256), store, 2, baselines=("mean", "ridge log1p", "turned"), metrics=("deviance",), boxes=(1, 4))
        peaks[height] = tracemalloc.get_traced_memory()[1]; tracemalloc.stop()
    assert peaks[2048] < 1.5 * peaks[512] + 3e6, peaks
