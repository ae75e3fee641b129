// What pages do with elements of a document.

/** Gives an element a text; one that says so already is left alone, so that nothing is drawn or announced again. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
