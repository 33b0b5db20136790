"""Print the book on one page as PDF.

`python chapters/_ext/pdf.py build/single/book.html book.pdf`
"""

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

NUMBER = (
    '<p style="width: 100%; font: 8px sans-serif; text-align: center">'
    '<span class="pageNumber"></span></p>'
)
MARGINS = {"top": "18mm", "bottom": "18mm", "left": "20mm", "right": "20mm"}
# solutions are printed unfolded, behind a cover that the theme's own logo and title make
PREPARE = """() => {
  document.querySelectorAll('details').forEach(d => d.open = true);
  document.querySelectorAll('.toggle-hidden').forEach(d => d.classList.remove('toggle-hidden'));
  document.querySelectorAll('img[loading]').forEach(i => i.loading = 'eager');
  const cover = document.createElement('section');
  cover.className = 'cover';
  const title = document.createElement('p');
  title.textContent = document.title;
  cover.append(document.querySelector('.navbar-brand img').cloneNode(), title);
  document.querySelector('#jb-print-docs-body').before(cover);
}"""


def installed_browser() -> str | None:
    """A browser of the machine; None stands for the one that Playwright installed."""
    found = (shutil.which(name) for name in ("chromium", "google-chrome"))
    return next(filter(None, found), None)


def main(page: Path, goal: Path) -> None:
    with sync_playwright() as p:
        browser = p.chromium.launch(
            executable_path=installed_browser(), args=["--no-sandbox", "--disable-gpu"]
        )
        tab = browser.new_page(color_scheme="light")
        tab.goto(page.resolve().as_uri(), wait_until="load", timeout=120_000)
        tab.evaluate("MathJax.startup.promise")
        tab.evaluate(PREPARE)
        tab.emulate_media(media="print")
        tab.pdf(
            path=goal,
            format="A4",
            outline=True,
            tagged=True,
            print_background=True,
            display_header_footer=True,
            header_template="<span></span>",
            footer_template=NUMBER,
            margin=MARGINS,
        )
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
