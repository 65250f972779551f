// Errors of requests, as one sentence for the person at the screen.

/** An error that the service has answered, or that kept it from answering. */
export class Problem extends Error {
  constructor(
    /** HTTP status; 0 without an answer. */
    readonly status: number,
    /** The service's code for it, such as `no-history`; empty if it gave none. */
    readonly code: string,
    detail: string,
    /** The invalid field, if one is. */
    readonly field = "",
  ) {
    super(detail);
    this.name = "Problem";
  }
}

interface Body {
  detail?: unknown;
  title?: unknown;
  code?: unknown;
  field?: unknown;
}

const text = (value: unknown) => (typeof value === "string" ? value : "");

/** The problem in an answer: problem+json (RFC 9457), or plain text. */
export function parseProblem(status: number, body: string, retryAfter: string | null): Problem {
  let parsed: Body = {};
  try {
    const json: unknown = JSON.parse(body);
    if (typeof json === "object" && json !== null) parsed = json;
  } catch {
    // Not JSON: some answers are a line of text.
    parsed = { detail: body.trim().slice(0, 300) };
  }
  const detail = text(parsed.detail) || text(parsed.title) || `the service answered ${status}`;
  const wait = retryAfter ? ` (in ${retryAfter} s)` : "";
  return new Problem(status, text(parsed.code), detail + wait, text(parsed.field));
}

/** One sentence that says what went wrong and, if one is at fault, which field. */
export function sentence(error: unknown): string {
  if (error instanceof Problem) {
    const about = error.field ? `${error.field}: ` : "";
    const line = about + error.message;
    return /[.!?)]$/.test(line) ? line : `${line}.`;
  }
  if (error instanceof Error) return `${error.message}.`;
  return "Something went wrong.";
}
