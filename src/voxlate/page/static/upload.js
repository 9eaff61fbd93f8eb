// Uploads by drag and drop, of files, folders and zips, with the progress of the transfer.
//
// Without this script the form is an ordinary one and the browser sends it itself. Every part carries the path inside the
// dropped folder as its file name, because a folder of DICOM slices is recognised by its files and not by one of them.

function megabytes(bytes) {
  return `${(bytes / 1e6).toFixed(1)} MB`;
}

function chosenFiles(form) {
  const inputs = Array.from(form.querySelectorAll('input[type="file"]'));
  return inputs.flatMap((input) => Array.from(input.files, (file) => ({
    file,
    path: file.webkitRelativePath || file.name,
  })));
}

function readEntries(reader) {
  return new Promise((resolve, reject) => reader.readEntries(resolve, reject));
}

function fileOf(entry) {
  return new Promise((resolve, reject) => entry.file(resolve, reject));
}

/** All files at or below a dropped entry, with their paths. */
async function filesBelow(entry, folder = "") {
  const path = folder + entry.name;
  if (entry.isFile) return [{ file: await fileOf(entry), path }];
  const reader = entry.createReader();
  const found = [];
  // A reader hands out a folder in pieces of at most 100 entries, and an empty piece at the end.
  for (let entries = await readEntries(reader); entries.length > 0; entries = await readEntries(reader)) {
    for (const below of entries) found.push(...await filesBelow(below, `${path}/`));
  }
  return found;
}

async function droppedFiles(transfer) {
  // The entries must be taken before the first await: the browser empties the list of items afterwards.
  const entries = Array.from(transfer.items, (item) => item.webkitGetAsEntry()).filter((entry) => entry !== null);
  const found = [];
  for (const entry of entries) found.push(...await filesBelow(entry));
  return found;
}

function progressOf(form) {
  const box = document.createElement("div");
  box.className = "upload-progress";
  const bar = document.createElement("progress");
  bar.max = 1;
  bar.value = 0;
  bar.setAttribute("aria-label", "Upload");
  const text = document.createElement("p");
  text.setAttribute("role", "status");
  const cancel = document.createElement("button");
  cancel.type = "button";
  cancel.textContent = "Cancel the upload";
  box.append(bar, text, cancel);
  form.append(box);
  return { box, bar, text, cancel };
}

function showProblem(form, sentence) {
  form.querySelector(".upload-problem")?.remove();
  const problem = document.createElement("p");
  problem.className = "error upload-problem";
  problem.setAttribute("role", "alert");
  problem.textContent = sentence;
  form.append(problem);
}

/** The sentence of an answer that refuses: the element .error of a page, or the plain text. */
function refusal(request) {
  const type = request.getResponseHeader("Content-Type") ?? "";
  const text = request.responseText;
  if (type.includes("html")) {
    const error = new DOMParser().parseFromString(text, "text/html").querySelector(".error");
    return error?.textContent.trim() ?? `The upload was refused (${request.status}).`;
  }
  return text.trim() || `The upload was refused (${request.status}).`;
}

function bodyOf(form, files) {
  const body = new FormData();
  for (const field of form.querySelectorAll("input:not([type=file]), select, textarea")) {
    if (field.name && (field.checked || !["checkbox", "radio"].includes(field.type))) body.append(field.name, field.value);
  }
  const { name } = form.querySelector('input[type="file"]');
  for (const { file, path } of files) body.append(name, file, path);
  return body;
}

function send(form, files) {
  form.querySelector(".upload-problem")?.remove();
  if (files.length === 0) {
    showProblem(form, "No file is chosen: choose a NIfTI file, a zip or a folder of DICOM files.");
    return;
  }
  const submit = form.querySelector('[type="submit"]');
  const progress = progressOf(form);
  const request = new XMLHttpRequest();
  const finish = (sentence) => {
    submit.disabled = false;
    progress.box.remove();
    if (sentence) showProblem(form, sentence);
  };
  submit.disabled = true;
  progress.text.textContent = `Uploading ${files.length} ${files.length === 1 ? "file" : "files"}.`;
  progress.cancel.addEventListener("click", () => request.abort());
  request.upload.addEventListener("progress", ({ loaded, total }) => {
    progress.bar.value = loaded / total;
    progress.text.textContent = loaded < total
      ? `Uploading: ${megabytes(loaded)} of ${megabytes(total)}.`
      : "The upload is complete; the files are being read.";
  });
  request.addEventListener("load", () => {
    if (request.status < 400) window.location.assign(request.responseURL);
    else finish(refusal(request));
  });
  request.addEventListener("abort", () => finish("The upload was cancelled."));
  request.addEventListener("error", () => finish("The connection to voxlate broke; check that it is still running and upload again."));
  request.open("POST", form.action);
  request.send(bodyOf(form, files));
}

function prepare(form) {
  form.dataset.started = "true";
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    send(form, chosenFiles(form));
  });
  const target = form.querySelector(".drop") ?? form;
  const over = (inside) => (event) => {
    event.preventDefault();
    target.classList.toggle("over", inside);
  };
  target.addEventListener("dragenter", over(true));
  target.addEventListener("dragover", over(true));
  target.addEventListener("dragleave", over(false));
  target.addEventListener("drop", async (event) => {
    over(false)(event);
    try {
      send(form, await droppedFiles(event.dataTransfer));
    } catch (error) {
      showProblem(form, `A dropped file cannot be read (${error.message}); choose it with the button instead.`);
    }
  });
}

function startAll() {
  for (const form of document.querySelectorAll("form[data-upload]:not([data-started])")) prepare(form);
}

// A file that misses the target must not replace the page.
for (const name of ["dragover", "drop"]) {
  window.addEventListener(name, (event) => event.preventDefault());
}

startAll();
document.addEventListener("htmx:load", startAll);
