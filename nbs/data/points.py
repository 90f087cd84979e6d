"""Trains point models and U-Nets on the phantom and on real fields and writes points.json beside this file; explanations/points_or_pixels shows it.

python nbs/data/points.py [--work FOLDER] [--out FILE] [NAME ...]      names of RUNS, 'linear', 'ablation', 'chamfer', 'folds', 'spleen', 'lymphoid'; rows that are there are not computed again
"""
import argparse, datetime, json, os, tempfile, time
os.environ['IN_TEST'] = '1' # no progress bars
import numpy as np
import torch
from pathlib import Path
from stpt2imc.baselines import _usable, training_mean
from stpt2imc.data import HeldOutSections, chunk_dataloaders
from stpt2imc.grid import ChunkGrid
from stpt2imc.impute import impute
from stpt2imc.phantom import Phantom
from stpt2imc.models import fit_timed
from stpt2imc.pointlearn import ChamferToNuclei, pointset_learner
from stpt2imc.score import box_means, explained, score
from stpt2imc.section import find_sections
from stpt2imc.store import convert, open_store
from stpt2imc.tasks import TASKS, open_task
from stpt2imc.train import as_model, unet_learner

SIZE, BLURS = 1024, (0, 1, 2, 4, 8, 16) # side of the phantom's sections, px, and sigmas of the linear path, px: those of the ridge baseline
POINTS = dict(points=4096, widths=(16, 32, 64, 128), passes=1, spread=.6, shortcut=BLURS)
RUNS = {'points 4096': POINTS, 'unet': dict(unet=1, widths=(24, 48, 96), shortcut=BLURS), 'points over unet': dict(POINTS, background='unet', background_options=dict(widths=(16, 32))),
        'points fixed': dict(POINTS, movable=False), 'points 256': dict(POINTS, points=256, widths=(16, 32, 64, 128, 128)), 'points 1024': dict(POINTS, points=1024), 'points 16384': dict(POINTS, points=16384),
        'queries 4096': dict(model='queries', widths=(16, 32, 64, 64), width=48, layers=1, spread=.6, shortcut=BLURS)}
PLAIN = dict(shortcut=None, detail=False)
ABLATION = {'all of it': {}, 'no linear path': dict(shortcut=None), 'no detail': dict(detail=False), 'no linear path, no detail': PLAIN, 'spread of 1 cell': dict(spread=1.), 'spread of 1.5 cells': dict(spread=1.5),
            'points held still': dict(away=1e-3), 'no ring': dict(ring=0), 'no constant': dict(background=None), 'smooth background': dict(background='smooth'), 'two passes': dict(passes=2), 'and He weights': dict(PLAIN, weights='he'),
            'and absolute positions': dict(PLAIN, weights='he', positions='absolute', background=None, ring=0, size=64)}

FOLDS = dict(lymphoid=(((5, 7), 2), ((2, 5), 7))) # training fields, and the one that judges; the test field is not among them
REMEDIES = {'points': {}, 'U-Net': RUNS['unet'], 'held still': dict(away=1e-3), 'held still, no detail': dict(away=1e-3, detail=False), 'half the widths': dict(widths=(8, 16, 32, 64)), 'dropout .2': dict(dropout=.2), 'a third of the steps': dict(steps=50),
            'a fifth of the rate': dict(lr=2e-3), 'fewer levels': dict(widths=(16, 32, 64)), 'places and spreads fixed': dict(movable=False), 'fewer levels, fixed': dict(widths=(16, 32, 64), movable=False),
            'fixed, no detail': dict(movable=False, detail=False), 'fixed, dropout .2': dict(movable=False, dropout=.2)}

def rows(out): return json.loads(out.read_text()) if out.exists() else []
def there(out, *key): return any((r['name'], r['seed'], r['tag']) == key for r in rows(out))
def keep(out, row):
    part = out.with_suffix('.part')
    part.write_text(json.dumps(rows(out)+[dict(row, date=str(datetime.datetime.now())[:16])])); os.replace(part, out)
    print({k: row[k] for k in ('name', 'seed', 'tag', 'explained', 'r', 'r_s2', 'cpu') if k in row and not isinstance(row[k], dict)}, flush=True)

def make(dls, seed, options):
    options = dict(options)
    return unet_learner(dls, seed=seed, **options) if options.pop('unet', 0) else pointset_learner(dls, seed=seed, **options)
def listed(options): return {k: list(v) if isinstance(v, tuple) else v for k, v in options.items() if k != 'unet'}

def phantom_store(work):
    phantom, path = Phantom(sections=4, height=SIZE, width=SIZE), work/'ph0_1024.zarr'
    if not path.exists(): convert(find_sections(phantom.write(work/'phantom')), path)
    return open_store(path), phantom

def on_phantom(out, work, name, seed, options, tag='main', epochs=8, lr=5e-3, chamfer=0):
    "One run: train on sections 1 to 3 in windows of 64 px, judge on section 4."
    if there(out, name, seed, tag): return
    store, phantom = phantom_store(work)
    dls = chunk_dataloaders(store, HeldOutSections([4], guard=0), bs=8, size=64, seed=seed, device='cpu', per_section='guard')
    start = time.process_time()
    learn = make(dls, seed, options)
    if chamfer: learn.add_cb(ChamferToNuclei(weight=chamfer))
    if epochs: fit_timed(learn, epochs, lr)
    cpu, image, use, counts = time.process_time()-start, impute(as_model(learn), store[4], tile=(512, 512), overlap=0, progress=False).read(0, SIZE, 0, SIZE), store[4].on_pixels(_usable(store[4]), 0, SIZE), store[4].read('targets').astype(np.float32)
    error = lambda p: ((p-counts[:, use])**2).mean(1)
    total, each = explained(error(image[:, use]), error(training_mean(store, [1, 2, 3])[:, None]), error(phantom.oracle(4)[:, use]))
    r = {}
    for side in (1, 2, 4, 8):
        whole = box_means(use[None].astype(np.float32), side)[0] == 1
        a, b = (np.log1p(box_means(i, side)[:, whole]) for i in (counts, image))
        a, b = (i-i.mean(1, keepdims=True) for i in (a, b))
        r[side] = np.round((a*b).sum(1)/np.sqrt((a**2).sum(1)*(b**2).sum(1)+1e-12), 4).tolist()
    keep(out, dict(name=name, seed=seed, tag=tag, explained=round(total, 4), per_marker=[None if np.isnan(v) else round(float(v), 4) for v in each], r=r, cpu=round(cpu, 1), epochs=epochs, lr=lr, steps=len(learn.recorder.losses) if epochs else 0,
                   parameters=sum(p.numel() for p in learn.model.parameters()), options=listed(options)))

class Only:
    "Train on the sections of a task, validate on its test section."
    leaky = False
    def __init__(self, train, test): self.train, self.test = train, test
    def __call__(self, store, size):
        windows = lambda numbers: [(n, c) for n in numbers for c in ChunkGrid(*store[n].shape, size)]
        return windows(self.train), windows([self.test])

def on_task(out, work, task, name, options, seed=0, steps=150, tag='task', lr=1e-2, train=None, test=None):
    "One run on a real field: nothing is chosen on the test section. `r_turned`: prediction as the mean of eight flips and turns."
    if there(out, name, seed, f'{tag} {task}'): return
    folder, t = work/f'task_{task}', TASKS[task]
    train, test = train or t['train'], test or t['test']
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder/f'{task}.zarr').exists(): open_task(task, folder)
    store = open_store(folder/f'{task}.zarr')
    dls = chunk_dataloaders(store, Only(train, test), bs=8, size=64, seed=seed, device='cpu', transforms=('sqrt', t['transform']), per_section='guard')
    start, epochs = time.process_time(), max(round(steps/len(dls.train)), 1) if steps else 0
    learn = make(dls, seed, options)
    if epochs: fit_timed(learn, epochs, lr)
    cpu, found = time.process_time()-start, {}
    for turns in (False, True):
        model = as_model(learn); model.config['turns'] = turns
        table = score(impute(model, store[test], tile=(512, 512), overlap=0), store[test], train, boxes=(1,), gaussians=(2,), baselines=('mean',), transform=t['transform'])
        mine = table[table.method == 'model']; r = mine.groupby('scale', sort=False).pearson.mean()
        found.update({k+'_turned'*turns: round(float(v), 4) for k, v in dict(r=r.iloc[0], r_s2=r.iloc[1], r2=mine[mine.scale == mine.scale.iloc[0]].r2.median()).items()})
    keep(out, dict(name=name, seed=seed, tag=f'{tag} {task}', **found, cpu=round(cpu, 1), steps=epochs*len(dls.train), lr=lr, options=listed(options)))

def on_folds(out, work, task, name, change, seed):
    "A remedy on every fold of the training fields."
    change = dict(change)
    budget, options = {k: change.pop(k) for k in ('steps', 'lr') if k in change}, change if change.get('unet') else {**POINTS, **change}
    for train, test in FOLDS[task]:
        on_task(out, work, task, name, options, seed, tag=f'fold {test}', train=list(train), test=test, **budget)
        if name == 'points': on_task(out, work, task, 'untrained', options, seed, 0, f'fold {test}', train=list(train), test=test)

def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('names', nargs='*', default=[*RUNS, 'linear', 'ablation', 'chamfer', 'folds', 'spleen', 'lymphoid']); p.add_argument('--seeds', type=int, nargs='*', default=[0]); p.add_argument('--work'); p.add_argument('--out', default=Path(__file__).with_suffix('.json'))
    args = p.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        work, out = Path(args.work or scratch), Path(args.out)
        work.mkdir(parents=True, exist_ok=True)
        for name in args.names:
            for seed in args.seeds:
                if name in RUNS: on_phantom(out, work, name, seed, RUNS[name])
                elif name == 'linear': on_phantom(out, work, 'points 4096', seed, POINTS, 'linear', epochs=0)
                elif name == 'ablation':
                    for change, options in ABLATION.items(): on_phantom(out, work, change, seed, {**POINTS, **options}, 'ablation', epochs=1)
                elif name == 'chamfer':
                    for weight in (1e-3, 1e-2): on_phantom(out, work, f'chamfer {weight:g}', seed, POINTS, 'ablation', epochs=1, chamfer=weight)
                elif name == 'folds':
                    for remedy, change in REMEDIES.items(): on_folds(out, work, 'lymphoid', remedy, change, seed)
                else:
                    on_task(out, work, name, 'points 4096', POINTS, seed, steps=0, tag='linear')
                    for kind in ('points 4096', 'points fixed', 'unet'): on_task(out, work, name, kind, RUNS[kind], seed)

if __name__ == '__main__': main()
