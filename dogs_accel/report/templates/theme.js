"use strict";
(() => {
  const buttons = [...document.querySelectorAll("[data-set-theme]")];
  // A browser may forbid storage to files; the theme then lasts as long as the page.
  const remembered = { get() { try { return localStorage.getItem("theme"); } catch { return null; } },
    set(theme) { try { localStorage.setItem("theme", theme); } catch { /* see above */ } } };
  const setTheme = (theme) => {
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    buttons.forEach((button) => button.setAttribute("aria-pressed", String(button.dataset.setTheme === theme)));
  };
  setTheme(["light", "dark"].includes(remembered.get()) ? remembered.get() : "auto");
  buttons.forEach((button) => button.addEventListener("click", () => {
    setTheme(button.dataset.setTheme);
    remembered.set(button.dataset.setTheme);
  }));
})();
