// The page: which model, which scans, the result. All work is done by worker.js.

import "./viewer.js";

const find = (id) => document.getElementById(id);
const GRADES = { "do not use": "error", "do not trust": "error", caution: "warning", note: "soft" };
let worker;
let asked;
let onProgress = () => {};

/** Asks the worker for one thing at a time; a refusal is thrown. */
function ask(kind, rest = {}) {
  return new Promise((resolve, reject) => {
    asked = (answer) => ("error" in answer ? reject(Object.assign(new Error(answer.error), answer)) : resolve(answer));
    worker.postMessage({ kind, ...rest });
  });
}

function say(text, kind = "soft") {
  find("state").textContent = text;
  find("state").className = kind;
}

/** Does work that a person waits for: says what it is, and its refusal. */
async function during(text, work) {
  say(text);
  for (const control of document.querySelectorAll("input, select, button")) control.disabled = true;
  try {
    await work();
  } catch (error) {
    say(error.message, "error");
  } finally {
    for (const control of document.querySelectorAll("input, select, button")) control.disabled = false;
  }
}

async function startWorker(gpu) {
  worker?.terminate();
  worker = new Worker("worker.js", { type: "module" });
  worker.onmessage = ({ data }) => ("progress" in data ? onProgress(...data.progress) : asked(data));
  worker.onerror = (event) => asked({ error: `worker.js: expected to start, found ${event.message || "an error"}. Load the page again.` });
  await ask("start", { gpu });
}

/** The files of the folder itself, without those of folders in it. */
const ofFolder = (files) => Array.from(files).filter((file) => file.webkitRelativePath.split("/").length === 2);

async function read(file) {
  return { name: file.name, bytes: await file.arrayBuffer() };
}

async function openModel(files) {
  hideResult();
  find("scans").hidden = find("facts").hidden = true;
  const model = await ask("open", { files });
  const { card } = model;
  showFacts([
    ["Model", model.title],
    ["From", model.source.join(", ")],
    ["To", model.target.join(", ")],
    ["Licence", model.licence],
    ...(card.trained_on ? [["Trained on", card.trained_on]] : [["Training", `${card.training_cases} cases`]]),
    ...(card.limits ?? []).map((limit) => ["Limit", limit]),
  ]);
  find("sources").replaceChildren(...model.source.map(sourceControl));
  find("scans").hidden = false;
  say(`Self-test passed. ${model.notice}`, "good");
}

function showFacts(rows) {
  find("facts").replaceChildren(...rows.flatMap(([name, text]) => [element("dt", name), element("dd", text)]));
  find("facts").hidden = false;
}

function element(kind, text, attributes = {}) {
  const made = Object.assign(document.createElement(kind), attributes);
  made.textContent = text;
  return made;
}

function sourceControl(name) {
  const box = element("div", "", { className: "control" });
  box.append(
    element("label", `${name} (NIfTI or MGH)`, { htmlFor: `scan-${name}` }),
    element("input", "", { id: `scan-${name}`, type: "file", accept: ".nii,.gz,.mgz,.mgh" }),
  );
  return box;
}

async function synthesise() {
  hideResult();
  const scans = {};
  if (find("anyway-choice").hidden) find("anyway").checked = false;
  for (const input of find("sources").querySelectorAll("input")) {
    if (input.files.length) scans[input.id.slice("scan-".length)] = await read(input.files[0]);
  }
  const begun = performance.now();
  find("progress").hidden = false;
  find("progress").value = 0;
  onProgress = (done, total) => {
    const seconds = (performance.now() - begun) / 1000;
    find("progress").value = done / total;
    say(`${done} of ${total} steps; about ${Math.ceil((seconds * (total - done)) / Math.max(done, 1))} seconds left.`);
  };
  try {
    const [seed, anyway] = [Math.trunc(find("seed").valueAsNumber), find("anyway").checked];
    showResult(await ask("synthesise", { scans, seed, anyway }));
    say(`Done in ${((performance.now() - begun) / 1000).toFixed(1)} seconds.`, "good");
  } catch (error) {
    find("anyway-choice").hidden = !error.refused;
    throw error;
  } finally {
    find("progress").hidden = true;
  }
}

function hideResult() {
  find("result").hidden = true;
  for (const link of find("downloads").querySelectorAll("a")) URL.revokeObjectURL(link.href);
  for (const item of document.querySelectorAll("[data-images] li")) URL.revokeObjectURL(item.dataset.url);
  find("result").querySelector("[data-viewer]")?.remove();
}

function blob({ bytes }) {
  return URL.createObjectURL(new Blob([bytes]));
}

function showResult({ messages, files, views }) {
  find("messages").replaceChildren(
    ...messages.map(({ grade, text }) => element("p", `${grade}: ${text}`, { className: GRADES[grade] ?? "warning" })),
  );
  find("downloads").replaceChildren(
    ...files.map((file) => element("a", file.name, { href: blob(file), download: file.name, className: "button" })),
  );
  const viewer = find("viewer").content.querySelector("[data-viewer]").cloneNode(true);
  for (const view of views) {
    const item = document.createElement("li");
    Object.assign(item.dataset, { ...view, bytes: "", url: blob(view) });
    viewer.querySelector("[data-images]").append(item);
  }
  find("result").append(viewer);
  find("result").hidden = false;
  document.dispatchEvent(new Event("htmx:load")); // starts the viewer (viewer.js)
}

async function fetched(url) {
  const answer = await fetch(url);
  if (!answer.ok) throw new Error(`${url}: expected a file of this page, found none. Build the page again.`);
  return answer;
}

async function shippedModels() {
  const models = await (await fetched("models.json")).json();
  for (const name of Object.keys(models)) find("shipped").add(new Option(name, name));
  find("shipped-choice").hidden = Object.keys(models).length === 0;
  find("shipped").addEventListener("change", ({ target }) => {
    if (!target.value) return;
    during(`${target.value} is read.`, async () => {
      const files = models[target.value].map(async (name) => {
        const bytes = await (await fetched(`models/${target.value}/${name}`)).arrayBuffer();
        return { name, bytes };
      });
      await openModel(await Promise.all(files));
    });
  });
}

async function hasGraphicsCard() {
  const adapter = await navigator.gpu?.requestAdapter();
  return Boolean(adapter) && !adapter.info?.isFallbackAdapter;
}

find("folder").addEventListener("change", ({ target }) => {
  if (!target.files.length) return;
  during("The model is read, and its self-test is computed.", async () => {
    await openModel(await Promise.all(ofFolder(target.files).map(read)));
  });
});
find("scans").addEventListener("submit", (event) => {
  event.preventDefault();
  during("The scans are read.", synthesise);
});
find("gpu").addEventListener("change", ({ target }) => {
  find("scans").hidden = find("facts").hidden = true;
  find("folder").value = find("shipped").value = "";
  during("Python starts.", async () => {
    await startWorker(target.checked);
    say("Choose the model again.");
  });
});
during("Python starts.", async () => {
  await shippedModels();
  const gpu = await hasGraphicsCard();
  find("gpu-choice").hidden = !navigator.gpu;
  find("gpu").checked = gpu;
  await startWorker(gpu);
  say("Ready.");
});
