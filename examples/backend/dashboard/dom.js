// What the page is drawn with: elements, and lists that keep their elements.
//
// Data becomes text nodes and attributes, never markup. Elements are made once for each thing that is shown
// and then brought up to date, so that the focus stays where it is and a screen reader is not told everything
// again each second.

const SVG = "http://www.w3.org/2000/svg";

/** Return the element with this id. */
export const byId = (id) => document.getElementById(id);

/** Return a new HTML element with attributes and children. */
export function element(name, attributes = {}, ...children) {
  return furnished(document.createElement(name), attributes, children);
}

/** Return a new SVG element with attributes and children. */
export function drawing(name, attributes = {}, ...children) {
  return furnished(document.createElementNS(SVG, name), attributes, children);
}

function furnished(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** Set an element's text, and touch nothing where it says so already. */
export function write(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

/** Set an attribute, and touch nothing where it is so already. */
export function mark(target, name, value) {
  if (target.getAttribute(name) !== String(value)) target.setAttribute(name, value);
}

/**
 * Return a function that brings the children of `parent` up to date with a list of things.
 *
 * `keyOf` tells one thing from another; `make` returns `{ root, update }` for a new one.
 */
export function listIn(parent, keyOf, make) {
  const parts = new Map();
  return (things) => {
    const present = new Set(things.map(keyOf));
    for (const [key, part] of parts) {
      if (!present.has(key)) {
        part.root.remove();
        parts.delete(key);
      }
    }
    things.forEach((thing, place) => {
      const key = keyOf(thing);
      if (!parts.has(key)) parts.set(key, make(thing));
      const part = parts.get(key);
      part.update(thing);
      if (parent.children[place] !== part.root) parent.insertBefore(part.root, parent.children[place] ?? null);
    });
  };
}

/** Return a labelled bar for a share of 0 to 1, as `{ root, update }`. */
export function meter(label) {
  const fill = element("span", { class: "fill" });
  const root = element("div", { class: "meter", role: "meter", "aria-label": label, "aria-valuemin": 0, "aria-valuemax": 1 }, fill);
  return {
    root,
    update(share, text, level) {
      const shown = Math.min(1, Math.max(0, share));
      fill.style.inlineSize = `${(shown * 100).toFixed(1)}%`;
      mark(root, "aria-valuenow", shown.toFixed(3));
      mark(root, "aria-valuetext", text);
      mark(root, "data-level", level);
    },
  };
}

/** Return a label and its figure, as `{ root, update }`. */
export function figure(label) {
  const value = element("dd");
  const root = element("div", {}, element("dt", {}, label), value);
  return { root, update: (text) => write(value, text) };
}
