"""What a Binder user gets: JupyterLab with the environment's own settings opens every chapter as a
live notebook that reads like its page, in two gigabytes."""

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.request
from contextlib import contextmanager
from statistics import median

import psutil
import pytest

from pages import HTML, PAGES, WITH_EXPLORER
from references import ROOT, chapters
from support import say, say_time

NOTEBOOK = ".jp-NotebookPanel"
CODE = [chapter.stem for chapter in chapters()]
TEXT = sorted({page.removeprefix("chapters/") for page in PAGES} - set(CODE))
# megabytes of server and kernels; Binder gives 2,048
ROOM = 1500
NAME = "handle => handle.closest('.widget-slider').querySelector('.widget-label').textContent"
# presses a key on a slider again and again, and measures each time how long the new picture takes
# to arrive
MOVES = """async (handle, n) => {
  const picture = handle.closest('.jp-OutputArea').querySelector('.explorer-panels');
  const times = [];
  for (let i = 0; i < n; i++) {
    const start = performance.now(), key = i % 10 < 5 ? 'ArrowRight' : 'ArrowLeft';
    const arrived = new Promise(done => {
      const watcher = new MutationObserver(() => { watcher.disconnect(); done(true); });
      watcher.observe(picture, {childList: true, subtree: true, characterData: true});
      setTimeout(() => { watcher.disconnect(); done(false); }, 5000);
    });
    handle.dispatchEvent(new KeyboardEvent('keydown', {key, bubbles: true}));
    if (await arrived) times.push(performance.now() - start);
    await new Promise(done => setTimeout(done, 50));
  }
  return times;
}"""
# presses the key on a slider that moves it, and waits until a picture has come
STIR = """async handle => {
  const picture = handle.closest('.jp-OutputArea').querySelector('.explorer-panels');
  const atEnd = handle.getAttribute('aria-valuenow') === handle.getAttribute('aria-valuemax');
  const arrived = new Promise(done => {
    const watcher = new MutationObserver(() => { watcher.disconnect(); done(true); });
    watcher.observe(picture, {childList: true, subtree: true, characterData: true});
    setTimeout(() => { watcher.disconnect(); done(false); }, 60_000);
  });
  const key = atEnd ? 'ArrowLeft' : 'ArrowRight';
  handle.dispatchEvent(new KeyboardEvent('keydown', {key, bubbles: true}));
  return arrived;
}"""
# no torch on Binder, so a chapter says there what it would show with it
WITHOUT_TORCH = """\
import sys
from importlib.machinery import PathFinder


class Finder(PathFinder):
    @classmethod
    def find_spec(cls, name, *rest):
        missing = name.partition(".")[0] in ("torch", "torchvision", "transformers")
        return None if missing else super().find_spec(name, *rest)


sys.meta_path = [Finder if finder is PathFinder else finder for finder in sys.meta_path]
"""
# opens a file as a click on it does, and tells how it is shown
OPEN = """async path => {
  const widget = await jupyterapp.commands.execute('docmanager:open', {path});
  await widget.context.ready;
  await widget.revealed;
  return [...widget.node.classList, ...widget.content.node.classList];
}"""
# runs every cell of the notebook in front: what went wrong, by the number of the cell
RUN = """async () => {
  const widget = jupyterapp.shell.currentWidget;
  await widget.sessionContext.ready;
  await jupyterapp.commands.execute('notebook:run-all-cells');
  const wrong = [];
  widget.content.widgets.forEach((cell, place) => {
    if (cell.model.type !== 'code') return;
    if (cell.model.executionCount === null) wrong.push(`${place}: not run`);
    for (const output of cell.model.toJSON().outputs)
      // how long a search takes depends on the machine
      if (output.output_type === 'error' ||
          (output.name === 'stderr' && !/LongSearchWarning/.test(output.text)))
        wrong.push(`${place}: ${output.evalue || output.text}`);
  });
  return wrong;
}"""
RAN = """() => jupyterapp.shell.currentWidget.content.widgets
  .every(cell => cell.model.type !== 'code' || cell.model.executionCount)"""
# what in the rendered prose of the file in front no reader should see
STRAY = """() => {
  const stray = /\\{[\\w:-]+\\}|⚠|\\$|:::|\\\\(begin|tag|frac)|\\[\\[[\\w-]+\\]\\]|(^|\\n)\\s*>/;
  const found = [];
  const widget = jupyterapp.shell.currentWidget;
  for (const part of widget.node.querySelectorAll('.jp-RenderedMarkdown')) {
    if (part.querySelector('[data-mml-node=merror], mjx-merror')) found.push('a broken formula');
    const copy = part.cloneNode(true);
    for (const node of copy.querySelectorAll('mjx-container, pre, code, .jp-InternalAnchorLink'))
      node.remove();
    for (const line of copy.textContent.split('\\n')) if (stray.test(line)) found.push(line);
  }
  return found;
}"""
FORMULAS = """() => jupyterapp.shell.currentWidget.node
  .querySelectorAll('.jp-RenderedMarkdown mjx-container').length"""

FOLDED = """() => jupyterapp.shell.currentWidget.content.widgets
  .filter(cell => cell.inputHidden).length"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """JupyterLab on the notebooks of the built book, after `postBuild` and through `start`, without
    settings of the user's; its address and its process."""
    home = tmp_path_factory.mktemp("home")
    shutil.copytree(HTML.parent / "notebooks", home / "notebooks")
    # a test looks at every cell, also below the window
    settings = home / "own" / "@jupyterlab" / "notebook-extension" / "tracker.jupyterlab-settings"
    settings.parent.mkdir(parents=True)
    settings.write_text(json.dumps({"windowingMode": "none"}))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # the book has been built: settings alone
    made = {**os.environ, "MAKELEVEL": "1"}
    subprocess.run(["bash", ROOT / "postBuild"], check=True, env=made)
    command = [
        "bash",
        ROOT / "start",
        "jupyter",
        "lab",
        "--no-browser",
        "--allow-root",
        f"--port={port}",
        "--IdentityProvider.token=",
        "--LabApp.expose_app_in_browser=True",
        # what checks types here would serve an editor, and is not on Binder
        "--LanguageServerManager.autodetect=False",
        f"--ServerApp.root_dir={home}",
    ]
    (home / "site").mkdir()
    (home / "site" / "sitecustomize.py").write_text(WITHOUT_TORCH)
    path = os.pathsep.join(filter(None, [str(home / "site"), os.environ.get("PYTHONPATH")]))
    places = {
        name: str(home / "own")
        for name in ("HOME", "JUPYTER_CONFIG_DIR", "JUPYTERLAB_SETTINGS_DIR")
    }
    places["PYTHONPATH"] = path
    with (home / "log").open("w") as log:
        server = subprocess.Popen(command, env={**os.environ, **places}, stdout=log, stderr=log)
    try:
        wait_for(f"http://127.0.0.1:{port}/api", server)
        yield f"http://127.0.0.1:{port}", server
    finally:
        server.terminate()
        server.wait(20)


def wait_for(address, server):
    for _ in range(240):
        assert server.poll() is None, "JupyterLab stopped"
        try:
            return urllib.request.urlopen(address).read()
        except OSError:
            time.sleep(0.25)
    pytest.fail("JupyterLab did not start within a minute")


def memory(server):
    """Megabytes of the server with all its kernels, what they share counted once."""
    whole = 0
    process = psutil.Process(server.pid)
    for one in [process, *process.children(recursive=True)]:
        try:
            whole += one.memory_full_info().pss
        except psutil.NoSuchProcess:
            continue  # a kernel that has just ended
    return whole / 1e6


@pytest.fixture(scope="module")
def page(lab, browser):
    address, _ = lab
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(120_000)
    page.goto(f"{address}/lab/tree/notebooks", wait_until="domcontentloaded")
    page.locator(".jp-DirListing-item", has_text="bsc.ipynb").wait_for()
    yield page
    page.close()


@contextmanager
def in_front(page, name):
    """A file opened, its classes, and closed again without being kept, as a reader answers."""
    try:
        yield page.evaluate(OPEN, f"notebooks/{name}")
    finally:
        close(page)


def close(page):
    page.evaluate("() => { jupyterapp.commands.execute('application:close') }")
    gone = "!document.querySelector('.jp-NotebookPanel, .jp-MarkdownViewer')"
    page.wait_for_function(f"() => {gone} || document.querySelector('.jp-Dialog')")
    discard = page.get_by_role("button", name="Discard")
    if discard.count():
        discard.click()
    page.wait_for_function(f"() => {gone}")


def drag_ring_up(page):
    """The ring sets the slider of its dial: the kernel answers a drag as it answers a slider."""
    readout = page.locator(f"{NOTEBOOK} .jp-OutputArea .widget-readout").first
    before = readout.inner_text()
    ring = page.locator(f"{NOTEBOOK} .explorer-handle").first
    ring.scroll_into_view_if_needed()
    box = ring.bounding_box()
    page.mouse.move(box["x"] + 18, box["y"] + 18)
    page.mouse.down()
    for step in range(1, 6):
        page.mouse.move(box["x"] + 18 - 12 * step, box["y"] + 18 - 6 * step)
    page.mouse.up()
    page.wait_for_function(
        """before => document.querySelector(
             '.jp-NotebookPanel .jp-OutputArea .widget-readout').innerText !== before""",
        arg=before,
    )


def test_a_click_opens_a_notebook_that_is_alive(page, request):
    page.locator(".jp-DirListing-item", has_text="bsc.ipynb").dblclick()
    page.locator(f"{NOTEBOOK} .jp-CodeCell").first.wait_for()
    page.locator("#jp-main-statusbar", has_text="| Idle").wait_for()
    # JupyterLab drops what is run in the moment in which it joins the kernel
    page.wait_for_timeout(1000)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.locator(".lm-Menu-itemLabel", has_text="Run All Cells").first.click()
    slider = page.locator(f"{NOTEBOOK} .noUi-handle").first
    shown = """[...document.querySelectorAll('.jp-NotebookPanel .explorer-svg')]
      .map(node => node.outerHTML).join()"""
    slider.wait_for()
    page.locator(f"{NOTEBOOK} .explorer-svg svg").first.wait_for()
    # every code cell was run
    page.wait_for_function(RAN)
    page.locator("#jp-main-statusbar", has_text="| Idle").wait_for()
    before = page.evaluate(shown)
    assert before
    slider.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function(f"before => {shown} !== before", arg=before)
    drag_ring_up(page)
    sliders = page.locator(f"{NOTEBOOK} .jp-OutputArea .noUi-handle")
    cut = """labels => labels.filter(label => label.scrollWidth > label.clientWidth)
      .map(label => label.textContent)"""
    assert page.locator(f"{NOTEBOOK} .widget-label").evaluate_all(cut) == []
    times = {handle.evaluate(NAME): handle.evaluate(MOVES, 10) for handle in sliders.all()}
    assert len(times) == 3
    for name, found in times.items():
        # the way through the kernel and back
        line = f"live widget, {name}: median of 10 moves {median(found):.0f} ms"
        say_time(request, line, median(found), 100)
    close(page)


@pytest.mark.slow
@pytest.mark.parametrize("name", CODE)
def test_a_chapter_runs_and_reads_like_its_page(name, page, lab, request):
    """All of them in one JupyterLab, each closed before the next, as a reader goes through the
    book."""
    with in_front(page, f"{name}.ipynb") as kind:
        assert "jp-NotebookPanel" in kind
        assert page.evaluate(RUN) == []
        page.wait_for_function(f"() => ({FORMULAS})() > 0")
        assert seen(page) == []
        assert page.evaluate(FOLDED) >= 1
        sliders = page.locator(f"{NOTEBOOK} .jp-OutputArea .noUi-handle")
        assert (sliders.count() > 0) == (name in WITH_EXPLORER)
        for slider in sliders.all():
            assert slider.evaluate(STIR), f"{slider.evaluate(NAME)} moves nothing"
        used = memory(lab[1])
        say(request, f"{name}: {used:.0f} MB of JupyterLab and its kernels")
    assert used < ROOM


def seen(page):
    """What stays in sight once formulas are set."""
    found = page.evaluate(STRAY)
    for _ in range(40):
        if not found:
            break
        page.wait_for_timeout(250)
        found = page.evaluate(STRAY)
    return found


@pytest.mark.parametrize("name", TEXT)
def test_a_page_without_code_opens_rendered(name, page):
    with in_front(page, f"{name}.md") as kind:
        assert "jp-MarkdownViewer" in kind
        page.locator(".jp-MarkdownViewer h1").first.wait_for()
        assert seen(page) == []
        # no question for a kernel
        assert page.locator(".jp-Dialog").count() == 0


def comes_to(kernels, number):
    """Whether so many kernels run, within ten seconds."""
    for _ in range(40):
        if len(json.load(urllib.request.urlopen(kernels))) == number:
            return True
        time.sleep(0.25)
    return False


def test_opening_changes_nothing_and_a_closed_notebook_ends_its_kernel(page, lab):
    address, _ = lab
    kernels = f"{address}/api/kernels"
    with in_front(page, "start.ipynb"):
        page.evaluate("() => jupyterapp.shell.currentWidget.sessionContext.ready")
        # the one that an earlier test closed may still be ending
        assert comes_to(kernels, 1), "an opened notebook has one kernel"
    settings = json.load(
        urllib.request.urlopen(
            f"{address}/lab/api/settings/@jupyterlab/docmanager-extension:plugin"
        )
    )
    assert settings["schema"]["properties"]["autosave"]["default"] is False
    assert comes_to(kernels, 0), "the kernel of a closed notebook lives on"


def test_a_kernel_without_a_reader_ends(lab):
    """A browser that is gone closes no notebook: the server ends its kernels after a while."""
    command = ["bash", ROOT / "start", "jupyter", "server", "--show-config-json"]
    told = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    culling = told["MappingKernelManager"]
    assert 0 < culling["cull_idle_timeout"] <= 300 and not culling["cull_connected"]


def test_binder_builds_from_the_environment():
    """It would take any of these instead of environment.yml."""
    others = ["Dockerfile", "binder", ".binder", "Project.toml", "default.nix", "install.R"]
    assert [name for name in others if (ROOT / name).exists()] == []


def test_threads_are_limited():
    command = ["bash", ROOT / "start", "sh", "-c", "echo $OMP_NUM_THREADS $OPENBLAS_NUM_THREADS"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "2 2\n"
