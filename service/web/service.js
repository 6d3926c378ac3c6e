/** The service's calls, as JSON over HTTP, from the page's own origin and nowhere else. */

/** A call that failed: `reason` as in google.rpc.ErrorInfo, "UNREACHABLE" where nobody answered. */
export class CallFailed extends Error {
  constructor(message, reason, retrySeconds) {
    super(message);
    Object.assign(this, { reason, retrySeconds });
  }
}

const running = new Map();
let apiKey = ""; // nowhere but here: a reload forgets it

/** Send `key` with every call from now on. */
export function useKey(key) {
  apiKey = key.trim();
}

/** Stop what runs on a channel: its answer is no longer wanted. */
export function stop(channel) {
  running.get(channel)?.abort();
  running.delete(channel);
}

/**
 * Call the service; a new call on a channel stops the one before it.
 * @returns the reply, or null when it was stopped
 * @throws {CallFailed}
 */
export async function call(channel, path, request) {
  stop(channel);
  const controller = new AbortController();
  running.set(channel, controller);
  try {
    const reply = await fetched(path, request, controller.signal);
    return controller.signal.aborted ? null : reply;
  } catch (error) {
    if (controller.signal.aborted) return null;
    throw error instanceof CallFailed ? error : new CallFailed(String(error.message), "UNREACHABLE");
  } finally {
    if (running.get(channel) === controller) running.delete(channel);
  }
}

async function fetched(path, request, signal) {
  const headers = {};
  if (apiKey) headers.authorization = `Bearer ${apiKey}`;
  if (request) headers["content-type"] = "application/json";
  const post = request ? { method: "POST", body: JSON.stringify(request) } : {};
  const response = await fetch(`v1/${path}`, { ...post, headers, signal });
  const reply = await response.json().catch(() => null);
  if (!response.ok || reply === null) throw failureOf(reply, response);
  return reply;
}

/** A google.rpc.Status as an error. */
function failureOf(status, response) {
  const detail = (type) => (status?.details ?? []).find((each) => each["@type"]?.endsWith(type));
  const reason = detail("google.rpc.ErrorInfo")?.reason ?? (response.status === 502 ? "UNREACHABLE" : "");
  const retry = parseFloat(detail("google.rpc.RetryInfo")?.retryDelay);
  return new CallFailed(status?.message || `HTTP ${response.status}`, reason, Number.isNaN(retry) ? null : retry);
}
