"use strict";
(() => {
  const $ = (selector, root = document) => root.querySelector(selector);
  const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];
  const element = (tag, text, className) => {
    const made = document.createElement(tag);
    if (text !== undefined) made.textContent = text;
    if (className) made.className = className;
    return made;
  };

  const valueOf = (row, column) => {
    const cell = row.cells[column];
    const text = cell.dataset.v ?? cell.textContent.trim();
    // A row is headed by a name, which may look like a number or like an absent one.
    if (cell.tagName === "TH") return text;
    const number = Number(text);
    return text === "" || text === "–" ? null : Number.isNaN(number) ? text : number;
  };
  const { compare: compareText } = new Intl.Collator(undefined, { numeric: true });
  const compare = (a, b) => typeof a === "number" && typeof b === "number" ? a - b : compareText(String(a), String(b));
  $$("table[data-sortable]").forEach((table) => {
    const headers = $$("thead th", table);
    headers.forEach((header, column) => $("button.sort", header)?.addEventListener("click", () => {
      const up = header.getAttribute("aria-sort") ? header.getAttribute("aria-sort") !== "ascending" : header.dataset.first !== "down";
      headers.forEach((other) => other.removeAttribute("aria-sort"));
      header.setAttribute("aria-sort", up ? "ascending" : "descending");
      const rows = [...table.tBodies[0].rows].map((row) => [valueOf(row, column), row]);
      // What has no value stays at the end, whichever way the rest is sorted.
      rows.sort(([a], [b]) => a === null || b === null ? (a === null) - (b === null) : (up ? 1 : -1) * compare(a, b));
      table.tBodies[0].append(...rows.map(([, row]) => row));
    }));
  });

  // A table that scrolls is reached by keyboard, also where nothing in it is.
  const titles = $$("h2, h3, h4, summary");
  const titleOf = (box) => titles.findLast((each) => each.compareDocumentPosition(box) & Node.DOCUMENT_POSITION_FOLLOWING);
  const reach = ({ target: box }) => {
    const scrolls = box.scrollWidth > box.clientWidth || box.scrollHeight > box.clientHeight;
    const own = scrolls && !$("button, a", box) ? { tabindex: "0", role: "group", "aria-label": titleOf(box)?.textContent.trim() ?? "Table" } : {};
    for (const name of ["tabindex", "role", "aria-label"]) own[name] ? box.setAttribute(name, own[name]) : box.removeAttribute(name);
  };
  const sizes = new ResizeObserver((entries) => entries.forEach(reach));
  $$(".scroll:not([role])").forEach((box) => sizes.observe(box));

  $$("[data-filters]").forEach((box) => {
    const table = document.getElementById(box.dataset.filters);
    const apply = () => {
      const verdict = $("[aria-pressed=true]", box)?.dataset.verdict ?? "";
      const text = ($("input", box)?.value ?? "").trim().toLowerCase();
      let shown = 0;
      for (const row of table.tBodies[0].rows) {
        row.hidden = (verdict && row.dataset.verdict !== verdict) || !row.textContent.toLowerCase().includes(text);
        shown += !row.hidden;
      }
      const status = $("output", box);
      if (status) status.textContent = `${shown} of ${table.tBodies[0].rows.length}`;
    };
    $$("button", box).forEach((button) => button.addEventListener("click", () => {
      $$("button", box).forEach((other) => other.setAttribute("aria-pressed", String(other === button)));
      apply();
    }));
    $("input", box)?.addEventListener("input", apply);
    apply();
  });

  const dialog = $("#zoomed");
  $$("button.zoom").forEach((button) => button.addEventListener("click", () => {
    const image = $("img", dialog);
    image.src = $("img", button).src;
    image.alt = $("img", button).alt;
    dialog.showModal();
  }));
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });

  const explorer = $("#explorer");
  if (explorer) {
    const { noun, plural, picture: file, runs } = JSON.parse($("#confusion-data").textContent);
    const pictures = $$("[data-picture]").map((figure) => ({ ...figure.dataset, id: figure.id }));
    const model = $("select", explorer), search = $("input", explorer), list = $(".names", explorer), found = $(".found", explorer);
    const share = (part, all) => all ? `${(100 * part / all).toFixed(1)} %` : "–";
    let chosen = null;
    const tables = new Map(runs.map((run) => {
      const size = run.classes.length, support = Array(size).fill(0), predicted = Array(size).fill(0), right = Array(size).fill(0);
      for (const [t, p, n] of run.cells) { support[t] += n; predicted[p] += n; if (t === p) right[t] += n; }
      return [run.id, { ...run, support, predicted, right }];
    }));
    const hits = (title, none, rows, most) => {
      const box = document.createDocumentFragment();
      box.append(element("h5", title));
      if (!rows.length) { box.append(element("p", none, "soft small")); return box; }
      const items = element("ul", undefined, "hits");
      for (const { name, label, count, all, link } of rows) {
        const item = element("li"), cell = element("span"), go = element("button", name), meter = element("span", undefined, "meter"), bar = element("i");
        go.type = "button";
        go.title = name;
        go.addEventListener("click", () => choose(label));
        cell.append(go);
        if (link) { const see = element("a", "picture", "pics"); see.href = `#${link}`; cell.append(see); }
        bar.style.width = `${100 * count / all / most}%`;
        meter.append(bar);
        item.append(cell, meter, element("span", `${count} (${share(count, all)})`, "n"));
        items.append(item);
      }
      box.append(items);
      return box;
    };
    const show = () => {
      const run = tables.get(model.value), name = run.classes[chosen];
      const picture = (t, p) => pictures.find((each) => each.run === run.id && each.true === run.classes[t] && each.pred === run.classes[p])?.id;
      const asOther = run.cells.filter(([t, p]) => t === chosen && p !== t).sort((a, b) => b[2] - a[2])
        .map(([t, p, n]) => ({ name: run.classes[p], label: p, count: n, all: run.support[t], link: picture(t, p) }));
      const asThis = run.cells.filter(([t, p]) => p === chosen && p !== t).sort((a, b) => b[2] - a[2])
        .map(([t, p, n]) => ({ name: run.classes[t], label: t, count: n, all: run.support[t], link: picture(t, p) }));
      // A bar is a share of the true class; a quarter fills it, unless one is larger.
      const most = Math.max(0.25, ...[...asOther, ...asThis].map((row) => row.count / row.all));
      const total = `${run.right[chosen]} of its ${run.support[chosen]} test images are recognised (${share(run.right[chosen], run.support[chosen])}); ` +
        `${run.right[chosen]} of ${run.predicted[chosen]} images called ${name} are (${share(run.right[chosen], run.predicted[chosen])}).`;
      found.replaceChildren(element("h4", name), element("p", total, "soft small"),
        hits(`${name} is mistaken for`, `Never mistaken for another ${noun}.`, asOther, most),
        hits(`Mistaken for ${name}`, `No other ${noun} is mistaken for it.`, asThis, most));
    };
    const matrix = $(".matrix table");
    const cell = (tag, text, title, className) => {
      const made = element(tag, undefined, className);
      const inner = tag === "th" ? element("span", text) : document.createTextNode(text);
      if (tag === "th") inner.dir = "auto";
      made.append(inner);
      if (title) made.title = title;
      return made;
    };
    const drawMatrix = () => {
      const run = tables.get(model.value), { shown } = run, left = run.classes.length - shown.length;
      const inside = new Set(shown), counts = new Map(run.cells.map(([t, p, n]) => [`${t} ${p}`, n]));
      const mistakes = (keep) => run.cells.reduce((sum, [t, p, n]) => sum + (t !== p && keep(t, p) ? n : 0), 0);
      const all = mistakes(() => true), between = mistakes((t, p) => inside.has(t) && inside.has(p));
      const head = element("tr"), body = element("tbody"), top = element("thead");
      head.append(cell("th", `true ${noun} ↓ answer →`));
      for (const p of shown) { const made = cell("th", run.classes[p], run.classes[p]); made.scope = "col"; made.dataset.label = p; head.append(made); }
      if (left) head.append(cell("th", `${left} others`, `answers that are one of the ${left} ${plural} not shown`));
      top.append(head);
      for (const t of shown) {
        const row = element("tr"), name = cell("th", run.classes[t], run.classes[t]);
        name.scope = "row";
        name.dataset.label = t;
        row.append(name);
        let others = run.support[t];
        for (const p of shown) {
          const n = counts.get(`${t} ${p}`) ?? 0, part = run.support[t] ? n / run.support[t] : 0;
          others -= n;
          const made = cell("td", String(n), `${n} of ${run.support[t]} images of ${run.classes[t]} answered as ${run.classes[p]} (${share(n, run.support[t])})`);
          if (!n) made.className = "zero";
          else {
            // The square root lifts what is rare from the background, as in the pictures.
            made.style.background = `color-mix(in srgb, var(${t === p ? "--s0" : "--s2"}) ${Math.round(100 * Math.sqrt(part))}%, var(--sunk))`;
            if (part > 0.3) made.className = "strong";
          }
          row.append(made);
        }
        if (left) row.append(cell("td", others ? String(others) : "", "", "other"));
        body.append(row);
      }
      matrix.replaceChildren(top, body);
      $("#matrix-title").textContent = `Confusion matrix: ${run.label}`;
      $("#matrix-note").textContent = (left
        ? `The ${shown.length} of ${run.classes.length} ${plural} with the most mistakes between them; ${left} are left out. ${between} of the ${all} mistakes are in this part. All ${plural}: ${run.folder}/${file}. `
        : `All ${run.classes.length} ${plural}, ${all} mistakes. `) +
        `Images of the test split; a row is a true ${noun}, a column the answer, and the colour is the share of the row.`;
    };
    const choose = (label) => {
      chosen = label;
      $$("th[data-label]", matrix).forEach((each) => each.classList.toggle("chosen", Number(each.dataset.label) === label));
      $$("button", list).forEach((button) => button.setAttribute("aria-pressed", String(Number(button.dataset.label) === label)));
      show();
    };
    const filter = () => {
      const text = search.value.trim().toLowerCase();
      let shown = 0;
      for (const item of list.children) { item.hidden = !item.dataset.name.includes(text); shown += !item.hidden; }
      $("output", explorer).textContent = shown ? `${shown} of ${list.children.length} ${plural}, the most mistaken first` : `no ${noun} of that name`;
    };
    const fill = () => {
      const run = tables.get(model.value);
      const recall = (label) => run.support[label] ? run.right[label] / run.support[label] : 2;
      const order = run.classes.map((_, label) => label).sort((a, b) => recall(a) - recall(b) || a - b);
      list.replaceChildren(...order.map((label) => {
        const item = element("li"), button = element("button");
        button.type = "button";
        button.title = run.classes[label];
        button.append(element("bdi", run.classes[label]));
        button.dataset.label = label;
        button.append(element("span", share(run.right[label], run.support[label])));
        button.addEventListener("click", () => choose(label));
        item.dataset.name = run.classes[label].toLowerCase();
        item.append(button);
        return item;
      }));
      filter();
      drawMatrix();
      choose(chosen === null || chosen >= run.classes.length ? order[0] : chosen);
    };
    runs.forEach((run) => { const option = element("option", run.label); option.value = run.id; model.append(option); });
    model.addEventListener("change", fill);
    search.addEventListener("input", filter);
    fill();
  }

  // On paper everything is open.
  let closed = [];
  addEventListener("beforeprint", () => { closed = $$("details:not([open])"); closed.forEach((each) => { each.open = true; }); });
  addEventListener("afterprint", () => closed.forEach((each) => { each.open = false; }));

  const links = new Map($$(".rail a").map((link) => [link.hash.slice(1), link]));
  const watch = new IntersectionObserver((entries) => entries.filter((entry) => entry.isIntersecting).forEach((entry) => {
    links.forEach((link) => link.removeAttribute("aria-current"));
    links.get(entry.target.id)?.setAttribute("aria-current", "true");
  }), { rootMargin: "-10% 0px -75% 0px" });
  $$("section[id]").forEach((section) => watch.observe(section));
})();
