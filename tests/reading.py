"""What a reader's eye meets on a page, at desk and phone width, in light and dark: the picture
first, nothing clipped, nothing too small, nothing too faint, nothing that scrolls without a cue."""

from __future__ import annotations

# bottoms of the first picture and of the first box of numbers, in pixels from the top of the page
OPENING = """picture => {
  const seen = selector => [...document.querySelectorAll(`.bd-article ${selector}`)]
    .map(e => e.getBoundingClientRect()).filter(r => r.width > 200 && r.height > 100)
    .map(r => Math.round(r.bottom + scrollY)).sort((a, b) => a - b)[0];
  const short = [...document.querySelectorAll('.bd-article .admonition')]
    .filter(e => e.querySelector('.admonition-title')?.innerText.trim() === 'In short')
    .map(e => Math.round(e.getBoundingClientRect().bottom + scrollY))[0];
  return { picture: seen(picture), short };
}"""

CLIPPED_CODE = """() => [...document.querySelectorAll('.bd-article pre')]
  .filter(e => e.clientWidth && e.scrollWidth > e.clientWidth + 1)
  .map(e => e.innerText.split('\\n').reduce((a, b) => b.length > a.length ? b : a))"""

# what scrolls sideways: a keyboard must reach it, and something must say that there is more
SCROLLS_SILENTLY = """() => [...document.querySelectorAll('.bd-article *')].filter(e => {
  const style = getComputedStyle(e);
  if (!/auto|scroll/.test(style.overflowX) || e.scrollWidth <= e.clientWidth + 1) return false;
  const cue = /gradient/.test(style.backgroundImage) || style.boxShadow !== 'none';
  return e.tabIndex < 0 || !cue;
}).map(e => `${e.tagName} ${e.className} ${e.innerText.slice(0, 60)}`)"""

WIDE_FORMULAS = """() => [...document.querySelectorAll('.bd-article mjx-container')]
  .filter(e => e.clientWidth && e.scrollWidth > e.clientWidth + 1)
  .map(e => e.closest('[id]')?.id)"""

# height of letters on the screen, and their contrast with the page, for the text of every drawing
LETTERS = """() => {
  const channel = v => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = colour => {
    const [r, g, b] = colour.match(/[\\d.]+/g).map(Number);
    return 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  };
  const contrast = (a, b) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  const ground = e => {
    for (; e; e = e.parentElement) {
      const colour = getComputedStyle(e).backgroundColor;
      if (!/, 0\\)$|transparent/.test(colour)) return light(colour);
    }
    return 1;
  };
  return [...document.querySelectorAll('.bd-article svg text')]
    .filter(e => e.textContent.trim() && e.getClientRects().length)
    .map(e => {
      const leaf = e.querySelector('tspan') || e;
      const scale = Math.hypot(e.getScreenCTM().a, e.getScreenCTM().b);
      const style = getComputedStyle(leaf);
      return [e.textContent.trim(), parseFloat(style.fontSize) * scale,
              contrast(light(style.fill), ground(e.ownerSVGElement.parentElement))];
    });
}"""

LIGHT_SLABS = """() => [...document.querySelectorAll(
    'html[data-theme="dark"] .bd-article :is(table, svg)')]
  .filter(e => {
    const colour = getComputedStyle(e).backgroundColor.match(/[\\d.]+/g).map(Number);
    return (colour[3] ?? 1) > 0.5 && Math.min(...colour.slice(0, 3)) > 200;
  }).map(e => e.outerHTML.slice(0, 80))"""


def opening_of(page, picture: str) -> dict:
    """How far below the top the first `picture` and the first box of numbers end, in pixels."""
    return page.evaluate(OPENING, picture)


def faults(page, *, phone: bool) -> dict[str, list]:
    """What keeps an eye from reading the page: kind of fault, and where."""
    letters = page.evaluate(LETTERS)
    faint = [(text, contrast) for text, _, contrast in letters if contrast < 4.5]
    found = {
        "lettering below 11 px": [(text, size) for text, size, _ in letters if size < 10.9],
        "lettering too faint": faint,
        "scrolls without a cue": page.evaluate(SCROLLS_SILENTLY),
        "light slabs in the dark": page.evaluate(LIGHT_SLABS),
    }
    if phone:
        found["formulas wider than the phone"] = page.evaluate(WIDE_FORMULAS)
    else:
        found["clipped code"] = page.evaluate(CLIPPED_CODE)
    return {kind: places for kind, places in found.items() if places}
