// The one worker of a page: Pyodide, NumPy and minialex's reference. Messages in: {id, name, args, file?}.
// Messages out: {id, told} as it goes, then {id, result}; {status} while it loads.
let python = null;
let files = 0;

async function start(settings) {
  if (typeof WebAssembly !== "object") throw new Error("this browser has no WebAssembly: use a newer one");
  postMessage({ status: "loading Python, once (17 MB at most)" });
  try {
    importScripts(settings.pyodide + "pyodide.js");
  } catch (error) {
    throw new Error("Python cannot be loaded from " + settings.pyodide + ": is there a network? " +
      "Without one, `minialex docs --pyodide DIR` takes it from a folder of yours");
  }
  const pyodide = await loadPyodide({ indexURL: settings.pyodide });
  postMessage({ status: "loading NumPy" });
  const failures = [];
  await pyodide.loadPackage("numpy", { messageCallback() {}, errorCallback: (text) => failures.push(text) });
  const answer = await fetch(settings.wheel);
  if (!answer.ok) throw new Error("minialex cannot be loaded from " + settings.wheel + " (" + answer.status + ")");
  pyodide.unpackArchive(await answer.arrayBuffer(), "wheel");
  try {
    pyodide.runPython("from minialex.site import live");
  } catch (error) {
    throw new Error(failures[0] || lastLine(error));
  }
  postMessage({ status: "" });
  return pyodide;
}

function lastLine(error) {
  const lines = String(error.message || error).trim().split("\n");
  return lines[lines.length - 1];
}

function toJs(proxy) {
  const value = proxy.toJs({ dict_converter: Object.fromEntries });
  proxy.destroy();
  return value;
}

async function answer(message) {
  python = python || start(message.settings);
  let pyodide;
  try {
    pyodide = await python;
  } catch (error) {
    python = null; // the next press tries again
    throw error;
  }
  const args = { ...message.args };
  let folder = null;
  if (message.file) { // read piece by piece where it lies: it is never in memory as a whole
    folder = "/reader" + files++;
    pyodide.FS.mkdir(folder);
    pyodide.FS.mount(pyodide.FS.filesystems.WORKERFS, { blobs: [{ name: "weights", data: message.file }] }, folder);
    args.weights = folder + "/weights";
  }
  const call = pyodide.runPython("live.call");
  const given = pyodide.toPy(args);
  if (message.name === "network") given.set("tell", (told) => postMessage({ id: message.id, told: toJs(told) }));
  try {
    const result = toJs(call(message.name, given));
    result.memory = pyodide._module.HEAPU8.length; // bytes that Python has taken; it does not give any back
    return result;
  } catch (error) {
    throw new Error(/MemoryError|out of memory|allocation/i.test(String(error))
      ? "the browser gave too little memory: close other pages, or use a smaller network" : lastLine(error));
  } finally {
    given.destroy();
    if (folder) pyodide.FS.unmount(folder);
  }
}

let queue = Promise.resolve();
onmessage = ({ data }) => {
  queue = queue.then(async () => {
    try {
      const result = await answer(data);
      postMessage(result.error ? { id: data.id, error: result.error } : { id: data.id, result });
    } catch (error) {
      postMessage({ id: data.id, error: lastLine(error) });
    }
  });
};
