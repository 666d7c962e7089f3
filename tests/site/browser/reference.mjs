// node reference.mjs PYODIDE_FOLDER WHEEL REQUESTS.json: runs minialex.site.live in Pyodide, prints the results as JSON.
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";
const [folder, wheel, requests] = process.argv.slice(2);
const { loadPyodide } = await import(pathToFileURL(folder + "/pyodide.mjs").href);
const pyodide = await loadPyodide({ indexURL: folder });
await pyodide.loadPackage("numpy", { messageCallback() {} });
pyodide.unpackArchive(new Uint8Array(readFileSync(wheel)).buffer, "wheel");
pyodide.globals.set("requests", readFileSync(requests, "utf8"));
console.log(pyodide.runPython(`
import json, time
begin = time.perf_counter()
import numpy as np
from minialex.site import live
took = time.perf_counter() - begin
def plain(x):
    if isinstance(x, dict): return {k: plain(v) for k, v in x.items()}
    return x.tolist() if isinstance(x, np.ndarray) else x
told = []
results = []
for r in json.loads(requests):
    if r["name"] == "network":
        r["args"]["tell"] = lambda t: told.append([t["layer"], t["seconds"], t["weights_seconds"]])
    results.append(plain(live.call(r["name"], r["args"])))
json.dumps({"import_seconds": took, "results": results, "told": told})
`));
