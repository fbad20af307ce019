/**
 * The theme of all pages: light, dark, or the system's. This is a classic script in the head, so that it runs
 * before the first paint. Users choose at the foot of the page, and the browser stores the choice.
 */
(() => {
  /** Key and attribute of JupyterHub, so that its pages have the same theme. */
  const KEY = "jupyterhub-bs-theme";
  const system = matchMedia("(prefers-color-scheme: dark)");
  let theme = stored();

  function stored() {
    try {
      const found = localStorage.getItem(KEY);
      return found === "light" || found === "dark" ? found : "system";
    } catch {
      return "system"; // The browser stores nothing for this site, so the choice is for this page only.
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
      // The browser stores nothing for this site.
    }
  }

  apply();
  system.addEventListener("change", apply);
  // Another tab changed the choice.
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
