"use strict";
(() => {
  const data = JSON.parse(document.getElementById("answers").textContent);
  const { noun, plural, classes, ids, labels, runs, qualities } = data;
  const A_PAGE = 48, MOST_PAIRS = 8, CONFIDENT = 90;

  const byId = (id) => document.getElementById(id);
  const element = (tag, text, className) => {
    const made = document.createElement(tag);
    if (text !== undefined) made.textContent = text;
    if (className) made.className = className;
    return made;
  };
  const within = (parent, ...children) => { parent.append(...children); return parent; };
  const count = (number) => number.toLocaleString("en-US");
  const percent = (share) => Number.isFinite(share) ? `${(100 * share).toFixed(1)} %` : "–";
  const mean = (values) => values.length ? values.reduce((sum, value) => sum + value, 0) / values.length : null;
  const signed = (number) => number.toFixed(2).replace("-", "−");
  const several = (number, one, many) => `${count(number)} ${number === 1 ? one : many}`;

  // What a run says of an image.
  const isTested = (run, image) => run.top[image] !== null;
  const answerOf = (run, image) => run.top[image][0];
  const share = (parts) => parts === null ? NaN : parts / data.parts;
  const confidence = (run, image) => share(run.top[image][1]);
  const ofTruth = (run, image) => share(run.true[image]);
  const isRight = (run, image) => answerOf(run, image) === labels[image];

  // A question. In the address are names, which stay true when another report is made.
  const SHOWN = {
    wrong: { text: "wrong", keeps: (image, run) => !isRight(run, image) },
    right: { text: "right", keeps: (image, run) => isRight(run, image) },
    all: { text: "right and wrong", keeps: () => true },
    "wrong-right": { text: "wrong, and right in the other run", keeps: (image, run, other) => !isRight(run, image) && isRight(other, image) },
    "right-wrong": { text: "right, and wrong in the other run", keeps: (image, run, other) => isRight(run, image) && !isRight(other, image) },
    "wrong-wrong": { text: "wrong in both runs", keeps: (image, run, other) => !isRight(run, image) && !isRight(other, image) },
    "right-right": { text: "right in both runs", keeps: (image, run, other) => isRight(run, image) && isRight(other, image) },
    "same-mistake": { text: "the same mistake in both runs", keeps: (image, run, other) => !isRight(run, image) && answerOf(run, image) === answerOf(other, image) },
    differ: { text: "answered differently by the runs", keeps: (image, run, other) => answerOf(run, image) !== answerOf(other, image) },
  };
  const OF_ONE_RUN = ["wrong", "right", "all"];
  const ORDERS = new Map([
    ["confident", { text: "most confident first", key: (image, run) => -confidence(run, image) }],
    ["unsure", { text: "least confident first", key: (image, run) => confidence(run, image) }],
    ["unlikely", { text: `true ${noun} least likely first`, key: (image, run) => ofTruth(run, image) }],
    ["apart", { text: "runs furthest apart first", key: (image, run, other) => -Math.abs(ofTruth(run, image) - ofTruth(other, image)), needsTwo: true }],
    ["class", { text: `by ${noun}`, key: (image) => labels[image] }],
  ]);
  const QUALITIES = new Map();
  for (const quality of qualities) {
    const value = (image) => quality.values[image] ?? NaN;
    ORDERS.set(`${quality.name}-up`, { text: `${quality.lowest} first`, key: value });
    ORDERS.set(`${quality.name}-down`, { text: `${quality.highest} first`, key: (image) => -value(image) });
    for (const [end, words, tenth] of [["lowest", quality.lowest, 0], ["highest", quality.highest, 9]]) {
      if (quality.tenths.includes(tenth)) QUALITIES.set(`${quality.name}-${end}`, { text: `of the ${words} tenth`, keeps: (image) => quality.tenths[image] === tenth });
    }
  }
  const NOTHING = { run: 0, with: -1, true: -1, answer: -1, both: false, show: "wrong", least: 0, quality: "", order: "confident", image: -1, look: -1, stage: "", of: -1 };
  const runLabels = runs.map((run) => run.label);
  const NAMES = { run: runLabels, with: runLabels, true: classes, answer: classes, image: ids, look: runLabels, of: ids };
  const OF_IMAGES = { image: -1, look: -1, stage: "", of: -1 };  // what does not change which images are found

  const write = (question) => {
    const written = new URLSearchParams();
    for (const [key, usual] of Object.entries(NOTHING)) {
      const value = question[key];
      if (value === usual && key !== "run") continue;
      written.set(key, NAMES[key] ? NAMES[key][value] : key === "both" ? "yes" : String(value));
    }
    return `#${written}`;
  };
  const KNOWS = {
    both: (text) => text === "yes",
    show: (text) => Object.hasOwn(SHOWN, text),
    least: (text) => Number(text) >= 0 && Number(text) <= 95,
    quality: (text) => QUALITIES.has(text),
    order: (text) => ORDERS.has(text),
    stage: (text) => runs.some(({ inside }) => inside.stages.some(({ name }) => name === text)),
  };
  const read = (address) => {
    const question = { ...NOTHING }, unknown = [];
    for (const [key, text] of new URLSearchParams(address.slice(1))) {
      const place = Object.hasOwn(NAMES, key) ? NAMES[key].indexOf(text) : -1;
      if (place >= 0) question[key] = place;
      else if (Object.hasOwn(KNOWS, key) && KNOWS[key](text)) question[key] = key === "both" ? true : key === "least" ? Number(text) : text;
      else unknown.push(`${key} “${text}”`);
    }
    if (question.with === question.run) question.with = -1;
    if (question.with < 0 && !OF_ONE_RUN.includes(question.show)) question.show = "wrong";
    if (question.with < 0 && ORDERS.get(question.order).needsTwo) question.order = "confident";
    return { question, unknown };
  };

  // The images of a question: those that fit but for what is shown, and those that are shown, in order.
  const find = (question) => {
    const run = runs[question.run], other = question.with < 0 ? null : runs[question.with];
    const chosen = other ? [run, other] : [run];
    const fits = (image, truth, answer) => (truth < 0 || labels[image] === truth) && (answer < 0 || chosen.some((each) => answerOf(each, image) === answer));
    const quality = QUALITIES.get(question.quality);
    const fitting = [];
    for (let image = 0; image < ids.length; image++) {
      if (chosen.every((each) => isTested(each, image))
        && (fits(image, question.true, question.answer) || (question.both && fits(image, question.answer, question.true)))
        && !(question.least && !(100 * confidence(run, image) >= question.least))
        && (!quality || quality.keeps(image))) fitting.push(image);
    }
    const { key } = ORDERS.get(question.order);
    // What has no value comes last; equals stay in the order of the classes.
    const keyed = fitting.filter((image) => SHOWN[question.show].keeps(image, run, other)).map((image) => [key(image, run, other), image]);
    keyed.sort(([a], [b]) => Number.isNaN(a) || Number.isNaN(b) ? Number.isNaN(a) - Number.isNaN(b) : a - b);
    return { run, other, chosen, fitting, shown: keyed.map(([, image]) => image) };
  };

  // Pictures.
  const { side, columns, per_sheet: perSheet } = data.thumbnails;
  const sizeOf = (image) => {
    const { sizes } = data.sheets[Math.floor(image / perSheet)], at = 2 * (image % perSheet);
    return [sizes[at], sizes[at + 1]];
  };
  const hasPicture = (image) => sizeOf(image)[0] > 0;
  const thumbnail = (image, alt, largest) => {
    const box = element("span", undefined, "thumb"), [width, height] = sizeOf(image);
    if (!width) {
      box.className = "thumb gone";
      box.setAttribute("role", "img");
      box.setAttribute("aria-label", `${alt}; its picture is missing`);
      return within(box, element("span", "picture missing"));
    }
    const sheet = data.sheets[Math.floor(image / perSheet)], place = image % perSheet, scale = largest / Math.max(width, height);
    const picture = element("img");
    picture.loading = "lazy";
    picture.src = data.pictures[sheet.picture];
    picture.alt = alt;
    picture.style.width = `${Math.min(columns, sheet.sizes.length / 2) * side * scale}px`;
    picture.style.left = `${-(place % columns) * side * scale}px`;
    picture.style.top = `${-Math.floor(place / columns) * side * scale}px`;
    box.style.width = `${width * scale}px`;
    box.style.height = `${height * scale}px`;
    box.classList.toggle("enlarged", Math.max(width, height) < side);
    return within(box, picture);
  };
  const says = (run, image) => `${run.label} says ${classes[answerOf(run, image)]}, ${isRight(run, image) ? "right" : "wrong"}, at ${percent(confidence(run, image))}`;
  const describe = (image, chosen) => `${classes[labels[image]]}: ${chosen.map((run) => says(run, image)).join("; ")}`;
  const verdict = (run, image) => {
    const right = isRight(run, image), line = element("span", undefined, `said ${right ? "right" : "wrong"}`), mark = element("span", right ? "✓" : "✗", "mark");
    mark.setAttribute("aria-hidden", "true");
    return within(line, mark, within(element("span"), element("span", `${run.label}: ${right ? "right: " : "wrong: "}`, "unseen"), classes[answerOf(run, image)]), element("span", percent(confidence(run, image)), "num"));
  };

  // The page.
  const form = byId("form"), detail = byId("detail"), shots = byId("shots"), more = byId("more");
  let question = null, found = null, opener = null, goes = null, applied = null;
  // A browser says that an address has changed only after what is running, and two quick keys are two steps.
  const ask = (next) => { location.hash = write(next); apply(); };

  const link = (text, changes, from = question) => {
    const made = element("a", text);
    made.href = write({ ...from, image: -1, ...changes });
    if (made.hash === write({ ...question, image: -1 })) made.setAttribute("aria-current", "true");
    return made;
  };
  const options = (name, entries, chosen, of = form) => {
    const select = of.elements[name];
    select.replaceChildren(...entries.map(([value, text]) => {
      const option = element("option", text);
      option.value = value;
      option.selected = String(value) === String(chosen);
      return option;
    }));
  };
  const fillForm = () => {
    const named = (names) => names.map((name, at) => [at, name]);
    options("run", named(runLabels), question.run);
    options("with", [[-1, "no other run"], ...named(runLabels).filter(([at]) => at !== question.run)], question.with);
    form.elements.with.disabled = runs.length < 2;
    options("true", [[-1, `any ${noun}`], ...named(classes)], question.true);
    options("answer", [[-1, `any ${noun}`], ...named(classes)], question.answer);
    form.elements.both.checked = question.both;
    options("show", Object.entries(SHOWN).filter(([key]) => question.with >= 0 || OF_ONE_RUN.includes(key)).map(([key, { text }]) => [key, text]), question.show);
    form.elements.least.value = question.least;
    showLeast();
    options("quality", [["", "of any quality"], ...[...QUALITIES].map(([key, { text }]) => [key, text])], question.quality);
    options("order", [...ORDERS].filter(([, { needsTwo }]) => !needsTwo || question.with >= 0).map(([key, { text }]) => [key, text]), question.order);
  };
  const showLeast = () => {
    const text = `${form.elements.least.value} %`;
    form.querySelector(".value").textContent = text;
    form.elements.least.setAttribute("aria-valuetext", text);
  };
  const asked = () => ({
    run: Number(form.elements.run.value), with: Number(form.elements.with.value), true: Number(form.elements.true.value),
    answer: Number(form.elements.answer.value), both: form.elements.both.checked, show: form.elements.show.value,
    least: Number(form.elements.least.value), quality: form.elements.quality.value, order: form.elements.order.value,
    image: -1, look: question.look, stage: question.stage, of: question.of,
  });

  const pairsOf = (run) => {
    const pairs = new Map();
    ids.forEach((_, image) => {
      if (!isTested(run, image) || isRight(run, image)) return;
      const [a, b] = [labels[image], answerOf(run, image)].sort((x, y) => x - y), key = `${a} ${b}`;
      if (!pairs.has(key)) pairs.set(key, { a, b, there: 0, back: 0 });
      pairs.get(key)[labels[image] === a ? "there" : "back"] += 1;
    });
    return [...pairs.values()].sort((x, y) => y.there + y.back - x.there - x.back || x.a - y.a || x.b - y.b);
  };
  const fillQuestions = () => {
    const of = { ...NOTHING, run: question.run, with: question.with, look: question.look, stage: question.stage, of: question.of }, run = runs[of.run], asks = [];
    const ask = (text, changes) => {
      const whole = { ...of, ...changes };
      asks.push([link(text, whole), find(whole).shown.length]);
    };
    ask(`All mistakes of ${run.label}`, {});
    ask(`Its mistakes at ${CONFIDENT} % and more`, { least: CONFIDENT });
    const other = of.with >= 0 ? of.with : of.run === 0 ? 1 : 0;
    if (runs.length > 1) {
      ask(`Wrong here, right in ${runLabels[other]}`, { with: other, show: "wrong-right" });
      ask(`Right here, wrong in ${runLabels[other]}`, { with: other, show: "right-wrong" });
      ask(`The same mistake as ${runLabels[other]}`, { with: other, show: "same-mistake" });
    }
    for (const { a, b, there, back } of pairsOf(run).slice(0, 5)) {
      const [first, second] = there >= back ? [a, b] : [b, a];
      ask(`${classes[first]} and ${classes[second]}, mistaken for each other`, { with: -1, true: first, answer: second, both: true });
    }
    byId("questions").replaceChildren(...asks.map(([made, number]) => within(element("li"), made, element("span", count(number), "num"))));
  };

  const table = (title, heads, rows) => {
    const made = element("table", undefined, "tight"), head = made.createTHead().insertRow(), body = made.createTBody();
    made.prepend(element("caption", title));
    heads.forEach((text, at) => { const cell = element("th", text, at ? "n" : ""); cell.scope = "col"; head.append(cell); });
    for (const [first, ...rest] of rows) {
      const row = body.insertRow(), name = within(element("th"), first);
      name.scope = "row";
      row.append(name, ...rest.map((each) => within(element("td", undefined, "n"), each)));
    }
    return within(element("div", undefined, "card"), made);
  };
  const crossTable = () => {
    const { run, other, fitting } = found, number = (show) => fitting.filter((image) => SHOWN[show].keeps(image, run, other)).length;
    const cell = (show) => link(count(number(show)), { show });
    if (!other) {
      const of = (show) => fitting.length ? percent(number(show) / fitting.length) : "–";
      return table("Right and wrong, whatever is shown", [run.label, "images", "share"], [["right", cell("right"), of("right")], ["wrong", cell("wrong"), of("wrong")], ["all", cell("all"), ""]]);
    }
    const ofOther = (right) => count(fitting.filter((image) => isRight(other, image) === right).length);
    return table(`${run.label} (rows) and ${other.label} (columns)`, ["answers", "right", "wrong", "all"], [
      ["right", cell("right-right"), cell("right-wrong"), cell("right")],
      ["wrong", cell("wrong-right"), cell("wrong-wrong"), cell("wrong")],
      ["all", ofOther(true), ofOther(false), cell("all")],
    ]);
  };
  const pairTable = () => {
    const { run, shown } = found, pairs = new Map();
    for (const image of shown) {
      if (isRight(run, image)) continue;
      const key = `${labels[image]} ${answerOf(run, image)}`;
      pairs.set(key, (pairs.get(key) ?? 0) + 1);
    }
    const rows = [...pairs].sort((a, b) => b[1] - a[1]).slice(0, MOST_PAIRS).map(([key, number]) => {
      const [truth, answer] = key.split(" ").map(Number);
      return [link(`${classes[truth]} → ${classes[answer]}`, { true: truth, answer, both: false }), count(number)];
    });
    if (!rows.length) return null;
    return table(rows.length < pairs.size ? `The ${rows.length} most frequent of ${count(pairs.size)} kinds of mistakes` : "Kinds of mistakes", [`true ${noun} → answer`, "images"], rows);
  };
  const inUnits = (quality, value) => value === null ? "–" : quality.scale === 1 ? `${count(Math.round(value))} px` : (value / quality.scale).toFixed(3);
  const qualityTable = () => {
    const all = ids.map((_, image) => image);
    const average = (quality, images) => inUnits(quality, mean(images.map((image) => quality.values[image]).filter((value) => value !== null)));
    return qualities.length ? table("Qualities, in the mean", ["quality", "shown", "all"], qualities.map((quality) => [`${quality.name} (${quality.meaning})`, average(quality, found.shown), average(quality, all)])) : null;
  };
  const fillCount = () => {
    const { chosen, shown } = found;
    const parts = [`${count(shown.length)} of ${several(ids.length, "test image", "test images")}`];
    for (const each of chosen) {
      const wrong = shown.filter((image) => !isRight(each, image)).length, sure = mean(shown.map((image) => confidence(each, image)).filter(Number.isFinite));
      parts.push(`${each.label}: ${count(wrong)} wrong, ${count(shown.length - wrong)} right${sure === null ? "" : `, at ${percent(sure)} in the mean`}`);
    }
    const missing = shown.filter((image) => !hasPicture(image)).length;
    if (missing) parts.push(`${several(missing, "picture is", "pictures are")} missing`);
    byId("count").textContent = `${parts.join("; ")}.`;
    byId("lines").textContent = `Below each picture its ${noun}, then the answer of ${chosen.map((each) => each.label).join(", then that of ")}.`;
  };
  const shot = (image) => {
    const item = element("li"), button = element("button");
    button.type = "button";
    button.dataset.image = image;
    button.setAttribute("aria-haspopup", "dialog");
    button.append(thumbnail(image, describe(image, found.chosen), 136));
    button.addEventListener("click", () => ask({ ...question, image }));
    return within(item, button, element("b", classes[labels[image]]), ...found.chosen.map((run) => verdict(run, image)));
  };
  const showMore = () => {
    const from = shots.children.length, { shown } = found;
    shots.append(...shown.slice(from, from + A_PAGE).map(shot));
    const left = shown.length - shots.children.length;
    more.hidden = left === 0;
    more.textContent = left > A_PAGE ? `Show ${count(A_PAGE)} more of ${count(left)}` : `Show the other ${count(left)}`;
    return shots.children[from];
  };
  const fillFound = () => {
    found = find(question);
    fillCount();
    byId("tables").replaceChildren(...[crossTable(), pairTable(), qualityTable()].filter(Boolean));
    shots.replaceChildren();
    showMore();
  };

  // One image.
  const ofRun = (run, image) => {
    const card = element("div", undefined, "card");
    card.append(element("h3", run.label));
    if (!isTested(run, image)) return within(card, element("p", "It was not tested on this image.", "soft"));
    const top = run.top[image], list = element("ul", undefined, "probabilities");
    const line = (label, probability) => {
      const item = element("li", undefined, label === labels[image] ? "own" : ""), meter = element("span", undefined, "meter"), bar = element("i");
      bar.style.width = `${100 * (Number.isFinite(probability) ? probability : 0)}%`;
      meter.setAttribute("aria-hidden", "true");
      list.append(within(item, element("span", classes[label]), within(meter, bar), element("span", percent(probability), "num")));
    };
    for (let at = 0; at < top.length; at += 2) line(top[at], share(top[at + 1]));
    const isListed = top.some((label, at) => at % 2 === 0 && label === labels[image]);
    if (!isListed) line(labels[image], ofTruth(run, image));
    const place = run.rank[image] === null ? "" : isRight(run, image) ? "" : ` The true ${noun} is number ${run.rank[image]} of ${classes.length}.`;
    card.append(element("p", `${isRight(run, image) ? "Right." : "Wrong."}${place}`, isRight(run, image) ? "is-right" : "is-wrong"), list);
    const map = run.maps.of[image];
    if (map === undefined) return within(card, element("p", run.maps.reason ? `No heat map: ${run.maps.reason}.` : "No heat map of this image was made.", "soft small"));
    const picture = element("img", undefined, "map"), shownBy = `what the model was fed, then ${run.maps.methods.join(" and ")} for its answer, dark to yellow: hotter`;
    picture.src = data.pictures[map];
    picture.alt = `Heat map of ${run.label} for ${classes[answerOf(run, image)]}: ${shownBy}`;
    return within(card, within(element("figure"), picture, element("figcaption", `From left to right: ${shownBy}.`)));
  };
  const fillDetail = () => {
    const { image } = question, at = found.shown.indexOf(image);
    byId("detail-title").textContent = `${classes[labels[image]]}, ${ids[image]}`;
    const facts = table("Qualities", ["quality", "value", "tenth"], qualities.map((quality) => [`${quality.name} (${quality.meaning})`, inUnits(quality, quality.values[image]), quality.tenths[image] === null ? "–" : String(quality.tenths[image] + 1)]));
    const beside = within(element("div"), qualities.length ? facts.firstChild : element("p", "No qualities were measured.", "soft"));
    if (data.files[image]) {
      const open = element("a", "Open the file");
      open.href = `${data.root}/${data.files[image]}`;
      open.target = "_blank";
      open.rel = "noopener";
      beside.append(within(element("p", undefined, "small"), open, " (where the runs were made)"));
    }
    for (const at of lookers.filter((each) => runs[each].inside.ids.includes(ids[image]))) {
      const inside = link(`Its feature maps in ${runLabels[at]}`, { look: at, stage: "", of: image });
      inside.addEventListener("click", () => { goes = byId("inside-title"); });
      beside.append(within(element("p", undefined, "small"), inside));
    }
    byId("detail-content").replaceChildren(
      within(element("div", undefined, "facing"), thumbnail(image, describe(image, found.chosen), Math.min(280, innerWidth - 60)), beside),
      within(element("div", undefined, "runs"), ...runs.map((run) => ofRun(run, image))),
    );
    for (const button of detail.querySelectorAll("[data-step]")) button.disabled = at < 0 || found.shown[at + Number(button.dataset.step)] === undefined;
    if (!detail.open) { opener = image; detail.showModal(); }
    detail.scrollTop = 0;
  };
  const step = (by) => {
    const next = found.shown[found.shown.indexOf(question.image) + by];
    if (next !== undefined && found.shown.includes(question.image)) ask({ ...question, image: next });
  };
  const closed = () => {
    const last = question.image;
    if (last >= 0) ask({ ...question, image: -1 });
    const to = goes;
    goes = null;
    (to ?? shots.querySelector(`[data-image="${last}"]`) ?? shots.querySelector(`[data-image="${opener}"]`) ?? byId("found-title")).focus();
  };

  // Feature maps, of the images that a run has kept them of.
  const look = byId("look"), opacity = byId("look-opacity"), lookers = runs.map((_, at) => at).filter((at) => runs[at].inside.stages.length);
  const ofBox = (part) => `${100 * part}%`;
  const part = (picture, columns, rows, column, row, alt) => {  // one cell of a picture, as wide as its box
    const image = element("img");
    image.src = data.pictures[picture];
    image.alt = alt;
    image.loading = "lazy";
    Object.assign(image.style, { width: ofBox(columns), height: ofBox(rows), left: ofBox(-column), top: ofBox(-row) });
    return image;
  };
  const chosenLook = () => {
    const at = lookers.includes(question.look) ? question.look : lookers[0], { inside } = runs[at];
    const stage = inside.stages.find(({ name }) => name === question.stage) ?? inside.stages[0];
    return { at, inside, stage, row: Math.max(0, inside.ids.indexOf(ids[question.of])) };
  };
  const mapOf = ({ inside, stage, row }, column, words, alt) => {
    const crop = element("span", undefined, "crop"), over = element("span", undefined, "over"), [left, top, width, height] = stage.area;
    const columns = stage.active[row].length + stage.separating.length;
    Object.assign(over.style, { left: ofBox(left), top: ofBox(top), width: ofBox(width), height: ofBox(height), opacity: opacity.value / 100 });
    crop.append(part(inside.crops, inside.ids.length, 1, row, 0, ""), within(over, part(stage.picture, columns, inside.ids.length, column, row, alt)));
    return within(element("li"), crop, element("span", words));
  };
  const showOpacity = () => {
    const text = `${opacity.value} %`;
    look.querySelector(".value").textContent = text;
    opacity.setAttribute("aria-valuetext", text);
    byId("look-maps").querySelectorAll(".over").forEach((over) => { over.style.opacity = opacity.value / 100; });
  };
  const fillLook = () => {
    const reasons = new Map();
    for (const { label, inside } of runs) if (!inside.stages.length) reasons.set(inside.reason, [...reasons.get(inside.reason) ?? [], label]);
    const without = [...reasons].map(([reason, named]) => `No feature maps of ${named.join(", ")}: ${reason}.`);
    look.hidden = !lookers.length;
    if (!lookers.length) { byId("look-said").textContent = without.join(" "); return; }
    const chosen = chosenLook(), { at, inside, stage, row } = chosen, id = inside.ids[row], [a, b] = inside.classes;
    const fill = (name, entries, value) => options(name, entries, value, look);
    fill("look", lookers.map((each) => [each, runLabels[each]]), at);
    fill("stage", inside.stages.map(({ name, channels, cells }) => [name, `${name}: ${several(channels, "channel", "channels")}, ${cells.join(" × ")} cells`]), stage.name);
    fill("of", inside.ids.map((each, place) => [place, `${classes[labels[ids.indexOf(each)]]}, ${each}`]), row);
    byId("look-said").textContent = [`${stage.name} of ${runLabels[at]} on ${id}.`, inside.levels, ...without].join(" ");
    const list = (channels, from, words) => within(element("ul", undefined, "channels"), ...channels.map((channel, number) => mapOf(chosen, from + number, words(channel), `Channel ${channel.channel} of ${stage.name} on ${id}`)));
    const active = stage.active[row], found = [element("h3", "Its most active channels"), element("p", `Score: ${inside.measures.active}.`, "soft"), list(active, 0, ({ channel, score }) => `channel ${channel}, score ${signed(score)}`)];
    found.push(element("h3", `Channels that tell ${a} from ${b}`));
    if (stage.separating.length) found.push(element("p", `d: ${inside.measures.separating}.`, "soft"), list(stage.separating, active.length, (channel) => `channel ${channel.channel}, d ${signed(channel.d)}, ${signed(channel.d_held_out)} in the other half`));
    else found.push(element("p", "There are too few images of them to tell.", "soft"));
    byId("look-maps").replaceChildren(...found);
    showOpacity();
  };
  look.addEventListener("change", ({ target }) => {
    if (target === opacity) return;
    const at = Number(look.elements.look.value), { inside } = runs[at], kept = chosenLook().inside.ids[Number(look.elements.of.value)];
    ask({ ...question, look: at, stage: look.elements.stage.value, of: ids.indexOf(inside.ids.includes(kept) ? kept : inside.ids[0]) });
  });
  look.addEventListener("submit", (event) => event.preventDefault());
  opacity.addEventListener("input", showOpacity);

  const apply = () => {
    if (applied === location.hash) return;
    applied = location.hash;
    const before = question, address = read(applied);
    question = address.question;
    byId("unknown").hidden = !address.unknown.length;
    byId("unknown").textContent = `Not known here, and left out of the question: ${address.unknown.join(", ")}.`;
    if (!before || write({ ...before, ...OF_IMAGES }) !== write({ ...question, ...OF_IMAGES })) {
      const focused = document.activeElement;
      fillForm();
      fillQuestions();
      fillFound();
      if (focused && !focused.isConnected) byId("found-title").focus();  // the link that was followed is made anew
    }
    if (!before || before.look !== question.look || before.stage !== question.stage || before.of !== question.of) {
      fillLook();
      fillQuestions();  // whose links keep what is looked at
    }
    if (question.image >= 0) fillDetail();
    else if (detail.open) detail.close();
  };

  form.addEventListener("change", () => ask(asked()));
  form.addEventListener("submit", (event) => event.preventDefault());
  form.elements.least.addEventListener("input", showLeast);
  more.addEventListener("click", () => showMore()?.querySelector("button").focus());
  detail.addEventListener("close", closed);
  detail.querySelector("[data-close]").addEventListener("click", () => detail.close());
  detail.querySelectorAll("[data-step]").forEach((button) => button.addEventListener("click", () => step(Number(button.dataset.step))));
  detail.addEventListener("keydown", (event) => { if (event.key === "ArrowLeft") step(-1); else if (event.key === "ArrowRight") step(1); });
  // The address is the question's, so that this link moves the focus and leaves the address.
  document.querySelector(".skip").addEventListener("click", (event) => { event.preventDefault(); byId("found-title").focus(); });
  addEventListener("hashchange", apply);
  apply();
})();
