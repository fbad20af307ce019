// Answers of the Hub's proxy itself, for a part of the hub that does not answer. proxy-command loads this file.
//
// A malformed % escape is an error of the request, not of the proxy. A restarted proxy has no routes until the Hub adds
// them, so an unknown route gets 503 instead of 404. Programs get JSON. Clients cannot fill the log, neither with
// malformed nor with long addresses.

import { ConfigurableProxy } from "../.tools/node/node_modules/configurable-http-proxy/lib/configproxy.js";

const API = /^\/(hub\/api|services\/gpudev\/(api|servers|health|metrics))(\/|\?|$)/;
const LONGEST_LOGGED = 200;
const RETRY_AFTER = "2";

const page = ConfigurableProxy.prototype.handleProxyError;
const bare = ConfigurableProxy.prototype._handleProxyErrorDefault;

// The page for people while the Hub, which has the error pages, does not answer: after reloads, for bookmarks, and in
// browsers without scripts. A form is never sent again automatically.
ConfigurableProxy.prototype._handleProxyErrorDefault = function (code, kind, req, res) {
  if (kind === "ws" || res.headersSent || !(req.headers.accept ?? "").includes("text/html")) {
    bare.call(this, code, kind, req, res);
    return;
  }
  const again = req.method === "GET" || req.method === "HEAD";
  const next = again
    ? "This page retries every few seconds."
    : "Your request was not carried out. Go back, and try again in a few seconds.";
  res.writeHead(code, { "Content-Type": "text/html; charset=utf-8", "Cache-Control": "no-store" });
  res.end(
    '<!doctype html><html lang="en"><meta charset="utf-8"><title>The Hub does not answer</title>' +
      '<meta name="viewport" content="width=device-width, initial-scale=1">' +
      (again ? '<meta http-equiv="refresh" content="3">' : "") +
      '<style>body { font: 1rem/1.5 system-ui, sans-serif; max-width: 34rem; margin: 15vh auto; padding: 0 1rem }</style>' +
      `<h1>The Hub does not answer</h1><p>${next}</p><p>Running servers and reservations are not affected.</p></html>`,
  );
};

function problem(code, error) {
  if (error instanceof URIError || error?.code === "ERR_INVALID_URL") {
    return [400, "invalid_request", "The address is malformed.", "Check its % escapes."];
  }
  if (code === 404 || code === 503) {
    return [503, "unavailable", "This part of the hub does not answer.", "Try again in a few seconds."];
  }
  return [code, "internal_error", "The proxy failed.", "Try again. If this continues, contact an operator."];
}

ConfigurableProxy.prototype.handleProxyError = function (code, kind, req, res, error) {
  const [status, name, message, hint] = problem(code, error);
  const short = Object.create(req, { url: { value: req.url.slice(0, LONGEST_LOGGED) } });
  const forReading = (req.headers.accept ?? "").includes("text/html") && !API.test(req.url);
  if (!res || kind === "ws" || (forReading && status !== 400)) {
    page.call(this, status, kind, short, res, status === 400 ? undefined : error);
    return;
  }
  this.metrics.requestsProxyCount.labels(status).inc();
  if (status !== 400) {
    this.log.error("%s %s %s %s", status, req.method, short.url.split("?", 1)[0], error?.message ?? "no route");
  }
  if (res.headersSent) {
    res.destroy();
    return;
  }
  const headers = { "Content-Type": forReading ? "text/html" : "application/json", "Cache-Control": "no-store" };
  if (status === 503) headers["Retry-After"] = RETRY_AFTER;
  res.writeHead(status, headers);
  if (forReading) {
    res.end(`<!doctype html><title>Bad request</title><h1>Bad request</h1><p>${message} ${hint}</p>`);
  } else {
    // Combines the error format of the service with that of the Hub.
    res.end(JSON.stringify({ error: { code: name, message, hint }, status, message }));
  }
};
