// The project's map: mosaic, coverage, detections, targets with their 90 % ellipses and evidence.
// Everything comes from this server; nothing is fetched from elsewhere.
// Lists start short: a list is for reading, the map shows all of it.
import * as maplibre from "./maplibre/maplibre-gl.mjs";

const POLL_MS = 3000;
const FIRST_TARGETS = 10;
const LAST_ALERTS = 6;
const CIVIDIS = "linear-gradient(to right, #00224e, #7d7c78, #fee838)";
const EMPTY = { type: "FeatureCollection", features: [] };

const LAYERS = [
  { id: "coverage", label: "Imaged ground", colour: "#2a78a8", shown: true,
    paint: [{ type: "fill", paint: { "fill-color": "#2a78a8", "fill-opacity": 0.08 } },
            { type: "line", paint: { "line-color": "#2a78a8", "line-opacity": 0.45, "line-width": 1 } }] },
  { id: "gaps", label: "Planned, not seen", colour: "#c2185b", shown: true,
    paint: [{ type: "fill", paint: { "fill-color": "#c2185b", "fill-opacity": 0.3 } }] },
  { id: "plan", label: "Planned area", colour: "#4a4038", shown: true,
    paint: [{ type: "line", paint: { "line-color": "#4a4038", "line-width": 1.5, "line-dasharray": [4, 3] } }] },
  { id: "detections", label: "Detections", colour: "#f2a33c", shown: true,
    paint: [{ type: "circle", paint: { "circle-radius": 3, "circle-color": "#f2a33c", "circle-stroke-color": "#5d3a06", "circle-stroke-width": 0.5 } }] },
  { id: "ellipses", label: "90 % ellipses of targets", colour: "#b4451f", shown: true,
    paint: [{ type: "fill", paint: { "fill-color": "#b4451f", "fill-opacity": 0.15 } },
            { type: "line", paint: { "line-color": "#b4451f", "line-width": ["case", ["boolean", ["feature-state", "selected"], false], 4, 1.5] } }] },
];

const map = new maplibre.Map({
  container: "map",
  attributionControl: false,
  style: { version: 8, sources: {}, layers: [{ id: "ground", type: "background", paint: { "background-color": "#d9d2c7" } }] },
});
map.addControl(new maplibre.NavigationControl(), "top-left");
map.addControl(new maplibre.ScaleControl({ unit: "metric" }), "bottom-right");
map.on("mousemove", (event) => {
  const { lat, lng } = event.lngLat;
  byId("cursor").textContent = `${lat.toFixed(6)}, ${lng.toFixed(6)}`;
});

let revision = null;
let markers = [];
let selected = null;
let targets = [];
let alerts = [];
const whole = { targets: false, alerts: false };

const evidence = Object.assign(document.createElement("section"), { id: "evidence" });
evidence.setAttribute("aria-live", "polite");

map.on("load", async () => {
  for (const layer of LAYERS) addLayer(layer);
  map.on("click", "detections-0", showDetection);
  byId("layers-box").open = window.innerWidth > 760;
  showLayerSwitches();
  await refresh();
  setInterval(refresh, POLL_MS);
});

async function refresh() {
  let project;
  try {
    project = await getJson("api/project");
  } catch (error) {
    byId("summary").textContent = `The server does not answer (${error.message}); the map shows what was loaded.`;
    return;
  }
  if (project.revision === revision) return;
  const first = revision === null;
  revision = project.revision;
  showProject(project);
  await Promise.all(LAYERS.map(async ({ id }) => map.getSource(id).setData(await getJson(`api/layers/${id}.geojson`))));
  showTargets(await getJson("api/layers/targets.geojson"));
  if (first && project.bounds) map.fitBounds(project.bounds, { padding: roomBesideLayers(), animate: false });
  document.body.dataset.ready = String(revision);
}

function roomBesideLayers() {
  const right = byId("layers-box").open && byId("map").clientWidth > 700 ? byId("layers-box").offsetWidth + 30 : 40;
  return { top: 40, bottom: 40, left: 40, right };
}

function showProject(project) {
  byId("name").textContent = project.name;
  document.title = `${project.name} · Gossan`;
  byId("summary").textContent = project.summary;
  fill(byId("notes"), project.notes.map((note) => element("li", note)));
  byId("notes-section").hidden = project.notes.length === 0;
  byId("report").hidden = !project.report;
  alerts = project.alerts;
  showAlerts();
  for (const image of project.images) addImage(image);
}

function addImage({ id, label, url, corners, shown }) {
  if (map.getSource(id)) {
    map.getSource(id).updateImage({ url, coordinates: corners });
    return;
  }
  map.addSource(id, { type: "image", url, coordinates: corners });
  map.addLayer({ id: `${id}-image`, type: "raster", source: id, layout: { visibility: shown ? "visible" : "none" },
    paint: { "raster-opacity": id === "prior" ? 0.6 : 1, "raster-resampling": id === "prior" ? "nearest" : "linear" } }, "coverage-0");
  byId("layers").append(layerSwitch(label, id === "prior" ? CIVIDIS : "#b9ada0", shown, [`${id}-image`]));
}

function addLayer({ id, paint, shown }) {
  map.addSource(id, { type: "geojson", data: EMPTY, ...(id === "ellipses" ? { promoteId: "target_id" } : {}) });
  paint.forEach((part, i) =>
    map.addLayer({ id: `${id}-${i}`, source: id, layout: { visibility: shown ? "visible" : "none" }, ...part }));
}

function showLayerSwitches() {
  fill(byId("layers"), LAYERS.map(({ id, label, colour, shown, paint }) =>
    layerSwitch(label, colour, shown, paint.map((_, i) => `${id}-${i}`))));
}

function layerSwitch(label, colour, shown, layerIds) {
  const box = Object.assign(document.createElement("input"), { type: "checkbox", checked: shown });
  box.addEventListener("change", () =>
    layerIds.forEach((id) => map.setLayoutProperty(id, "visibility", box.checked ? "visible" : "none")));
  const swatch = document.createElement("i");
  swatch.style.background = colour;
  const row = document.createElement("label");
  row.append(box, swatch, label);
  return row;
}

function showTargets(collection) {
  markers.forEach((marker) => marker.remove());
  targets = collection.features.toSorted((a, b) => a.properties.rank - b.properties.rank);
  // Drawn from the last rank to the first, so that the first lies on top.
  markers = targets.toReversed().map((target) => {
    const pin = Object.assign(document.createElement("button"), { className: "marker", textContent: target.properties.rank });
    pin.setAttribute("aria-label", `Target ${target.properties.rank}: ${words(target.properties.class_name)}`);
    pin.addEventListener("click", () => select(target));
    return new maplibre.Marker({ element: pin }).setLngLat(target.geometry.coordinates.slice(0, 2)).addTo(map);
  });
  listTargets();
}

function listTargets() {
  const shown = whole.targets ? targets : targets.filter(
    ({ properties }, i) => i < FIRST_TARGETS || properties.target_id === selected);
  fill(byId("targets"), shown.map(targetRow));
  if (!targets.length) fill(byId("targets"), [element("li", "No targets yet. They appear once `gossan groundsync fuse` has joined the tracks of the flights.", "empty")]);
  offerMore("targets", targets.length, FIRST_TARGETS, listTargets);
  const again = targets.find((target) => target.properties.target_id === selected);
  if (again) showEvidence(again);
}

function showAlerts() {
  byId("alerts-section").hidden = alerts.length === 0;
  const shown = whole.alerts ? alerts : alerts.slice(-LAST_ALERTS);
  fill(byId("alerts"), shown.map((alert) => element("li", alert)));
  offerMore("alerts", alerts.length, LAST_ALERTS, showAlerts);
}

function offerMore(name, count, few, show) {
  const button = byId(`more-${name}`);
  button.hidden = count <= few;
  button.textContent = whole[name] ? "Show fewer" : `Show all ${count} ${name}`;
  button.onclick = () => {
    whole[name] = !whole[name];
    show();
  };
}

function showDetection({ features, lngLat }) {
  const p = features[0].properties;
  new maplibre.Popup({ maxWidth: "320px" }).setLngLat(lngLat).setDOMContent(definitions([
    ["Detection", words(p.class_name)],
    ["Probability", `${percent(p.probability)}${p.calibrated ? "" : " (uncalibrated)"}${p.ood ? ", unlike what the model knows" : ""}`],
    ["90 % radius", metres(p.ce90_m)],
    ["Frame", p.frame],
  ])).addTo(map);
}

function targetRow(target) {
  const { rank, class_name, ce90_m, probability, calibrated } = target.properties;
  const button = document.createElement("button");
  button.append(
    element("span", String(rank), "rank"),
    withSmall(words(class_name), `± ${metres(ce90_m)} (90 %), ${looksOf(target.properties)}`),
    withSmall(percent(probability), calibrated ? "" : "uncalibrated", "probability"));
  button.dataset.target = target.properties.target_id;
  button.addEventListener("click", () => select(target));
  const row = document.createElement("li");
  row.append(button);
  return row;
}

function select(target) {
  const [lon, lat] = target.geometry.coordinates;
  map.flyTo({ center: [lon, lat], zoom: Math.max(map.getZoom(), zoomFor(target.properties.ce90_m, lat)), duration: 800 });
  if (selected) map.setFeatureState({ source: "ellipses", id: selected }, { selected: false });
  selected = target.properties.target_id;
  listTargets();
  evidence.closest("li").scrollIntoView({ block: "nearest" });
}

// The zoom at which a radius on the ground is 60 pixels long: its ellipse shows around the marker.
function zoomFor(radius_m, lat_deg) {
  const metresPerPixel = Math.max(radius_m, 0.5) / 60;
  return Math.min(Math.log2((78271.5 * Math.cos((lat_deg * Math.PI) / 180)) / metresPerPixel), 22);
}

// Opens a target under its row: what was seen, where, how sure, why this rank.
function showEvidence(target) {
  const p = target.properties;
  const [lon, lat] = target.geometry.coordinates;
  map.setFeatureState({ source: "ellipses", id: selected }, { selected: true });
  document.querySelectorAll("[data-target]").forEach((row) => row.setAttribute("aria-current", String(row.dataset.target === selected)));
  markers.forEach((marker) => marker.getElement().setAttribute("aria-current", String(marker.getElement().textContent === String(p.rank))));
  fill(evidence, [
    ...p.chips.map((url) => Object.assign(document.createElement("img"), { src: url, alt: `Target ${p.rank} as it was seen` })),
    definitions([
      ["Place", `${lat.toFixed(6)}, ${lon.toFixed(6)}`],
      ["90 % radius", metres(p.ce90_m)],
      ["Ellipse (90 %)", `± ${metres(p.ellipse_major_m)} by ± ${metres(p.ellipse_minor_m)}, long axis ${Math.round(p.ellipse_azimuth_deg)}° from north`],
      ["Seen", `${percent(p.probability)}${p.calibrated ? "" : " (uncalibrated)"}, ${looksOf(p)}`],
      ["Prior → posterior", p.posterior === null ? "no prior layer here" : `${percent(p.prior)} → ${percent(p.posterior)} ± ${percent(p.posterior_sigma)}`],
      ["Area", `${p.area_m2.toFixed(1)} m²`],
    ]),
    list(p.reasons),
    ...(p.before_next ? [element("small", `Why ${p.before_next}`)] : []),
    ...(p.remedy ? [element("small", `To know it better: ${p.remedy}`)] : []),
  ]);
  const row = document.querySelector(`[data-target="${CSS.escape(selected)}"]`);
  row.closest("li").append(evidence);
}

async function getJson(url) {
  const answer = await fetch(url);
  if (!answer.ok) throw new Error(`${answer.status} for ${url}`);
  return answer.json();
}

function definitions(pairs) {
  const dl = document.createElement("dl");
  pairs.forEach(([term, text]) => dl.append(element("dt", term), element("dd", text)));
  return dl;
}

function list(items) {
  const ul = document.createElement("ul");
  fill(ul, items.map((item) => element("li", item)));
  return ul;
}

function withSmall(text, small, className = "") {
  const span = element("span", text, className);
  if (small) span.append(element("small", small));
  return span;
}

function element(tag, text, className = "") {
  return Object.assign(document.createElement(tag), { textContent: text, className });
}

const byId = (id) => document.getElementById(id);
const fill = (parent, children) => parent.replaceChildren(...children);
const looksOf = ({ looks }) => `${looks} look${looks === 1 ? "" : "s"}`;
const words = (name) => name.replaceAll("_", " ");
const metres = (value) => `${value.toFixed(1)} m`;
const percent = (value) => (value >= 0.1 || value === 0 ? `${(100 * value).toFixed(0)}\u00a0%` : `${(100 * value).toPrecision(2)}\u00a0%`);
