"What `01_section.ipynb` cannot hold: the whole matrix of faults, drawn layouts, memory, and real files."
import os, pickle, tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np, pytest, tifffile
from hypothesis import given, settings, strategies as st, HealthCheck

from stpt2imc.grid import InputError
from stpt2imc.section import (ChannelView, FolderImage, Marker, Panel, Section, StackedImage, TiffImage, check_sections, data_folder, find_sections, open_image,
                              panel_from_dict, parse_marker, register_format)

PLAIN = dict(photometric='minisblack')
MARKERS = ['141Pr_aSMA', '143Nd_Vimentin', '161Dy_CD20', '191Ir_DNA1']


def counts(*shape, seed=0, dtype='uint16'): return np.random.default_rng(seed).poisson(5, shape).astype(dtype)


def write_ome(path, array, names, **kw): tifffile.imwrite(path, array, ome=True, metadata={'axes': 'CYX', 'Channel': {'Name': list(names)}}, **PLAIN | kw)


def write_lab(root, sections=(1, 2, 3), depths=2, markers=MARKERS, imc=None, h=24, w=20):
    "A tumour in the laboratory's layout; every section lists its files in another order."
    root.mkdir(exist_ok=True)
    for n in sections:
        for z in range(depths): tifffile.imwrite(root/f'S{n:03d}_Z{z:02d}.tif', counts(h, w, 4, seed=10*n+z), planarconfig='contig', **PLAIN)
        if imc is not None and n not in imc: continue
        folder = root/f'SECTION_{n:02d}_roi'/'TIF'
        folder.mkdir(parents=True)
        planes = dict(zip(markers, counts(len(markers), h, w, seed=n)))
        for label in np.random.default_rng(n).permutation(markers): tifffile.imwrite(folder/f'{label}.tif', planes[label])
    return root


# ---------------------------------------------------------------- markers and panels
@pytest.mark.parametrize('label,name,metal', [
    ('143Nd_Vimentin', 'Vimentin', '143Nd'), ('CD20_Dy161', 'CD20', '161Dy'), ('80ArAr_ArAr80', '80ArAr', '80ArAr'), ('131Xe_Xe131', '131Xe', '131Xe'),
    ('190BCKG_BCKG190', '190BCKG', '190BCKG'), ('Cytoker_651((3356))Pr141', 'Cytoker_651', '141Pr'), ('Laminin_681((851))Sm147(Sm147Di)', 'Laminin_681', '147Sm'),
    ('107Ag', '107Ag', '107Ag'), ('107Ag(Ag107Di)', '107Ag', '107Ag'), ('Ag107_Ag107', '107Ag', '107Ag'), ('Pr141_Cytokeratin 5', 'Cytokeratin 5', '141Pr'),
    ('CD11b', 'CD11b', None), ('HLA-Class-1', 'HLA-Class-1', None), ('S100', 'S100', None), ('Ki67', 'Ki67', None), ('H3K9Ac', 'H3K9Ac', None), ('Na', 'Na', None),
    ('143Nd_alpha_SMA', 'alpha_SMA', '143Nd'), ('HLA-DR_Nd143', 'HLA-DR', '143Nd'), ('CD3 170Er', 'CD3', '170Er'), ('far red Z00', 'far red Z00', None), ('p-S6_Lu175', 'p-S6', '175Lu')])
def test_labels(label, name, metal):
    m = parse_marker(label)
    assert (m.name, m.metal, m.label) == (name, metal, label)
    assert m.mass == (int(''.join(c for c in metal if c.isdigit())) if metal else None)
    assert m == Marker(name, metal, m.mass, 'another label')


@given(st.permutations(['143Nd_Vimentin', 'CD20_Dy161', 'aSMA(Pr141Di)', 'CD11b', 'CD3', '191Ir_DNA1', '80ArAr']))
def test_panel_order_does_not_depend_on_the_files(labels):
    panel = Panel.from_labels(labels)
    assert panel.names == ['80ArAr', 'aSMA', 'Vimentin', 'CD20', 'DNA1', 'CD3', 'CD11b']
    assert panel == panel_from_dict(panel.to_dict()) and hash(panel) == hash(Panel.from_labels(labels[::-1]))
    assert pickle.loads(pickle.dumps(panel)) == panel


def test_panel_csv(tmp_path):
    panel = Panel.from_labels(MARKERS + ['CD11b', 'HLA, class 1'])
    panel.to_csv(tmp_path/'p.csv')
    again = Panel.from_csv(tmp_path/'p.csv')
    assert again == panel and again.labels == panel.labels
    assert (tmp_path/'p.csv').read_text().splitlines()[1] == 'Pr141,aSMA,1,141Pr_aSMA'
    (tmp_path/'bad.csv').write_text('a,b\n1,2\n')
    with pytest.raises(InputError, match='columns channel and name'): Panel.from_csv(tmp_path/'bad.csv')


def test_panel_faults():
    with pytest.raises(InputError, match="same name 'CD20' in S3: '161Dy_CD20' and 'CD20_Sm147'"): Panel.from_labels(['161Dy_CD20', 'CD20_Sm147'], 'S3')
    with pytest.raises(InputError, match="same metal '161Dy'"): Panel.from_labels(['161Dy_CD20', 'CD8_Dy161'])
    panel = Panel.from_labels(MARKERS)
    with pytest.raises(InputError, match="Did you mean 'Vimentin'"): panel['Vimentim']
    with pytest.raises(InputError, match='several channels'): Panel.from_labels(['143Nd_cd20', '161Dy_CD20'])['Cd20']
    assert panel['cd20'] == panel['161Dy'] == panel['Dy161'] == panel['161Dy_CD20'] == panel[2]
    assert 'CD20: 161Dy in the first, 147Sm in the second' in panel.difference(Panel.from_labels(['147Sm_CD20']))


# ---------------------------------------------------------------- reading
LAYOUTS = st.fixed_dictionaries(dict(
    compression=st.sampled_from([None, 'zlib', 'lzw', 'zstd', 'packbits']), predictor=st.booleans(), byteorder=st.sampled_from('<>'), bigtiff=st.booleans(),
    shape=st.sampled_from(['pages', 'separate', 'contig']), rows=st.sampled_from([1, 5, 16, 1000]), tile=st.sampled_from([None, (16, 16), (32, 16)]),
    dtype=st.sampled_from(['uint8', 'uint16', 'uint32', 'float32'])))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(how=LAYOUTS, size=st.tuples(st.integers(1, 4), st.integers(1, 50), st.integers(1, 50)), cuts=st.lists(st.integers(0, 50), min_size=1, max_size=4),
       channels=st.lists(st.integers(0, 3), min_size=1, max_size=4), small_cache=st.booleans())
def test_bands_equal_the_whole(tmp_path, how, size, cuts, channels, small_cache):
    c, h, w = size
    image = counts(c, h, w, dtype=how['dtype'])
    kw = dict(compression=how['compression'], predictor=bool(how['predictor'] and how['compression'] in ('zlib', 'lzw', 'zstd')), byteorder=how['byteorder'], bigtiff=how['bigtiff'], metadata=None)
    kw |= dict(tile=how['tile']) if how['tile'] else dict(rowsperstrip=min(how['rows'], h))
    path = tmp_path/'drawn.tif'
    if how['shape']=='pages' or c==1:
        with tifffile.TiffWriter(path, byteorder=kw.pop('byteorder'), bigtiff=kw.pop('bigtiff')) as f:
            for plane in image: f.write(plane, **PLAIN | kw)
    elif how['shape']=='contig': tifffile.imwrite(path, np.moveaxis(image, 0, -1), planarconfig='contig', **PLAIN | kw)
    else: tifffile.imwrite(path, image, planarconfig='separate', **PLAIN | kw)
    source = TiffImage(path, cache_mb=1e-6 if small_cache else 512)
    assert source.shape == image.shape and source.dtype == image.dtype and source.dtype.isnative
    edges = sorted({0, h, *(min(y, h) for y in cuts)})
    np.testing.assert_array_equal(np.concatenate([source.read(a, b) for a, b in zip(edges, edges[1:])], 1), image)
    chosen = [k % c for k in channels]
    np.testing.assert_array_equal(source.read(edges[0], edges[1], chosen), image[chosen, edges[0]:edges[1]])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(source)).read(), image)


def test_threads_read_one_source(tmp_path):
    image = counts(3, 200, 60)
    tifffile.imwrite(tmp_path/'a.tif', image, compression='zlib', rowsperstrip=200, **PLAIN)
    source = TiffImage(tmp_path/'a.tif')
    with ThreadPoolExecutor(4) as pool:
        for y, band in zip(range(0, 200, 10), pool.map(lambda y: source.read(y, y+10), range(0, 200, 10))): np.testing.assert_array_equal(band, image[:, y:y+10])


def test_one_strip_is_decoded_once(tmp_path):
    image = counts(2, 400, 50)
    tifffile.imwrite(tmp_path/'a.tif', image, compression='zlib', rowsperstrip=400, **PLAIN)
    for cache in (512, .001):
        source, calls = TiffImage(tmp_path/'a.tif', cache_mb=cache), []
        plain = source._segment
        source._segment = lambda p, i, f: (calls.append((p, i)), plain(p, i, f))[1]
        got = np.concatenate([source.read(y, y+25) for y in range(0, 400, 25)], 1)
        np.testing.assert_array_equal(got, image)
        assert sorted(calls) == [(0, 0), (1, 0)]


def test_bands_overlapping_by_a_halo_decode_once(tmp_path):
    image = counts(1, 640, 50)
    tifffile.imwrite(tmp_path/'a.tif', image, compression='zlib', rowsperstrip=64, **PLAIN)
    source, calls = TiffImage(tmp_path/'a.tif'), []
    plain = source._segment
    source._segment = lambda p, i, f: (calls.append(i), plain(p, i, f))[1]
    for y in range(0, 640, 128): np.testing.assert_array_equal(source.read(max(y-32, 0), min(y+160, 640)), image[:, max(y-32, 0):y+160])
    assert sorted(calls) == list(range(10))


@pytest.mark.parametrize('how', ['planes', 'interleaved', 'compressed'])
def test_bands_of_a_big_file_do_not_load_it(tmp_path, how):
    h, w, c = 6000, 1500, 4 # 72 MB
    image = np.zeros((h, w, c) if how=='interleaved' else (c, h, w), 'uint16')
    image[:, 5] = 7
    tifffile.imwrite(tmp_path/'big.tif', image, planarconfig='contig' if how=='interleaved' else None, **PLAIN | (dict(compression='zlib', rowsperstrip=64) if how=='compressed' else {}))
    del image
    source = TiffImage(tmp_path/'big.tif')
    tracemalloc.start()
    for y in range(0, h, 250): assert source.read(y, y+250).shape == (c, 250, w)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6*c*250*w*2, f'{peak/1e6:.0f} MB for bands of {c*250*w*2/1e6:.0f} MB'
    open_files = len(os.listdir('/proc/self/fd')) if Path('/proc/self/fd').exists() else 0
    for _ in range(20): source.read(0, 5)
    assert not open_files or len(os.listdir('/proc/self/fd')) <= open_files, 'a source keeps no file open'


def test_names_and_pixel_size(tmp_path):
    image = counts(2, 20, 30)
    tifffile.imwrite(tmp_path/'ij.tif', image, imagej=True, resolution=(2, 2), metadata={'axes': 'CYX', 'unit': 'um', 'Labels': ['DNA', 'CD3']})
    assert (open_image(tmp_path/'ij.tif').names, open_image(tmp_path/'ij.tif').pixel_um) == (['DNA', 'CD3'], .5)
    with tifffile.TiffWriter(tmp_path/'pages.tif') as f:
        for name, plane in zip(('DNA', 'CD3'), image): f.write(plane, metadata=None, extratags=[(285, 's', 0, name, True)], **PLAIN)
    assert open_image(tmp_path/'pages.tif').names == ['DNA', 'CD3'] and open_image(tmp_path/'pages.tif').named
    tifffile.imwrite(tmp_path/'cm.tif', image, resolution=(20000, 20000), resolutionunit='centimeter', **PLAIN)
    assert open_image(tmp_path/'cm.tif').pixel_um == .5 and not open_image(tmp_path/'cm.tif').named
    tifffile.imwrite(tmp_path/'dpi.tif', image, resolution=(300, 300), resolutionunit='inch', **PLAIN)
    assert open_image(tmp_path/'dpi.tif').pixel_um is None
    tifffile.imwrite(tmp_path/'nm.ome.tif', image, metadata={'axes': 'CYX', 'PhysicalSizeX': 800, 'PhysicalSizeXUnit': 'nm'}, **PLAIN)
    assert abs(open_image(tmp_path/'nm.ome.tif').pixel_um - .8) < 1e-9
    assert open_image(tmp_path/'nm.ome.tif').names == ['Channel:0:0', 'Channel:0:1'] and not open_image(tmp_path/'nm.ome.tif').named
    tifffile.imwrite(tmp_path/'143Nd_CD4.tif', image[0])
    assert open_image(tmp_path/'143Nd_CD4.tif').names == ['143Nd_CD4']


def test_imagej_stack_with_one_directory(tmp_path):
    "ImageJ writes stacks above 4 GB with a single directory; so does tifffile, when told to."
    image = counts(5, 20, 30)
    tifffile.imwrite(tmp_path/'a.tif', image, imagej=True, metadata={'axes': 'CYX'})
    raw = bytearray((tmp_path/'a.tif').read_bytes())
    with tifffile.TiffFile(tmp_path/'a.tif') as t:
        first, byteorder = t.pages[0], t.byteorder
        link = first.offset+2+12*len(first.tags)
    raw[link:link+4] = b'\0\0\0\0'
    (tmp_path/'b.tif').write_bytes(raw)
    source = TiffImage(tmp_path/'b.tif')
    np.testing.assert_array_equal(source.read(3, 9), image[:, 3:9])
    (tmp_path/'c.tif').write_bytes(raw[:first.dataoffsets[0]+4*20*30*2])
    with pytest.raises(InputError, match='cut short'): TiffImage(tmp_path/'c.tif')


def test_another_format_can_be_registered(tmp_path):
    (tmp_path/'x.npyraw').touch()
    with pytest.raises(InputError, match="'.npyraw' is not a format.*tif"): open_image(tmp_path/'x.npyraw')
    tifffile.imwrite(tmp_path/'real.tif', counts(9, 9))
    register_format('.npyraw', lambda path, acquisition: TiffImage(path.with_name('real.tif')))
    try: assert open_image(tmp_path/'x.npyraw').shape == (1, 9, 9)
    finally:
        from stpt2imc import section
        del section._openers['.npyraw']


# ---------------------------------------------------------------- sections
def test_laboratory_layout(tmp_path):
    sections = find_sections(write_lab(tmp_path/'t', (2, 1, 12), imc=(1, 2)))
    assert [repr(s) for s in sections] == ['Section 1: STPT 2x4x24x20, IMC 4 markers, 24x20', 'Section 2: STPT 2x4x24x20, IMC 4 markers, 24x20', 'Section 12: STPT 2x4x24x20, no IMC']
    assert sections[0].input_names == [f'{c} Z{z:02d}' for z in (0, 1) for c in ('far red', 'red', 'green', 'blue')]
    assert sections[0].panel == sections[1].panel and sections[0].targets.names == MARKERS and sections[2].targets is None
    for s in sections[:2]: np.testing.assert_array_equal(s.targets.read(3, 17), counts(4, 24, 20, seed=s.number)[:, 3:17])
    np.testing.assert_array_equal(sections[0].inputs.read(), np.concatenate([np.moveaxis(counts(24, 20, 4, seed=10+z), -1, 0) for z in (0, 1)]))
    table = check_sections(sections)
    assert table.number.tolist() == [1, 2, 12] and table.markers.tolist() == [4, 4, 0]
    assert pickle.loads(pickle.dumps(sections[0])).targets.read().shape == (4, 24, 20)


def test_laboratory_layout_with_chosen_channels(tmp_path):
    root = write_lab(tmp_path/'t', (1, 2))
    s = find_sections(root, inputs=['DNA1', 'green Z01'], targets='rest', drop=['aSMA'])[0]
    assert (s.input_names, s.panel.names) == (['191Ir_DNA1', 'green Z01'], ['Vimentin', 'CD20'])
    np.testing.assert_array_equal(s.inputs.read()[0], counts(4, 24, 20, seed=1)[3])
    assert repr(find_sections(root, targets=['CD20', '143Nd'])[0]) == 'Section 1: STPT 2x4x24x20, IMC 2 markers, 24x20'
    assert find_sections(root, drop=['CD20'])[1].panel.names == ['aSMA', 'Vimentin', 'DNA1']
    assert find_sections(root, exclude=[2])[0].number == 1 and find_sections(root, only=['S002'])[0].number == 2
    with pytest.raises(InputError, match="Did you mean 'CD20'"): find_sections(root, drop=['CD200'])
    with pytest.raises(InputError, match='both input and target'): find_sections(root, inputs=['DNA1'])
    for f in root.glob('S00*'): f.unlink()
    assert repr(find_sections(root, inputs=['DNA1'], targets='rest')[1]) == 'Section 2 (S002): inputs 1x24x20, targets 3x24x20'


def test_depths(tmp_path):
    root = write_lab(tmp_path/'t', (1, 2), depths=1)
    with pytest.raises(InputError, match=r"S001_Z01.tif.*depths=1"): find_sections(root)
    assert find_sections(root, depths=1)[0].inputs.shape == (4, 24, 20)
    root = write_lab(tmp_path/'u', (1, 2), depths=3)
    assert find_sections(root)[0].inputs.shape[0] == 8 and find_sections(root, depths=3)[0].inputs.shape[0] == 12
    assert find_sections(root, depths=[0, 2])[0].input_names[-1] == 'blue Z02'


def break_file(name, keep):
    def f(root):
        p = next(root.rglob(name))
        p.write_bytes(p.read_bytes()[:keep])
    return f


def replace(name, array, **kw): return lambda root: tifffile.imwrite(next(root.rglob(name)), array, **kw)


LAB_FAULTS = {
    'one depth': (lambda r: (r/'S002_Z01.tif').unlink(), ['section 2 lacks', 'S002_Z01.tif', 'exclude=[2]', 'depths=1']),
    'no STPT': (lambda r: [f.unlink() for f in r.glob('S002*')], ['IMC without STPT', 'SECTION_02_roi', 'S002_Z00.tif', 'exclude=[2]']),
    'marker missing': (lambda r: next(r.glob('SECTION_02*/TIF/161Dy*')).unlink(), ["section 2", 'SECTION_02_roi', "lacks 'CD20'", 'exclude=[2]', "drop=['CD20']"]),
    'marker too many': (lambda r: tifffile.imwrite(r/'SECTION_02_roi/TIF/209Bi_CD99.tif', counts(24, 20)), ["only section 2 has 'CD99'", "drop=['CD99']"]),
    'another metal': (lambda r: next(r.glob('SECTION_02*/TIF/161Dy*')).rename(r/'SECTION_02_roi/TIF/147Sm_CD20.tif'), ["'CD20' is 161Dy in section", '147Sm in section', 'exclude=[2]']),
    'marker twice': (lambda r: tifffile.imwrite(r/'SECTION_02_roi/TIF/147Sm_CD20.tif', counts(24, 20)), ["same name 'CD20'", 'section 2', '147Sm_CD20', '161Dy_CD20', 'drop=']),
    'IMC twice': (lambda r: write_lab(r/'copy', (2,)) and [f.unlink() for f in (r/'copy').glob('S0*')], ['IMC of section 2 is there twice', 'copy', 'Move one']),
    'STPT twice': (lambda r: tifffile.imwrite(r/'S2_Z00.tif', counts(24, 20, 4), planarconfig='contig', **PLAIN), ['section 2 is there twice', 'S2_Z00.tif', 'S002_Z00.tif', 'Move one']),
    'odd size': (replace('143Nd_Vimentin.tif', counts(24, 19)), ['143Nd_Vimentin.tif (24 x 19)', '24 x 20', 'Export again']),
    'depths differ in size': (replace('S001_Z01.tif', counts(23, 20, 4), planarconfig='contig', **PLAIN), ['S001_Z01.tif is 23 x 20 px', 'one size']),
    'depths differ in colours': (replace('S001_Z01.tif', counts(24, 20, 3), planarconfig='contig', **PLAIN), ['S001_Z01.tif has 3 channels', 'same colours']),
    'cut short': (break_file('S003_Z00.tif', 2000), ['S003_Z00.tif is cut short', 'at least', 'has 2,000', 'Copy the file again']),
    'cut to the header': (break_file('141Pr_aSMA.tif', 6), ['141Pr_aSMA.tif', 'Copy the file again']),
    'cut to three bytes': (break_file('141Pr_aSMA.tif', 3), ['141Pr_aSMA.tif', 'Copy the file again']),
    'empty file': (break_file('141Pr_aSMA.tif', 0), ['141Pr_aSMA.tif is empty (0 bytes)', 'Copy the file again']),
    'no TIFF': (lambda r: next(r.rglob('141Pr_aSMA.tif')).write_bytes(b'\x89PNG\r\n\x1a\n' + bytes(40)), ['141Pr_aSMA.tif is not a TIFF', 'Export it again']),
    'two channels in one': (replace('141Pr_aSMA.tif', counts(2, 24, 20), **PLAIN), ['141Pr_aSMA.tif has 2 channels', 'must hold one']),
    'no TIF folder': (lambda r: (r/'SECTION_02_roi'/'TIF').rename(r/'SECTION_02_roi'/'images'), ['SECTION_02_roi', 'no folder TIF', 'rename']),
    'empty TIF folder': (lambda r: [f.unlink() for f in r.glob('SECTION_02*/TIF/*')], ['SECTION_02_roi', 'holds no .tif'])}


@pytest.mark.parametrize('fault', LAB_FAULTS)
def test_laboratory_faults(tmp_path, fault):
    root = write_lab(tmp_path/'t')
    spoil, words = LAB_FAULTS[fault]
    spoil(root)
    with pytest.raises(InputError) as e: check_sections(find_sections(root))
    for w in words: assert w in str(e.value), f'{w!r} not in: {e.value}'


def test_excluding_the_faulty_section_mends_it(tmp_path):
    root = write_lab(tmp_path/'t')
    (root/'S002_Z01.tif').unlink(); break_file('S003_Z00.tif', 500)(root)
    assert [s.number for s in find_sections(root, exclude=[2, 3])] == [1]
    assert find_sections(root, only=[1])[0].number == 1
    with pytest.raises(InputError, match='There are the sections 1, 2, 3'): find_sections(root, only=[7])


def test_all_faulty_files_are_named_at_once(tmp_path):
    root = write_lab(tmp_path/'t')
    for n in (1, 3): break_file(f'S00{n}_Z00.tif', 700)(root)
    with pytest.raises(InputError, match='(?s)2 sections have problems.*S001_Z00.tif.*S003_Z00.tif'): find_sections(root)


def test_hidden_files_do_not_count(tmp_path):
    root = write_lab(tmp_path/'t', (1,))
    (root/'SECTION_01_roi/TIF/._141Pr_aSMA.tif').write_bytes(b'apple')
    (root/'._S001_Z00.tif').write_bytes(b'apple')
    (root/'notes').mkdir(); (root/'notes'/'a.txt').touch()
    assert len(find_sections(root)[0].panel) == 4


@pytest.mark.parametrize('array,words', [
    (lambda a: np.where(np.arange(a.size).reshape(a.shape)==507, np.nan, a.astype('float32')), ["nan (not a finite number) in 'CD20' of"]),
    (lambda a: np.where(np.arange(a.size).reshape(a.shape)==507, np.inf, a.astype('float32')), ['inf (not a finite number)']),
    (lambda a: (a/a.max()).astype('float32'), ['looks rescaled', 'counts are needed']),
    (lambda a: a.astype('int16')-3, ['negative']), (lambda a: a.astype('uint32')*60000, ['above 65535']), (lambda a: a.astype('complex64'), ['complex64', 'not supported']),
])
def test_unusable_values(tmp_path, array, words):
    for n in (1, 2): write_ome(tmp_path/f'roi{n}.ome.tif', counts(2, 24, 20), ['DNA_Ir191', 'CD20_Dy161'])
    spoilt = array(counts(2, 24, 20))
    spoilt[0] = counts(24, 20) if spoilt.dtype.kind in 'iuf' and 'rescaled' not in words[0] else spoilt[0]
    if spoilt.dtype.kind=='c':
        tifffile.imwrite(tmp_path/'c.tif', spoilt, **PLAIN)
        sections = [Section(9, 'c', ChannelView(open_image(tmp_path/'c.tif'), [0]))]
    else:
        write_ome(tmp_path/'roi9.ome.tif', spoilt, ['DNA_Ir191', 'CD20_Dy161'])
        sections = find_sections(tmp_path, inputs=['DNA'], targets=['CD20'])
    with pytest.raises(InputError) as e: check_sections(sections)
    for w in words + ['section 9', 'c.tif' if spoilt.dtype.kind=='c' else 'roi9.ome.tif']: assert w in str(e.value), f'{w!r} not in: {e.value}'


def test_fractional_counts_are_noted(tmp_path):
    write_ome(tmp_path/'roi1.ome.tif', counts(2, 24, 20).astype('float32')*1.3, ['DNA_Ir191', 'CD20_Dy161'])
    assert 'rounded to whole counts' in check_sections(find_sections(tmp_path, inputs=['DNA'], targets=['CD20'])).notes[0]


def test_a_file_cut_after_it_was_opened(tmp_path):
    root = write_lab(tmp_path/'t')
    sections = find_sections(root)
    break_file('S001_Z00.tif', 2000)(root); (root/'S002_Z01.tif').unlink()
    with pytest.raises(InputError, match='(?s)2 problems in 3 sections.*S001_Z00.tif is cut short.*S002_Z01.tif'): check_sections(sections)
    with pytest.raises(InputError, match='S001_Z00.tif is cut short'): sections[0].inputs.read()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(part=st.floats(0, .999), compression=st.sampled_from([None, 'zlib']), ome=st.booleans(), bigtiff=st.booleans())
def test_no_cut_goes_unnoticed(tmp_path, part, compression, ome, bigtiff):
    "Wherever a file is cut, opening it says so, unless no pixel is lost."
    path, image = tmp_path/('a.ome.tif' if ome else 'a.tif'), counts(3, 40, 30)
    tifffile.imwrite(path, image, compression=compression, ome=ome, bigtiff=bigtiff, metadata={'axes': 'CYX'} if ome else None, rowsperstrip=8, **PLAIN)
    raw = path.read_bytes()
    path.write_bytes(raw[:int(part*len(raw))])
    try: source = TiffImage(path)
    except InputError as e: assert path.name in str(e) and 'again' in str(e)
    else: np.testing.assert_array_equal(source.read(), image) # only padding behind the last segment is gone


def test_garbled_directory(tmp_path):
    tifffile.imwrite(tmp_path/'a.tif', counts(30, 30))
    raw = bytearray((tmp_path/'a.tif').read_bytes())
    raw[8:10] = b'\xff\xff'
    (tmp_path/'a.tif').write_bytes(raw)
    with pytest.raises(InputError, match='garbled.*Copy the file again'): TiffImage(tmp_path/'a.tif')
    tifffile.imwrite(tmp_path/'b.tif', counts(30, 30), compression='zlib')
    raw = bytearray((tmp_path/'b.tif').read_bytes())
    raw[-300:] = bytes(300)
    (tmp_path/'b.tif').write_bytes(raw)
    with pytest.raises(InputError, match='b.tif: segment 0 of page 0 cannot be decoded'): TiffImage(tmp_path/'b.tif').read()


def test_several_images_in_a_file(tmp_path):
    "Pages that do not fit together must not be lost in silence; a thumbnail may be."
    with tifffile.TiffWriter(tmp_path/'a.tif') as f:
        for dtype in ('uint16', 'uint8', 'uint8'): f.write(counts(30, 20, dtype=dtype), metadata=None, **PLAIN)
    with pytest.raises(InputError, match=r'a.tif holds several images \(0:.*30x20; 1:.*2x30x20\).*acquisition=0'): open_image(tmp_path/'a.tif')
    assert open_image(tmp_path/'a.tif', acquisition=1).shape == (2, 30, 20)
    with pytest.raises(InputError, match='has no image 2'): open_image(tmp_path/'a.tif', acquisition=2)
    with tifffile.TiffWriter(tmp_path/'b.tif') as f:
        for a in (counts(30, 20), counts(6, 4, 3, dtype='uint8')): f.write(a, metadata=None)
    assert open_image(tmp_path/'b.tif').shape == (1, 30, 20)


def test_colours_saved_as_pages(tmp_path):
    tifffile.imwrite(tmp_path/'S001_Z00.tif', counts(70, 50, 4), **PLAIN) # photometric alone makes 70 pages of 50 x 4
    with pytest.raises(InputError, match="S001_Z00.tif: 70 channels of 50 x 4 px.*planarconfig='contig'"): open_image(tmp_path/'S001_Z00.tif')


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10**6), compression=st.sampled_from([None, 'zlib']), ome=st.booleans())
def test_garbled_bytes_never_end_in_another_error(tmp_path, seed, compression, ome):
    "A few wrong bytes near the head of a file: it opens, or an `InputError` names it."
    path, rng = tmp_path/('a.ome.tif' if ome else 'a.tif'), np.random.default_rng(seed)
    tifffile.imwrite(path, counts(3, 40, 30), compression=compression, ome=ome, metadata={'axes': 'CYX'} if ome else None, rowsperstrip=8, **PLAIN)
    raw = bytearray(path.read_bytes())
    for at in rng.integers(0, 400, 4): raw[at] = rng.integers(256)
    path.write_bytes(raw)
    try: TiffImage(path).read(0, 1)
    except InputError as e: assert path.name in str(e)


def test_paths(tmp_path):
    write_lab(tmp_path/'tumour', (1,))
    with pytest.raises(InputError, match="Did you mean 'tumour'"): find_sections(tmp_path/'tumuor')
    with pytest.raises(InputError, match='nearest folder that exists'): open_image(tmp_path/'tumour'/'x'/'y'/'z.tif')
    (tmp_path/'empty').mkdir()
    with pytest.raises(InputError, match='holds no image'): find_sections(tmp_path/'empty')
    with pytest.raises(InputError, match='holds no .tif'): open_image(tmp_path/'empty')
    with pytest.raises(InputError, match='no file matches'): find_sections(str(tmp_path/'*.ome.tif'))
    with pytest.raises(InputError, match='list of files is empty'): find_sections([])
    for name in ('a.czi', 'b.docx'):
        (tmp_path/name).touch()
        with pytest.raises(InputError, match='not a format that is read; those are .*.mcd.*.tif, .tiff'): open_image(tmp_path/name)


def test_generic_files(tmp_path):
    names = ['DNA_Ir191', 'CD20_Dy161', 'CD11b', 'totalIon']
    for n in (2, 11): write_ome(tmp_path/f'ROI{n:03d}.ome.tiff', counts(4, 24+n, 20, seed=n), names)
    with pytest.raises(InputError, match=r"inputs=\['DNA_Ir191', 'CD20_Dy161'\], targets=\['CD11b', 'totalIon'\]"): find_sections(tmp_path)
    sections = find_sections(tmp_path, inputs=['DNA'], targets='rest', drop=['totalIon'])
    assert [repr(s) for s in sections] == ['Section 2 (ROI002): inputs 1x26x20, targets 2x26x20', 'Section 11 (ROI011): inputs 1x35x20, targets 2x35x20']
    assert find_sections(tmp_path/'ROI011.ome.tiff', inputs='DNA', targets='CD20')[0].number == 11
    assert find_sections(tmp_path, inputs=['191Ir'])[0].targets is None
    assert 'no metal tag' in check_sections(sections).notes[0]
    with pytest.raises(InputError, match="section 2 .*no channel 'CD21'.*Did you mean 'CD20'"): find_sections(tmp_path, inputs=['DNA'], targets=['CD21'])
    with pytest.raises(InputError, match='twice'): find_sections(tmp_path, inputs=['DNA', '191Ir'], targets=['CD20'])
    write_ome(tmp_path/'ROI013.ome.tiff', counts(3, 20, 20), ['DNA_Ir191', 'CD20_Dy161', 'totalIon'])
    with pytest.raises(InputError, match="section 13 .*lacks 'CD11b'"): find_sections(tmp_path, inputs=['DNA'], targets='rest')
    assert len(find_sections(tmp_path, inputs=['DNA'], targets='rest', drop=['CD11b'])) == 3


def test_stacked_and_viewed_images(tmp_path):
    root = write_lab(tmp_path/'t', (1,))
    folder = FolderImage(root/'SECTION_01_roi'/'TIF')
    both = StackedImage([folder, open_image(root/'S001_Z00.tif')])
    view = ChannelView(both, ['CD20', 5, 'aSMA'])
    np.testing.assert_array_equal(view.read(4, 9), both.read(4, 9)[[2, 5, 0]])
    assert view.nbytes == 3*24*20*2 and view.names[0] == '161Dy_CD20'
    with pytest.raises(InputError, match=r'rows \[4, 99\) are outside'): view.read(4, 99)
    with pytest.raises(InputError, match='no channel 3'): view.read(channels=[3])


# ---------------------------------------------------------------- real files
def real(name):
    folder = data_folder()
    if folder is None or not (folder/name).is_dir(): pytest.skip(f'real data ({name}) not found; set STPT2IMC_DATA to its folder')
    return folder/name


def test_real_imc_from_the_instrument():
    files = sorted(real('imc_mock_mcd').glob('imctools_ometiff/*/*.ome.tiff'))
    assert len(files) == 9
    sections = find_sections(files, inputs=['107Ag'], targets='rest')
    assert sections[0].panel.names == ['Cytoker_651', 'Laminin_681', 'YBX1_2987', 'H3K27Ac_1977'] and sections[0].panel.by_metal
    table = check_sections(sections)
    assert all('rounded to whole counts' in n for n in table.notes)
    for f, s in zip(files, sections): np.testing.assert_array_equal(open_image(f).read(5, 20), tifffile.imread(f)[:, 5:20])


def test_real_steinbock_outputs():
    folder = real('imc_mock_mcd')
    panel = Panel.from_csv(folder/'steinbock_panel.csv')
    assert panel.names == ['107Ag', 'Cytokeratin 5', 'Laminin', 'YBX1', 'H3K27Ac']
    for f in sorted(folder.glob('steinbock_ome/*.tiff')): assert Panel.from_labels(open_image(f).names) == panel
    for f in sorted(folder.glob('steinbock_img/*.tiff')): np.testing.assert_array_equal(open_image(f).read(), tifffile.imread(f))


def test_real_spleen():
    folder = real('imc_spleen')
    inputs = 'DNA1_Ir191 DNA3_Ir193 HistoneH3_Yb176 CollagenI_Tm169 VIM_Nd143 alphaSMA_Pr141 80ArAr_ArAr80 131Xe_Xe131'.split()
    targets = 'CD11b_Sm149 CD20_Dy161 CD3_Er170 CD45_Sm152 CD4_Gd156 CD68_Tb159 CD8a_Dy162'.split()
    sections = find_sections(folder, inputs=inputs, targets=targets)
    assert [s.number for s in sections] == [2, 4, 6, 8] and repr(sections[-1]) == 'Section 8 (ROI008): inputs 8x500x501, targets 7x500x501'
    assert sections[0].input_names == inputs and sections[0].panel.names == ['CD11b', 'CD45', 'CD4', 'CD68', 'CD20', 'CD8a', 'CD3']
    assert check_sections(sections).shape[0] == 4
    assert len(open_image(folder/'ROI002.ome.tiff').names) == 22
    original = folder/'original_single_channel'/'ROI002'/'CD20_Dy161.tiff'
    np.testing.assert_array_equal(sections[0].targets.read(100, 200, ['CD20'])[0], tifffile.imread(original)[100:200])


def test_real_lymphoid():
    inputs = 'C Na Si Ta Au Background dsDNA H3K9Ac'.split()
    sections = find_sections(real('mibi_lymphoid_maui'), inputs=inputs, targets='rest', drop=['totalIon', 'Ca', 'Fe'])
    assert [s.number for s in sections] == [2, 3, 5, 7] and all(s.panel == sections[0].panel and len(s.panel) == 37 for s in sections)
    assert repr(sections[1]) == 'Section 3 (Point3_y192x192_640): inputs 8x640x640, targets 37x640x640'
    assert not set(inputs) & set(sections[0].panel.names)


def test_real_two_photon():
    for f in (real('stpt_brain_lowres')/'planes_000_134.tif', real('stpt_cortex_crops')/'crop_planes_z000.ome.tiff', real('isl_phase_to_fluor')/'condition_blue_wellA4_rows0_640.ome.tiff'):
        np.testing.assert_array_equal(open_image(f).read(50, 120), tifffile.imread(f)[:, 50:120])
