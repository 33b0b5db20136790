"""Print the book on one page as PDF: `python chapters/_ext/pdf.py build/single/book.html
book.pdf`."""

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

NUMBER = '<p style="width: 100%; font: 8px sans-serif; text-align: center"><span class="pageNumber"></span></p>'
# solutions are printed unfolded, behind a cover that the theme's own logo and title make
PREPARE = """() => {
  document.querySelectorAll('details').forEach(d => d.open = true);
  document.querySelectorAll('.toggle-hidden').forEach(d => d.classList.remove('toggle-hidden'));
  document.querySelectorAll('img[loading]').forEach(i => i.loading = 'eager');
  const cover = document.createElement('section');
  cover.className = 'cover';
  cover.append(document.querySelector('.navbar-brand img').cloneNode(), Object.assign(document.createElement('p'),
    {textContent: document.title}));
  document.querySelector('#jb-print-docs-body').before(cover);
}"""


def main(page: Path, goal: Path) -> None:
    with sync_playwright() as p:
        # None: the one that Playwright installed
        chromium = shutil.which("chromium") or shutil.which("google-chrome")
        browser = p.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu"]
        )
        tab = browser.new_page(color_scheme="light")
        tab.goto(page.resolve().as_uri(), wait_until="load", timeout=120_000)
        tab.evaluate("MathJax.startup.promise")
        tab.evaluate(PREPARE)
        tab.emulate_media(media="print")
        tab.pdf(path=goal, format="A4", outline=True, tagged=True, print_background=True, display_header_footer=True,
                header_template="<span></span>", footer_template=NUMBER,
                margin={"top": "18mm", "bottom": "18mm", "left": "20mm", "right": "20mm"})  # fmt: skip
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
