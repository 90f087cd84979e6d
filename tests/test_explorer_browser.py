"""The explorer as a person meets it: JupyterLab in headless Chromium, with and without anywidget, every host but this one out of reach.

What is asserted is what is on screen: titles, messages, and the bytes of the pictures. Screenshots and the time from key to picture are left in build/explorer (or where STPT2IMC_ARTEFACTS says).
Skipped, with the reason, where Chromium, playwright or JupyterLab are not installed.
"""
import importlib.util, json, os, shutil, socket, statistics, subprocess, sys, time, urllib.error, urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"))), None)
MISSING = [name for name in ("playwright", "jupyterlab", "ipywidgets") if importlib.util.find_spec(name) is None] + ([] if CHROMIUM else ["chromium"])
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"a real browser test needs {', '.join(MISSING)} (pip install 'stpt2imc[dev]'; apt-get install chromium)")
TOKEN, WAIT = "explorer", 120_000 # ms; machines that run many things at once are slow

OPEN = """from stpt2imc.widget import ChunkExplorer
ex = ChunkExplorer('tumour.zarr', {'U-Net': 'unet'}, dict(section=1, address='1/1', markers=['PanCK'], models=[]))
ex"""
WITHOUT = "import sys\nsys.modules['anywidget'] = None # as if it were not installed\n"

# ---------------------------------------------------------------- what is explored, and the server

def notebook(path, code):
    cell = dict(cell_type="code", id="open", metadata={}, source=code, execution_count=None, outputs=[])
    path.write_text(json.dumps(dict(cells=[cell], metadata=dict(kernelspec=dict(name="python3", display_name="python3", language="python")), nbformat=4, nbformat_minor=5)))

@pytest.fixture(scope="module")
def work(tmp_path_factory):
    "A folder with a store of one section of 2 x 2 chunks, a model that was hardly trained, and two notebooks."
    from stpt2imc.data import RandomChunks, chunk_dataloaders
    from stpt2imc.phantom import Phantom
    from stpt2imc.section import find_sections
    from stpt2imc.store import convert
    from stpt2imc.train import save_model, unet_learner
    folder = tmp_path_factory.mktemp("explorer")
    Phantom(sections=1, height=384, width=512).write(folder / "files", progress=False)
    store = convert(find_sections(folder / "files"), folder / "tumour.zarr", progress=False)
    learn = unet_learner(chunk_dataloaders(store, RandomChunks(.2), bs=8, size=64, device="cpu"), widths=(8, 16))
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(1, 1e-2)
    save_model(learn, folder / "unet")
    notebook(folder / "live.ipynb", OPEN); notebook(folder / "base.ipynb", WITHOUT + OPEN)
    return folder

def free_port():
    with socket.socket() as s: s.bind(("127.0.0.1", 0)); return s.getsockname()[1]

@contextmanager
def serving(module, options, address, home, work):
    "`python -m module options` in `work`, with settings of its own and none of the user's, until it answers at `address`."
    env = {k: v for k, v in os.environ.items() if k not in ("IN_TEST", "PYTEST_CURRENT_TEST")}
    env.update(JUPYTER_CONFIG_DIR=str(home / "config"), JUPYTER_DATA_DIR=str(home / "data"), JUPYTER_RUNTIME_DIR=str(home / "run"), IPYTHONDIR=str(home / "ipython"), PYTHONPATH=str(ROOT), PYTHONWARNINGS="ignore", OMP_NUM_THREADS="1")
    with open(home / "log", "w") as log: process = subprocess.Popen([sys.executable, "-m", module, *options], cwd=work, env=env, stdout=log, stderr=log)
    try:
        for _ in range(600):
            if process.poll() is not None: pytest.fail(f"{module} did not start:\n" + (home / "log").read_text()[-3000:])
            try: urllib.request.urlopen(address, timeout=60); break
            except urllib.error.HTTPError: break # it answers
            except (urllib.error.URLError, OSError): time.sleep(.2)
        else: pytest.fail(f"{module} did not answer:\n" + (home / "log").read_text()[-3000:])
        yield
    finally:
        process.terminate()
        try: process.wait(15)
        except subprocess.TimeoutExpired: process.kill()

def jupyter_options(port, work):
    return ["--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}", "--ServerApp.port_retries=0", f"--IdentityProvider.token={TOKEN}", f"--ServerApp.root_dir={work}"]

@pytest.fixture(scope="module")
def server(work, tmp_path_factory):
    "JupyterLab on a free port."
    home, port = tmp_path_factory.mktemp("jupyter"), free_port()
    (home / "config/labconfig").mkdir(parents=True)
    (home / "config/labconfig/default_setting_overrides.json").write_text(json.dumps({"@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False, "doNotDisturbMode": True}}))
    options = ["--LabApp.expose_app_in_browser=True", "--LabApp.news_url=None", "--LabApp.check_for_updates_class=jupyterlab.handlers.announcements.NeverCheckForUpdate", "--LabApp.extension_manager=readonly"]
    with serving("jupyterlab", jupyter_options(port, work) + options, f"http://127.0.0.1:{port}/api?token={TOKEN}", home, work): yield f"http://127.0.0.1:{port}"

# ---------------------------------------------------------------- the browser

@pytest.fixture(scope="module")
def artefacts():
    folder = Path(os.environ.get("STPT2IMC_ARTEFACTS") or ROOT / "build" / "explorer")
    folder.mkdir(parents=True, exist_ok=True)
    return folder

@pytest.fixture(scope="module")
def browser():
    "Headless Chromium, every host but this one out of reach."
    from playwright.sync_api import sync_playwright
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost"]
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield browser
        browser.close()

def window(browser):
    context = browser.new_context(viewport=dict(width=1500, height=1180))
    context.set_default_timeout(WAIT)
    return context

@pytest.fixture(scope="module")
def pages(server, browser):
    "Both notebooks, opened and started together; and every request that was made."
    context, requests, opened = window(browser), [], {}
    context.on("request", lambda r: requests.append(r.url))
    for name in ("live", "base"):
        page = opened[name] = context.new_page()
        page.goto(f"{server}/doc/tree/{name}.ipynb?token={TOKEN}")
    for page in opened.values(): # both kernels import at the same time
        page.wait_for_function("window.jupyterapp && document.querySelector('.jp-Notebook .jp-Cell') && document.body.innerText.includes('| Idle')")
        page.evaluate("window.jupyterapp.commands.execute('notebook:run-all-cells')")
    yield opened, requests

DIGEST = """async i => { const b = await (await fetch(i.src)).arrayBuffer();
  return [Array.from(new Uint8Array(b.slice(0, 4))), Array.from(new Uint8Array(await crypto.subtle.digest('SHA-256', b))).join()]; }"""

class Explorer:
    "What a person sees and does."
    def __init__(self, page, pictures): self.page, self.pictures = page, pictures

    def title(self, text): self.page.locator(".stpt2imc-title", has_text=text).wait_for()
    def message(self, text):
        from playwright.sync_api import TimeoutError
        try: self.page.locator(".stpt2imc-message", has_text=text).wait_for()
        except TimeoutError: raise AssertionError(f"no message with {text!r}; on screen: {self.page.locator('.stpt2imc-title, .stpt2imc-message').all_inner_texts()}, boxes {[b.input_value() for b in self.page.locator('.widget-text input').all()]}") from None
    def box(self, label): return self.page.locator(".widget-text", has=self.page.locator(f"label:text-is('{label}')")).locator("input")
    def tab(self, name): self.page.locator(".lm-TabBar-tab", has_text=name).filter(visible=True).last.click()

    def holds(self, label, value): # a box is brought back to what is true; until then the kernel is not done
        from playwright.sync_api import expect
        expect(self.box(label)).to_have_value(value, timeout=WAIT)

    def type(self, label, text):
        self.box(label).fill(text); self.box(label).press("Enter")

    def digest(self, which=1): # of the bytes of a picture: 0 the overview, 1 the panels
        kind, digest = self.page.locator(self.pictures).nth(which).evaluate(DIGEST)
        assert kind == [0x89, 0x50, 0x4E, 0x47] # PNG
        return digest

    def changed(self, before, which=1): # waits until the picture is another one
        end = time.time() + WAIT / 1000
        while time.time() < end:
            if (now := self.digest(which)) != before: return now
            time.sleep(.05)
        raise AssertionError("the picture did not change")

def start(pages, name):
    explorer = Explorer(pages[0][name], ".stpt2imc-canvas img" if name == "live" else "img.widget-image:visible")
    pages[0][name].bring_to_front()
    explorer.title("Section 1, chunk 1/1")
    explorer.page.locator(explorer.pictures).nth(1).wait_for()
    return explorer

def check_boxes(e):
    "Wrong input in boxes says what is allowed, and nothing else happens."
    for text, words in (("75/1", "75"), ("abc", "'abc'"), ("", "empty")):
        e.type("chunk", text); e.message(words); e.message("from '1/1' to '2/2'"); e.holds("chunk", "1/2"); e.title("Section 1, chunk 1/2")
    e.type("limits", "low"); e.message("two numbers"); e.holds("limits", "")
    e.type("pixel", "5, 999"); e.message("columns 0 to 255"); e.holds("pixel", "")
    automatic = e.digest()
    e.type("limits", "0, 30"); e.page.locator(".stpt2imc-message").wait_for(state="detached"); by_hand = e.changed(automatic)
    e.type("limits", ""); e.changed(by_hand)

def switch_marker(e):
    "A wrong name brings up the right one; a choice changes the panels."
    before = e.digest()
    e.box("markers").fill("Vimentine"); e.message("Did you mean 'Vimentin'?")
    e.box("markers").fill("152Sm")
    e.page.locator(".widget-select-multiple select").select_option(label="CD45 (152Sm)")
    e.title("CD45"); e.changed(before)
    e.box("markers").fill("")

def run_model(e):
    before = e.digest()
    e.tab("Models"); e.page.get_by_role("button", name="U-Net", exact=True).click()
    e.page.locator(".stpt2imc-scores", has_text="U-Net").wait_for()
    e.changed(before)
    e.tab("Contrast"); e.type("pixel", "20, 30")
    e.page.locator(".stpt2imc-readout", has_text="U-Net, difference").wait_for()

def save(e, work, name):
    e.tab("Save"); e.box("figure").fill(f"{name}.png"); e.page.get_by_role("button", name="save", exact=True).filter(visible=True).click()
    e.message(f"saved {name}.png")
    from PIL import Image
    assert json.loads(Image.open(work / f"{name}.png").text["Description"])["state"]["markers"] == ["CD45"]
    e.tab("Contrast")

def on_click(e): # the middle of chunk 2/2 in the overview
    box = e.page.locator(e.pictures).nth(0).bounding_box()
    e.page.mouse.click(box["x"] + .75 * box["width"], box["y"] + .85 * box["height"])

TIMER = """i => { window.times = []; let t = 0;
  document.addEventListener('keydown', () => { t = performance.now(); }, true);
  i.addEventListener('load', () => { if (t) { window.times.push(performance.now() - t); t = 0; } }); }""" # only the first picture after a key counts

def key_times(e, n=20):
    "Milliseconds from an arrow key to the picture that follows it."
    e.page.locator(e.pictures).nth(1).evaluate(TIMER)
    for i in range(n + 1):
        e.page.keyboard.press("ArrowRight" if i % 2 == 0 else "ArrowLeft")
        e.page.wait_for_function(f"window.times.length >= {i + 1}")
        e.title(f"chunk 1/{2 if i % 2 == 0 else 1}")
    return e.page.evaluate("window.times")[1:]

# ---------------------------------------------------------------- the tests

def test_with_anywidget(pages, work, artefacts):
    e = start(pages, "live")
    e.page.screenshot(path=artefacts / "live_1_opened.png")
    before, map_before = e.digest(), e.digest(0)
    on_click(e); e.title("Section 1, chunk 2/2"); before = e.changed(before); e.changed(map_before, 0)
    e.type("chunk", "1/2"); e.title("Section 1, chunk 1/2"); e.changed(before)
    check_boxes(e); switch_marker(e); run_model(e)
    e.page.screenshot(path=artefacts / "live_2_model.png")
    before = e.digest()
    e.page.locator(".stpt2imc-canvas").nth(0).focus()
    e.page.keyboard.press("ArrowLeft"); e.title("Section 1, chunk 1/1"); e.changed(before)
    times = key_times(e)
    found = dict(median_ms=round(statistics.median(times), 1), times_ms=[round(t, 1) for t in times], what="from an arrow key to the picture in JupyterLab, model shown, neighbours prefetched")
    (artefacts / "key_to_picture.json").write_text(json.dumps(found)); print(found)
    save(e, work, "live")
    panel = e.page.locator(e.pictures).nth(1).bounding_box()
    e.page.mouse.move(panel["x"] + .12 * panel["width"], panel["y"] + .4 * panel["height"])
    e.page.locator(".stpt2imc-mark").first.wait_for() # the cursor is marked in the other panels
    e.tab("Curtain"); e.page.locator("text=Drag the lower right corner").wait_for()
    e.page.screenshot(path=artefacts / "live_3_curtain.png")

def test_without_anywidget(pages, work, artefacts):
    e = start(pages, "base")
    assert e.page.locator(".stpt2imc-canvas").count() == 0
    e.page.screenshot(path=artefacts / "base_1_opened.png")
    before = e.digest()
    handle = e.page.locator(".widget-hslider", has=e.page.locator("label:text-is('row')")).locator(".noUi-handle")
    handle.focus(); handle.press("ArrowRight"); e.title("Section 1, chunk 2/1"); before = e.changed(before)
    e.page.get_by_role("button", name="→").click(); e.title("Section 1, chunk 2/2"); before = e.changed(before)
    e.type("chunk", "1/2"); e.title("Section 1, chunk 1/2"); e.changed(before)
    check_boxes(e); switch_marker(e); run_model(e)
    save(e, work, "base")
    for name in ("STPT", "Models", "Bookmarks", "Save"):
        e.tab(name); e.page.wait_for_timeout(150); e.page.screenshot(path=artefacts / f"base_2_{name.lower()}.png")

def test_no_foreign_host(pages):
    requests = pages[1]
    assert len(requests) > 20
    foreign = [u for u in requests if not u.startswith(("http://127.0.0.1", "ws://127.0.0.1", "data:", "blob:"))]
    assert not foreign, foreign

@pytest.mark.slow # neither comes with the dev extra: pip install notebook voila
@pytest.mark.parametrize("kind", ["live", "base"])
@pytest.mark.parametrize("frontend", ["notebook", "voila"])
def test_other_frontends(frontend, kind, work, browser, tmp_path, artefacts):
    if importlib.util.find_spec(frontend) is None: pytest.skip(f"pip install {frontend}")
    port = free_port()
    options, path = (jupyter_options(port, work) + ["--JupyterNotebookApp.expose_app_in_browser=True"], f"notebooks/{kind}.ipynb?token={TOKEN}") if frontend == "notebook" else (["--no-browser", f"--port={port}", "--Voila.ip=127.0.0.1", f"{kind}.ipynb"], "")
    with serving(frontend, options, f"http://127.0.0.1:{port}/" + (f"api?token={TOKEN}" if frontend == "notebook" else "static/favicon.ico"), tmp_path, work):
        page = window(browser).new_page()
        page.goto(f"http://127.0.0.1:{port}/{path}", wait_until="commit") # Voila's own page asks for fonts from elsewhere
        if frontend == "notebook":
            page.wait_for_function("window.jupyterapp && document.querySelector('.jp-Notebook .jp-Cell')")
            page.locator("[data-status=idle]").first.wait_for()
            page.evaluate("window.jupyterapp.commands.execute('notebook:run-all-cells')")
        e = Explorer(page, ".stpt2imc-canvas img" if kind == "live" else "img.widget-image:visible")
        e.title("Section 1, chunk 1/1"); page.locator(e.pictures).nth(1).wait_for(); before = e.digest()
        page.get_by_role("button", name="→").click(); e.title("chunk 1/2"); before = e.changed(before)
        if kind == "live": on_click(e); e.title("chunk 2/2"); before = e.changed(before)
        e.tab("Models"); page.get_by_role("button", name="U-Net", exact=True).click(); page.locator(".stpt2imc-scores", has_text="U-Net").wait_for(); e.changed(before)
        page.screenshot(path=artefacts / f"{frontend}_{kind}.png")
