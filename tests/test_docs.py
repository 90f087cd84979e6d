"The quick documentation checks, and the checks themselves: each must notice the fault that it is there for."
import importlib.util, json, re, shutil, sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
if str(HERE) not in sys.path: sys.path.insert(0, str(HERE))
import docs_check as dc

MADE_BY_NBDEV = importlib.util.find_spec("nbdev") is not None

# ---------------------------------------------------------------- this checkout

@pytest.mark.parametrize("check", dc.QUICK + [dc.check_links], ids=lambda c: c.__name__)
def test_checkout(check):
    counts, problems = check(dc.ROOT)
    assert not problems, "\n".join(problems)

def test_every_notebook_is_executed():
    assert len(dc.executed(dc.ROOT)) == len(dc.notebooks(dc.ROOT / "nbs"))

# ---------------------------------------------------------------- a small checkout to break

def cell(text, kind="code", **more):
    made = {"cell_type": kind, "id": f"c{abs(hash((text, kind))) % 10**7}", "metadata": {}, "source": text.splitlines(True)}
    return {**made, **({"execution_count": None, "outputs": []} if kind == "code" else {}), **more}

def text_output(text): return {"output_type": "stream", "name": "stdout", "text": text}

def shown(**data): return {"output_type": "display_data", "metadata": {}, "data": data}

def write(path, *cells, metadata=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    nb = {"cells": list(cells), "metadata": metadata or {"kernelspec": {"display_name": "python3", "language": "python", "name": "python3"}}, "nbformat": 4, "nbformat_minor": 5}
    path.write_text(json.dumps(nb), encoding="utf-8")

def title(name): return cell(f"# {name}\n\n> What {name} is.\n", "markdown")

@pytest.fixture
def house(tmp_path):
    "A checkout of two modules and an index that passes every check."
    root = tmp_path / "house"
    (root / "nbs/images").mkdir(parents=True); (root / "stpt2imc").mkdir()
    for name in ("settings.ini", "CITATION.cff", "CHANGELOG.md", "nbs/nbdev.yml", "nbs/styles.css"): shutil.copy(dc.ROOT / name, root / name)
    (root / "_quarto.yml").write_text("project:\n  type: website\nformat:\n  html:\n    css: styles.css\nwebsite:\n  navbar:\n    left: [index.ipynb]\nmetadata-files: [nbdev.yml, sidebar.yml]\n")
    (root / "nbs/_quarto.yml").symlink_to("../_quarto.yml")
    (root / "nbs/sidebar.yml").write_text("website:\n  sidebar:\n    contents:\n      - index.ipynb\n      - section: Howto\n        contents: [howto/how.ipynb]\n      - section: API\n        contents:\n          - section: Floor\n            contents: [00_low.ipynb, 01_high.ipynb]\n      - news.qmd\n")
    (root / "nbs/news.qmd").write_text("---\ntitle: News\ndescription: What is new\n---\n\n{{< include ../CHANGELOG.md >}}\n")
    write(root / "nbs/howto/how.ipynb", title("How?"), cell("So.", "markdown"), cell("assert 1 + 1 == 2"))
    (root / "nbs/images/cell.png").write_bytes(b"picture")
    write(root / "nbs/index.ipynb", title("stpt2imc"), cell("Text, [a page](00_low.ipynb#more) and a picture.\n\n![A cell](images/cell.png)\n\n```sh\nls [x](images/none.png)\n```", "markdown"),
          cell("#| echo: true\nprint(1)", outputs=[text_output("1\n")]),
          cell('#| fig-alt: "A cell, seen from above: round"\nfigure', outputs=[shown(**{"image/png": "QUJD", "text/plain": "<Figure size 1x1>"})]),
          cell("table", outputs=[shown(**{"text/html": "<table><tr><td>7</td></tr></table>", "text/plain": "   7"})]))
    write(root / "nbs/00_low.ipynb", title("low"), cell("#| default_exp low"), cell('#| export\ndef f():\n    "One."\n    return 1'), cell("assert f() == 1"), cell("## More", "markdown"))
    write(root / "nbs/01_high.ipynb", title("high"), cell("#| default_exp high"), cell("#| export\nfrom stpt2imc.low import f"))
    version = dc.settings(dc.ROOT)["version"]
    (root / "stpt2imc/__init__.py").write_text(f'__version__ = "{version}"\n')
    (root / "stpt2imc/low.py").write_text('__all__ = ["f"]\ndef f():\n    "One."\n    return 1\n')
    (root / "stpt2imc/high.py").write_text("__all__ = []\nfrom .low import f\n")
    (root / "README.md").write_text(f"# stpt2imc\n[help](CONTRIBUTING.md#help) {site_link('low.html#f')}\n"); (root / "CONTRIBUTING.md").write_text("# Contributing\n## Help\n")
    (root / "nbs/llms.txt").write_text(dc.llms(root), encoding="utf-8")
    return root

def test_a_sound_house_passes(house):
    counts, problems, checks = dc.run(house, quick=True)
    assert not problems, "\n".join(problems)
    assert (counts["notebooks"], counts["modules"], counts["imports between modules"], counts["tutorials and how-tos"], checks) == (4, 2, 1, 1, 11)

def change(root, name, old, new):
    text = (root / name).read_text(encoding="utf-8")
    assert old in text
    (root / name).write_text(text.replace(old, new), encoding="utf-8")

def unlink(root):
    (root / "nbs/_quarto.yml").unlink(); shutil.copy(root / "_quarto.yml", root / "nbs/_quarto.yml")

def site_link(page): return f"[x]({dc.settings(dc.ROOT)['doc_host'] + dc.settings(dc.ROOT)['doc_baseurl']}/{page})"

def how(*cells): return lambda root: write(root / "nbs/howto/how.ipynb", title("How?"), *cells)

def html(text): return extra(cell("x", outputs=[shown(**{"text/html": text})]))

def extra(*cells, **kw): return lambda root: write(root / "nbs/01_high.ipynb", title("high"), cell("#| default_exp high\n#| export\n"), *cells, **kw)

FAULTS = {
    "link replaced by a copy": (unlink, "not a symbolic link"),
    "broken YAML": (lambda r: (r / "_quarto.yml").write_text("a: [1"), "_quarto.yml"),
    "navbar to nothing": (lambda r: change(r, "_quarto.yml", "[index.ipynb]", "[gone.ipynb]"), "the navbar names gone.ipynb"),
    "stale nbdev.yml": (lambda r: change(r, "nbs/nbdev.yml", "branch: main", "branch: old"), "nbdev.yml is not what"),
    "page not in sidebar": (lambda r: change(r, "nbs/sidebar.yml", "00_low.ipynb, ", ""), "does not name 00_low.ipynb"),
    "sidebar names nothing": (lambda r: change(r, "nbs/sidebar.yml", "00_low.ipynb, ", "00_low.ipynb, 09_gone.ipynb, "), "names 09_gone.ipynb, which is not"),
    "sidebar names twice": (lambda r: change(r, "nbs/sidebar.yml", "00_low.ipynb, ", "00_low.ipynb, 00_low.ipynb, "), "twice"),
    "another version": (lambda r: change(r, "CITATION.cff", "version: ", "version: 9"), "CITATION.cff has version"),
    "upward import": (lambda r: change(r, "stpt2imc/low.py", '"One."', '"One."\n    from stpt2imc.high import f'), "imports go down only"),
    "import of all": (lambda r: change(r, "stpt2imc/high.py", "from .low import f", "from .all import f"), "imports all"),
    "star import": (lambda r: change(r, "stpt2imc/high.py", "import f", "import *"), "import *"),
    "no docstring": (lambda r: change(r, "stpt2imc/low.py", '    "One."\n', ""), "f has no docstring"),
    "patched without docstring": (lambda r: change(r, "stpt2imc/low.py", "def f", "@patch\ndef g(self:Low): return 2\ndef f"), "Low.g has no docstring"),
    "module without notebook": (lambda r: (r / "stpt2imc/stray.py").write_text(""), "no notebook"),
    "big output": (extra(cell("x", outputs=[text_output("x" * 300_001)])), "an output of 300 kB"),
    "big notebook": (extra(*[cell(f"{i}", outputs=[text_output("x" * 250_000)]) for i in range(2)]), "kB of outputs"),
    "stored error": (extra(cell("x", outputs=[{"output_type": "error", "ename": "KeyError", "evalue": "", "traceback": []}])), "a stored error: KeyError"),
    "live widget": (extra(cell("x", outputs=[shown(**{"application/vnd.jupyter.widget-view+json": {"model_id": "1"}})])), "a live widget"),
    "path in output": (extra(cell("x", outputs=[text_output("wrote /tmp/abc/tumour")])), "a machine's path: /tmp/abc/tumour"),
    "path in source": (extra(cell("open('/home/somebody/x')")), "/home/somebody/x"),
    "path in HTML": (extra(cell("x", outputs=[shown(**{"text/html": "<a title='/root/x'>"})])), "/root/x"),
    "execution count": (extra({**cell("x"), "execution_count": 3}), "execution counts"),
    "cell metadata": (extra({**cell("x"), "metadata": {"execution": {}}}), "1 cells with metadata"),
    "notebook metadata": (extra(metadata={"widgets": {}}), "live widgets"),
    "private kernel": (extra(metadata={"kernelspec": {"name": "mine"}}), "kernel 'mine'"),
    "never evaluated": (extra(cell("#| eval: false\nx")), "eval: false"),
    "mixed imports": (extra(cell("import os\nx = os.getcwd()")), "imports mixed"),
    "figure without alt": (extra(cell("x", outputs=[shown(**{"image/png": "QUJD"})])), "a picture without alternative text: begin the cell"),
    "generic alt": (extra(cell('#| fig-alt: "a figure"\nx', outputs=[shown(**{"image/png": "QUJD"})])), "a picture without alternative text: begin the cell"),
    "alt that is no YAML": (extra(cell("#| fig-alt: one: two: three four five\nx", outputs=[shown(**{"image/png": "QUJD"})])), "a picture without alternative text: begin the cell"),
    "picture without alt": (extra(cell("![](images/cell.png)", "markdown")), "a picture without alternative text: ![](images/cell.png)"),
    "HTML picture without alt": (extra(cell("x", outputs=[shown(**{"text/html": "<img src='data:image/png;base64,QUJD'>"})])), "an <img> without alternative text"),
    "broken link": (extra(cell("[x](02_gone.ipynb)", "markdown")), "02_gone.ipynb: no such file"),
    "broken picture": (extra(cell("![x](images/gone.png)", "markdown")), "images/gone.png: no such file"),
    "broken HTML picture": (extra(cell('<img src="images/gone.png">', "markdown")), "images/gone.png: no such file"),
    "broken heading": (extra(cell("[x](00_low.ipynb#less)", "markdown")), "no such heading"),
    "broken README link": (lambda r: change(r, "README.md", "#help", "#hlep"), "README.md: CONTRIBUTING.md#hlep"),
    "picture page not in sidebar": (lambda r: change(r, "nbs/sidebar.yml", "      - news.qmd\n", ""), "does not name news.qmd"),
    "include of nothing": (lambda r: change(r, "nbs/news.qmd", "CHANGELOG", "GONE"), "news.qmd: includes ../GONE.md"),
    "theme file missing": (lambda r: change(r, "_quarto.yml", "css: styles.css", "css: styles.css\n    theme:\n      light: [cosmo, gone.scss]"), "_quarto.yml names gone.scss"),
    "filter missing": (lambda r: change(r, "_quarto.yml", "metadata-files", "filters: [gone.lua]\nmetadata-files"), "_quarto.yml names gone.lua"),
    "how-to that is skipped": (lambda r: write(r / "nbs/howto/how.ipynb", cell("# How?\n\n> What.\n\n- skip_exec: true", "markdown"), cell("assert True")), "nbdev_test skips it"),
    "how-to with a slow cell": (how(cell("#| slow\nassert 1"), cell("assert 1")), "runs only when asked for"),
    "how-to that cannot fail": (how(cell("print(1)")), "nothing in it could fail"),
    "module without a page": (lambda r: change(r, "nbs/sidebar.yml", "[00_low.ipynb, 01_high.ipynb]", "[01_high.ipynb]"), "1 public names have none"),
    "name of no page in all": (lambda r: (r / "stpt2imc/all.py").write_text("from .low import f, _hidden\n"), "takes _hidden from low"),
    "a marker misspelt": (extra(cell("Stain for pan-CK.", "markdown")), "'pan-CK' is called PanCK"),
    "a program misspelt": (extra(cell("Open it in Napari, with numpy.", "markdown")), "'Napari' is called napari"),
    "a name misspelt in the README": (lambda r: change(r, "README.md", "# stpt2imc", "# stpt2imc\nAn OME-Tiff."), "README.md: 'OME-Tiff' is called OME-TIFF"),
    "picture from elsewhere": (html("<img src='https://x.org/a.png'>"), "the page would fetch https://x.org/a.png"),
    "style from elsewhere": (html("<style>@import url(//x.org/a.css)</style>"), "the page would fetch //x.org/a.css"),
    "script from elsewhere": (html("<script src=https://cdn.x.org/a.js></script>"), "the page would fetch https://cdn.x.org/a.js"),
    "script of its own": (html("<script>let a = 1</script>"), "a script in an output"),
    "badge from elsewhere": (extra(cell("![b](https://img.shields.io/b.svg)", "markdown")), "the page would fetch https://img.shields.io/b.svg"),
    "stale llms.txt": (lambda r: change(r, "nbs/llms.txt", "f\n", "g\n"), "llms.txt is not in step"),
    "new name not in llms.txt": (lambda r: change(r, "stpt2imc/low.py", '["f"]', '["f", "h"]'), "llms.txt is not in step"),
    "broken site link": (extra(cell(site_link("low.html") + site_link("gone.html"), "markdown")), "gone.html: the site has no such page"),
}

@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_noticed(house, name):
    fault, message = FAULTS[name]
    fault(house)
    _, problems, _ = dc.run(house, quick=True)
    assert any(message in p for p in problems), problems

# ---------------------------------------------------------------- what the pages say

def test_names_in_code_and_addresses_are_left_alone():
    assert not list(dc.misspelt("`numpy` and [a](https://napari.org/Napari) and ome.zarr in `x.ome.zarr`, stpt2imc, napari-ome-zarr\n\n```python\nimport numpy, PANCK\n```\n<img alt='NAPARI'>"))
    assert list(dc.misspelt("pytorch and Ki-67")) == [("Ki-67", "Ki67"), ("pytorch", "PyTorch")]

def test_links_to_other_hosts_are_no_requests():
    assert dc.fetched("<a href='https://x.org/a'>x</a> <link rel=x href='https://x.org/b.css'> <img src='data:image/png;base64,AAAA'> url(#local)") == ["https://x.org/b.css"]

def test_llms_lists_every_page_with_its_purpose(house):
    text = dc.llms(house)
    assert text.startswith("# stpt2imc\n\n> ") and "## API: Floor\n" in text
    assert "- [low](https://stpt2imc.github.io/stpt2imc/low.html): What low is. `stpt2imc.low`: f\n" in text
    assert "[News](https://stpt2imc.github.io/stpt2imc/news.html): What is new" in text

# ---------------------------------------------------------------- pieces

def test_links_skip_code_and_formulas():
    text = "[a](b.md) `[c](d)` $f[1](x)$ [`e`](f.md 'title') [![g](h.png)](i.md)\n\n```\n[j](k)\n```\n\n[l]: m.md\n"
    assert list(dc.links(text)) == ["b.md", "f.md", "h.png", "i.md", "m.md"]

@pytest.mark.parametrize("heading, name", [("What is on disk", "what-is-on-disk"), ("`ChunkGrid`: addresses", "chunkgrid-addresses"), ("2. A [link](x)", "a-link"), ("Named {#own}", "own")])
def test_slug(heading, name): assert dc.slug(heading) == name

def test_paths_inside_pictures_do_not_count():
    assert not list(dc.check_output(shown(**{"image/png": "/tmp/x", "text/html": "<img src='data:image/png;base64,AA/tmp/x'>"})))

def test_pictures_that_speak_or_are_on_no_page():
    picture = [shown(**{"image/png": "QUJD"})]
    said = ["#| fig-alt: 'Two cells: one round, one flat'\nx", '#| fig-alt: ["Two cells side by side", "The same cells, later"]\nx', "#| hide\nx"]
    assert not [p for text in said for p in dc.silent_pictures(cell(text, outputs=picture))]
    assert not list(dc.silent_pictures(cell("`![](x.png)`\n\n```\n<img>\n```\n<img alt='A cell' src='x.png'>", "markdown")))

# ---------------------------------------------------------------- with nbdev

def test_live_widgets(house):
    assert not dc.check_hosts(house)[1]
    write(house / "nbs/01_high.ipynb", title("high"), cell("ex", outputs=[shown(**{"application/vnd.jupyter.widget-view+json": {"model_id": "1"}, "text/plain": "ex"})]))
    write(house / "nbs/00_low.ipynb", title("low"), metadata={"widgets": {"application/vnd.jupyter.widget-state+json": {"state": {"1": {}}}}})
    write(house / "nbs/02_top.ipynb", title("top"), metadata={"widgets": {"application/vnd.jupyter.widget-state+json": {"state": {}}}})  # as nbdev leaves it: nothing in it
    assert sorted(re.split("[:,]", p)[0] for p in dc.check_hosts(house)[1]) == ["00_low.ipynb", "01_high.ipynb"]

@pytest.mark.skipif(not MADE_BY_NBDEV, reason="nbdev is a development requirement")
def test_process_and_readme(house):
    write(house / "nbs/01_high.ipynb", cell("No title here.", "markdown"))
    (house / "stpt2imc/high.py").unlink()
    change(house, "stpt2imc/low.py", '["f"]', '["f", "g"]'); change(house, "stpt2imc/low.py", "def f", 'def g():\n    "Two."\ndef f') # the page does not show g
    site = dc.process(house, house.parent)
    assert dc.check_shown(house, site) == ({"names shown": 2}, ["00_low.ipynb: g is not shown on its page"])
    assert not dc.check_hosts(house, site)[1]
    _, problems = dc.check_pages(house, site)
    assert problems == ["01_high.ipynb: no title (`# Title`, then `> one sentence`)", "01_high.ipynb: no description (`# Title`, then `> one sentence`)"]
    assert not dc.check_links(house, site)[1]
    assert '#| fig-alt: "A cell, seen from above: round"' in (source := "".join(dc.source(c) for c in dc.load(site / "index.ipynb")["cells"])), source
    text = dc.readme(site / "index.ipynb")
    assert text.startswith("# stpt2imc\n\n<!--") and "\n> What stpt2imc is.\n" in text
    assert "[a page](nbs/00_low.ipynb#more)" in text and "![A cell](nbs/images/cell.png)" in text
    assert "ls [x](images/none.png)" in text # code is left alone
    assert "```python\nprint(1)\n```\n\n    1\n" in text and "       7" in text
    assert "Figure" not in text and "<td>" not in text and "#|" not in text
    assert "should be" in dc.check_readme(house, site)[1][0]
    (house / "README.md").write_text(text)
    assert not dc.check_readme(house, site)[1]
    assert not (house / "_proc").exists()

@pytest.mark.skipif(not MADE_BY_NBDEV, reason="nbdev is a development requirement")
def test_a_page_that_cannot_be_built(house):
    write(house / "nbs/01_high.ipynb", title("high"), cell("#| default_exp high"), cell("#| export\nfrom stpt2imc.low import gone"))
    with pytest.raises(RuntimeError, match="gone"): dc.process(house, house.parent)
