"""What happens to a conversion when the world fails: kills, full disks, files that vanish or change, two at once."""
import errno
import os
import random
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile

from stpt2imc import layout, store as store_module
from stpt2imc.grid import InputError
from stpt2imc.section import find_sections
from stpt2imc.store import convert, open_store


def write_sections(folder, numbers=(1, 2), height=1030, width=280, markers=4):
    "Small sections in the laboratory's layout: two STPT depths, a few markers, counts that compress."
    rng = np.random.default_rng(0)
    for n in numbers:
        (folder / f"SECTION_{n:02d}" / "TIF").mkdir(parents=True)
        for z in (0, 1): tifffile.imwrite(folder / f"S{n:03d}_Z{z:02d}.tif", rng.integers(0, 4000, (height, width, 4), dtype=np.uint16), photometric="minisblack", planarconfig="contig")
        for m in range(markers): tifffile.imwrite(folder / f"SECTION_{n:02d}" / "TIF" / f"{141 + m}Pr_M{m}.tif", rng.poisson(.4, (height, width)).astype(np.uint16))
    return find_sections(folder)


def contents(path): return {p.relative_to(path).as_posix(): p.read_bytes() for p in sorted(Path(path).rglob("*")) if p.is_file()}


@pytest.fixture(autouse=True)
def no_sync(monkeypatch):
    "A killed process leaves the page cache as it is; waiting for the disk is for power cuts, and slow."
    monkeypatch.setattr(layout.os, "fsync", lambda handle: None)


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    "(folder, sections, bytes of the undisturbed store), with a pyramid."
    folder = tmp_path_factory.mktemp("lab")
    sections = write_sections(folder / "raw")
    return folder, sections, contents(convert(sections, folder / "whole.zarr", pyramid=True).path)


def converting(sections, path):
    "The process id of a fork that converts; a fork starts in milliseconds, an interpreter in seconds."
    if pid := os.fork(): return pid
    try:
        convert(sections, path, pyramid=True, progress=False)
        os._exit(0)
    except BaseException: os._exit(1)


KILLS = 20 if "STPT2IMC_SLOW" in os.environ else 8


def test_killed_at_random_times_it_continues_to_the_same_bytes(lab, tmp_path):
    _, sections, whole = lab
    began = time.time()
    assert os.waitpid(converting(sections, tmp_path / "timed.zarr"), 0)[1] == 0
    takes, moments, killed, half_done = time.time() - began, random.Random(1), 0, 0
    while killed < KILLS:
        path = tmp_path / f"{killed}.zarr"
        for again in range(3):   # killed up to three times in a row before it may finish
            pid = converting(sections, path)
            time.sleep(moments.uniform(0, takes))
            os.kill(pid, signal.SIGKILL)
            killed += os.WIFSIGNALED(os.waitpid(pid, 0)[1])
            half_done += any(path.glob(".section_*/records/*"))
            for section in path.glob("section_*"): assert len(open_store(path)[int(section.name[-3:])].read("targets")) == 4   # what has a name can be read
        convert(sections, path, pyramid=True)
        assert contents(path) == whole
        shutil.rmtree(path)
    assert half_done >= KILLS // 7   # the kills did hit conversions in the middle


def test_what_a_kill_left_is_not_converted_again(lab, tmp_path, monkeypatch):
    _, sections, whole = lab
    real, written = store_module._write_strip, []
    def dying(plan, role, i, *rest):
        if len(written) == 7: raise KeyboardInterrupt
        written.append((plan.number, role, i))
        real(plan, role, i, *rest)
    monkeypatch.setattr(store_module, "_write_strip", dying)
    with pytest.raises(KeyboardInterrupt): convert(sections, tmp_path / "s.zarr", pyramid=True)
    with pytest.raises(InputError, match="no complete section"): open_store(tmp_path / "s.zarr")
    before = list(written)
    monkeypatch.setattr(store_module, "_write_strip", lambda plan, role, i, *rest: (written.append((plan.number, role, i)), real(plan, role, i, *rest)))
    convert(sections, tmp_path / "s.zarr", pyramid=True)
    assert len(written) == len(set(written)) == 2 * 2 * 5 and written[:7] == before
    assert contents(tmp_path / "s.zarr") == whole


def test_a_full_disk_is_named_and_nothing_is_lost(lab, tmp_path, monkeypatch):
    _, sections, whole = lab
    path, real, room = tmp_path / "s.zarr", layout.Place.write, [40]
    def write(self, key, data):
        room[0] -= 1
        if room[0] < 0: raise OSError(errno.ENOSPC, "No space left on device", str(self.path / key))
        real(self, key, data)
    monkeypatch.setattr(layout.Place, "write", write)
    for more in range(1, 60):
        try: convert(sections, path, pyramid=True); break
        except InputError as e: assert "no space is left" in str(e) and "run convert again" in str(e)
        room[0] = 2 + more   # a little was freed
    assert contents(path) == whole and more > 2


def test_a_real_limit_on_the_size_of_files(lab, tmp_path):
    resource = pytest.importorskip("resource")
    _, sections, _ = lab
    pid = os.fork()
    if not pid:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try: convert(sections, tmp_path / "s.zarr", progress=False)
        except InputError as e: os._exit(0 if "no space is left" in str(e) and "section 1, inputs, rows" in str(e) else 2)
        except BaseException: os._exit(3)
        os._exit(4)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert not list((tmp_path / "s.zarr").glob("section_*"))


@pytest.mark.parametrize("event, says", [("vanishes", "TIF"), ("changes", "changed while it was being converted"), ("is cut short", "TIF")])
def test_a_file_that_goes_or_changes_meanwhile(tmp_path, monkeypatch, event, says):
    sections = write_sections(tmp_path / "raw", (1, 2), 600)
    victim, real, seen = tmp_path / "raw" / "SECTION_02" / "TIF" / "143Pr_M2.tif", store_module._write_strip, []
    saved = victim.read_bytes()
    def write(plan, role, i, *rest):
        real(plan, role, i, *rest)
        seen.append(role)
        if plan.number == 2 and role == "targets" and i == 0:
            if event == "vanishes": victim.unlink()
            if event == "changes": victim.write_bytes(saved[:-2] + b"\1\0")
            if event == "is cut short": victim.write_bytes(saved[:2000])
    monkeypatch.setattr(store_module, "_write_strip", write)
    with pytest.raises(InputError) as e: convert(sections, tmp_path / "s.zarr")
    assert "143Pr_M2.tif" in str(e.value), e.value
    assert open_store(tmp_path / "s.zarr").numbers == [1]   # what was complete stays
    monkeypatch.undo()
    with pytest.raises(InputError): convert(sections, tmp_path / "s.zarr")   # no silent mixture later either
    victim.write_bytes(saved)
    stamp = [f for f in store_module._stamps(sections[1])["targets"]][2]
    assert stamp[0] == "143Pr_M2.tif"
    shutil.rmtree(tmp_path / "s.zarr" / ".section_002.partial")   # what the message says
    assert convert(sections, tmp_path / "s.zarr").numbers == [1, 2]


def test_two_at_once_are_refused(lab, tmp_path):
    _, sections, _ = lab
    convert(sections[:1], tmp_path / "s.zarr")
    with store_module._alone(layout.Place(tmp_path / "s.zarr")):
        for work in (lambda: convert(sections, tmp_path / "s.zarr"), lambda: open_store(tmp_path / "s.zarr")[1].write_pyramid()):
            with pytest.raises(InputError, match="being written by another process"): work()
    assert convert(sections, tmp_path / "s.zarr").numbers == [1, 2]   # the lock was given back


@pytest.mark.parametrize("what", ["flipped", "missing", "extra", "attributes", "list", "section", "root"])
def test_verify_names_what_is_wrong(lab, tmp_path, what):
    folder, *_ = lab
    shutil.copytree(folder / "whole.zarr", tmp_path / "s.zarr")
    store = open_store(tmp_path / "s.zarr")
    assert store.verify().files.sum() == len(list((tmp_path / "s.zarr").rglob("*"))) - sum(p.is_dir() for p in (tmp_path / "s.zarr").rglob("*")) - 3
    shard = tmp_path / "s.zarr" / "section_002" / "targets" / "0" / "c" / "0" / "3" / "0"
    if what == "flipped":
        data = bytearray(shard.read_bytes()); data[len(data) // 2] ^= 1; shard.write_bytes(bytes(data)); says = r"section 2: section_002/targets/0/c/0/3/0 \(targets, rows 768 to 1023\)"
    if what == "missing": shard.unlink(); says = r"section 2: .*rows 768 to 1023\) is missing"
    if what == "extra": (shard.parent / "1").write_bytes(b"x"); says = "does not belong"
    if what == "attributes":
        path = tmp_path / "s.zarr" / "section_001" / "zarr.json"; path.write_text(path.read_text().replace("S001", "S009")); says = r"section 1: section_001/zarr.json \(metadata\)"
    if what == "list":
        path = tmp_path / "s.zarr" / "section_001" / "checksums.json"; path.write_text(path.read_text().replace("1", "2", 1)); says = "checksums.json is damaged"
    if what == "section": (tmp_path / "s.zarr" / "section_001" / "zarr.json").unlink(); says = r"section_001/zarr.json \(metadata\) is missing"
    if what == "root": path = tmp_path / "s.zarr" / "zarr.json"; path.write_text(path.read_text().replace("143Pr_M2", "143Pr_M7")); says = "metadata of the store"
    with pytest.raises(InputError, match=says): open_store(tmp_path / "s.zarr").verify()


@pytest.mark.parametrize("offset", [0, .5, .999])
def test_any_flipped_byte_of_any_file_is_found(lab, tmp_path, offset):
    folder, _, whole = lab
    shutil.copytree(folder / "whole.zarr", tmp_path / "s.zarr")
    for key, data in whole.items():
        if not key.startswith("section_001/"): continue
        file = tmp_path / "s.zarr" / key
        damaged = bytearray(data); damaged[int(offset * (len(data) - 1))] ^= 1
        file.write_bytes(bytes(damaged))
        problems, *_ = layout.check_files(layout.Place(tmp_path / "s.zarr" / "section_001"))
        assert problems and (key.removeprefix("section_001/") in problems[0]), key
        file.write_bytes(data)
