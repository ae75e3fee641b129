// Questions to the HTTP API, with the session that the page has anyway.

/** An answer that is none; `status` is that of HTTP. */
export class Refused extends Error {
  constructor(status, said) {
    super(said?.error?.message ?? `The server answered ${status}`);
    this.status = status;
  }
}

/** What an address answers, as JSON says it. Throws `Refused`, or what `fetch` throws where nobody answers. */
export async function fetchJson(address, { headers = {}, ...options } = {}) {
  const answer = await fetch(address, { headers: { Accept: "application/json", ...headers }, ...options });
  const said = await answer.json().catch(() => null);
  if (!answer.ok || said === null) throw new Refused(answer.status, said);
  return said;
}
