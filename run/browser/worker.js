// Computes in the background: Python (Pyodide) runs voxlate itself, onnxruntime-web computes the graph of the model.

import { loadPyodide } from "./pyodide/pyodide.mjs";
import * as ort from "./onnxruntime-web/ort.jspi.min.mjs";

let python;

async function start({ gpu }) {
  if (!("Suspending" in WebAssembly)) {
    throw new Error("Browser: expected one in which WebAssembly can wait for a promise (Chrome and Edge from 137), found another. Use such a browser, or voxlate synth.");
  }
  ort.env.wasm.wasmPaths = new URL("./onnxruntime-web/", self.location.href).href;
  // Threads need memory that workers share, which a browser allows where the server isolates the page (voxlate serve does).
  ort.env.wasm.numThreads = self.crossOriginIsolated ? navigator.hardwareConcurrency : 1;
  ort.env.logLevel = "error";
  self.ort_version = ort.env.versions.web;
  self.open_graph = (bytes) => ort.InferenceSession.create(bytes, { executionProviders: gpu ? ["webgpu", "wasm"] : ["wasm"] });
  self.compute = compute;
  python = await loadPyodide();
  await python.loadPackage(["scipy"]);
  for (const name of await (await fetch("wheels.json")).json()) {
    python.unpackArchive(await (await fetch(`wheels/${name}`)).arrayBuffer(), "wheel");
  }
  for (const name of ["onnxruntime.py", "pydantic.py", "pydantic_core.py", "page.py"]) {
    python.FS.writeFile(name, await (await fetch(name)).text());
  }
  await python.runPythonAsync("import page");
  return {};
}

async function compute(session, given, names) {
  const inputs = given.map(([name, kind, values, shape]) => [name, new ort.Tensor(kind, values, shape)]);
  const outputs = await session.run(Object.fromEntries(inputs), names);
  return names.map((name) => outputs[name]);
}

async function open({ files }) {
  clear("/model");
  put("/model", files);
  return JSON.parse(await python.runPythonAsync("page.open_model()"));
}

async function synthesise({ scans, seed, anyway }) {
  clear("/scans");
  for (const [name, file] of Object.entries(scans)) put(`/scans/${name}`, [file]);
  python.globals.set("report", (done, total) => self.postMessage({ progress: [done, total] }));
  const done = JSON.parse(await python.runPythonAsync(`page.synthesise(${seed}, report, ${anyway ? "True" : "False"})`));
  if (done.error) return done;
  const files = done.files.map((path) => ({ name: path.split("/").pop(), bytes: python.FS.readFile(path) }));
  const views = done.views.map((view) => ({ ...view, bytes: python.FS.readFile(view.file) }));
  return { ...done, files, views };
}

function put(folder, files) {
  python.FS.mkdirTree(folder);
  for (const { name, bytes } of files) python.FS.writeFile(`${folder}/${name}`, new Uint8Array(bytes));
}

function clear(folder) {
  python.runPython(`import shutil; shutil.rmtree("${folder}", ignore_errors=True)`);
  python.FS.mkdirTree(folder);
}

const answers = { start, open, synthesise };

self.onmessage = async ({ data }) => {
  try {
    self.postMessage(await answers[data.kind](data));
  } catch (error) {
    self.postMessage({ error: `${error.message ?? error}` });
  }
};
