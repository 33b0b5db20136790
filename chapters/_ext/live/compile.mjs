// Byte-compiles a folder of Python in the very Python that the page runs: `node compile.mjs PYODIDE FOLDER PLACE`.
// PLACE is where the files will lie; a last argument `beside` puts byte code where it is found without its source. The
// same sources give the same bytes.
import { pathToFileURL } from "node:url";

const [, , core, folder, place, beside] = process.argv;
const { loadPyodide } = await import(pathToFileURL(`${core}/pyodide.mjs`));
const pyodide = await loadPyodide({ indexURL: core, env: { PYTHONHASHSEED: "0" } });
pyodide.FS.mkdirTree("/work");
pyodide.FS.mount(pyodide.FS.filesystems.NODEFS, { root: folder }, "/work");
pyodide.globals.set("place", place);
pyodide.globals.set("legacy", Boolean(beside));
pyodide.runPython(`
import compileall
from py_compile import PycInvalidationMode

done = compileall.compile_dir("/work", maxlevels=20, quiet=1, stripdir="/work", prependdir=place,
                              legacy=legacy, invalidation_mode=PycInvalidationMode.UNCHECKED_HASH)
assert done, "a module does not compile"
`);
process.exit(0);
