/**
 * The theme of every page: light, dark, or as the system is set. A classic script in the head, so that it runs
 * before the first paint; the choice is made at the foot of the page and kept in this browser.
 */
(() => {
  /** JupyterHub's own key and attribute, so that its pages agree with ours. */
  const KEY = "jupyterhub-bs-theme";
  const system = matchMedia("(prefers-color-scheme: dark)");
  let theme = stored();

  function stored() {
    try {
      const found = localStorage.getItem(KEY);
      return found === "light" || found === "dark" ? found : "system";
    } catch {
      return "system"; // The browser keeps nothing for this site: the choice holds for this page.
    }
  }

  function apply() {
    const shown = theme === "system" ? (system.matches ? "dark" : "light") : theme;
    document.documentElement.dataset.bsTheme = shown;
    const select = document.getElementById("theme");
    if (select instanceof HTMLSelectElement) select.value = theme;
  }

  /** @param {string} chosen */
  function keep(chosen) {
    try {
      if (chosen === "system") localStorage.removeItem(KEY);
      else localStorage.setItem(KEY, chosen);
    } catch {
      // As above.
    }
  }

  apply();
  system.addEventListener("change", apply);
  // Another tab has chosen.
  window.addEventListener("storage", (event) => {
    if (event.key !== KEY && event.key !== null) return;
    theme = stored();
    apply();
  });
  document.addEventListener("DOMContentLoaded", () => {
    const select = document.getElementById("theme");
    if (!(select instanceof HTMLSelectElement)) return;
    select.addEventListener("change", () => {
      theme = select.value;
      keep(theme);
      apply();
    });
    const whole = select.closest("footer");
    if (whole) whole.hidden = false;
    apply();
  });
})();
