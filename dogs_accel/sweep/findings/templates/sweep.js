"use strict";
(() => {
  const box = document.querySelector("#parallel");
  if (!box) return;
  const lines = [...box.querySelectorAll("[data-trial]")];
  const byTrial = new Map(lines.map((line) => [line.dataset.trial, line]));
  const data = JSON.parse(document.querySelector("#trials-data").textContent);
  const info = new Map(data.trials.map((trial) => [String(trial.number), trial]));
  const selects = [...document.querySelectorAll(".picks select")], least = document.querySelector(".picks input");
  const count = document.querySelector("#picked"), said = document.querySelector("#chosen-trial");
  const rows = new Map([...document.querySelectorAll("#trials tbody tr[data-trial]")].map((row) => [row.dataset.trial, row]));
  const resting = said.textContent;
  let chosen = null;
  const choose = (number) => {
    if (number === chosen) return;
    byTrial.get(chosen)?.classList.remove("chosen");
    rows.get(chosen)?.classList.remove("chosen");
    chosen = number;
    const line = byTrial.get(number), trial = info.get(number);
    rows.get(number)?.classList.add("chosen");
    if (!line || !trial) { said.textContent = resting; return; }
    line.classList.add("chosen");
    line.parentNode.append(line); // drawn last, so above the others
    said.textContent = `Trial ${trial.number}, validation accuracy ${trial.value.toFixed(4)}: ` +
      data.names.map((name, at) => `${name} ${trial.shown[at]}`).join(", ");
  };
  const shown = () => lines.filter((line) => !line.classList.contains("off"))
    .sort((a, b) => info.get(b.dataset.trial).value - info.get(a.dataset.trial).value || a.dataset.trial - b.dataset.trial);
  const apply = () => {
    least.nextElementSibling.textContent = Number(least.value).toFixed(3);
    for (const line of lines) {
      const trial = info.get(line.dataset.trial);
      const fits = selects.every((select, at) => select.value === "" || trial.levels[at] === Number(select.value));
      line.classList.toggle("off", !(fits && trial.value >= Number(least.value) - 1e-9));
    }
    const values = shown().map((line) => info.get(line.dataset.trial).value);
    count.textContent = `${values.length} of ${lines.length} complete trials` +
      (values.length ? `, mean ${(values.reduce((sum, value) => sum + value, 0) / values.length).toFixed(4)}, best ${values[0].toFixed(4)}` : "");
    if (chosen !== null && byTrial.get(chosen)?.classList.contains("off")) choose(null);
  };
  selects.forEach((select) => select.addEventListener("change", apply));
  least.addEventListener("input", apply);
  lines.forEach((line) => line.addEventListener("pointerenter", () => choose(line.dataset.trial)));
  box.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 }[event.key];
    if (event.key === "Escape") choose(null);
    if (!step) return;
    event.preventDefault();
    const order = shown(), at = order.findIndex((line) => line.dataset.trial === chosen);
    if (order.length) choose(order[at < 0 ? 0 : Math.min(Math.max(at + step, 0), order.length - 1)].dataset.trial);
  });
  rows.forEach((row, number) => row.addEventListener("click", () => choose(number)));
  document.querySelector("#reset")?.addEventListener("click", () => {
    selects.forEach((select) => { select.value = ""; });
    least.value = least.min;
    apply();
  });
  apply();
})();
