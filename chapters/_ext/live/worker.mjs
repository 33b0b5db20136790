// The library itself in the page. As a module worker it is asked { id, ask, explorer, dials }, where `ask` is "dials"
// or "scene", and answers { id, answer } or { id, error }; while it loads it says { progress }, then { ready }, or
// { failed }. Of several scenes asked for while it computes, the last one is answered. Node.js imports `start` alone.
const STAGES = { "pyodide.asm.wasm": "Python", "python_stdlib.zip": "Python", "expertbank.zip": "the library" };

// Whether content has the hash of a listed file; true where a page may not form hashes.
async function isThe(file, content) {
  if (!self.crypto?.subtle || !file) return true;
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", content));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("") === file.sha256;
}

// `fetch` that counts what has arrived, so that a page says how far it is, and tells `fail` which file is not there or
// not the one that the site was built with: Pyodide would wait for some of them for ever. The folder's name is a hash of
// what is in it, so what the browser has is taken however old it is; if that is not the file, it is asked for anew.
function counting(plain, files, report, fail) {
  const total = Object.values(files).reduce((sum, { bytes }) => sum + bytes, 0);
  let arrived = 0;
  self.fetch = async (address, options) => {
    const name = String(address.url ?? address).split("/").pop();
    const what = STAGES[name] ?? name.split("-")[0];
    const count = () =>
      new TransformStream({
        transform(chunk, controller) {
          arrived += chunk.length;
          report({ what, arrived: Math.min(arrived, total), total });
          controller.enqueue(chunk);
        },
      });
    let why = "";
    for (const cache of ["force-cache", "reload"]) {
      const before = arrived;
      const answer = await plain(address, { ...options, cache }).catch(() => null);
      if (answer?.ok) {
        const content = await new Response(answer.body.pipeThrough(count())).arrayBuffer();
        const { status, headers } = answer;
        if (await isThe(files[name], content)) return new Response(content, { status, headers });
        why = "is not the file that this site was built with";
      } else why = `could not be loaded${answer ? ` (${answer.status})` : ""}`;
      arrived = before;
    }
    fail(`${name} ${why}`);
    throw new Error(name);
  };
}

// Python with NumPy, SciPy and the library, from the folder `base`; `read` gives a file of it as an ArrayBuffer, `at` the
// address of a module of it.
export async function start(base, read, report, at = (name) => base + name) {
  const modules = ["pyodide.mjs", "pyodide.asm.mjs"].map((name) => import(at(name)));
  const [{ loadPyodide }, { default: createPyodideModule }] = await Promise.all(modules);
  const pyodide = await loadPyodide({ indexURL: base, createPyodideModule });
  const done = await pyodide.loadPackage(["numpy", "scipy"], { messageCallback: () => {} });
  const missing = ["numpy", "scipy"].find((name) => !done.some((loaded) => loaded.name === name));
  if (missing) throw new Error(`${missing} could not be loaded, or is not the file that it must be`);
  try {
    pyodide.unpackArchive(await read("expertbank.zip"), "zip", { extractDir: "/lib/python3.14/site-packages" });
  } catch (error) {
    throw new Error(`expertbank.zip is damaged (${error.message.trim().split("\n").pop()})`);
  }
  report({ what: "starting" });
  return pyodide;
}

// The answer to one question, as JSON text.
export function answer(pyodide, { ask, explorer, dials }) {
  let live = null;
  try {
    live = pyodide.pyimport("expertbank.book.explorers.live");
    return ask === "dials" ? live.dials_of(explorer) : live.scene_of(explorer, JSON.stringify(dials));
  } catch (error) {
    // the last line of a traceback says what was wrong
    const last = error.message.trim().split("\n").pop();
    throw new Error(last.replace(/^\w+(\.\w+)*: /, ""));
  } finally {
    live?.destroy();
  }
}

// Where the files are: in the folder of this module, or, where it is text and has no address, with the page from disk
// that hands them over.
function inFolder() {
  const base = new URL("./", import.meta.url).href;
  return { base, plain: self.fetch.bind(self), at: (name) => base + name };
}

function handedOver(files) {
  const plain = async (address) => {
    const name = String(address).split("/").pop();
    const type = name.endsWith(".wasm") ? "application/wasm" : "application/octet-stream";
    return new Response(files[name], { status: name in files ? 200 : 404, headers: { "Content-Type": type } });
  };
  const at = (name) => URL.createObjectURL(new Blob([files[name]], { type: "text/javascript" }));
  return { base: "file:///", plain, at };
}

async function serve() {
  let base = "";
  const waiting = new Map();
  let pyodide = null;
  let failed = false;
  const fail = (words) => {
    if (!failed) postMessage({ failed: words });
    failed = true;
  };
  const next = () => {
    const [key, asked] = waiting.entries().next().value ?? [];
    if (!pyodide || !asked) return;
    waiting.delete(key);
    try {
      postMessage({ id: asked.id, answer: answer(pyodide, asked) });
    } catch (error) {
      postMessage({ id: asked.id, error: error.message });
    }
    // questions that came meanwhile are heard first
    setTimeout(next);
  };
  self.addEventListener("unhandledrejection", ({ reason }) => pyodide || fail(String(reason?.message ?? reason)));
  let give = null;
  const given = new Promise((resolve) => (give = resolve));
  self.onmessage = ({ data }) => {
    if (data.files) return give(data.files);
    const key = `${data.ask} ${data.explorer}`;
    waiting.delete(key);
    waiting.set(key, data);
    setTimeout(next);
  };
  try {
    const source = import.meta.url.startsWith("data:") ? handedOver(await given) : inFolder();
    const { plain, at } = source;
    base = source.base;
    const listed = await plain(`${base}live.json`);
    if (!listed.ok) throw new Error(`live.json could not be loaded (${listed.status})`);
    const report = (progress) => postMessage({ progress });
    counting(plain, (await listed.json()).files, report, fail);
    const read = async (name) => (await fetch(base + name)).arrayBuffer();
    pyodide = await start(base, read, report, at);
    postMessage({ ready: true });
    next();
  } catch (error) {
    fail(error.message.trim().split("\n").pop());
  }
}

if (typeof WorkerGlobalScope === "function") serve();
