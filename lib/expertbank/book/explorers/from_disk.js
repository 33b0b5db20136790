// Where the worker with the library comes from. A page of a server starts it by its address. A page from disk (file://)
// may neither fetch files nor start a worker of one, but it may load scripts: each hands over one file, compressed, as
// text, and the worker, which is text too, is given all of them.
const HANDED = (globalThis.expertbankFiles = {});

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

async function isServed(base) {
  if (location.protocol === "file:") return false;
  const listing = await fetch(`${base}live.json`).catch(() => null);
  // a book from disk may also lie on a server
  return listing?.status !== 404;
}

export async function startWorker(base) {
  if (await isServed(base)) return new Worker(`${base}worker.mjs`, { type: "module" });
  const text = (content) => new TextDecoder().decode(content);
  const listing = await handed(base, "live.json");
  const names = Object.keys(JSON.parse(text(listing)).files);
  const contents = await Promise.all(names.map((name) => handed(base, name)));
  const files = Object.fromEntries(names.map((name, i) => [name, contents[i]]));
  const source = encodeURIComponent(text(files["worker.mjs"]));
  const worker = new Worker(`data:text/javascript,${source}`, { type: "module" });
  worker.postMessage({ files: { ...files, "live.json": listing } }, [...contents, listing]);
  return worker;
}
