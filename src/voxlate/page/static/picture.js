// Pointers, wheel and keys on the pictures of a viewer.

import { IN_PLANE, VIEWS } from "./slices.js";

const PAGE = 10;
const STRENGTH_STEP = 5;
const ZOOM_STEP = 1.25;
const WHEEL_PIXELS = 30; // a notch of a wheel is about 100, one event of a touch pad a few
const LINE_PIXELS = 16; // where a browser counts in lines
const SLICE_PIXELS = 12; // of a drag through slices
const CLICK_PIXELS = 4; // a shorter drag is a click
const FINE = 50; // a narrower window has ends between whole numbers
const WINDOW_PIXELS = 250; // of a drag that changes a window by its own width

export function clamp(value, low, high) {
  return Math.min(high, Math.max(low, value));
}

/** A drag by the chosen tool; from: the point at its start. Each is called with the event and the way in pixels. */
const TOOLS = {
  window(viewer, pane) {
    const { image, fused, low, high } = viewer.windowIn(pane);
    const step = (high - low) / WINDOW_PIXELS;
    return (event, across, down) => {
      const width = Math.max((high - low) + across * step, step);
      const level = (low + high) / 2 + down * step; // upwards is brighter
      const ends = [level - width / 2, level + width / 2];
      viewer.setWindow(image, fused, width < FINE ? ends : ends.map(Math.round));
    };
  },
  move(viewer, { slices }) {
    return (event) => {
      const former = slices.under({ clientX: event.clientX - event.movementX, clientY: event.clientY - event.movementY });
      const here = slices.under(event);
      if (former && here) viewer.setFrame(slices.panned(former.fraction, here.fraction));
    };
  },
  slices(viewer, { slices }, { axis }) {
    const first = slices.voxel()[axis];
    return (event, across, down) => viewer.goTo(first - Math.round(down / SLICE_PIXELS), axis);
  },
  distance: (viewer, pane, from) => measuring("distance", viewer, pane, from),
  region: (viewer, pane, from) => measuring("region", viewer, pane, from),
};

function measuring(kind, viewer, { slices }, { fraction, axis }) {
  const from = slices.millimetres(fraction);
  let measure = null;
  return (event) => {
    const place = slices.under(event);
    if (place === null || place.axis !== axis) return;
    measure ??= viewer.addMeasure(kind, axis, from, slices.lower());
    viewer.endMeasure(measure, slices.millimetres(place.fraction));
  };
}

// The right button changes the window and the middle one moves the picture, whatever the tool is.
function toolOf(viewer, event) {
  if (event.pointerType !== "mouse" || event.button === 0) return TOOLS[viewer.tool];
  return event.button === 1 ? TOOLS.move : TOOLS.window;
}

export function listenToPicture(viewer, pane) {
  const { slices } = pane;
  const { canvas } = slices;
  const pointers = new Map();
  let drag = null;

  // Two fingers zoom about the point between them, and move it.
  function pinch(event) {
    const [one, other] = [...pointers.values()];
    const middle = (a, b) => ({ clientX: (a.clientX + b.clientX) / 2, clientY: (a.clientY + b.clientY) / 2 });
    const apart = (a, b) => Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY);
    const still = pointers.get(event.pointerId) === one ? other : one;
    const former = pointers.get(event.pointerId);
    const from = slices.under(middle(former, still));
    const to = slices.under(middle(event, still));
    if (from && to) viewer.setFrame(slices.panned(from.fraction, to.fraction));
    if (from) viewer.setFrame(slices.zoomed(apart(event, still) / Math.max(apart(former, still), 1), from.fraction));
  }

  canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  canvas.addEventListener("pointerdown", (event) => {
    const from = slices.under(event);
    pointers.set(event.pointerId, event);
    canvas.setPointerCapture(event.pointerId);
    if (event.button === 1) event.preventDefault(); // no scrolling by the middle button
    drag = from && pointers.size === 1
      ? { from, x: event.clientX, y: event.clientY, moved: false, work: toolOf(viewer, event)(viewer, pane, from) }
      : null;
  });
  canvas.addEventListener("pointermove", (event) => {
    if (pointers.size === 2 && pointers.has(event.pointerId)) pinch(event);
    if (pointers.has(event.pointerId)) pointers.set(event.pointerId, event);
    if (drag !== null) {
      const [across, down] = [event.clientX - drag.x, event.clientY - drag.y];
      drag.moved ||= Math.hypot(across, down) >= CLICK_PIXELS;
      if (drag.moved) drag.work(event, across, down);
    }
    const place = slices.under(event);
    if (place !== null) viewer.showValues(slices.millimetres(place.fraction), "Values under the pointer");
  });
  const lift = (event) => {
    pointers.delete(event.pointerId);
    if (drag !== null && !drag.moved && event.type === "pointerup") viewer.moveTo(slices.millimetres(drag.from.fraction));
    drag = null;
  };
  canvas.addEventListener("pointerup", lift);
  canvas.addEventListener("pointercancel", lift);
  canvas.addEventListener("pointerleave", () => viewer.showValues(viewer.millimetres(), "Values at the crosshair"));
  let turned = 0;
  canvas.addEventListener("wheel", (event) => {
    const place = slices.under(event);
    if (place === null) return;
    event.preventDefault();
    const delta = event.deltaY * (event.deltaMode === WheelEvent.DOM_DELTA_LINE ? LINE_PIXELS : 1);
    if (event.ctrlKey) { // also two fingers on a touch pad
      viewer.setFrame(slices.zoomed(Math.exp(-delta / 200), place.fraction));
      return;
    }
    turned = Math.sign(delta) === Math.sign(turned) ? turned + delta : delta;
    if (Math.abs(turned) < WHEEL_PIXELS) return;
    viewer.step(turned < 0 ? 1 : -1, place.axis);
    turned = 0;
  }, { passive: false });
  canvas.addEventListener("keydown", (event) => onKey(viewer, slices, event));
}

function onKey(viewer, slices, event) {
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  // A step along an axis is one towards the patient's right, front or head, which is left or up in every picture.
  const [across, down] = IN_PLANE[slices.axis()];
  const actions = {
    ArrowUp: () => viewer.step(1),
    ArrowDown: () => viewer.step(-1),
    PageUp: () => viewer.step(PAGE),
    PageDown: () => viewer.step(-PAGE),
    Home: () => viewer.goTo(0),
    End: () => viewer.goTo(slices.count(slices.axis()) - 1),
    ArrowLeft: () => viewer.setStrength(viewer.strength - STRENGTH_STEP),
    ArrowRight: () => viewer.setStrength(viewer.strength + STRENGTH_STEP),
    a: () => viewer.step(1, across),
    d: () => viewer.step(-1, across),
    w: () => viewer.step(1, down),
    s: () => viewer.step(-1, down),
    m: () => viewer.toggleMap(),
    " ": () => viewer.setMode(viewer.mode === "synthesis" ? "source" : "synthesis"),
    "+": () => viewer.setFrame(slices.zoomed(ZOOM_STEP)),
    "-": () => viewer.setFrame(slices.zoomed(1 / ZOOM_STEP)),
    0: () => viewer.reset(),
  };
  Object.keys(VIEWS).forEach((view, index) => {
    actions[String(index + 1)] = () => viewer.setView(view);
  });
  const action = actions[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (action === undefined) return;
  event.preventDefault();
  action();
}
