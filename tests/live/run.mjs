// The page's own Python under Node.js: `node run.mjs WORKER BASE` reads { questions } and writes their answers, reads
// { books }, lists of cells, and writes what each cell answers, or reads { folder, code } and runs the code with the
// folder at /work. WORKER is the module of the page's worker.
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const [, , worker, base] = process.argv;
const { answer, start, withCells } = await import(pathToFileURL(worker));
const { questions, books, folder, code } = JSON.parse(readFileSync(0, "utf8"));
const say = (text) => process.stdout.write(text);
try {
  const pyodide = await start(base, async (name) => readFileSync(base + name).buffer, () => {});
  if (questions) {
    say(JSON.stringify(questions.map((asked) => JSON.parse(answer(pyodide, asked)))));
  } else if (books) {
    const { later } = JSON.parse(readFileSync(`${base}live.json`, "utf8"));
    const lay = (folder, name, place) =>
      pyodide.FS.writeFile(`${folder}/${name}`, readFileSync(`${base}later/${place}`));
    withCells(pyodide, later, lay, () => {});
    const { Notebook } = pyodide.pyimport("expertbank.book.cells");
    const run = (notebook) => (code, i) => {
      const from = process.cpuUsage();
      const answered = JSON.parse(answer(pyodide, { ask: "run", code, label: `cell ${i + 1}` }, notebook));
      const { user, system } = process.cpuUsage(from);
      return { ...answered, seconds: (user + system) / 1e6 };
    };
    say(JSON.stringify(books.map((cells) => cells.map(run(Notebook(() => {}))))));
  } else {
    pyodide.setStdout({ batched: (line) => say(`${line}\n`) });
    pyodide.FS.mkdirTree("/work");
    pyodide.FS.mount(pyodide.FS.filesystems.NODEFS, { root: folder }, "/work");
    process.exitCode = await pyodide.runPythonAsync(code);
  }
} catch (error) {
  process.stderr.write(error.message);
  process.exitCode = 3;
}
