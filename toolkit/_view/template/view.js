// Conveniences: every page also works without this script, by links and forms.
const find = (selector) => document.querySelector(selector);

// A part of a page that is loaded later, since it takes longer: after the page is painted.
async function load(part) {
  const answer = await fetch(part.dataset.fetch).catch(() => ({}));
  if (!answer.ok) return; // its link stays
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  part.replaceChildren(document.adoptNode(page.querySelector("[data-part]")));
  makeSortable(part);
  part.querySelectorAll("#volcano svg").forEach(makeBrushable);
}
document.querySelectorAll("#volcano svg").forEach(makeBrushable);
requestAnimationFrame(() => setTimeout(() => document.querySelectorAll("[data-fetch]").forEach(load)));

// The progress of a run, every two seconds while it runs.
const progress = find("#progress");
if (progress && progress.dataset.progress) {
  const timer = setInterval(async () => {
    const facts = await fetch(progress.dataset.progress).then((answer) => answer.json()).catch(() => ({}));
    if (!facts.state) return;
    for (const name of ["state", "text", "busy"]) progress.querySelector(`[data-${name}]`).textContent = facts[name];
    progress.querySelector("progress").value = facts.percent;
    if (!facts.running) clearInterval(timer);
  }, 2000);
}

// "/" goes to the search.
document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, select, textarea");
  if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey) {
    event.preventDefault();
    find("#q").focus();
  }
});

// A click on a token of a sample shows its features and changes the address. Of several clicks, the
// last one counts, in whatever order the answers come.
let wanted = null;
let shown = location.search;
async function show(address) {
  wanted = address;
  const part = new URL(address);
  part.searchParams.set("part", "1"); // without the tokens by layer, which stay as they are
  const answer = await fetch(part);
  const text = await answer.text();
  if (wanted !== address) return;
  if (!answer.ok) return location.assign(address);
  const page = new DOMParser().parseFromString(text, "text/html");
  for (const id of ["active", "tokens"]) find(`#${id}`).replaceWith(document.adoptNode(page.getElementById(id)));
  makeSortable(find("#active"));
  history.pushState(null, "", address);
  shown = location.search;
  const here = find("#tokens .here");
  if (here) here.focus({ preventScroll: true });
}
function tokenAddress(at, space) {
  const address = new URL(location.href);
  address.searchParams.set("position", at);
  if (space !== undefined) address.searchParams.set("space", space);
  address.hash = "";
  return address;
}
if (find("#tokens")) {
  document.addEventListener("click", (event) => {
    const token = event.target.closest("#tokens a, #layers td");
    if (!token || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    show(tokenAddress(token.dataset.at, token.closest("tr")?.dataset.space));
  });
  addEventListener("popstate", () => location.search === shown || location.reload());
}

// A part of a volcano: drag over it, and the form below is sent with its bounds.
function makeBrushable(volcano) {
  const [width, height, bottom, top] = [640, 300, 256, 12];
  const facts = Object.fromEntries(Object.entries(volcano.dataset).map(([name, text]) => [name, Number(text)]));
  const position = (event) => {
    const box = volcano.getBoundingClientRect();
    const within = (value, low, high) => Math.min(high, Math.max(low, value));
    return [
      within(((event.clientX - box.left) / box.width) * width, facts.left, facts.right),
      within(((event.clientY - box.top) / box.height) * height, top, bottom),
    ];
  };
  const effect = (x) => facts.low + ((x - facts.left) / (facts.right - facts.left)) * (facts.high - facts.low);
  const q = (y) => 10 ** (-(bottom - y) / (bottom - top) * facts.top);
  let start = null;
  let brush = null;
  volcano.addEventListener("pointerdown", (event) => {
    start = position(event);
    brush = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    brush.setAttribute("class", "brush");
    volcano.append(brush);
    volcano.setPointerCapture(event.pointerId);
  });
  volcano.addEventListener("pointermove", (event) => {
    if (!start) return;
    const [x, y] = position(event);
    const sides = { x: Math.min(x, start[0]), y: Math.min(y, start[1]) };
    sides.width = Math.abs(x - start[0]);
    sides.height = Math.abs(y - start[1]);
    for (const [name, value] of Object.entries(sides)) brush.setAttribute(name, value);
  });
  volcano.addEventListener("pointerup", (event) => {
    if (!start) return;
    const [x, y] = position(event);
    const wide = Math.abs(x - start[0]) > 4 && Math.abs(y - start[1]) > 4;
    if (wide) {
      const form = find("#bounds");
      form.low.value = effect(Math.min(x, start[0])).toPrecision(4);
      form.high.value = effect(Math.max(x, start[0])).toPrecision(4);
      form.q.value = q(Math.max(y, start[1])).toPrecision(4);
      form.q_low.value = q(Math.min(y, start[1])).toPrecision(4);
      form.submit();
    } else brush.remove();
    start = null;
  });
}
