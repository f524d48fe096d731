/** Making and arranging elements. */

export const byId = (id) => document.getElementById(id);

export function element(tag, className = "", text = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== "") made.textContent = text;
  return made;
}

/** A cell that says its column itself where a narrow screen has no room for columns. */
export function labelled(cell, column) {
  cell.dataset.column = column;
  return cell;
}

/** A button; `act` names it among its siblings, so that focus finds it after a redraw. */
export function button(text, act, onClick, className = "plain small") {
  const made = element("button", className, text);
  made.type = "button";
  made.dataset.act = act;
  made.addEventListener("click", onClick);
  return made;
}

export function badge(text, state) {
  const made = element("span", "badge", text);
  made.dataset.state = state;
  return made;
}

/** Term and description pairs as a `<dl>`; descriptions are text or elements. */
export function terms(pairs) {
  const list = element("dl", "terms");
  for (const [term, description] of pairs) {
    const said = element("dd");
    said.append(description);
    list.append(element("dt", "", term), said);
  }
  return list;
}

/** Make `children` the children of `parent`, in order, moving none that stands right. */
export function arrange(parent, children) {
  const wanted = new Set(children);
  for (const child of [...parent.children]) if (!wanted.has(child)) child.remove();
  let at = parent.firstElementChild;
  for (const child of children) {
    if (child === at) at = at.nextElementSibling;
    else parent.insertBefore(child, at);
  }
}

/** Put `fresh` in the place of `old`, and the focus on the button that had it. */
export function swap(old, fresh) {
  const act = old.contains(document.activeElement) ? document.activeElement.dataset.act : null;
  old.replaceWith(fresh);
  if (act) fresh.querySelector(`[data-act="${act}"]`)?.focus();
}

/** Change a text only where it differs, so that nobody's selection is lost. */
export function setText(target, text) {
  if (target.textContent !== text) target.textContent = text;
}
