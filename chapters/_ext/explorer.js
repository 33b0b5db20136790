// What the widget manager leaves out for those who do not see the picture: names and spoken values of sliders,
// and the numbers of the chosen frame read out when they change.
"use strict";

// the manager hands every label to MathJax 2, which is not here; labels of explorers hold no formulas
if (window.MathJax) window.MathJax.Hub = { Queue() {} };

function describeSlider(slider) {
  const handle = slider.querySelector(".noUi-handle, .slider-handle, [role=slider]");
  const label = slider.querySelector(".widget-label");
  const readout = slider.querySelector(".widget-readout");
  if (!handle || handle.dataset.described) return;
  handle.dataset.described = "true";
  handle.setAttribute("aria-label", label.textContent);
  const speak = () => {
    if (handle.getAttribute("aria-valuetext") !== readout.textContent)
      handle.setAttribute("aria-valuetext", readout.textContent);
  };
  new MutationObserver(speak).observe(readout, { childList: true, characterData: true, subtree: true });
  new MutationObserver(speak).observe(handle, { attributeFilter: ["aria-valuetext"] });
  speak();
}

function describe(explorer) {
  explorer.querySelectorAll(".widget-slider").forEach(describeSlider);
  const frames = explorer.querySelector(".explorer-frames");
  if (frames) frames.setAttribute("role", "status");
}

for (const explorer of document.querySelectorAll(".explorer")) {
  new MutationObserver(() => describe(explorer)).observe(explorer, { childList: true, subtree: true });
}
