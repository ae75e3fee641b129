// What pages do with elements of a document.

/** Gives an element a text; one that says so already is left alone, so that nothing is drawn or announced again. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Has an element stand for a status, and its badge say so. `icons` is the address of the icon sprite. */
export function setStatus(element, status, words, icons) {
  if (element.dataset.status === status) return;
  element.dataset.status = status;
  element.querySelector("use").setAttribute("href", `${icons}#${status}`);
  setText(element.querySelector(".badge__text"), words);
}

/** Gives the `time` in an element a moment, in short words, and in long ones for who points there. */
export function setTime(element, time, words, title) {
  const stamp = element.querySelector("time");
  stamp.dateTime = time.toISOString();
  stamp.title = title;
  setText(stamp, words);
}
