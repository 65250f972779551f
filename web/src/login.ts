// The login page.

const field = <T extends HTMLElement>(id: string) => document.getElementById(id) as T;
const problem = field<HTMLParagraphElement>("problem");
const send = field<HTMLButtonElement>("send");

// The fragment, which says what the dashboard shows, survives the login.
const home = () => location.replace(`./${location.hash}`);

async function logIn(): Promise<void> {
  const name = field<HTMLInputElement>("name").value.trim();
  const password = field<HTMLInputElement>("password");
  const response = await fetch("api/v1/session", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ name, password: password.value }),
  });
  if (response.ok) {
    home();
    return;
  }
  const answer = (await response.json().catch(() => ({}))) as { detail?: string };
  const wait = response.headers.get("Retry-After");
  problem.textContent = (answer.detail ?? response.statusText) + (wait ? ` (in ${wait} s)` : "");
  password.select();
}

field("name").focus();
field<HTMLFormElement>("login").onsubmit = async (event) => {
  event.preventDefault();
  send.disabled = true;
  problem.textContent = "";
  try {
    await logIn();
  } catch {
    problem.textContent = "there is no connection to the service";
  }
  send.disabled = false;
};

// A link on another site opens this page without the cookie; requests from here have it.
fetch("api/v1/session", { cache: "no-store" }).then(
  (response) => response.ok && home(),
  () => undefined,
);
