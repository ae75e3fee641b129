// Menus that open below their button: they close as menus do everywhere.

/** Has every menu below `root` close where somebody presses Escape, clicks elsewhere, or goes on with the keyboard. */
export function closeMenus(root) {
  const menus = () => root.querySelectorAll("details.menu[open]");

  root.addEventListener("keydown", (event) => {
    const menu = event.key === "Escape" ? event.target.closest("details.menu[open]") : null;
    if (!menu) return;
    menu.open = false;
    menu.querySelector("summary").focus();
    event.stopPropagation();
  });
  const elsewhere = (event) => {
    for (const menu of menus()) if (!menu.contains(event.target)) menu.open = false;
  };
  document.addEventListener("click", elsewhere);
  document.addEventListener("focusin", elsewhere);
}
