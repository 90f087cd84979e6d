"What `00c_formats.ipynb` cannot hold: converters against each other on real files, damage, URLs, drawn layouts."
import json, pickle, shutil, tracemalloc, warnings
from pathlib import Path

import fsspec, numpy as np, pytest, tifffile, torch, zarr
from hypothesis import HealthCheck, given, settings, strategies as st
from readimc import MCDFile
from scipy.ndimage import maximum_filter

from stpt2imc.grid import InputError
from stpt2imc.formats import acquisitions, open_image
from stpt2imc.panel import Panel
from stpt2imc.section import check_sections, compare_panels, data_folder, find_sections


def real(name):
    folder = data_folder()
    if folder is None or not (folder/name).is_dir(): pytest.skip(f'real data ({name}) not found; set STPT2IMC_DATA to its folder')
    return folder/name


# ---------------------------------------------------------------- the oracle: four writers, one acquisition
def steinbock_rule(image, threshold=50):
    "A pixel more than 50 above the largest of its eight neighbours becomes that largest; the border is mirrored."
    ring = np.ones((1, 3, 3), bool)
    ring[0, 1, 1] = False
    largest = maximum_filter(image, footprint=ring, mode='mirror')
    return np.where(image > largest+threshold, largest, image)


REGIONS = [(slide, k) for slide in (1, 2, 5) for k in (1, 2, 3)]
INSTRUMENT = ['107Ag', 'Cytoker_651', 'Laminin_681', 'YBX1_2987', 'H3K27Ac_1977']
STEINBOCK = ['107Ag', 'Cytokeratin 5', 'Laminin', 'YBX1', 'H3K27Ac']
METALS = ['107Ag', '141Pr', '147Sm', '153Eu', '172Yb']


@pytest.mark.parametrize('slide,k', REGIONS)
def test_four_writers_agree(slide, k):
    root, name = real('imc_mock_mcd'), f'20210305_NE_mockData{slide}'
    mcd = open_image(root/'raw'/name/f'{name}.mcd', acquisition=k)
    txt = open_image(root/'raw'/name/f'{name}_ROI_00{k}_{k}.txt')
    imctools = open_image(root/'imctools_ometiff'/name/f'{name}_s0_a{k}_ac.ome.tiff')
    steinbock, ome = open_image(root/'steinbock_img'/f'{name}_00{k}.tiff'), open_image(root/'steinbock_ome'/f'{name}_00{k}.ome.tiff')
    for image, names in ((mcd, INSTRUMENT), (txt, INSTRUMENT), (imctools, INSTRUMENT), (steinbock, STEINBOCK), (ome, STEINBOCK)):
        panel = Panel.from_labels(image.names)
        assert (panel.names, [m.metal for m in panel]) == (names, METALS) and image.dtype == np.float32 and image.named
        assert image.shape == mcd.shape
    whole = mcd.read()
    assert (mcd.pixel_um, mcd.description, steinbock.pixel_um) == (1., f'ROI_00{k}', 1.)
    np.testing.assert_array_equal(imctools.read(), whole)
    assert abs(txt.read()-whole).max() <= 6e-4
    np.testing.assert_array_equal(steinbock.read(), steinbock_rule(whole))
    np.testing.assert_array_equal(ome.read(), steinbock_rule(whole))
    for image in (mcd, txt): # by bands, in a worker, some channels
        h, again = image.shape[1], pickle.loads(pickle.dumps(image))
        np.testing.assert_array_equal(np.concatenate([again.read(y, min(y+13, h), ['147Sm', '107Ag']) for y in range(0, h, 13)], 1), image.read()[[2, 0]])


def test_a_folder_of_the_instrument_is_found_by_region():
    "Every acquisition of an .mcd is a section; the .txt beside it are copies."
    folder = real('imc_mock_mcd')/'raw'/'20210305_NE_mockData1'
    sections = find_sections(folder, inputs=['107Ag'], targets='rest')
    assert [(s.number, s.name) for s in sections] == [(k, f'20210305_NE_mockData1_00{k}') for k in (1, 2, 3)]
    assert sections[1].panel.names == INSTRUMENT[1:] and sections[1].pixel_um == 1.
    assert acquisitions(folder/'20210305_NE_mockData1.mcd') == [1, 2, 3]
    assert all('rounded to whole counts' in n for n in check_sections(sections).notes)
    with pytest.raises(InputError, match=r'several acquisitions \(1: ROI_001 5x60x60; 2: ROI_002'): open_image(folder/'20210305_NE_mockData1.mcd')


# ---------------------------------------------------------------- small files of every kind
def counts(*shape, seed=0): return np.random.default_rng(seed).poisson(5, shape).astype('uint16')


CHANNELS = (('Nd(143)', 'Vimentin'), ('Dy(161)', 'CD20_Dy161'), ('Ir(191)', ''))
NAMES = ['Vimentin', 'CD20', '191Ir']


def write_mcd(path, regions, channels=CHANNELS):
    "An .mcd as the instrument lays it out: blocks of pixels (X, Y, Z, counts), then the description; `regions` are (description, array, order of pixels or None)."
    data, about, item = b'MCD', '', lambda **kw: ''.join(f'<{k}>{v}</{k}>' for k, v in kw.items())
    for i, (what, a, order) in enumerate(regions, 1):
        (c, h, w), start = a.shape, len(data)
        y, x = np.divmod(np.arange(h*w) if order is None else np.asarray(order), w)
        data += np.column_stack([x, y, 0*x, a[:, y, x].T]).astype('<f4').tobytes()
        about += (f'<AcquisitionROI>{item(ID=i, PanoramaID=1, ROIType="Acquisition")}</AcquisitionROI><Acquisition>'
                  + item(ID=i, Description=what, AcquisitionROIID=i, DataStartOffset=start, DataEndOffset=len(data), ValueBytes=4, SegmentDataFormat='Float', MaxX=w, MaxY=h,
                         AblationDistanceBetweenShotsX=1, AblationDistanceBetweenShotsY=1) + '</Acquisition>')
        for k, (name, label) in enumerate([('X', 'X'), ('Y', 'Y'), ('Z', 'Z'), *channels]):
            about += f'<AcquisitionChannel>{item(ID=k, ChannelName=name, OrderNumber=k, AcquisitionID=i, ChannelLabel=label)}</AcquisitionChannel>'
    xml = f'<MCDSchema xmlns="x"><Slide>{item(ID=0)}</Slide><Panorama>{item(ID=1, SlideID=0, Type="Instrument")}</Panorama>{about}</MCDSchema>'
    path.write_bytes(data+xml.encode('utf-16-le'))
    return path


def write_txt(path, a):
    y, x = np.divmod(np.arange(a[0].size), a.shape[2])
    rows = np.column_stack([0*x, 0*x, 0*x, x, y, 0*x, a.reshape(len(a), -1).T])
    columns = ['Start_push', 'End_push', 'Pushes_duration', 'X', 'Y', 'Z', 'Vimentin(Nd143Di)', 'CD20_Dy161(Dy161Di)', '191Ir(Ir191Di)']
    with open(path, 'w') as f: f.write('\t'.join(columns)+'\n'); np.savetxt(f, rows, fmt='%.3f', delimiter='\t')
    return path


def write_zarr(path, a, axes='cyx', version='0.5', um=.5, place='', labels=('Nd143_Vimentin', 'Dy161_CD20', '191Ir'), chunks=16, shards=None, dtype=None):
    group = zarr.open_group(path, mode='a', zarr_format=3 if version == '0.5' else 2)
    group = group.require_group(place) if place else group
    group.create_array('0', data=a.astype(dtype or a.dtype), chunks=tuple(min(o, chunks) for o in a.shape), **(dict(shards=tuple(-(-o//chunks)*chunks if o > chunks else o for o in a.shape)) if shards else {}))
    described = [dict(name=n, type=dict(c='channel', t='time').get(n, 'space'), **(dict(unit='micrometer') if n in 'zyx' else {})) for n in axes]
    ome = dict(multiscales=[dict(version=version, axes=described, datasets=[dict(path='0', coordinateTransformations=[dict(type='scale', scale=[um if n in 'yx' else 1. for n in axes])])])],
               omero=dict(channels=[dict(label=l) for l in labels]))
    group.attrs.update(dict(ome=dict(ome, version=version)) if version == '0.5' else ome)
    return path


def write_chunks(folder, a, side=16):
    folder.mkdir(parents=True)
    for r in range(0, a.shape[1], side):
        for c in range(0, a.shape[2], side): torch.save(torch.from_numpy(a[:, r:r+side, c:c+side].astype('float64')).clone(), folder/f'{r//side:02d}_{c//side:02d}.pt')
    (folder/'panel.csv').write_text('channel,name\nNd143,Vimentin\nDy161,CD20\nIr191,\n')
    return folder


def write_ome(path, a): tifffile.imwrite(path, a, metadata={'axes': 'CYX', 'Channel': {'Name': ['Nd143_Vimentin', 'Dy161_CD20', '191Ir']}}, photometric='minisblack', compression='zlib', rowsperstrip=7); return path


def write_steinbock(folder, a):
    (folder/'img').mkdir(parents=True)
    tifffile.imwrite(folder/'img'/'a.tiff', a.astype('float32'), imagej=True)
    (folder/'panel.csv').write_text('channel,name,keep\nNd143,Vimentin,1\nY89,CD45,0\nDy161,CD20,1\nIr191,,1\n')
    return folder/'img'/'a.tiff'


def write_folder(folder, a):
    folder.mkdir()
    for n, plane in zip(('143Nd_Vimentin', '161Dy_CD20', '191Ir'), a): tifffile.imwrite(folder/f'{n}.tif', plane)
    return folder


FORMATS = dict(mcd=lambda at, a: write_mcd(at/'a.mcd', [('ROI', a, None)]), shuffled=lambda at, a: write_mcd(at/'b.mcd', [('ROI', a, np.random.default_rng(0).permutation(a[0].size))]),
               txt=lambda at, a: write_txt(at/'a.txt', a), zarr5=lambda at, a: write_zarr(at/'a.zarr', a), zarr4=lambda at, a: write_zarr(at/'b.zarr', np.moveaxis(a, 0, 2)[None], 'tyxc', '0.4'),
               sharded=lambda at, a: write_zarr(at/'c.zarr', a[:, None], 'czyx', shards=True), big_endian=lambda at, a: write_zarr(at/'d.zarr', a, version='0.4', dtype='>u2'),
               chunks=lambda at, a: write_chunks(at/'pt'/'01', a), ome_tiff=lambda at, a: write_ome(at/'a.ome.tif', a), steinbock=lambda at, a: write_steinbock(at/'steinbock', a),
               folder=lambda at, a: write_folder(at/'tifs', a))


def to_memory(path, name):
    "The same file or folder on fsspec's file system in memory, with the tables near it."
    fs, root = fsspec.filesystem('memory'), f'/{name}'
    if fs.exists(root): fs.rm(root, recursive=True)
    top = path.parent
    for p in top.rglob('*'):
        if p.is_file(): fs.pipe_file(f'{root}/{p.relative_to(top).as_posix()}', p.read_bytes())
    for p in top.parent.glob('*.csv'): fs.pipe_file(f'{root}/{p.name}', p.read_bytes())
    return f'memory:/{root}/{path.name}'


@pytest.mark.parametrize('where', ['here', 'file', 'memory'])
@pytest.mark.parametrize('how', FORMATS)
def test_every_format_gives_the_same_image(tmp_path, how, where):
    a = counts(3, 41, 23)
    path = FORMATS[how](tmp_path, a)
    if where == 'file': path = path.as_uri()
    if where == 'memory': path = to_memory(path, f'formats_{how}')
    image = open_image(path)
    panel = Panel.from_labels(image.names)
    assert panel.names == NAMES and [m.metal for m in panel] == ['143Nd', '161Dy', '191Ir'] and image.named and image.shape == a.shape and image.dtype.isnative
    order = [image.names.index(m.label) for m in panel]
    np.testing.assert_array_equal(image.read(channels=order), a)
    again = pickle.loads(pickle.dumps(image))
    np.testing.assert_array_equal(np.concatenate([again.read(y, min(y+9, 41), [order[2], order[0]]) for y in range(0, 41, 9)], 1), a[[2, 0]])
    assert image.read(5, 5).shape == (3, 0, 23)
    with pytest.raises(InputError, match=r'rows \[3, 42\) are outside'): image.read(3, 42)
    image.check()
    mark = image.fingerprint()
    assert mark == json.loads(json.dumps(mark)) == open_image(path).fingerprint() and all(len(o) == 3 for o in mark)


@pytest.mark.parametrize('how', FORMATS)
def test_a_changed_file_has_another_fingerprint(tmp_path, how):
    path = FORMATS[how](tmp_path, counts(3, 41, 23))
    image = open_image(path)
    before = image.fingerprint()
    changed = next(p for p in ([path] if path.is_file() else sorted(path.rglob('*'))) if p.is_file() and p.name not in ('panel.csv', 'zarr.json', '.zattrs', '.zgroup', '.zarray'))
    changed.write_bytes(changed.read_bytes()+b' ')
    assert image.fingerprint() != before
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(InputError, match='no file or folder'): image.fingerprint()
    with pytest.raises(InputError): image.check()
    with pytest.raises(InputError, match='no file or folder'): open_image(path)


DAMAGED = [k for k in FORMATS if k not in ('folder', 'shuffled')]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(how=st.sampled_from(DAMAGED), seed=st.integers(0, 2**31), cut=st.booleans())
def test_damage_never_ends_in_another_error(tmp_path, how, seed, cut):
    "A file cut anywhere, or with garbled bytes: the right pixels, other pixels, or an `InputError`."
    a, rng = counts(3, 20, 18), np.random.default_rng(seed)
    at = tmp_path/'damaged'
    shutil.rmtree(at, ignore_errors=True); at.mkdir()
    path = FORMATS[how](at, a)
    hit = path if path.is_file() else rng.choice(sorted(p for p in path.rglob('*') if p.is_file()))
    raw = bytearray(Path(hit).read_bytes())
    if cut: raw = raw[:rng.integers(0, len(raw))]
    else:
        for k in rng.integers(0, len(raw), 3): raw[k] = rng.integers(0, 256)
    Path(hit).write_bytes(raw)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            image = open_image(path)
            image.read(), image.fingerprint()
    except InputError as e: assert str(e)


@pytest.mark.parametrize('how,keep', [('mcd', .3), ('mcd', .9), ('txt', .5), ('txt', .98), ('ome_tiff', .9)])
def test_a_file_cut_short_is_noticed_when_it_is_opened(tmp_path, how, keep):
    path = FORMATS[how](tmp_path, counts(3, 41, 23))
    raw = path.read_bytes()
    path.write_bytes(raw[:int(keep*len(raw))])
    with pytest.raises(InputError, match='[Cc]opy'): open_image(path)


def test_a_band_of_an_mcd_does_not_load_it(tmp_path):
    a = np.broadcast_to(np.arange(2000, dtype='float32')[:, None], (3, 2000, 500))
    image = open_image(write_mcd(tmp_path/'big.mcd', [('ROI', a, None)]))
    tracemalloc.start()
    for y in range(0, 2000, 100): np.testing.assert_array_equal(image.read(y, y+100, [1])[0], a[0, y:y+100])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20*100*500*4, f'{peak/1e6:.1f} MB for bands of 0.2 MB in a file of 24 MB'


def test_readimc_agrees(tmp_path):
    "Stopped early, shuffled, or whole: the same as readimc reads."
    a = counts(3, 30, 20)+np.float32(.5)
    path = write_mcd(tmp_path/'a.mcd', [('whole', a, None), ('stopped', a, range(17*20+3)), ('shuffled', a, np.random.default_rng(0).permutation(600)), ('down', a, np.arange(600).reshape(30, 20).T.ravel())])
    with MCDFile(path) as f: expected = [f.read_acquisition(o) for o in f.slides[0].acquisitions]
    for k, whole in enumerate(expected, 1):
        image = open_image(path, k)
        image.cache_bytes = 100 # a scratch file
        np.testing.assert_array_equal(np.concatenate([image.read(y, y+5) for y in range(0, 30, 5)], 1), whole)
        np.testing.assert_array_equal(image.read(), whole)
    assert 'stopped after 343 of 600 pixels' in open_image(path, 'stopped').notes[0]
    assert [open_image(path, k).fingerprint()[0][0] for k in ('whole', 2)] == ['a.mcd#1', 'a.mcd#2']
    sections = find_sections(path, inputs=['Vimentin'], targets='rest')
    assert [s.number for s in sections] == [1, 2, 3, 4] and any('stopped after 343' in w for w in sections[1].warnings)
    with pytest.raises(InputError, match="no acquisition 'hole'.*Did you mean 'whole'"): open_image(path, 'hole')


def test_places_in_an_ome_zarr(tmp_path):
    a = counts(3, 20, 18)
    for k in (0, 1): write_zarr(tmp_path/'b.zarr', a+k, place=f'{k}')
    zarr.open_group(tmp_path/'b.zarr').attrs['ome'] = {'version': '0.5', 'bioformats2raw.layout': 3}
    zarr.open_group(tmp_path/'b.zarr').create_group('OME', attributes={'ome': {'version': '0.5', 'series': ['1', '0']}})
    assert acquisitions(tmp_path/'b.zarr') == ['1', '0']
    np.testing.assert_array_equal(open_image(tmp_path/'b.zarr', '0').read(), a)
    np.testing.assert_array_equal(open_image(tmp_path/'b.zarr', 0).read(), a+1)
    np.testing.assert_array_equal(open_image(tmp_path/'b.zarr'/'0').read(), a) # the image by itself, without .zarr in its name
    with pytest.raises(InputError, match=r"no image '2': it holds 0: 1; 1: 0"): open_image(tmp_path/'b.zarr', '2')
    write_zarr(tmp_path/'labels.zarr', a)
    write_zarr(tmp_path/'labels.zarr', a, place='labels/cells')
    assert acquisitions(tmp_path/'labels.zarr') == [''] and open_image(tmp_path/'labels.zarr').pixel_um == .5
    with pytest.raises(InputError, match='are not one section'): open_image(write_zarr(tmp_path/'t.zarr', a, 'tyx'))
    assert [o[0] for o in open_image(tmp_path/'b.zarr', '0').fingerprint()] == ['0#0', 'zarr.json#0'] and open_image(tmp_path/'b.zarr', '1').fingerprint()[0][0] == '0#1'
    sections = find_sections(tmp_path/'labels.zarr', inputs=['Vimentin'], targets='rest')
    assert sections[0].panel.names == ['CD20', '191Ir']


def test_our_own_store_and_imputed_images_are_images(tmp_path):
    from stpt2imc.phantom import Phantom
    from stpt2imc.store import convert
    phantom = Phantom(seed=0, sections=1, height=256, width=256)
    phantom.write(tmp_path/'tumour')
    section = find_sections(tmp_path/'tumour')[0]
    store = convert([section], tmp_path/'tumour.zarr', fit='resize', progress=False)
    place = next(p for p in acquisitions(store.path) if p.endswith('section_001/targets'))
    targets = open_image(store.path, place)
    assert targets.names == section.targets.names and Panel.from_labels(targets.names) == section.panel
    np.testing.assert_array_equal(targets.read(30, 99), section.targets.read(30, 99))
    assert open_image(store.path/'section_001', 'targets').names == open_image(store.path/'section_001'/'targets').names == targets.names
    assert open_image(store.path, 'section_001/inputs').names == section.input_names
    labels = [f'imputed: {n}' for n in section.panel.names]
    write_zarr(tmp_path/'imputed.ome.zarr', section.targets.read().astype('float32'), labels=labels)
    zarr.open_group(tmp_path/'imputed.ome.zarr').attrs['stpt2imc'] = dict(kind='imputed', format=1)
    imputed = open_image(tmp_path/'imputed.ome.zarr')
    assert imputed.names == labels and imputed.notes == ('these values are imputed, not measured',) and imputed.dtype == np.float32


# ---------------------------------------------------------------- sections of any layout
def test_a_table_of_sections(tmp_path):
    a = counts(3, 20, 18)
    (tmp_path/'stpt').mkdir()
    for n in (1, 2):
        for z in (0, 1): tifffile.imwrite(tmp_path/'stpt'/f'n{n}_z{z}.tif', np.moveaxis(counts(4, 20, 18, seed=n+z), 0, -1), planarconfig='contig', photometric='minisblack')
    write_mcd(tmp_path/'slide.mcd', [('left', a, None), ('right', a+1, None)])
    table = 'number,name,inputs,targets,acquisition,remark\n3,flank,stpt/n1_z0.tif; stpt/n1_z1.tif,slide.mcd,left,"fine, all of it"\n12,,stpt/n2_z0.tif;stpt/n2_z1.tif,slide.mcd,2,\n'
    (tmp_path/'sections.csv').write_text(table, encoding='utf-8-sig')
    for root in (tmp_path, tmp_path/'sections.csv', str(tmp_path), (tmp_path/'sections.csv').as_uri(), to_memory(tmp_path/'sections.csv', 'table'), 'memory://table'):
        sections = find_sections(root)
        assert [(s.number, s.name) for s in sections] == [(3, 'flank'), (12, 'S012')] and sections[0].panel.names == NAMES
        assert sections[0].input_names[3:5] == ['blue Z00', 'far red Z01']
        np.testing.assert_array_equal(sections[1].targets.read(), a+1)
        np.testing.assert_array_equal(sections[0].inputs.read(2, 9), np.concatenate([counts(4, 20, 18, seed=1+z)[:, 2:9] for z in (0, 1)]))
    sections_here = find_sections(tmp_path)
    assert [s.number for s in find_sections(tmp_path, exclude=['flank'])] == [12] and find_sections(tmp_path, only=[3])[0].number == 3
    assert find_sections(tmp_path, inputs=['green Z01'], targets=['CD20'])[0].targets.shape == (1, 20, 18)
    (tmp_path/'other.csv').write_text('section,stpt,imc,imc_acquisition\n3,stpt/n1_z*.tif,slide.mcd,right\n')
    s = find_sections(tmp_path/'other.csv')[0]
    assert (s.number, s.input_names) == (3, sections[0].input_names) and s.files[:2] == sections_here[0].files[:2]
    np.testing.assert_array_equal(s.targets.read(), a+1)
    crossed = find_sections(tmp_path, inputs=['191Ir'], targets='rest')[0]
    assert (crossed.input_names, crossed.panel.names) == (['Ir191'], NAMES[:2])
    assert check_sections(sections).number.tolist() == [3, 12]
    with pytest.raises(InputError, match='no section is left.*There are the sections 3, 12'): find_sections(tmp_path, only=[4])


@pytest.mark.parametrize('text,words', [
    ('number,input,targets\n1,a.ome.tif,\n', "line 1, column 'input' is not known. Did you mean 'inputs'"), ('number;inputs;targets\n1;a;b\n', 'line 1: separate the columns by commas'),
    ('number,name\n1,a\n', 'line 1: no column inputs'), ('number,inputs\n', 'lists no section'), ('', 'lists no section'), ('number,inputs\nx,a.ome.tif\n', "line 2, column number: 'x' is not a whole number"),
    ('number,inputs\n1,a.ome.tif\n\n1,a.ome.tif\n', 'line 4, column number: section 1 is in line 2 already'), ('number,inputs\n1,a.tif\n', "line 2, column inputs: no file or folder .*Did you mean 'a.ome.tif'"),
    ('number,inputs,targets\n1,a.ome.tif,b.ome.tif;a.ome.tif\n', 'line 2, column targets: .*must have one size'), ('number,inputs\n1,a.ome.tif,c\n', 'line 2 has 3 cells for 2 columns'),
    ('number,inputs,targets\n1,,\n', 'line 2, column inputs: no file'), ('number,inputs,targets,acquisition\n1,a.ome.tif,slide.mcd,center\n', "line 2, column targets: .*no acquisition 'center'.*Did you mean 'centre'"),
    ('number,inputs\n1,nothing.tif\n2,nowhere.tif\n', '2 sections have problems'), ('number,inputs,inputs\n1,a,b\n', "'inputs' is there twice")])
def test_faults_of_a_table(tmp_path, text, words):
    write_ome(tmp_path/'a.ome.tif', counts(3, 20, 18)); write_ome(tmp_path/'b.ome.tif', counts(3, 20, 17))
    write_mcd(tmp_path/'slide.mcd', [('centre', counts(3, 20, 18), None)])
    (tmp_path/'sections.csv').write_text(text)
    with pytest.raises(InputError, match=words): find_sections(tmp_path)


def test_one_file_for_both(tmp_path):
    write_ome(tmp_path/'a.ome.tif', counts(3, 20, 18))
    (tmp_path/'any.csv').write_text('inputs\na.ome.tif\n')
    s = find_sections(tmp_path/'any.csv', inputs=['191Ir'], targets='rest')[0]
    assert (s.number, s.input_names, s.panel.names) == (1, ['191Ir'], NAMES[:2])
    assert find_sections(tmp_path/'any.csv')[0].targets is None # to impute
    (tmp_path/'latin.csv').write_bytes('inputs\nä.tif\n'.encode('latin-1'))
    with pytest.raises(InputError, match='Save it as CSV in UTF-8'): find_sections(tmp_path/'latin.csv')


def test_panels_that_disagree(tmp_path):
    "Matched by marker: the order and the spelling of labels do not matter, a marker that is not the same everywhere does."
    def region(n, labels): tifffile.imwrite(tmp_path/f'roi_{n}.ome.tif', np.stack([counts(9, 8, seed=hash_of[l]) for l in labels]), metadata={'axes': 'CYX', 'Channel': {'Name': labels}}, photometric='minisblack')
    hash_of = {l: i for i, l in enumerate(['DNA_Ir191', '191Ir_DNA', 'CD20_Dy161', 'Dy161_CD20', 'CD3_Er170', 'CD3_Sm147', 'CD8_Dy162'])}
    region(1, ['DNA_Ir191', 'CD20_Dy161', 'CD3_Er170']); region(2, ['CD3_Er170', 'Dy161_CD20', '191Ir_DNA']); region(7, ['CD8_Dy162', 'DNA_Ir191', 'CD3_Sm147', 'CD20_Dy161'])
    both = find_sections(tmp_path, inputs=['DNA'], targets='rest', exclude=[7])
    assert both[0].panel == both[1].panel and both[1].targets.names == ['Dy161_CD20', 'CD3_Er170']
    np.testing.assert_array_equal(both[1].targets.read()[0], counts(9, 8, seed=hash_of['Dy161_CD20']))
    with pytest.raises(InputError, match='do not have the same markers') as e: find_sections(tmp_path, inputs=['DNA'], targets='rest')
    assert 'section        1        2      7' in str(e.value) and 'CD8      missing  missing  162Dy' in str(e.value) and 'CD20' not in str(e.value).split('\n', 1)[1] and "targets='common'" in str(e.value)
    shared = find_sections(tmp_path, inputs=['DNA'], targets='common')
    assert [s.panel.names for s in shared] == [['CD20']]*3
    np.testing.assert_array_equal(shared[2].targets.read(2, 5)[0], counts(9, 8, seed=hash_of['CD20_Dy161'])[2:5])
    table = compare_panels(find_sections(tmp_path/'roi_1.ome.tif', inputs=['DNA'], targets='rest')+find_sections(tmp_path/'roi_7.ome.tif', inputs=['DNA'], targets='rest'))
    assert table.index.tolist() == ['CD3', 'CD20', 'CD8'] and table.loc['CD3'].tolist() == ['170Er', '147Sm']


def test_the_folders_of_the_report(tmp_path):
    a = np.log1p(counts(8, 40, 36))*50.
    for n in (1, 2, 16):
        for role, k in (('STPT', 8), ('IMC', 3)): write_chunks(tmp_path/'processed_data'/role/f'{n:02d}', a[:k]).joinpath('panel.csv').unlink()
    (tmp_path/'processed_data'/'IMC'/'16'/'01_02.pt').unlink()
    with pytest.raises(InputError, match=r"16 lacks '01_02.pt'.*exclude"): find_sections(tmp_path)
    sections = find_sections(tmp_path/'processed_data', exclude=[16])
    assert [repr(s) for s in sections] == [f'Section {n}: STPT 8x40x36, IMC 3 markers, 40x36' for n in (1, 2)]
    assert sections[0].input_names == [f'{c} Z{z:02d}' for z in (0, 1) for c in ('far red', 'red', 'green', 'blue')]
    np.testing.assert_array_equal(sections[0].inputs.read(10, 37), a[:, 10:37])
    notes = check_sections(sections).notes[0]
    assert 'not counts' in notes and 'cannot be turned back into counts exactly' in notes and '16 px' in notes and 'whole numbers' in notes and 'do not name the channels' in notes
    (tmp_path/'processed_data'/'IMC'/'panel.csv').write_text('channel,name\nNd143,Vimentin\nDy161,CD20\nIr191,DNA\n')
    assert find_sections(tmp_path, exclude=[16], targets=['CD20'])[0].panel.names == ['CD20']


def test_pickled_code_is_not_run(tmp_path):
    class Trap:
        def __reduce__(self): return (Path.touch, (tmp_path/'sprung',))
    write_chunks(tmp_path/'01', counts(3, 32, 32))
    torch.save(Trap(), tmp_path/'01'/'00_00.pt')
    with pytest.raises(InputError, match='00_00.pt cannot be read as a tensor'): open_image(tmp_path/'01')
    assert not (tmp_path/'sprung').exists()


def test_the_laboratory_behind_a_url(tmp_path):
    for n in (1, 3):
        for z in (0, 1): tifffile.imwrite(tmp_path/f'S{n:03d}_Z{z:02d}.tif', np.moveaxis(counts(4, 20, 18, seed=n+z), 0, -1), planarconfig='contig', photometric='minisblack')
        (tmp_path/f'SECTION_{n:02d}_roi').mkdir(); write_folder(tmp_path/f'SECTION_{n:02d}_roi'/'TIF', counts(3, 20, 18, seed=n))
    to_memory(tmp_path/'S001_Z00.tif', 'bucket/tumour')
    here, there = find_sections(tmp_path), find_sections('memory://bucket/tumour')
    assert [repr(s) for s in here] == [repr(s) for s in there] and check_sections(there).number.tolist() == [1, 3]
    for a, b in zip(here, pickle.loads(pickle.dumps(there))):
        np.testing.assert_array_equal(a.inputs.read(3, 17), b.inputs.read(3, 17)); np.testing.assert_array_equal(a.targets.read(3, 17), b.targets.read(3, 17))
    assert [o[:2] for o in there[0].targets.fingerprint()] == [o[:2] for o in here[0].targets.fingerprint()]
    with pytest.raises(InputError, match=r"memory://bucket', which holds 'tumour'.*Did you mean 'tumour'"): find_sections('memory://bucket/tumor')
    fsspec.filesystem('memory').rm('/bucket/tumour/S003_Z01.tif')
    with pytest.raises(InputError, match='section 3 lacks .*S003_Z01.tif'): find_sections('memory://bucket/tumour')
    assert find_sections('memory://bucket/tumour', exclude=[3])[0].number == 1
    assert open_image('memory://bucket/tumour/SECTION_01_roi/TIF/161Dy_CD20.tif').names == ['161Dy_CD20']


def test_patterns_behind_a_url(tmp_path):
    for n in (2, 10): write_ome(tmp_path/f'roi_{n}.ome.tif', counts(3, 20, 18, seed=n))
    to_memory(tmp_path/'roi_2.ome.tif', 'pattern')
    assert [s.number for s in find_sections('memory://pattern/roi_*.ome.tif', inputs=['191Ir'], targets='rest')] == [2, 10]
    assert [s.number for s in find_sections('memory://pattern', inputs=['191Ir'], targets='rest')] == [2, 10]
    with pytest.raises(InputError, match='no file matches'): find_sections('memory://pattern/*.mcd')


def bytes_read(f):
    "How many bytes `f` asks the system for (what is mapped into memory does not count)."
    rchar = lambda: int(Path('/proc/self/io').read_text().split()[1])
    before = rchar(); f()
    return rchar()-before


@pytest.mark.skipif(not Path('/proc/self/io').exists(), reason='needs /proc/self/io')
@pytest.mark.parametrize('how', [k for k in FORMATS if k not in ('shuffled', 'sharded')])
def test_opening_reads_no_pixels_and_a_band_only_its_rows(tmp_path, how):
    a = counts(3, 480, 300)
    path = FORMATS[how](tmp_path, a)
    size = sum(p.stat().st_size for p in ([path] if path.is_file() else path.rglob('*')))
    open_image(path).read(0, 1) # imports
    assert bytes_read(lambda: open_image(path)) < .12*size+30_000
    image = open_image(path)
    image.read(0, 1)
    if how != 'txt': assert bytes_read(lambda: image.read(96, 144)) < .35*size # a tenth, and the heads of segments and chunk files
