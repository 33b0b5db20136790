"""The page of the routers' report as a browser shows it: 48 layers, on a desk and on a phone."""

import numpy as np
import pytest

from expertbank.routers import RouterStatistics, routing_report, write_html

N_LAYERS, N_EXPERTS = 48, 64
# letters as they are drawn, those of a drawing as it is scaled; and what lies beyond the page
MEASURE = """() => {
  const letters = [...document.querySelectorAll('body *')].filter(element =>
    element.checkVisibility() && [...element.childNodes].some(
      node => node.nodeType === 3 && node.textContent.trim()));
  const size = element => {
    const own = parseFloat(getComputedStyle(element).fontSize);
    const drawing = element.closest('svg');
    return drawing ? own * drawing.getScreenCTM().a : own;
  };
  const front = document.querySelector('.front');
  return {
    smallest: Math.min(...letters.map(size)),
    wide: document.documentElement.scrollWidth - innerWidth,
    end: document.querySelector('figure').getBoundingClientRect().bottom,
    open: document.querySelectorAll('details[open]').length,
    loose: [...document.querySelectorAll('table')].filter(t => !t.closest('details')).length,
    tiles: front.querySelectorAll('.tiles li').length,
    worst: front.querySelectorAll('.worst li').length,
    ink: getComputedStyle(document.body).color,
    paper: getComputedStyle(document.body).backgroundColor,
  };
}"""
OPENED = """() => {
  document.querySelectorAll('details').forEach(each => each.open = true);
  const regions = [...document.querySelectorAll('.wide')];
  return {
    wide: document.documentElement.scrollWidth - innerWidth,
    cued: regions.every(each => each.tabIndex === 0 && each.ariaLabel
      && getComputedStyle(each).overflowX === 'auto'
      && getComputedStyle(each).backgroundImage.includes('gradient')),
    scrolling: regions.filter(each => each.scrollWidth > each.clientWidth).length,
  };
}"""


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    rng = np.random.default_rng(0)
    statistics = RouterStatistics(N_EXPERTS, 4, n_domains=4)
    domain = np.repeat(np.arange(16) % 4, 64)
    for layer in range(N_LAYERS):
        logits = rng.gumbel(size=(len(domain), N_EXPERTS))
        logits += (layer % 3) * rng.normal(size=N_EXPERTS) / 2
        logits += (layer % 2) * rng.normal(size=(4, N_EXPERTS))[domain]
        logits[:, : layer == 7] -= 99
        labels = {"domain": domain, "sequence": np.repeat(np.arange(16), 64)}
        name = f"model.layers.{layer}.mlp.gate"
        statistics.update(name, logits.argsort(axis=1)[:, -4:], **labels)
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_html(routing_report(statistics, relabellings=19), path)
    return path.as_uri()


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (390, 844)])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_48_layers_on_two_screens_and_on_a_phone(browser, address, width, height, theme):
    size = {"width": width, "height": height}
    page = browser.new_page(viewport=size, color_scheme=theme)
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    found = page.evaluate(MEASURE)
    opened = page.evaluate(OPENED)
    page.close()
    assert {url for url in asked if not url.startswith("data:")} == {address}
    assert found["smallest"] >= 11
    assert found["wide"] <= 0 and opened["wide"] <= 0
    assert found["open"] == 0 == found["loose"]
    assert (found["tiles"], found["worst"]) == (N_LAYERS, 5)
    # verdicts, the worst layers and the map of all loads
    assert width < 1280 or found["end"] <= 2 * height
    assert opened["cued"] and (width > 390 or opened["scrolling"] > 0)
    lightness = [sum(map(int, found[name][4:-1].split(","))) for name in ("ink", "paper")]
    assert (lightness[0] > lightness[1]) == (theme == "dark")
