// The library itself in the page. As a module worker it is asked { id, ask, explorer, dials }, where `ask` is "dials"
// or "scene", and answers { id, answer } or { id, error }; while it loads it says { progress }, then { ready }, or
// { failed }. Of several scenes asked for while it computes, the last one is answered. Asked { id, ask: "run", code,
// label } it runs a cell, says { id, kind, text } of what that prints and shows, and answers; an `explorer` that is a
// number is one that a cell has shown. Asked { id, ask: "own", method, args, file } it answers about a reader's own
// table. Node.js imports `start`, `answer` and `withCells`.
const PACKAGES = "/lib/python3.14/site-packages";
const STAGES = { "pyodide.asm.wasm": "Python", "python_stdlib.zip": "Python", "expertbank.zip": "the library" };

// Whether content has the hash of a listed file; true where a page may not form hashes.
async function isThe(file, content) {
  if (!self.crypto?.subtle || !file) return true;
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", content));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("") === file.sha256;
}

// `fetch` that counts what has arrived, so that a page says how far it is, and tells `fail` which file is not there or
// not the one that the site was built with: Pyodide would wait for some of them for ever. The folder's name is a hash
// of what is in it, so what the browser has is taken however old it is; if that is not the file, it is asked for anew.
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

// Python with NumPy, SciPy and the library, from the folder `base`; `read` gives a file of it as an ArrayBuffer, `at`
// the address of a module of it.
export async function start(base, read, report, at = (name) => base + name) {
  const modules = ["pyodide.mjs", "pyodide.asm.mjs"].map((name) => import(at(name)));
  const [{ loadPyodide }, { default: createPyodideModule }] = await Promise.all(modules);
  const pyodide = await loadPyodide({ indexURL: base, createPyodideModule });
  const done = await pyodide.loadPackage(["numpy", "scipy"], { messageCallback: () => {} });
  const missing = ["numpy", "scipy"].find((name) => !done.some((loaded) => loaded.name === name));
  if (missing) throw new Error(`${missing} could not be loaded, or is not the file that it must be`);
  try {
    pyodide.unpackArchive(await read("expertbank.zip"), "zip", { extractDir: PACKAGES });
  } catch (error) {
    throw new Error(`expertbank.zip is damaged (${error.message.trim().split("\n").pop()})`);
  }
  report({ what: "starting" });
  return pyodide;
}

// What runs cells; `write` hears what they print. `lay` puts a file of `later` where a cell may open it.
export function withCells(pyodide, later, lay, write) {
  const goal = `${PACKAGES}/expertbank/shipped`;
  for (const place of later) {
    const [name, ...folders] = `${goal}/${place}`.split("/").reverse();
    const folder = folders.reverse().join("/");
    pyodide.FS.mkdirTree(folder);
    lay(folder, name, place);
  }
  const cells = pyodide.pyimport("expertbank.book.cells");
  cells.find_rest(`${goal}/scipy-rest.zip`, PACKAGES);
  return cells.Notebook(write);
}

// What "Your own experts" asks: a method of its session in Python, with a file that lies in the memory of this worker.
let session = null;
function own(pyodide, { method, args: given, file }, say) {
  // what is undefined is None there
  const args = given.map((value) => value ?? undefined);
  session ??= pyodide.pyimport("expertbank.book.your_table.session").Session((words) => say("step", words));
  pyodide.FS.mkdirTree("/own");
  pyodide.FS.chdir("/own");
  if (!file) return session[method](...args);
  pyodide.FS.writeFile(file.name, new Uint8Array(file.content), { canOwn: true });
  try {
    return session[method](file.name, ...args);
  } finally {
    pyodide.FS.unlink(file.name);
  }
}

function respond(pyodide, notebook, { ask, explorer, dials, code, label, ...question }, say) {
  if (ask === "run") return notebook.run(code, label);
  if (ask === "own") return own(pyodide, question, say);
  if (typeof explorer === "number") return notebook.scene(explorer, JSON.stringify(dials));
  const live = pyodide.pyimport("expertbank.book.explorers.live");
  try {
    return ask === "dials" ? live.dials_of(explorer) : live.scene_of(explorer, JSON.stringify(dials));
  } finally {
    live.destroy();
  }
}

// The answer to one question, as JSON text; `notebook` is what `withCells` gives, and `say` hears what comes before it.
export function answer(pyodide, question, notebook, say) {
  try {
    return respond(pyodide, notebook, question, say);
  } catch (error) {
    // the last line of a traceback says what was wrong
    const last = error.message.trim().split("\n").pop();
    throw new Error(last.replace(/^\w+(\.\w+)*: /, ""));
  }
}

// Where the files are: in the folder of this module, or, where it is text and has no address, with the page from disk
// that hands them over.
function inFolder() {
  const base = new URL("./", import.meta.url).href;
  // it is loaded when a cell opens it
  const lay = (FS, folder, name, place) => FS.createLazyFile(folder, name, `${base}later/${place}`, true, false);
  return { base, plain: self.fetch.bind(self), at: (name) => base + name, lay };
}

function handedOver(files) {
  const plain = async (address) => {
    const name = String(address).split("/").pop();
    const type = name.endsWith(".wasm") ? "application/wasm" : "application/octet-stream";
    return new Response(files[name], { status: name in files ? 200 : 404, headers: { "Content-Type": type } });
  };
  const at = (name) => URL.createObjectURL(new Blob([files[name]], { type: "text/javascript" }));
  const lay = (FS, folder, name, place) => FS.writeFile(`${folder}/${name}`, new Uint8Array(files[place]));
  return { base: "file:///", plain, at, lay };
}

async function serve() {
  let source = null;
  const waiting = new Map();
  let pyodide = null;
  let notebook = null;
  let later = [];
  let now = 0;
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
      const write = (kind, text) => postMessage({ id: now, kind, text });
      const lay = (...given) => source.lay(pyodide.FS, ...given);
      if (asked.ask === "run") notebook ??= withCells(pyodide, later, lay, write);
      now = asked.id;
      postMessage({ id: asked.id, answer: answer(pyodide, asked, notebook, write) });
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
    const key = ["run", "own"].includes(data.ask) ? data.id : `${data.ask} ${data.explorer}`;
    waiting.delete(key);
    waiting.set(key, data);
    setTimeout(next);
  };
  try {
    source = import.meta.url.startsWith("data:") ? handedOver(await given) : inFolder();
    const { base, plain, at } = source;
    const listed = await plain(`${base}live.json`);
    if (!listed.ok) throw new Error(`live.json could not be loaded (${listed.status})`);
    const report = (progress) => postMessage({ progress });
    const list = await listed.json();
    later = list.later;
    counting(plain, list.files, report, fail);
    const read = async (name) => (await fetch(base + name)).arrayBuffer();
    pyodide = await start(base, read, report, at);
    postMessage({ ready: true });
    next();
  } catch (error) {
    fail(error.message.trim().split("\n").pop());
  }
}

if (typeof WorkerGlobalScope === "function") serve();
