// Who else watches this project, and what they look at.

import { avatar } from "./row.js";

const SHOWN = 5; // circles; the others are a number

export class Watchers {
  /** `elements`: box, list; `me` is this person's user id; `look(lookers)` is told content_id -> people. */
  constructor(elements, me, look) {
    Object.assign(this, elements, { me, look });
    this.people = new Map(); // user_id -> { user_id, username }
    this.looking = new Map(); // user_id -> content_id
  }

  /** Everybody who is there. What they look at is said after it. */
  present(users) {
    this.people = new Map(users.map((user) => [user.user_id, user]));
    this.looking.clear();
    this.#show();
  }

  changed(joined, left) {
    for (const user of joined) this.people.set(user.user_id, user);
    for (const { user_id: id } of left) {
      this.people.delete(id);
      this.looking.delete(id);
    }
    this.#show();
  }

  looks(userId, contentId) {
    if (contentId === null) this.looking.delete(userId);
    else this.looking.set(userId, contentId);
    this.#tell();
  }

  #show() {
    const others = [...this.people.values()].filter((person) => person.user_id !== this.me);
    others.sort((a, b) => a.username.localeCompare(b.username));
    this.box.hidden = others.length === 0;
    const shown = others.length > SHOWN ? others.slice(0, SHOWN - 1) : others;
    const items = shown.map((person) => this.#item(avatar(person), person.username));
    const rest = others.slice(shown.length).map((person) => person.username);
    if (rest.length) items.push(this.#item(this.#more(rest), rest.join(", ")));
    this.list.replaceChildren(...items);
    this.#tell();
  }

  #item(circle, names) {
    const item = document.createElement("li");
    const words = document.createElement("span");
    words.className = "visually-hidden";
    words.textContent = names;
    item.append(circle, words);
    return item;
  }

  #more(names) {
    const circle = document.createElement("span");
    circle.className = "face face--more";
    circle.textContent = `+${names.length}`;
    circle.title = names.join(", ");
    circle.setAttribute("aria-hidden", "true");
    return circle;
  }

  #tell() {
    const lookers = new Map();
    for (const [userId, contentId] of this.looking) {
      const person = this.people.get(userId);
      if (person && userId !== this.me) lookers.set(contentId, [...(lookers.get(contentId) ?? []), person]);
    }
    this.look(lookers);
  }
}
