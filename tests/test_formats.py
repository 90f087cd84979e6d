"What `00c_formats.ipynb` cannot hold: converters against each other on real files, damage, URLs, drawn layouts."
import pickle, shutil
from pathlib import Path

import numpy as np, pytest, tifffile
from hypothesis import HealthCheck, given, settings, strategies as st
from scipy.ndimage import maximum_filter

from stpt2imc.grid import InputError
from stpt2imc.formats import acquisitions, open_image
from stpt2imc.panel import Panel
from stpt2imc.section import check_sections, data_folder, find_sections


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
