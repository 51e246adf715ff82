/* Theme, keyboard, and staying in step with the hub. Every page works without it. */
(() => {
  "use strict";

  /* ---- theme: as the system, light, dark; set before the page is drawn ---- */

  const THEMES = { "": "as the system", light: "light", dark: "dark" };
  const remembered = () => { try { return localStorage.getItem("theme") || ""; } catch { return ""; } };
  const remember = (name) => { try { localStorage.setItem("theme", name); } catch { /* a private window forgets */ } };

  function paint(name) {
    if (name) document.documentElement.dataset.theme = name;
    else delete document.documentElement.dataset.theme;
  }
  paint(remembered());

  function themeButton() {
    const button = document.getElementById("theme");
    const label = document.getElementById("theme-name");
    const say = () => { label.textContent = THEMES[remembered()] || THEMES[""]; button.title = `Theme: ${label.textContent}`; };
    button.hidden = false;
    button.addEventListener("click", () => {
      const names = Object.keys(THEMES);
      const next = names[(names.indexOf(remembered()) + 1) % names.length];
      remember(next);
      paint(next);
      say();
    });
    say();
  }

  /* ---- keyboard: / searches, j and k move, Enter opens ---- */

  const typing = (target) => target.closest("input, select, textarea, [contenteditable]") !== null;

  function move(step) {
    const rows = [...document.querySelectorAll("[data-row]")].filter((row) => row.offsetParent !== null);
    if (!rows.length) return;
    const at = rows.findIndex((row) => row.classList.contains("at"));
    const next = rows[Math.min(Math.max(at + step, 0), rows.length - 1)];
    if (at >= 0) rows[at].classList.remove("at");
    next.classList.add("at");
    (next.querySelector("a") || next).focus({ preventScroll: true });
    next.scrollIntoView({ block: "nearest" });
  }

  function keys(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || typing(event.target)) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    if (event.key === "/") {
      const box = document.getElementById("q");
      if (box) { event.preventDefault(); box.focus(); box.select(); }
    } else if (event.key === "j") move(1);
    else if (event.key === "k") move(-1);
    else if (event.key === "Enter" && event.target === document.body) document.querySelector("[data-row].at a")?.click();
  }

  /* ---- parts: fetched again as the server draws them; never under somebody's hands ---- */

  const REFRESH_MS = 1500;
  const inUse = (part) => part.contains(document.activeElement) || part.querySelector("details[open]") !== null;
  let refreshing = false;
  let stale = false;
  let lastRefresh = 0;

  async function refresh(all) {
    stale = true;
    if (refreshing || document.hidden) return;
    refreshing = true;
    stale = false;
    try {
      await new Promise((done) => setTimeout(done, Math.max(0, lastRefresh + REFRESH_MS - Date.now())));
      lastRefresh = Date.now();
      const answer = await fetch(location.href, { headers: { accept: "text/html" }, redirect: "error" });
      if (answer.ok) replaceParts(new DOMParser().parseFromString(await answer.text(), "text/html"), all);
    } catch { /* the indicator tells; the next state event tries again */ }
    refreshing = false;
    if (stale) refresh(false);
  }

  function replaceParts(fresh, all) {
    for (const part of document.querySelectorAll("[data-part]")) {
      const other = fresh.querySelector(`[data-part="${part.dataset.part}"]`);
      if (!other || part.innerHTML === other.innerHTML) continue;
      if (part.id === "feed" ? !all : inUse(part)) continue;
      part.className = other.className;
      part.replaceChildren(...other.childNodes);
    }
    document.body.dataset.asOf = fresh.body.dataset.asOf;
  }

  /* ---- feed ---- */

  const FEED_ROWS = 60;
  const chip = (name) => document.getElementById("chips").content.querySelector(`[data-chip="${CSS.escape(name)}"] .chip`)?.cloneNode(true) ?? name;

  function feedRow(item) {
    const row = document.getElementById("feed-row").content.firstElementChild.cloneNode(true);
    const time = row.querySelector("time");
    time.dateTime = item.receivedAt;
    time.textContent = item.receivedAt.slice(11, 19);
    const link = row.querySelector("a");
    link.href = item.page;
    link.textContent = item.orderId;
    const chips = row.querySelector(".chips");
    if (item.conflict) chips.append(chip("conflict"));
    chips.append(chip(item.status));
    row.querySelector(".where").textContent = [item.source, item.site || "no site", `via ${item.node}`].join(" · ");
    return row;
  }

  function makeFeed(list) {
    const news = document.getElementById("feed-news");
    const button = document.getElementById("feed-pause");
    let waiting = [];
    let count = 0;
    let hovered = false;
    let held = false;
    let drawing = false;
    const paused = () => hovered || held;

    function draw() {
      drawing = false;
      if (paused()) return say();
      document.getElementById("feed-empty")?.remove();
      list.prepend(...waiting.map(feedRow).reverse());
      while (list.children.length > FEED_ROWS) list.lastElementChild.remove();
      waiting = [];
      count = 0;
      return say();
    }
    function say() {
      news.hidden = count === 0;
      news.textContent = `${count.toLocaleString("en")} new`;
    }
    function later() {
      if (!drawing) { drawing = true; requestAnimationFrame(draw); }
    }
    list.addEventListener("pointerenter", (event) => { hovered = event.pointerType === "mouse"; });
    list.addEventListener("pointerleave", () => { hovered = false; later(); });
    list.addEventListener("focusin", () => { hovered = true; });
    list.addEventListener("focusout", () => { hovered = list.matches(":hover"); later(); });
    button.hidden = false;
    button.addEventListener("click", () => {
      held = !held;
      button.setAttribute("aria-pressed", String(held));
      button.textContent = held ? "Go on" : "Pause";
      later();
    });
    news.addEventListener("click", () => { hovered = false; if (held) button.click(); else later(); });
    return {
      add(item) {
        waiting.push(item);
        if (waiting.length > FEED_ROWS) waiting.shift();
        count += 1;
        if (document.hidden) return;
        later();
      },
      resume: later,
    };
  }

  /* ---- stream ---- */

  const SILENT_MS = 5000;

  function follow() {
    const mark = document.getElementById("live");
    const list = document.getElementById("feed");
    const feed = list && makeFeed(list);
    let heard = Date.now();
    let asOf = Number(document.body.dataset.asOf);
    let version = null;

    const show = (state, text) => {
      if (mark.dataset.state !== state || mark.textContent !== text) { mark.dataset.state = state; mark.textContent = text; }
    };
    const away = () => show("away", `reconnecting · data as of ${new Date(asOf).toISOString().slice(11, 19)}`);
    const tick = (said) => {
      heard = Date.now();
      asOf = said.now - said.behindMs;
      show("live", `live · ${(said.behindMs / 1000).toFixed(1)} s behind`);
    };

    const after = document.body.dataset.after;
    const source = new EventSource(`/v1/stream?state=1${after ? `&after=${encodeURIComponent(after)}` : ""}`);
    source.addEventListener("tick", (event) => tick(JSON.parse(event.data)));
    source.addEventListener("change", (event) => { heard = Date.now(); feed?.add(JSON.parse(event.data)); });
    source.addEventListener("reset", () => refresh(true));
    source.addEventListener("state", (event) => {
      const said = JSON.parse(event.data);
      tick(said);
      for (const figure of document.querySelectorAll("[data-total]")) figure.textContent = said.totals[figure.dataset.total].toLocaleString("en");
      if (version !== null && version !== said.version) refresh(false);
      version = said.version;
    });
    source.addEventListener("error", away);
    setInterval(() => { if (Date.now() - heard > SILENT_MS) away(); }, 1000);
    document.addEventListener("visibilitychange", () => { if (!document.hidden) { feed?.resume(); if (stale) refresh(false); } });
  }

  document.addEventListener("DOMContentLoaded", () => {
    themeButton();
    document.addEventListener("keydown", keys);
    if ("live" in document.body.dataset && "EventSource" in window) follow();
  });
})();
