// Requests to /api/v1. Addresses are relative to the page, so that they work below a base path.

import { Problem, parseProblem } from "./problem";
import type { Session } from "./types";

export const API = "api/v1";

let session: Session | null = null;

/** Remembers who is logged in: requests that change something need the session's CSRF token. */
export function setSession(value: Session | null): void {
  session = value;
}

type Query = Record<string, string | number | boolean | undefined | null>;

/** An address of the API; values that are absent or empty are left out. */
export function address(path: string, query: Query = {}): string {
  const all = Object.entries(query).filter(([, v]) => v !== undefined && v !== null && v !== "");
  const text = new URLSearchParams(all.map(([k, v]) => [k, String(v)])).toString();
  return `${API}/${path}${text ? `?${text}` : ""}`;
}

/** Parts of an address, escaped. */
export function path(...parts: (string | number)[]): string {
  return parts.map((p) => encodeURIComponent(p)).join("/");
}

interface Options {
  method?: "GET" | "POST" | "PUT" | "DELETE";
  query?: Query;
  /** Sent as JSON. */
  json?: unknown;
  /** Sent as it is. */
  body?: Blob;
  signal?: AbortSignal;
}

/** Sends a request; returns the JSON of the answer, or null if it has none.
 * @throws Problem for any answer that is not a success, and if there is no answer. */
export async function request<T>(to: string, options: Options = {}): Promise<T> {
  const method = options.method ?? "GET";
  const headers: Record<string, string> = {};
  let body: BodyInit | undefined;
  if (options.json !== undefined) {
    headers["Content-Type"] = "application/json";
    body = JSON.stringify(options.json);
  } else if (options.body) {
    headers["Content-Type"] = options.body.type;
    body = options.body;
  }
  if (method !== "GET" && session?.csrf_token) headers["X-CSRF-Token"] = session.csrf_token;
  let response: Response;
  try {
    const signal = options.signal ?? null;
    // Answers with an entity tag are asked for again, and not sent again if they are the same.
    const cache = method === "GET" ? "no-cache" : "no-store";
    const init: RequestInit = { method, headers, cache, signal };
    if (body !== undefined) init.body = body;
    response = await fetch(address(to, options.query), init);
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new Problem(0, "no-connection", "there is no connection to the service");
  }
  const text = await response.text();
  if (!response.ok) {
    if (response.status === 401) logInAgain();
    throw parseProblem(response.status, text, response.headers.get("Retry-After"));
  }
  return (text ? JSON.parse(text) : null) as T;
}

/** Opens the login page; the fragment says to which view the login leads back. */
export function logInAgain(): void {
  location.assign(`login${location.hash}`);
}

/** The address of a WebSocket of the API. */
export function socketAddress(to: string, query: Query): string {
  const url = new URL(address(to, query), document.baseURI);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  return url.href;
}
