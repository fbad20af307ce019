interface Window {
    /** The containers of JupyterLab's extensions, by name. */
    _JUPYTERLAB?: Record<
        string,
        {
            init(scope: import("./static/shared.js").Scope): void;
            get(module: string): Promise<() => { __esModule: true; default: unknown }>;
        }
    >;
}
