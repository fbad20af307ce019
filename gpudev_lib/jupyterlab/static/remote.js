/**
 * What JupyterLab loads of this extension: a module federation container. The modules beside it are loaded as
 * they are, since nothing here is bundled; JupyterLab's own come from its share scope.
 */
{
  const here = /** @type {HTMLScriptElement} */ (document.currentScript).src;
  /** @type {import("./shared.js").Scope} */
  let shared = {};
  const containers = (window._JUPYTERLAB ??= {});
  containers.gpudev = {
    init: (scope) => {
      shared = scope;
    },
    get: async () => {
      const { plugins } = await import(new URL("index.js", here).href);
      const found = await plugins(shared);
      return () => ({ __esModule: true, default: found });
    },
  };
}
