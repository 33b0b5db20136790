"""The book's colours, by name, on a light and on a dark page: one list for figures and explorers.

Okabe and Ito's hues, which any colour vision tells apart, each as dark on white and as light on
the dark ground as lines need.
"""

from __future__ import annotations

COLOURS = {
    "blue": ("#0072b2", "#56b4e9"),
    "red": ("#d55e00", "#f58a42"),
    "green": ("#008763", "#2fc99b"),
    "pink": ("#b5478a", "#e58fc3"),
    "orange": ("#b07800", "#e6b03c"),
    "sky": ("#2f8dc4", "#9ad4f5"),
    "ink": ("#212529", "#ced6dd"),
    "grey": ("#5c6670", "#9aa5b1"),
    "light": ("#c8cdd3", "#4a5463"),
    "paper": ("#ffffff", "#14181e"),
}
LIGHT = {name: light for name, (light, _) in COLOURS.items()}
DARK = {name: dark for name, (_, dark) in COLOURS.items()}
# of the lines of a figure, one after the other
CYCLE = [LIGHT[name] for name in ("blue", "red", "green", "pink", "orange", "ink", "sky")]
# how a page of the site says that it is dark, and how JupyterLab does
DARK_PAGES = 'html[data-theme="dark"], [data-jp-theme-light="false"]'


def style_sheet() -> str:
    """The colours as CSS variables, `--book-blue` and so on, in both themes.

    >>> style_sheet().splitlines()[0][:34]
    ':root { --book-blue: #0072b2; --bo'
    """
    # paper is light
    dark = f"@media screen {{ {DARK_PAGES} {{ {_variables(DARK)} }} }}"
    return f":root {{ {_variables(LIGHT)} }}\n{dark}\n"


def _variables(colours: dict[str, str]) -> str:
    return " ".join(f"--book-{name}: {colour};" for name, colour in colours.items())
