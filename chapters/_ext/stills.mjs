// The pictures that explorers start from, for the page before its script runs: reads [{ packed, width, plain }], writes
// a list of HTML. `node stills.mjs BUNDLE`
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";
import { parseHTML } from "linkedom";

const { build } = await import(pathToFileURL(process.argv[2]));
const { document } = parseHTML("<html><body></body></html>");

function still({ packed, width, plain, live }) {
  const host = document.createElement("div");
  build(host, packed, { width });
  for (const plot of host.querySelectorAll(".explorer-plot")) plot.replaceWith(plot.querySelector(".explorer-svg"));
  // as wide as the live ones, which have a button more where the site has what it loads
  if (live) host.querySelector(".explorer-live").removeAttribute("hidden");
  const gone = plain ? ".explorer-voice, .explorer-dials, .explorer-tools" : ".explorer-voice";
  host.querySelectorAll(gone).forEach((part) => part.remove());
  host.querySelector(".explorer-panels").setAttribute("role", "img");
  // several on a page, and each has parts of its own
  return host.innerHTML.replaceAll("plot-clip-", `clip-${packed.name}-${width}-`);
}

process.stdout.write(JSON.stringify(JSON.parse(readFileSync(0, "utf8")).map(still)));
