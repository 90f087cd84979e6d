"""How fast, and in how much memory, a folder of sections converts: beside a bare loop that reads the same files and compresses them with the same codec.

    python tests/bench_convert.py FOLDER [--workers 2] [--fit resize]

Anonymous memory is that of the process and its children (RssAnon in /proc), sampled every 20 ms; Linux only. Both sides run in a fresh process, one after the other."""
import argparse
import multiprocessing
import os
import shutil
import tempfile
import time
from pathlib import Path


def anonymous(pid):
    "Bytes of anonymous memory of a process and its children."
    total = 0
    try:
        for line in open(f"/proc/{pid}/status"):
            if line.startswith("RssAnon"): total = int(line.split()[1]) * 1024
        for task in os.listdir(f"/proc/{pid}/task"):
            for child in open(f"/proc/{pid}/task/{task}/children").read().split(): total += anonymous(int(child))
    except (FileNotFoundError, ProcessLookupError): pass
    return total


def bare_loop(folder, out, fit, workers, queue):
    "Read every strip and compress its chunks, nothing else."
    import numpy as np
    from numcodecs import Blosc
    from stpt2imc.section import find_sections
    codec, began = Blosc("zstd", 3, Blosc.BITSHUFFLE), time.time()
    for section in find_sections(folder):
        for source in (section.inputs, section.targets):
            for y in range(0, source.shape[1], 256):
                band = source.read(y, min(y + 256, source.shape[1]))
                for x in range(0, source.shape[2], 256): codec.encode(np.ascontiguousarray(band[:, :, x:x + 256]))
    queue.put(time.time() - began)


def conversion(folder, out, fit, workers, queue):
    "The same files into a store."
    from stpt2imc.section import find_sections
    from stpt2imc.store import convert
    began = time.time()
    convert(find_sections(folder), out, fit=fit, workers=workers, progress=False)
    queue.put(time.time() - began)


def watched(work, *args):
    "(seconds, peak of anonymous memory in bytes) of `work` in a process of its own."
    context = multiprocessing.get_context("spawn")
    queue, peak = context.Queue(), 0
    process = context.Process(target=work, args=(*args, queue))
    process.start()
    while process.is_alive(): peak = max(peak, anonymous(process.pid)); time.sleep(.02)
    if process.exitcode: raise RuntimeError(f"{work.__name__} ended with {process.exitcode}")
    return queue.get(), peak


def bench_convert(folder, fit="resize", workers=0, scratch=None):
    "Seconds of both, their ratio, and the peaks of anonymous memory, as a dictionary."
    out = Path(tempfile.mkdtemp(dir=scratch)) / "bench.zarr"
    try:
        bare, bare_peak = watched(bare_loop, folder, out, fit, workers)
        took, peak = watched(conversion, folder, out, fit, workers)
        size = sum(p.stat().st_size for p in out.rglob("*") if p.is_file())
    finally: shutil.rmtree(out.parent)
    return dict(bare_s=round(bare, 1), convert_s=round(took, 1), speed=round(bare / took, 2), convert_peak_mb=round(peak / 1e6), bare_peak_mb=round(bare_peak / 1e6), store_mb=round(size / 1e6))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder"); parser.add_argument("--fit", default="resize"); parser.add_argument("--workers", type=int, default=0); parser.add_argument("--scratch")
    a = parser.parse_args()
    print(bench_convert(a.folder, a.fit, a.workers, a.scratch))
