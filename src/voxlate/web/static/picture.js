// Pointer, wheel and keys on the picture of a viewer.

import { VIEWS } from "./slices.js";

// For each view: the axis across the picture and the one down. A step along an axis is one towards the patient's right,
// front or head, which is left or up in every picture.
const ACROSS_AND_DOWN = { axial: [0, 1], coronal: [0, 2], sagittal: [1, 2], all: [0, 1] };
const PAGE = 10;
const BLEND_STEP = 5;
const WHEEL_PIXELS = 30; // a notch of a wheel is about 100, one event of a touch pad a few
const LINE_PIXELS = 16; // where a browser counts in lines

export function clamp(value, low, high) {
  return Math.min(high, Math.max(low, value));
}

export function listenToPicture(viewer) {
  const { canvas, slices } = viewer;

  function point(event) {
    const place = slices.under(event);
    if (place === null) return;
    slices.moveToFraction(place.fraction);
    viewer.showSlice();
  }

  canvas.addEventListener("pointerdown", point);
  canvas.addEventListener("pointermove", (event) => {
    if (event.pointerType === "mouse" && event.buttons === 1) {
      point(event);
      return;
    }
    const place = slices.under(event);
    if (place !== null) viewer.showValues(slices.millimetres(place.fraction), "Values under the pointer");
  });
  canvas.addEventListener("pointerleave", () => viewer.showValues(slices.millimetres(), "Values at the crosshair"));
  let turned = 0;
  canvas.addEventListener("wheel", (event) => {
    const place = slices.under(event);
    if (place === null || event.ctrlKey) return;
    event.preventDefault();
    const delta = event.deltaY * (event.deltaMode === WheelEvent.DOM_DELTA_LINE ? LINE_PIXELS : 1);
    turned = Math.sign(delta) === Math.sign(turned) ? turned + delta : delta;
    if (Math.abs(turned) < WHEEL_PIXELS) return;
    viewer.step(turned < 0 ? 1 : -1, place.axis);
    turned = 0;
  }, { passive: false });
  canvas.addEventListener("keydown", (event) => onKey(viewer, event));
}

function onKey(viewer, event) {
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  const { slices } = viewer;
  const [across, down] = ACROSS_AND_DOWN[slices.view()];
  const actions = {
    ArrowUp: () => viewer.step(1),
    ArrowDown: () => viewer.step(-1),
    PageUp: () => viewer.step(PAGE),
    PageDown: () => viewer.step(-PAGE),
    Home: () => viewer.goTo(0),
    End: () => viewer.goTo(slices.count(slices.axis()) - 1),
    ArrowLeft: () => viewer.setBlend(viewer.blend - BLEND_STEP),
    ArrowRight: () => viewer.setBlend(viewer.blend + BLEND_STEP),
    a: () => viewer.step(1, across),
    d: () => viewer.step(-1, across),
    w: () => viewer.step(1, down),
    s: () => viewer.step(-1, down),
    m: () => viewer.toggleMap(),
  };
  Object.keys(VIEWS).forEach((view, index) => {
    actions[String(index + 1)] = () => viewer.setView(view);
  });
  const action = actions[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (action === undefined) return;
  event.preventDefault();
  action();
}
