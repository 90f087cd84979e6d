"""The command line from end to end, as a user runs it: the demo, its files, wrong input, interrupted work."""
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile

from stpt2imc.cli import main
from stpt2imc.phantom import Phantom
from stpt2imc.store import open_store


def run(*args, cwd=None, timeout=600):
    """Run `stpt2imc args` in a process of its own."""
    return subprocess.run([sys.executable, "-c", "import sys; from stpt2imc.cli import main; sys.exit(main())", *map(str, args)],
                          cwd=cwd, capture_output=True, text=True, timeout=timeout, env={**os.environ, "IN_TEST": "1"})


def call(capfd, *args):
    """The same in this process, which has its imports: (exit status, what it wrote to stderr)."""
    capfd.readouterr()
    status = main([str(a) for a in args])
    return status, capfd.readouterr().err


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "out"
    done = run("demo", "--quick", "--out", folder, "--json", folder.parent / "result.json")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done


def test_demo_explains_more_than_ridge_and_says_where_everything_is(demo):
    folder, done = demo
    summary = json.loads((folder / "summary.json").read_text())
    assert {"explained", "pearson_median", "mse_report_scale", "seconds", "peak_memory_mb", "version", "seed"} <= set(summary)
    assert summary["explained"] >= .25 and summary["explained"] > summary["explained_ridge"]
    assert summary["pearson_median"] > summary["pearson_median_ridge"]
    assert summary["peak_memory_mb"] < 4000
    assert str(folder) in done.stdout.strip().splitlines()[-1]
    assert "ridge" in done.stdout and "oracle" in done.stdout
    assert json.loads((folder.parent / "result.json").read_text())["explained"] == summary["explained"]


def test_demo_writes_the_laboratory_layout_at_full_size(demo):
    folder, _ = demo
    assert sorted(p.name for p in (folder / "tumour").iterdir()) == sorted([f"S00{n}_Z0{z}.tif" for n in range(1, 5) for z in (0, 1)] + [f"SECTION_0{n}" for n in range(1, 5)])
    stpt, imc = tifffile.TiffFile(folder / "tumour/S001_Z00.tif"), list((folder / "tumour/SECTION_01/TIF").glob("*.tif"))
    assert stpt.series[0].shape == (1024, 1024, 4) and stpt.series[0].dtype == np.uint16
    assert len(imc) == 40 and "143Nd_Vimentin.tif" in [p.name for p in imc]
    assert (tifffile.imread(folder / "tumour/SECTION_03/TIF/191Ir_DNA1.tif")[448:576] == Phantom().imc(3, 448, 576)[38]).all()


def test_demo_draws_the_figures_of_the_report(demo):
    from PIL import Image
    folder, _ = demo
    names = sorted(p.name for p in (folder / "figures").glob("*.png"))
    assert [n.split("_")[0] for n in names] == ["figure3", "figure4", "figure5", "figure6", "figure7", "markers.png", "overview.png"]
    assert all("section4" in n and "chunk" in n for n in names[1:5])
    for n in names:
        assert np.asarray(Image.open(folder / "figures" / n).convert("L")).std() > 5, f"{n} is blank"


@pytest.mark.slow  # 15_train compares the losses of one seed
def test_demo_gives_the_same_numbers_for_the_same_seed(tmp_path):
    code = "import sys, json; from stpt2imc.cli import demo; r = demo(sys.argv[1], quick=True, seed=int(sys.argv[2]), size=320); print('RESULT', r['explained'], r['pearson_median'], r['mse_report_scale'])"
    lines = []
    for n, seed in enumerate((3, 3)):                                              # two processes
        done = subprocess.run([sys.executable, "-c", code, str(tmp_path / str(n)), str(seed)], capture_output=True, text=True, env={**os.environ, "IN_TEST": "1"}, timeout=300)
        assert done.returncode == 0, done.stderr
        lines.append(done.stdout.splitlines()[-1])
    assert lines[0] == lines[1] and lines[0].startswith("RESULT 0.")


def break_path(folder): return folder.with_name("tumuor"), "tumour"
def break_empty(folder): (folder.parent / "empty").mkdir(); return folder.parent / "empty", "empty"
def break_depth(folder): (folder / "S002_Z01.tif").unlink(); return folder, "S002_Z01"
def break_marker(folder): (folder / "SECTION_02/TIF/161Dy_CD20.tif").unlink(); return folder, "CD20"


def break_duplicate(folder):
    source = folder / "SECTION_01/TIF/161Dy_CD20.tif"
    (source.with_name("162Dy_CD20.tif")).write_bytes(source.read_bytes())
    return folder, "CD20"


def break_truncated(folder):
    file = folder / "SECTION_02/TIF/161Dy_CD20.tif"
    file.write_bytes(file.read_bytes()[:3000])
    return folder, "161Dy_CD20.tif"


def break_truncated_stpt(folder):
    file = folder / "S002_Z00.tif"
    file.write_bytes(file.read_bytes()[:-500])
    return folder, "S002_Z00.tif"


def break_nan(folder):
    file = folder / "SECTION_02/TIF/161Dy_CD20.tif"
    image = tifffile.imread(file).astype(np.float32)
    image[5, 7] = np.nan
    tifffile.imwrite(file, image)
    return folder, "161Dy_CD20.tif"


def break_garbage(folder): (folder / "S001_Z00.tif").write_bytes(b"not an image at all"); return folder, "S001_Z00.tif"


@pytest.mark.parametrize("fault", [break_path, break_empty, break_depth, break_marker, break_duplicate, break_truncated, break_truncated_stpt, break_nan, break_garbage], ids=lambda f: f.__name__[6:])
@pytest.mark.parametrize("command", ["check", "convert"])
def test_bad_input_is_refused_by_name_before_anything_is_written(tmp_path, capfd, monkeypatch, fault, command):
    monkeypatch.setenv("IN_TEST", "1")
    folder, named = fault(Phantom(sections=2, height=64, width=64).write(tmp_path / "tumour"))
    store = tmp_path / "out.zarr"
    status, message = call(capfd, command, folder, *([store] if command == "convert" else []))
    assert status == 2, message
    assert named in message and "Traceback" not in message, message
    assert not store.exists()


def test_wrong_input_ends_a_process_with_status_2_and_one_line(tmp_path):
    done = run("convert", tmp_path / "tumuor", tmp_path / "out.zarr")
    assert done.returncode == 2 and "tumuor" in done.stderr and "Traceback" not in done.stderr, done.stderr


@pytest.mark.slow  # test_convert_faults kills the same function eight times
def test_a_killed_conversion_leaves_nothing_half_done_and_continues(tmp_path):
    phantom = Phantom(sections=3, height=512, width=512)
    folder, store = phantom.write(tmp_path / "tumour"), tmp_path / "tumour.zarr"
    process = subprocess.Popen([sys.executable, "-c", "import sys; from stpt2imc.cli import main; sys.exit(main())", "convert", folder, store], env={**os.environ, "IN_TEST": "1"})
    deadline = time.time() + 60
    while not list(store.glob(".section_00*.partial/records/*")) and time.time() < deadline and process.poll() is None: time.sleep(.002)
    process.send_signal(signal.SIGKILL); process.wait()
    whole = [p.name for p in store.glob("section_*")]
    assert len(whole) < 3, "the conversion was over before it could be killed"
    done = run("convert", folder, store)
    assert done.returncode == 0, done.stderr
    for n in phantom.numbers:
        assert (open_store(store)[n].read("targets") == phantom.imc(n)).all()
        assert (open_store(store)[n].read("inputs") == phantom.stpt(n)).all()
    assert not list(store.glob(".*.partial"))


def test_help_and_version_answer_without_loading_the_models():
    code = "import sys; from stpt2imc.cli import main\ntry: main(['--help'])\nexcept SystemExit as e: assert e.code == 0\nassert 'torch' not in sys.modules and 'fastai' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(c in done.stdout for c in ("demo", "phantom", "check", "convert", "train", "impute", "export", "score", "importance", "tune", "bench", "info"))


def test_every_command_writes_json(tmp_path, capfd, monkeypatch, demo):
    monkeypatch.setenv("IN_TEST", "1")
    folder, _ = demo
    store, model, imputed = folder / "tumour.zarr", folder / "unet", folder / "section4_imputed.ome.zarr"
    commands = {"phantom": [tmp_path / "p", "--sections", 1, "--height", 64, "--width", 64], "check": [tmp_path / "p"], "convert": [tmp_path / "p", tmp_path / "p.zarr"],
                "impute": [model, tmp_path / "p.zarr", 1, tmp_path / "i"], "score": [imputed, store, 4, "--phantom-seed", 0], "info": [model]}
    for command, args in commands.items():
        file = tmp_path / f"{command}.json"
        status, message = call(capfd, command, *args, "--json", file)
        assert status == 0, (command, message)
        assert json.loads(file.read_text()), command
    scores = json.loads((tmp_path / "score.json").read_text())["summary"]
    assert scores["model"]["explained"] == pytest.approx(json.loads((folder / "summary.json").read_text())["explained"], abs=1e-6)


def test_points_losses_and_importance_from_the_command_line(tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("IN_TEST", "1")
    small = ["--steps", 4, "--size", 32, "--bs", 2, "--widths", "8,8"]
    for command in (["phantom", tmp_path / "p", "--sections", 3, "--height", 160, "--width", 160], ["convert", tmp_path / "p", tmp_path / "p.zarr"],
                    ["train", tmp_path / "p.zarr", tmp_path / "points", "--points", 16384, "--loss", "Poisson", "--no-augment", "--guard", 0, *small],
                    ["train", tmp_path / "p.zarr", tmp_path / "unet", "--guard", 0, "--checkpoints", tmp_path / "kept", *small],
                    ["impute", tmp_path / "points", tmp_path / "p.zarr", 3, tmp_path / "i"],
                    ["export", tmp_path / "i", tmp_path / "i.ome.tif", "--markers", "PanCK,CD8a"],
                ["importance", tmp_path / "unet", tmp_path / "p.zarr", 3, "--side", 64, "--csv", tmp_path / "c.csv", "--figure", tmp_path / "c.png"]):
        status, message = call(capfd, *command, "--json", tmp_path / f"{command[0]}.json")
        assert status == 0, (command, message)
    saved = json.loads((tmp_path / "points/config.json").read_text())
    assert saved["model"] == "PointSetGen" and saved["loss"]["name"] == "Poisson" and saved["train_sections"] == [1, 2]
    assert (tmp_path / "kept/member_0/checkpoint.pt").exists() and (tmp_path / "c.png").stat().st_size > 5000
    assert tifffile.imread(tmp_path / "i.ome.tif").shape == (2, 160, 160)
    assert len((tmp_path / "c.csv").read_text().splitlines()) == 1 + 40 * 6  # four colours, two depths
    for wrong, says in ((["--points", 64, "--members", 2], "several --seed"), (["--recipe", "report", "--points", 64], "--points is for --recipe recommended")):
        status, message = call(capfd, "train", tmp_path / "p.zarr", tmp_path / "wrong", *wrong)
        assert status == 2 and says in message and not (tmp_path / "wrong").exists()


def test_the_losses_that_the_command_line_offers_exist():
    from stpt2imc.cli import _LOSSES
    from stpt2imc.loss import LOSSES
    assert set(_LOSSES) == set(LOSSES) - {"Weighted", "ShiftRobust"}  # those wrap another loss
