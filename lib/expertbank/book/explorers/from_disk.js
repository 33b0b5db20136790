// Where the worker with the library comes from. A page of a server starts it by its address. A page from disk (file://)
// may neither fetch files nor start a worker of one, but it may load scripts: each hands over one file, compressed, as
// text, and the worker, which is text too, is given all of them.
const HANDED = (globalThis.expertbankFiles ??= {});

async function handed(base, name) {
  await new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = `${base}${name}.js`;
    script.onload = resolve;
    const words = `${name} could not be loaded: \`make offline\` makes the book that has it`;
    script.onerror = () => reject(new Error(words));
    document.head.append(script);
  });
  const packed = await fetch(`data:application/gzip;base64,${HANDED[name]}`);
  delete HANDED[name];
  return new Response(packed.body.pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
}

// What a server answers; null where its files are handed over, since a book from disk may also lie on a server.
async function served(address) {
  if (location.protocol === "file:") return null;
  const answer = await fetch(address).catch(() => Response.error());
  return answer.status === 404 ? null : answer;
}

// A file of the site as an ArrayBuffer.
export async function fileOf(base, name) {
  const answer = await served(`${base}${name}`);
  if (!answer) return handed(base, name);
  if (!answer.ok) throw new Error(`${name} could not be loaded (${answer.status || "no answer"})`);
  return answer.arrayBuffer();
}

// `runsCells` also hands over what only cells ask for; a server gives each of these files when a cell opens it.
export async function startWorker(base, runsCells) {
  if (await served(`${base}live.json`)) return new Worker(`${base}worker.mjs`, { type: "module" });
  const text = (content) => new TextDecoder().decode(content);
  const listing = await handed(base, "live.json");
  const { files: listed, later } = JSON.parse(text(listing));
  const places = Object.keys(listed).map((name) => [base, name]);
  if (runsCells) places.push(...later.map((name) => [`${base}later/`, name]));
  const contents = await Promise.all(places.map((place) => handed(...place)));
  const files = Object.fromEntries(places.map(([, name], i) => [name, contents[i]]));
  const source = encodeURIComponent(text(files["worker.mjs"]));
  const worker = new Worker(`data:text/javascript,${source}`, { type: "module" });
  worker.postMessage({ files: { ...files, "live.json": listing } }, [...contents, listing]);
  return worker;
}
