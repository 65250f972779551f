// Who uses the page, and what the service can do.

import { logInAgain, request, setSession } from "./api/client";
import { Problem } from "./api/problem";
import type { Role, Service, Session } from "./api/types";
import { Value } from "./store";

export const session = new Value<Session | null>(null);
export const service = new Value<Service | null>(null);

const RANK: Record<Role, number> = { viewer: 0, operator: 1, admin: 2 };

/** Whether the user has at least this role. The service decides; the page only hides. */
export function may(role: Role): boolean {
  const who = session.get();
  return who !== null && RANK[who.role] >= RANK[role];
}

/** Reads both. @throws Problem */
export async function begin(): Promise<void> {
  const who = await request<Session>("session");
  setSession(who);
  session.set(who);
  try {
    service.set(await request<Service>("service"));
  } catch (error) {
    if (!(error instanceof Problem) || error.status !== 404) throw error;
  }
}

/** Ends the session. @throws Problem */
export async function logOut(): Promise<void> {
  await request("session", { method: "DELETE" });
  location.hash = "";
  logInAgain();
}
