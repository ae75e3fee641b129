// Where a row leads. What strangers wrote becomes a link only where it is an address of the web and nothing else.

/** The address of a text that is a link to the web as it stands, or null. */
export function webLink(value) {
  if (typeof value !== "string" || !/^https?:\/\/\S+$/i.test(value)) return null;
  try {
    return new URL(value).href;
  } catch {
    return null;
  }
}

/** The operator's page of one content, from a template with {content_id} and {project_id}; null without one. */
export function contentLink(template, contentId, projectId) {
  // A browser takes "." and ".." for steps in a path, however they are written; half a character can be in no address.
  if (!template || typeof contentId !== "string" || /^\.{0,2}$|\p{Surrogate}/u.test(contentId)) return null;
  const values = { content_id: contentId, project_id: projectId };
  return template.replaceAll(/\{(content_id|project_id)\}/g, (_, name) => encodeURIComponent(values[name]));
}

/** A link out of this page. */
export function anchor(address, text) {
  const link = document.createElement("a");
  link.href = address;
  link.textContent = text;
  link.rel = "noopener noreferrer";
  link.target = "_blank";
  return link;
}

/** JSON as people read it, as nodes: its strings that are links are links. */
export function jsonNodes(value) {
  const nodes = [];
  const text = JSON.stringify(value, null, 2);
  let end = 0;
  for (const found of text.matchAll(/("(?:[^"\\]|\\.)*")(:?)/g)) {
    const written = found[2] ? null : JSON.parse(found[1]); // what a colon follows is a key
    const address = webLink(written);
    if (address === null) continue;
    nodes.push(document.createTextNode(text.slice(end, found.index + 1)), anchor(address, written));
    end = found.index + found[1].length - 1;
  }
  nodes.push(document.createTextNode(text.slice(end)));
  return nodes;
}
