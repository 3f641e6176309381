// SPDX-License-Identifier: MPL-2.0
// Builds the page out of elements and texts; data never becomes markup.

/** An element: attributes by name, `on…` functions as listeners, children as nodes or texts. */
export function h(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith('on')) element.addEventListener(key.slice(2), value);
    else if (key === 'value') element.value = value;
    else element.setAttribute(key, value === true ? '' : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined).map(shown));
  return element;
}

/** A node as it is, anything else as its text. */
function shown(child) {
  return child instanceof Node ? child : document.createTextNode(String(child));
}

/** A table of rows; each cell is a node, a text, or null for a dash. */
export function table(caption, heads, rows, nothing) {
  if (!rows.length) return h('p', { class: 'quiet' }, nothing);
  return h('table', { 'aria-label': caption },
    h('thead', {}, h('tr', {}, heads.map((head) => h('th', { scope: 'col' }, head)))),
    h('tbody', {}, rows.map((cells) => h('tr', {}, cells.map((cell) => h('td', {}, cell ?? '–'))))));
}

/** A field with its label. */
export function field(label, input, wide = false) {
  return h('label', { class: wide ? 'wide' : null }, label, input);
}

/** A choice of values. */
export function choice(values, chosen, attributes = {}) {
  return h('select', attributes, values.map(([value, label]) =>
    h('option', { value, selected: value === chosen }, label)));
}

/** A list of names and values. */
export function facts(pairs) {
  return h('dl', {}, pairs.filter(([, value]) => value !== null && value !== undefined && value !== '')
    .flatMap(([name, value]) => [h('dt', {}, name), h('dd', {}, value)]));
}

/**
 * Asks before something is done; answers with what was filled in, or null.
 * @param inputs fields as { name, label, value?, must? }: `must` is a text that has to be typed
 */
export function ask(title, words, inputs, button, isDangerous) {
  const dialog = document.getElementById('ask');
  return new Promise((resolve) => {
    const elements = inputs.map((input) =>
      h('input', { name: input.name, required: true, autocomplete: 'off', value: input.value ?? '' }));
    const form = h('form', {
      method: 'dialog',
      onsubmit: (event) => {
        event.preventDefault();
        const wrong = inputs.findIndex((input, index) => input.must && elements[index].value !== input.must);
        if (wrong >= 0) { elements[wrong].focus(); return; }
        dialog.close('yes');
      },
    },
    inputs.map((input, index) => field(input.label, elements[index], true)),
    h('div', { class: 'row' },
      h('button', { class: isDangerous ? 'danger' : null }, button),
      h('button', { type: 'button', onclick: () => dialog.close('no') }, 'Leave it')));
    dialog.replaceChildren(h('h2', { id: 'ask-title' }, title), h('p', {}, words), form);
    dialog.returnValue = 'no';
    dialog.addEventListener('close', () => {
      const values = Object.fromEntries(inputs.map((input, index) => [input.name, elements[index].value]));
      resolve(dialog.returnValue === 'yes' ? values : null);
    }, { once: true });
    dialog.showModal();
  });
}
