"""Checks of the documentation that need neither Quarto nor a network.

    python tests/docs_check.py              every check; prints what was counted, exits 1 if anything is wrong
    python tests/docs_check.py --quick      without processing the notebooks (no nbdev needed)
    python tests/docs_check.py --readme     write README.md from nbs/index.ipynb
    python tests/docs_check.py --llms       write nbs/llms.txt from the sidebar, the titles and the modules
    python tests/docs_check.py --executed   how many notebooks `nbdev_test` runs

Processing means what `nbdev_docs` does before it calls Quarto: `nbdev.serve.proc_nbs`, here in a temporary copy of the checkout, so that nothing is left
behind. The other nbdev documentation commands try to install Quarto where it is missing, and are never called.
"""
import argparse, ast, configparser, json, os, re, shutil, subprocess, sys, tempfile
from pathlib import Path
from urllib.parse import unquote

import yaml

ROOT = Path(__file__).resolve().parent.parent
MAX_OUTPUT, MAX_NOTEBOOK = 300_000, 400_000 # bytes of stored output: of one cell's output, of a whole notebook
MARKDOWN = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"]
WARNING = "<!-- Written from nbs/index.ipynb by tests/docs_check.py --readme: change the notebook, not this file. -->"
UNNUMBERED = {"__init__", "_modidx", "all"} # modules that are no notebook's

# ---------------------------------------------------------------- reading

def settings(root):
    "The `[DEFAULT]` section of settings.ini."
    config = configparser.ConfigParser(delimiters=["="])
    config.read(root / "settings.ini", encoding="utf-8")
    return config["DEFAULT"]

def notebooks(folder):
    "Paths of the notebooks below `folder`, those that nbdev sees: no hidden or underscored folders or files."
    paths = sorted(folder.rglob("*.ipynb"))
    return [p for p in paths if not any(part[0] in "._" for part in p.relative_to(folder).parts)]

def pages(folder):
    "Paths of all pages below `folder`: the notebooks, and what is written for Quarto alone."
    written = [p for p in folder.rglob("*.qmd") if not any(part[0] in "._" for part in p.relative_to(folder).parts)]
    return sorted([*notebooks(folder), *written])

def source(cell):
    "The text of a cell."
    return "".join(cell.get("source") or "")

def load(path):
    "A notebook as plain dictionaries."
    return json.loads(path.read_text(encoding="utf-8"))

def opening(path):
    "Title and description of a page as it is stored: `# Title` and `> description`, or the YAML at the head of a .qmd."
    if path.suffix == ".qmd":
        found = re.match(r"---\s*\n(.*?)\n---\s*$", path.read_text(encoding="utf-8"), re.S | re.M)
        matter = yaml.safe_load(found.group(1)) if found else {}
        return matter.get("title"), matter.get("description")
    text = next((source(c) for c in load(path)["cells"] if c["cell_type"] == "markdown"), "")
    title, said = re.search(r"^# (.+?)\s*$", text, re.M), re.search(r"^> (.+?)\s*$", text, re.M)
    return title and title.group(1), said and said.group(1)

def front_matter(nb):
    "The YAML at the head of a processed notebook."
    for cell in nb["cells"][:1]:
        found = re.match(r"---\s*\n(.*?)\n---\s*$", source(cell).strip(), re.S)
        if cell["cell_type"] == "raw" and found: return yaml.safe_load(found.group(1)) or {}
    return {}

# ---------------------------------------------------------------- the site's configuration

def pages_of(entry):
    "Every page that a sidebar or navbar entry names."
    if isinstance(entry, str): return [entry]
    if isinstance(entry, list): return [page for e in entry for page in pages_of(e)]
    own = [entry[k] for k in ("href", "file") if k in entry]
    return own + pages_of(entry.get("contents", [])) + pages_of(entry.get("menu", []))

def check_site(root):
    "`_quarto.yml` parses and is linked from nbs/, nbdev.yml is what settings.ini gives, all named files exist."
    problems, nbs = [], root / "nbs"
    link = nbs / "_quarto.yml"
    if not link.is_symlink() or os.readlink(link) != "../_quarto.yml": problems.append("nbs/_quarto.yml is not a symbolic link to ../_quarto.yml")
    if (root / "_quarto.yml").is_symlink(): problems.append("_quarto.yml is a link: the real file stands at the top")
    try: site = yaml.safe_load((root / "_quarto.yml").read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error: return {}, problems + [f"_quarto.yml: {error}"]
    html, themes = site["format"]["html"], site["format"]["html"].get("theme", {})
    own = [t for theme in (themes.values() if isinstance(themes, dict) else [themes]) for t in ([theme] if isinstance(theme, str) else theme) if t.endswith(".scss")]
    for name in [*site.get("metadata-files", []), html.get("css", "styles.css"), *own, *site.get("filters", []), *site["project"].get("resources", [])]:
        if not (nbs / name).exists(): problems.append(f"_quarto.yml names {name}, which is not in nbs/")
    bar = site.get("website", {}).get("navbar", {})
    entries = pages_of(bar.get("left", [])) + pages_of(bar.get("right", []))
    for page in entries:
        if "://" not in page and not (nbs / page).exists(): problems.append(f"_quarto.yml: the navbar names {page}, which is not in nbs/")
    cfg, own = settings(root), yaml.safe_load((nbs / "nbdev.yml").read_text(encoding="utf-8"))
    expected = {"title": cfg["title"], "site-url": cfg["doc_host"] + cfg["doc_baseurl"], "description": cfg["description"],
                "repo-branch": cfg["branch"], "repo-url": cfg["git_url"]}
    if own != {"project": {"output-dir": cfg["doc_path"]}, "website": expected}: problems.append("nbs/nbdev.yml is not what settings.ini gives")
    return {"navbar entries": len(entries)}, problems

def check_sidebar(root):
    "The sidebar and the notebooks on disk agree, in both directions."
    try: sidebar = yaml.safe_load((root / "nbs/sidebar.yml").read_text(encoding="utf-8"))["website"]["sidebar"]["contents"]
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error: return {}, [f"nbs/sidebar.yml: {error!r}"]
    listed = pages_of(sidebar)
    present = [str(p.relative_to(root / "nbs")) for p in pages(root / "nbs")]
    problems = [f"nbs/sidebar.yml names {p}, which is not in nbs/" for p in listed if p not in present]
    problems += [f"nbs/sidebar.yml does not name {p}" for p in present if p not in listed]
    problems += [f"nbs/sidebar.yml names {p} twice" for p in sorted({p for p in listed if listed.count(p) > 1})]
    return {"sidebar entries": len(listed)}, problems

def check_facts(root):
    "Version and description are the same wherever they stand."
    cfg, problems = settings(root), []
    try: cff = yaml.safe_load((root / "CITATION.cff").read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error: return {}, [f"CITATION.cff: {error}"]
    missing = [k for k in ("cff-version", "message", "title", "authors", "references") if not cff.get(k)]
    if missing: problems.append(f"CITATION.cff lacks {', '.join(missing)}")
    if str(cff.get("version")) != cfg["version"]: problems.append(f"CITATION.cff has version {cff.get('version')}, settings.ini {cfg['version']}")
    if f"[{cfg['version']}]" not in (root / "CHANGELOG.md").read_text(encoding="utf-8"): problems.append(f"CHANGELOG.md does not know version {cfg['version']}")
    init = (root / cfg["lib_path"] / "__init__.py").read_text(encoding="utf-8")
    if f'__version__ = "{cfg["version"]}"' not in init: problems.append(f"{cfg['lib_path']}/__init__.py does not have version {cfg['version']}")
    return {}, problems

# ---------------------------------------------------------------- the notebooks as they are stored

_PLACES = r"/work/|/root/|/home/\w|/Users/\w|[A-Za-z]:\\+Users"
MACHINE_TEXT = re.compile(rf"(?<![\w.-])(?:{_PLACES})[^\s'\"`<>)]*") # never in a source
MACHINE = re.compile(rf"(?<![\w.-])(?:{_PLACES}|/mnt/|/tmp/|/var/folders/)[^\s'\"`<>)]*") # never in an output
DATA_URI = re.compile(r"data:[\w/+.-]+;base64,[A-Za-z0-9+/=\s]+")

def output_texts(output):
    "The textual parts of one stored output, images left out."
    yield "".join(output.get("text", ""))
    yield "\n".join(output.get("traceback", []))
    for mime, value in output.get("data", {}).items():
        if mime.startswith("image/") and "svg" not in mime: continue
        yield value if isinstance(value, str) else "".join(value) if isinstance(value, list) else json.dumps(value)

SILENT = "a progress bar? run the notebook with IN_TEST=1, where bars are silent"

def uncleaned(cell):
    "Has a cell anything that nbdev_clean takes away?"
    counted = [cell, *cell.get("outputs", [])]
    return bool(cell["metadata"].keys() - {"hide_input"}) or any(o.get("execution_count") is not None for o in counted)

def check_output(output):
    "What is wrong with one stored output."
    if len(json.dumps(output)) > MAX_OUTPUT: yield f"an output of {len(json.dumps(output)) // 1000} kB (at most {MAX_OUTPUT // 1000})"
    if output["output_type"] == "error": yield f"a stored error: {output.get('ename')}"
    if any("widget-view+json" in mime for mime in output.get("data", {})): yield f"a live widget: on a page it is empty ({SILENT})"
    for text in output_texts(output):
        found = MACHINE.search(DATA_URI.sub("", text))
        if found: yield f"a machine's path: {found.group()}"

IMPORTS, WORK = (ast.Import, ast.ImportFrom), (ast.Expr, ast.Assign)

def mixes_imports(text):
    "Does a cell that nbdev would execute for its import also do something else?"
    if re.search(r"^\s*#\s*\|\s*exports?\b", text, re.M) or "nbdev_export()" in text: return False
    try: nodes = list(ast.walk(ast.parse(re.sub(r"^\s*[%!].*$", "", text, flags=re.M))))
    except SyntaxError: return False
    return any(isinstance(n, IMPORTS) for n in nodes) and any(isinstance(n, WORK) for n in nodes)

HIDDEN = re.compile(r"^\s*#\s*\|\s*(hide\b|include:\s*false|output:\s*false)", re.M) # cells whose outputs are on no page

def silent_pictures(cell):
    "Pictures of a cell that say nothing to somebody who cannot see them: `#| fig-alt: \"...\"` in code, `![...](...)` in Markdown, `alt` in HTML."
    text, shown = source(cell), [o.get("data", {}) for o in cell.get("outputs", [])]
    plain = re.sub(r"^(```+|~~~+).*?^\1\s*$|`[^`\n]*`", "", text, flags=re.M | re.S) if cell["cell_type"] == "markdown" else ""
    html = [plain] + ["".join(d.get("text/html", "")) + "".join(d.get("text/markdown", "")) for d in shown]
    if HIDDEN.search(text) and cell["cell_type"] == "code": return
    yield from (f"a picture without alternative text: ![]({target})" for alt, target in re.findall(r"!\[([^\]]*)\]\(([^)\s]*)", plain) if not alt.strip())
    yield from ("an <img> without alternative text" for h in html for tag in re.findall(r"<img\b[^>]*>", h) if not re.search(r"\balt=([\"'])\s*\S.*?\1", tag))
    if not any(mime.startswith("image/") for d in shown for mime in d): return
    found = re.search(r"^#\| fig-alt: *(.*)$", text, re.M)
    try: said = yaml.safe_load(found.group(1)) if found else None
    except yaml.YAMLError: said = None
    said = said if isinstance(said, list) else [said]
    if not all(isinstance(s, str) and len(s.split()) > 3 for s in said): yield "a picture without alternative text: begin the cell with a line `#| fig-alt: \"what is seen, in a sentence\"`"

def check_cell(cell, exports):
    "What is wrong with one cell; `exports`: does its notebook export or document anything?"
    text = source(cell)
    found = MACHINE_TEXT.search(DATA_URI.sub("", text))
    if found: yield f"a machine's path in the source: {found.group()}"
    yield from silent_pictures(cell)
    if cell["cell_type"] != "code": return
    if re.search(r"^\s*#\s*\|\s*eval:\s*false", text, re.M): yield "`eval: false`: nbdev_test never runs it"
    if exports and mixes_imports(text): yield "imports mixed with other code: the documentation build executes it"
    for output in cell.get("outputs", []): yield from check_output(output)

def check_notebooks(root):
    "Stored notebooks are clean and light, and hold nothing of the machine that ran them."
    counts, problems = {"notebooks": 0, "code cells": 0, "outputs kB": 0}, []
    for path in notebooks(root / "nbs"):
        nb, name = load(path), str(path.relative_to(root))
        code = [c for c in nb["cells"] if c["cell_type"] == "code"]
        weight = sum(len(json.dumps(c.get("outputs", []))) for c in code)
        counts["notebooks"] += 1; counts["code cells"] += len(code); counts["outputs kB"] += weight // 1000
        if weight > MAX_NOTEBOOK: problems.append(f"{name}: {weight // 1000} kB of outputs (at most {MAX_NOTEBOOK // 1000})")
        extra = nb["metadata"].keys() - {"kernelspec", "jupytext", "widgets"}
        if extra: problems.append(f"{name}: metadata {sorted(extra)} (run nbdev_clean)")
        if "widgets" in nb["metadata"]: problems.append(f"{name}: the metadata hold live widgets ({SILENT})")
        dirty = [n for n, c in enumerate(nb["cells"]) if uncleaned(c)]
        if dirty: problems.append(f"{name}: {len(dirty)} cells with metadata or execution counts, cell {dirty[0]} the first (run nbdev_clean)")
        kernel = nb["metadata"].get("kernelspec", {}).get("name", "python3")
        if kernel != "python3": problems.append(f"{name}: kernel {kernel!r}, which others do not have; it is called python3")
        exports = any(re.search(r"^\s*#\s*\|\s*exports?\b|^show_doc\(", source(c), re.M) for c in code)
        for number, cell in enumerate(nb["cells"]): problems += [f"{name}, cell {number}: {p}" for p in check_cell(cell, exports)]
    if not counts["notebooks"]: problems.append("no notebook in nbs/")
    return counts, problems

# ---------------------------------------------------------------- the modules

def module_numbers(root):
    "Number and notebook of every module, from `#| default_exp` in nbs/NN_*.ipynb."
    numbers = {}
    for path in sorted((root / "nbs").glob("[0-9][0-9]*_*.ipynb")):
        text = "\n".join(source(c) for c in load(path)["cells"] if c["cell_type"] == "code")
        found = re.search(r"^\s*#\s*\|\s*default_exp\s+(\S+)", text, re.M)
        if found: numbers[found.group(1)] = (re.match(r"\d+[a-z]?", path.name).group(), path.name)
    return numbers

def imported_modules(tree, package, modules):
    "Modules of `package` that a syntax tree imports, at the top or inside a function."
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith(package + "."): yield alias.name.split(".")[1]
        elif isinstance(node, ast.ImportFrom):
            base = (node.module or "").split(".")
            if node.level: base = [package] + [b for b in base if b]
            if base[0] != package: continue
            if len(base) > 1: yield base[1]
            else: yield from (a.name for a in node.names if a.name in modules)

def patched(node):
    "The class that fastcore's `@patch` adds this function to, or None."
    names = {getattr(d.func if isinstance(d, ast.Call) else d, "id", None) for d in node.decorator_list}
    if not names & {"patch", "patch_property"} or not node.args.args: return None
    return ast.unparse(node.args.args[0].annotation) if node.args.args[0].annotation else None

def undocumented(tree):
    "How many public names a module has, and those of them without a docstring."
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    defined = {n.name: n for n in tree.body if isinstance(n, kinds) and not (isinstance(n, kinds[:2]) and patched(n))}
    methods = [(f"{patched(n)}.{n.name}", n) for n in tree.body if isinstance(n, kinds[:2]) and patched(n) and not n.name.startswith("_")]
    for name, node in defined.items():
        if isinstance(node, ast.ClassDef): methods += [(f"{name}.{m.name}", m) for m in node.body if isinstance(m, kinds[:2]) and not m.name.startswith("_")]
    exported = [n for a in tree.body if isinstance(a, ast.Assign) and getattr(a.targets[0], "id", "") == "__all__" for n in ast.literal_eval(a.value)]
    public = [(n, defined[n]) for n in exported if n in defined] + [(n, m) for n, m in methods if not n.startswith("_")]
    return len(public), [name for name, node in public if not ast.get_docstring(node)]

def check_modules(root):
    "A module imports only modules of lower number, never `*`; every public name has a docstring."
    package, numbers, problems = settings(root)["lib_path"], module_numbers(root), []
    paths = [p for p in sorted((root / package).glob("*.py")) if p.stem not in UNNUMBERED]
    modules, counts = {p.stem for p in paths} | UNNUMBERED, {"modules": len(paths), "imports between modules": 0, "public names": 0}
    for path in paths:
        name, tree = f"{package}/{path.name}", ast.parse(path.read_text(encoding="utf-8"))
        if path.stem not in numbers: problems.append(f"{name}: no notebook nbs/NN_*.ipynb exports it"); continue
        for other in imported_modules(tree, package, modules):
            counts["imports between modules"] += 1
            if other == "_modidx": continue
            if other not in numbers: problems.append(f"{name} imports {other}, which has no number")
            elif numbers[other][0] >= numbers[path.stem][0]: problems.append(f"{name} ({numbers[path.stem][1]}) imports {other} ({numbers[other][1]}): imports go down only")
        stars = [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.names[0].name == "*"]
        if stars: problems.append(f"{name}: `from {stars[0].module} import *`")
        n, bare = undocumented(tree)
        counts["public names"] += n; problems += [f"{name}: {b} has no docstring" for b in bare]
    problems += [f"{package}/{m}.py is missing: nbs/{n[1]} should export it" for m, n in numbers.items() if not (root / package / f"{m}.py").exists()]
    return counts, problems

# ---------------------------------------------------------------- what the pages say

PRACTICE = ("tutorials", "howto") # folders of pages that are executed from top to bottom
CHECKED = re.compile(r"\bassert\b|\btest_\w+\(|\bexpect_fail\(")

def check_practice(root):
    "Every tutorial and every how-to runs whole, and holds something that could fail."
    problems, paths = [], [p for p in notebooks(root / "nbs") if p.parent.name in PRACTICE]
    for path in paths:
        name, code = str(path.relative_to(root)), [c for c in load(path)["cells"] if c["cell_type"] == "code"]
        flagged = [n for n, c in enumerate(code) if re.search(r"^\s*#\s*\|\s*(?:slow|cuda)\b", source(c), re.M)]
        if path not in executed(root): problems.append(f"{name}: nbdev_test skips it")
        if flagged: problems.append(f"{name}: code cell {flagged[0]} runs only when asked for: a tutorial or how-to runs whole, in small form")
        if not any(CHECKED.search(source(c)) for c in code): problems.append(f"{name}: nothing in it could fail: no assert, no test")
    return {"tutorials and how-tos": len(paths)}, problems

def exported(tree):
    "The names in `__all__` of a module."
    return [n for a in tree.body if isinstance(a, ast.Assign) and getattr(a.targets[0], "id", "") == "__all__" for n in ast.literal_eval(a.value)]

def check_names(root):
    "Every public name belongs to a page of the sidebar, and stpt2imc/all.py takes only such names."
    package, numbers = settings(root)["lib_path"], module_numbers(root)
    try: listed = set(pages_of(yaml.safe_load((root / "nbs/sidebar.yml").read_text(encoding="utf-8"))["website"]["sidebar"]["contents"]))
    except (OSError, yaml.YAMLError, KeyError, TypeError): listed = set()
    problems, known = [], {}
    for path in sorted((root / package).glob("*.py")):
        if path.stem in UNNUMBERED or path.stem not in numbers: continue
        known[path.stem] = set(exported(ast.parse(path.read_text(encoding="utf-8"))))
        if known[path.stem] and numbers[path.stem][1] not in listed: problems.append(f"{package}/{path.name}: its page {numbers[path.stem][1]} is not in the sidebar, and {len(known[path.stem])} public names have none")
    everything = root / package / "all.py"
    for node in ast.parse(everything.read_text(encoding="utf-8")).body if everything.exists() else []:
        if not isinstance(node, ast.ImportFrom) or not node.module: continue
        lost = [a.name for a in node.names if node.module.split(".")[-1] in known and not any(a.name in names for names in known.values())]
        problems += [f"{package}/all.py takes {n} from {node.module}: no page documents it" for n in lost]
    return {"documented names": sum(map(len, known.values()))}, problems

SPELLING = { # what it is called, and what it is not
    "PanCK": r"pan[- ]?ck|pan[- ]?cytokeratin", "Ki67": r"ki[- ]67", "CollagenI": r"collagen[- ]?I(?!I)", "GranzymeB": r"granzyme[- ]?b", "FoxP3": r"fox-?p3",
    "OME-Zarr": r"ome[- ]?zarr", "OME-TIFF": r"ome[- ]?tiff?", "NumPy": r"num[- ]?py", "PyTorch": r"py[- ]?torch", "Jupyter": r"jupyter", "JupyterLab": r"jupyter ?lab", "napari": r"napari", "QuPath": r"qu[- ]?path", "Zarr": r"zarr",
    "U-Net": r"u[- ]net", "fastai": r"fast\.?ai", "MONAI": r"monai", "steinbock": r"steinbock", "Optuna": r"optuna", "Dask": r"dask", "Quarto": r"quarto", "STPT": r"stpt", "IMC": r"imc", "PointSetGen": r"point[- ]?set[- ]?gen"}
_SPELT = {name: re.compile(rf"(?<![\w.-]){pattern}(?![\w-]|\.\w)", re.I) for name, pattern in SPELLING.items()}

def prose(text):
    "Markdown without code, addresses, tags and formulas."
    text = re.sub(r"^\s*(```+|~~~+).*?^\s*\1\s*$", "", text, flags=re.M | re.S)
    text = re.sub(r"(`+)(?!`).*?(?<!`)\1(?!`)", "", text, flags=re.S)
    text = re.sub(r"\]\([^)]*\)|<[^>]*>|https?://\S+|\$[^$\n]+\$", " ", text)
    return re.sub(r"\S*\.(?:ipynb|md|qmd|zarr|tiff?)\b", "", text)

def misspelt(text):
    "Names in prose that are not written as everywhere else, with how they are written."
    for name, pattern in _SPELT.items(): yield from ((found, name) for found in sorted(set(pattern.findall(prose(text)))) if found != name)

def check_spelling(root):
    "Markers and programs are called the same everywhere."
    texts = {str(p.relative_to(root)): "\n\n".join(source(c) for c in load(p)["cells"] if c["cell_type"] == "markdown") for p in notebooks(root / "nbs")}
    texts.update({n: (root / n).read_text(encoding="utf-8") for n in MARKDOWN if (root / n).exists()})
    problems = [f"{name}: {found!r} is called {right} everywhere else" for name, text in texts.items() for found, right in misspelt(text)]
    return {"names spelt": len(SPELLING)}, problems

FETCHED = re.compile(r"""(?:\bsrc|\bsrcset|\bposter|<link\b[^>]*\bhref)\s*=\s*["']?\s*((?:https?:)?//[^\s"'>]+)|(?:@import\s+(?:url\()?|\burl\()\s*["']?((?:https?:)?//[^\s"')]+)|\b(?:fetch|import|require|importScripts)\(\s*\[?["']((?:https?:)?//[^"']+)""", re.I)

def fetched(text):
    "What a browser fetches from another host when it shows this HTML; links that a reader may follow do not count."
    return [next(g for g in m.groups() if g) for m in FETCHED.finditer(DATA_URI.sub("", text))]

def check_hosts(root, site=None):
    "No page asks a foreign host for anything, and none is empty without a kernel: no scripts, no live widgets."
    site, problems = site or root / "nbs", []
    for path in notebooks(site):
        name, nb = str(path.relative_to(site)), load(path)
        if any(state.get("state") for state in nb.get("metadata", {}).get("widgets", {}).values()): problems.append(f"{name}: the metadata hold live widgets")
        for number, cell in enumerate(nb["cells"]):
            found = []
            if cell["cell_type"] == "markdown":
                text = re.sub(r"^(```+).*?^\1\s*$|(`+)(?!`).*?(?<!`)\2(?!`)", "", source(cell), flags=re.M | re.S)
                found = fetched(text) + re.findall(r"!\[[^\]]*\]\(\s*<?((?:https?:)?//[^\s)>]+)", text)
            for output in cell.get("outputs", []):
                for mime, value in output.get("data", {}).items():
                    if mime in ("text/html", "image/svg+xml", "text/markdown"): found += fetched("".join(value))
                    if "javascript" in mime or (mime == "text/html" and re.search(r"<script\b", "".join(value), re.I)): problems.append(f"{name}, cell {number}: a script in an output")
                    if "widget-view+json" in mime: problems.append(f"{name}, cell {number}: a live widget, which is empty on a page")
            problems += [f"{name}, cell {number}: the page would fetch {f}" for f in found]
    return {}, problems

# ---------------------------------------------------------------- llms.txt

def site_address(root, page):
    "Where a page of nbs/ stands on the site."
    cfg, path = settings(root), Path(page)
    stem = path.stem if path.suffix == ".qmd" else re.sub(r"^\d+[a-zA-Z0-9]*_", "", path.stem.lower())
    return f"{cfg['doc_host']}{cfg['doc_baseurl']}/{path.with_name(stem + '.html').as_posix()}"

def llms(root):
    "The site in one text, for programs that read: every page with its purpose, every module with its names. The form is that of llmstxt.org."
    cfg, package = settings(root), settings(root)["lib_path"]
    modules = {notebook: name for name, (_, notebook) in module_numbers(root).items()}
    lines = [f"# {cfg['title']}", "", f"> {cfg['description']}", ""]
    lines += [f"Install from a clone: `pip install -e .`. Import: `from {package}.all import *`. Images are (channel, row, column) in counts; chunk addresses are 'row/column' from 1.", ""]
    def _page(page):
        title, said = opening(root / "nbs" / page)
        file = root / package / f"{modules.get(page)}.py"
        names = [n for n in exported(ast.parse(file.read_text(encoding="utf-8"))) if n != "log"] if file.exists() else []
        return f"- [{title}]({site_address(root, page)}): {str(said).rstrip('.')}" + (f". `{package}.{modules[page]}`: {', '.join(names)}" if names else "")
    def _section(entry, heading):
        if isinstance(entry, str): return [_page(entry)]
        if isinstance(entry, list): return [line for e in entry for line in _section(e, heading)]
        name = f"{heading}: {entry['section']}" if heading else entry["section"]
        own = [e for e in entry["contents"] if isinstance(e, str)]
        return (["", f"## {name}", "", *map(_page, own)] if own else []) + [line for e in entry["contents"] if not isinstance(e, str) for line in _section(e, name)]
    lines += _section(yaml.safe_load((root / "nbs/sidebar.yml").read_text(encoding="utf-8"))["website"]["sidebar"]["contents"], "")
    return "\n".join(lines).strip() + "\n"

def check_llms(root):
    "nbs/llms.txt is what the sidebar, the pages and the modules give."
    path = root / "nbs/llms.txt"
    try: made = llms(root)
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error: return {}, [f"nbs/llms.txt cannot be made: {error!r}"]
    have = path.read_text(encoding="utf-8") if path.exists() else ""
    if have == made: return {"llms.txt lines": len(made.splitlines())}, []
    old, new = have.splitlines() + [""], made.splitlines() + [""]
    line = next((i for i, (a, b) in enumerate(zip(old, new)) if a != b), min(len(old), len(new)) - 1)
    return {}, [f"nbs/llms.txt is not in step, from line {line + 1} (should be {new[line][:60]!r}): run python tests/docs_check.py --llms"]

# ---------------------------------------------------------------- links

def links(text):
    "Targets of the links and images of a Markdown text, code and formulas left out."
    text = re.sub(r"^(```+|~~~+).*?^\1\s*$", "", text, flags=re.M | re.S)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.S)
    text = re.sub(r"(`+)(?!`).*?(?<!`)\1(?!`)", "", text, flags=re.S)
    text = re.sub(r"\$\$.*?\$\$|(?<!\\)\$[^$\n]+\$", "", text, flags=re.S)
    yield from re.findall(r"\]\(\s*<?([^)\s>]+)>?(?:\s+[\"'][^)]*[\"'])?\s*\)", text)
    yield from re.findall(r"^\s{0,3}\[[^\]^]+\]:\s*<?([^\s>]+)", text, flags=re.M)
    yield from re.findall(r"(?:src|href)=[\"']([^\"']+)[\"']", text)

def slug(heading):
    "The identifier that Pandoc gives a heading."
    own = re.search(r"\{[^}]*#([\w.:-]+)[^}]*\}\s*$", heading)
    if own: return own.group(1)
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", re.sub(r"\{[^}]*\}\s*$|`|\*|<[^>]+>", "", heading))
    return re.sub(r"^[^a-z]+", "", re.sub(r"\s+", "-", re.sub(r"[^\w\s.-]", "", text.strip().lower())))

def anchors(text):
    "Identifiers that a Markdown text defines: its headings' and its own."
    text = re.sub(r"^(```+|~~~+).*?^\1\s*$", "", text, flags=re.M | re.S)
    found = {slug(h) for h in re.findall(r"^#{1,6}\s+(.*?)\s*#*$", text, flags=re.M)}
    return found | set(re.findall(r"\bid=[\"']([^\"']+)", text)) | set(re.findall(r"\{#([\w.:-]+)", text))

def notebook_text(nb):
    "Everything of a notebook that a page shows as Markdown or HTML."
    parts = []
    for cell in nb["cells"]:
        if cell["cell_type"] == "markdown": parts.append(source(cell))
        for output in cell.get("outputs", []):
            parts += ["".join(v) for k, v in output.get("data", {}).items() if k in ("text/markdown", "text/html")]
    return "\n\n".join(DATA_URI.sub("", p) for p in parts)

class Links:
    "Resolves links in a checkout at `root`, and in its site at `site` (a folder of notebooks)."
    def __init__(self, root, site):
        cfg, self.root, self.site = settings(root), root, site
        self.host, self.code = cfg["doc_host"] + cfg["doc_baseurl"], f"{cfg['git_url']}/blob/{cfg['branch']}/"
        self.counts, self.problems, self.pages = {"links": 0, "of them outside": 0}, [], {}
        for path in notebooks(site):
            html = front_matter(load(path)).get("output-file", re.sub(r"^\d+[a-zA-Z0-9]*_", "", path.stem.lower()) + ".html")
            self.pages[path.with_name(html).relative_to(site)] = path

    def page(self, target):
        "The file that a path inside the site stands for, or None."
        if target.exists(): return target
        try: return self.pages.get(target.resolve().relative_to(self.site.resolve()))
        except ValueError: return None

    def resolve(self, target, folder, text):
        "None if `target`, seen from `folder` in a file of this `text`, leads somewhere; else what is wrong."
        path, _, anchor = target.partition("#")
        path = unquote(path.partition("?")[0])
        if path.startswith(self.host): # nbdev's own links: their anchors are made with the page
            path = path[len(self.host):].strip("/") or "index.html"
            return None if self.page(self.site / path) else f"{target}: the site has no such page"
        if path.startswith(self.code):
            return None if (self.root / path[len(self.code):]).exists() else f"{target}: no such file in the checkout"
        if re.match(r"[a-z][a-z0-9+.-]*:|//", path): self.counts["of them outside"] += 1; return None
        found = self.page(folder / path) if path else None
        if path and found is None: return f"{target}: no such file"
        if not anchor: return None
        if found and found.suffix not in (".ipynb", ".md"): return None
        there = text if not path else notebook_text(load(found)) if found.suffix == ".ipynb" else found.read_text(encoding="utf-8")
        return None if anchor.lower() in {a.lower() for a in anchors(there)} else f"{target}: no such heading"

    def check(self, name, folder, text):
        "Counts the links of one page, and notes those that lead nowhere."
        for target in links(text):
            self.counts["links"] += 1
            wrong = self.resolve(target, folder, text)
            if wrong: self.problems.append(f"{name}: {wrong}")

def check_links(root, site=None):
    "Relative links and image paths resolve, in the Markdown files and on every page of `site` (default: the notebooks as stored)."
    site = site or root / "nbs"
    checker = Links(root, site)
    for name in MARKDOWN:
        if not (root / name).exists(): checker.problems.append(f"{name} is missing"); continue
        text = (root / name).read_text(encoding="utf-8")
        checker.check(name, root, text)
        checker.problems += [f"{name}: a machine's path: {found}" for found in MACHINE_TEXT.findall(text)]
    for path in pages(site):
        text = notebook_text(load(path)) if path.suffix == ".ipynb" else path.read_text(encoding="utf-8")
        checker.check(str(path.relative_to(site)), path.parent, text)
        gone = [i for i in re.findall(r"\{\{<\s*include\s+(\S+)\s*>\}\}", text) if path.suffix == ".qmd" and not (root / "nbs" / path.relative_to(site).parent / i).exists()]
        checker.problems += [f"{path.relative_to(site)}: includes {i}, which is not there" for i in gone]
    return checker.counts, checker.problems

# ---------------------------------------------------------------- the pages, as Quarto would get them

def process(root, folder):
    "Copies the checkout below `folder` and processes its notebooks there; gives the folder of pages. Raises RuntimeError with nbdev's own words."
    copy = folder / "checkout"
    skip = shutil.ignore_patterns("_proc", "_docs", ".*", "__pycache__", "*.zarr", "*.partial")
    for name in ("nbs", settings(root)["lib_path"]):
        if (root / name).exists(): shutil.copytree(root / name, copy / name, symlinks=True, ignore=skip)
    for name in ("settings.ini", "_quarto.yml"): shutil.copy(root / name, copy / name)
    env = {**os.environ, "PYTHONPATH": str(copy), "PYTHONWARNINGS": "ignore", "MPLBACKEND": "agg"}
    done = subprocess.run([sys.executable, __file__, "--process"], cwd=copy, env=env, capture_output=True, text=True)
    if done.returncode: raise RuntimeError("\n".join((done.stdout + done.stderr).strip().splitlines()[-25:]))
    return copy / "_proc"

def check_pages(root, site):
    "Every notebook has become a page with a title and a description, and the site has its configuration."
    problems, titles = [], {}
    stored = [p.relative_to(root / "nbs") for p in notebooks(root / "nbs")]
    for path in stored:
        if not (site / path).exists(): problems.append(f"{path} was not processed"); continue
        matter = front_matter(load(site / path))
        for key in ("title", "description"):
            if not str(matter.get(key) or "").strip(): problems.append(f"{path}: no {key} (`# Title`, then `> one sentence`)")
        twin = titles.setdefault(matter.get("title"), path)
        if twin != path: problems.append(f"{path} and {twin} have the same title, {matter.get('title')!r}")
    for name in pages(root / "nbs"):
        if name.suffix == ".qmd" and not all(opening(name)): problems.append(f"{name.relative_to(root / 'nbs')}: no title or no description")
    for name in ("_quarto.yml", "nbdev.yml", "sidebar.yml", "styles.css"):
        if not (site / name).is_file() or (site / name).is_symlink(): problems.append(f"the site lacks {name}")
    return {"pages": len(stored)}, problems

def check_shown(root, site):
    "Every public function and class of a module is shown on its page, with its signature and its parameters."
    package, numbers, shown, problems = settings(root)["lib_path"], module_numbers(root), 0, []
    for module, (_, notebook) in numbers.items():
        file = root / package / f"{module}.py"
        if not file.exists() or not (site / notebook).exists(): continue
        tree = ast.parse(file.read_text(encoding="utf-8"))
        defined = {n.name for n in tree.body if isinstance(n, (ast.FunctionDef, ast.ClassDef))}
        text = "\n".join(source(c) for c in load(site / notebook)["cells"] if c["cell_type"] == "code")
        for name in exported(tree):
            if name not in defined: continue # a constant stands in its code
            shown += 1
            if not re.search(rf"show_doc\({name}\b", text): problems.append(f"{notebook}: {name} is not shown on its page")
    return {"names shown": shown}, problems

# ---------------------------------------------------------------- README.md

def without_pictures(nb):
    "The notebook with only the text of its outputs: the README shows pictures by their committed files."
    for cell in nb["cells"]:
        kept = []
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if output.get("name") == "stderr" or any(mime.startswith("image/") for mime in data): continue
            if data: output["data"] = {k: v for k, v in data.items() if k in ("text/plain", "text/markdown")}
            kept.append(output)
        if cell["cell_type"] == "code": cell["outputs"] = kept
    return nb

def from_top(text):
    "The Markdown of nbs/index.ipynb, its relative links as seen from the folder above."
    def moved(match):
        target = match.group(2)
        if re.match(r"[a-z][a-z0-9+.-]*:|//|#", target): return match.group()
        return match.group(1) + os.path.normpath(os.path.join("nbs", target)).replace(os.sep, "/")
    parts = re.split(r"(^```.*?^```\s*?$)", text, flags=re.M | re.S) # code stays as it is
    for i in range(0, len(parts), 2):
        parts[i] = re.sub(r"(\]\(\s*<?)([^)\s>]+)", moved, parts[i])
        parts[i] = re.sub(r"((?:src|href)=[\"'])([^\"']+)", moved, parts[i])
    return "".join(parts)

def readme(page):
    "README.md from the processed index notebook at `page`."
    import nbformat
    from nbconvert import MarkdownExporter
    nb = load(page)
    matter = front_matter(nb)
    nb["cells"] = [c for c in without_pictures(nb)["cells"] if c["cell_type"] != "raw" and source(c).strip() and "AUTOGENERATED" not in source(c)]
    for cell in nb["cells"]: # Quarto's own lines mean nothing to GitHub
        lines = source(cell).splitlines()
        if cell["cell_type"] == "code" and any(re.match(r"\s*#\s*\|\s*echo:\s*false", l) for l in lines): # only what it printed
            printed = "".join("".join(o.get("text", "")) for o in cell["outputs"]).rstrip()
            cell.clear(); cell.update(cell_type="markdown", metadata={}, source=f"```text\n{printed}\n```")
            continue
        if cell["cell_type"] == "code": lines = [l for l in lines if not re.match(r"\s*#\s*\|", l)]
        else: lines = [re.sub(r"(\]\([^)]*\))\{[^}]*\}", r"\1", l) for l in lines if not l.startswith(":::")]
        cell["source"] = "\n".join(lines).strip()
    nb["metadata"] = {"kernelspec": {"name": "python3", "display_name": "python3"}, "language_info": {"name": "python"}}
    exporter = MarkdownExporter()
    exporter.exclude_input_prompt = exporter.exclude_output_prompt = True
    exporter.config.NbConvertBase.display_data_priority = ["text/markdown", "text/plain"]
    body, _ = exporter.from_notebook_node(nbformat.reads(json.dumps(nb), as_version=4))
    body = re.sub(r"\n{3,}", "\n\n", re.sub(r"[ \t]+$", "", from_top(body), flags=re.M)).strip()
    return f"# {matter['title']}\n\n{WARNING}\n\n> {matter['description']}\n\n{body}\n"

def check_readme(root, site):
    "README.md is what nbs/index.ipynb gives, and it begins with a title and a description."
    page = site / "index.ipynb"
    if not page.exists(): return {}, ["nbs/index.ipynb is missing: README.md is made from it"]
    made, have = readme(page), (root / "README.md").read_text(encoding="utf-8")
    if made == have: return {"README lines": len(have.splitlines())}, []
    old, new = have.splitlines() + [""], made.splitlines() + [""]
    line = next((i for i, (a, b) in enumerate(zip(old, new)) if a != b), min(len(old), len(new)) - 1)
    return {}, [f"README.md is not what nbs/index.ipynb gives, from line {line + 1} ({old[line][:60]!r}, should be {new[line][:60]!r}): run python tests/docs_check.py --readme"]

# ---------------------------------------------------------------- all of it

QUICK = [check_site, check_sidebar, check_facts, check_notebooks, check_modules, check_practice, check_names, check_spelling, check_hosts, check_llms]

def executed(root):
    "Notebooks that `nbdev_test` runs: all but those with `skip_exec: true` or in a folder with a .notest file."
    paths = [p for p in notebooks(root / "nbs") if not (p.parent / ".notest").exists()]
    opening = lambda p: "\n".join(source(c) for c in load(p)["cells"][:2] if c["cell_type"] != "code")
    return [p for p in paths if not re.search(r"^(?:-\s+)?skip_exec:\s*true", opening(p), re.M | re.I)]

def run(root, quick=False):
    "Every check; gives the counts, the problems and the number of checks."
    counts, problems, checks = {}, [], 0
    def take(check, *args):
        nonlocal checks
        found, wrong = check(root, *args)
        counts.update(found); problems.extend(wrong); checks += 1
    for check in QUICK: take(check)
    if quick: take(check_links); return counts, problems, checks
    with tempfile.TemporaryDirectory() as folder:
        try: site = process(root, Path(folder))
        except RuntimeError as error: return counts, problems + [f"processing the notebooks failed:\n{error}"], checks + 1
        for check in (check_pages, check_links, check_readme): take(check, site)
        for check in (check_shown, check_hosts): take(check, site)
    return counts, problems, checks

def write_readme(root):
    "Writes README.md from nbs/index.ipynb."
    with tempfile.TemporaryDirectory() as folder: text = readme(process(root, Path(folder)) / "index.ipynb")
    (root / "README.md").write_text(text, encoding="utf-8")
    print(f"README.md: {len(text.splitlines())} lines")

def write_llms(root):
    "Writes nbs/llms.txt."
    (root / "nbs/llms.txt").write_text(llms(root), encoding="utf-8")
    print(f"nbs/llms.txt: {len(llms(root).splitlines())} lines")

def main():
    parser = argparse.ArgumentParser(description="Checks of the documentation that need no Quarto.")
    for flag, text in (("quick", "without processing the notebooks"), ("readme", "write README.md from nbs/index.ipynb"), ("llms", "write nbs/llms.txt"),
                       ("executed", "count the notebooks that nbdev_test runs"), ("process", argparse.SUPPRESS)):
        parser.add_argument(f"--{flag}", action="store_true", help=text)
    args = parser.parse_args()
    if args.process:
        from nbdev.serve import proc_nbs
        proc_nbs(force=True); return
    if args.readme: return write_readme(ROOT)
    if args.llms: return write_llms(ROOT)
    if args.executed: return print(len(executed(ROOT)))
    counts, problems, checks = run(ROOT, args.quick)
    print("documentation: " + ", ".join(f"{name} {n}" for name, n in counts.items()))
    for problem in problems: print(f"  wrong: {problem}")
    print(f"documentation: {checks} checks, {len(problems)} problems")
    return 1 if problems else 0

if __name__ == "__main__": sys.exit(main())
