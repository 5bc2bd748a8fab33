// Theme, navigation on narrow screens, search, and Plotly figures when they come into view.
const root = document.documentElement;
const theme = document.getElementById("theme");
function setTheme(name) {
  root.dataset.theme = name;
  theme.textContent = name === "dark" ? "Light" : "Dark";
}
let kept = null;
try { kept = localStorage.getItem("theme"); } catch { /* a browser that keeps nothing */ }
setTheme(kept ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light"));
theme.addEventListener("click", () => {
  setTheme(root.dataset.theme === "dark" ? "light" : "dark");
  try { localStorage.setItem("theme", root.dataset.theme); } catch { /* as above */ }
});

const menu = document.getElementById("menu"), nav = document.getElementById("navigation");
menu.addEventListener("click", () => menu.setAttribute("aria-expanded", String(nav.classList.toggle("open"))));

const search = document.getElementById("search"), results = document.getElementById("results");
let entries = null;
search.addEventListener("input", async () => {
  const words = search.value.toLowerCase().split(/\s+/).filter((w) => w.length > 1);
  results.hidden = !words.length;
  if (!words.length) return;
  entries ??= await (await fetch("assets/search.json")).json();
  const score = (e) => {
    const text = `${e.heading} ${e.text}`.toLowerCase(), heading = e.heading.toLowerCase();
    if (!words.every((w) => text.includes(w))) return 0;
    return words.reduce((sum, w) => sum + text.split(w).length - 1 + (heading.includes(w) ? 20 : 0), 0);
  };
  const best = entries.map((e) => [score(e), e]).filter(([s]) => s).sort((a, b) => b[0] - a[0]).slice(0, 12);
  results.replaceChildren(...best.map(([, e]) => {
    const item = document.createElement("li"), link = document.createElement("a"), text = document.createElement("p");
    link.href = `${e.page}.html${e.anchor ? `#${e.anchor}` : ""}`;
    link.textContent = e.heading === e.title ? e.title : `${e.title}: ${e.heading}`;
    const at = Math.max(0, e.text.toLowerCase().indexOf(words[0]) - 60);
    text.textContent = `${at ? "…" : ""}${e.text.slice(at, at + 160)}…`;
    item.append(link, text);
    return item;
  }));
  if (!best.length) results.textContent = "Nothing on these pages has all of these words.";
});
addEventListener("keydown", (e) => { if (e.key === "Escape") results.hidden = true; });

const figures = [...document.querySelectorAll(".plotly-figure")], stills = document.querySelectorAll(".plotly-still");
if (figures.length && document.createElement("canvas").getContext("webgl")) { // else their stills are seen
  const script = document.createElement("script");
  script.src = "assets/plotly.min.js";
  script.onload = () => {
    const seen = new IntersectionObserver((all) => all.filter((e) => e.isIntersecting).forEach(({ target }) => {
      seen.unobserve(target);
      const { data, layout } = JSON.parse(target.querySelector("script").textContent);
      Plotly.newPlot(target, data, { ...layout, autosize: true, width: undefined }, { responsive: true })
        .then(() => stills[figures.indexOf(target)]?.classList.add("heard"));
    }), { rootMargin: "400px" });
    figures.forEach((f) => seen.observe(f));
  };
  document.head.append(script);
}
