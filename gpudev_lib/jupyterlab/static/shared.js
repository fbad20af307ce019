/** JupyterLab's own modules, from the scope that module federation shares. */

/**
 * Modules by name and version.
 * @typedef {Record<string, Record<string, { get: () => unknown, from?: string }>>} Scope
 */

/**
 * Load JupyterLab's copy of a module, not one that another extension brought.
 * @param {Scope} scope
 * @param {string} name
 * @returns {Promise<any>}
 */
async function load(scope, name) {
  const copies = Object.values(scope[name] ?? {});
  const copy = copies.find(({ from }) => from?.startsWith("@jupyterlab/")) ?? copies[0];
  if (!copy) throw new Error(`JupyterLab does not share ${name}`);
  const factory = /** @type {() => unknown} */ (await copy.get());
  return factory();
}

/**
 * What this extension needs of JupyterLab.
 * @typedef {object} Lab
 * @property {typeof import("@jupyterlab/application")} application
 * @property {typeof import("@jupyterlab/apputils")} apputils
 * @property {typeof import("@jupyterlab/coreutils")} coreutils
 * @property {typeof import("@jupyterlab/services")} services
 * @property {typeof import("@jupyterlab/statusbar")} statusbar
 * @property {typeof import("@lumino/widgets")} widgets
 */

/**
 * Load what this extension needs.
 * @param {Scope} scope
 * @returns {Promise<Lab>}
 */
export async function loadLab(scope) {
  const [application, apputils, coreutils, services, statusbar, widgets] = await Promise.all(
    [
      "@jupyterlab/application",
      "@jupyterlab/apputils",
      "@jupyterlab/coreutils",
      "@jupyterlab/services",
      "@jupyterlab/statusbar",
      "@lumino/widgets",
    ].map((name) => load(scope, name)),
  );
  return { application, apputils, coreutils, services, statusbar, widgets };
}
