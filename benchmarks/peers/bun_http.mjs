// The publishing API for Bun.

import { answerPublication, then } from "./rules.mjs";

export async function takePublication(request, publish) {
  const path = request.url.slice(request.url.indexOf("/", 8));
  const body = await request.text();
  const answer = answerPublication(request.method, path, request.headers.get("x-api-key"), () => body, publish);
  return then(answer, (found) => (found === null ? new Response(null, { status: 404 }) : Response.json(found[1], { status: found[0] })));
}
