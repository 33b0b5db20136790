// A click on the button of a figure shows it as large as the window.
"use strict";

for (const button of document.querySelectorAll(".figure-forms .enlarge")) {
  button.addEventListener("click", () => {
    const shown = [...button.parentElement.querySelectorAll("svg")].find((svg) => svg.getClientRects().length);
    const dialog = document.createElement("dialog");
    dialog.className = "figure-dialog";
    const close = document.createElement("button");
    close.type = "button";
    close.textContent = "Close";
    close.addEventListener("click", () => dialog.close());
    dialog.append(close, shown.cloneNode(true));
    dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
    dialog.addEventListener("close", () => dialog.remove());
    document.body.append(dialog);
    dialog.setAttribute("aria-label", shown.getAttribute("aria-label"));
    dialog.showModal();
  });
}
