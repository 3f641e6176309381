// SPDX-License-Identifier: MPL-2.0
// Many machines at once: a file, what it would change, and then the change.

import { call } from './api.js';
import { h, table, field, choice } from './dom.js';
import { attempt, tell } from './roller.js';

const formats = [['json', 'JSON'], ['csv', 'table (CSV)'], ['worker_config', 'file of the original service'], ['fixtures', 'fixtures']];
const types = { csv: 'text/csv' };

export async function wizard(place) {
  const file = h('input', { type: 'file' });
  const area = h('textarea', { rows: 12, spellcheck: 'false' });
  const format = choice(formats, 'json');
  const result = h('div', { 'aria-live': 'polite' });
  file.addEventListener('change', () => attempt(async () => {
    const chosen = file.files[0];
    if (!chosen) return;
    area.value = await chosen.text();
    if (chosen.name.endsWith('.csv')) format.value = 'csv';
    result.replaceChildren();
  }));
  // What was planned is what is written: any change asks for a new plan.
  for (const input of [area, format]) input.addEventListener('input', () => result.replaceChildren());
  const send = (mode) => attempt(async () => {
    const kind = format.value;
    const options = { ...place, query: { format: kind, mode }, body: area.value, type: types[kind] ?? 'application/json' };
    let plan;
    try { plan = await call('POST', 'machines/import', options); } catch (error) {
      if (!Array.isArray(error.body?.errors)) throw error;
      plan = error.body;
    }
    const count = plan.errors.length;
    tell(plan.applied ? 'The inventory is changed.' : count ? `${count} mistakes; nothing is written.` : 'Nothing is written yet.', count > 0);
    result.replaceChildren(...shown(plan, () => send('apply')));
  });
  return [
    h('h1', {}, 'Import'),
    h('form', { onsubmit: (event) => { event.preventDefault(); send('plan'); } },
      field('File', file), field('Format', format), field('Or its text', area, true),
      h('button', {}, 'Show what would change')),
    result,
  ];
}

function shown(plan, apply) {
  const created = plan.create.map((name) => ['new', name, '']);
  const updated = plan.update.flatMap(({ name, changes }) =>
    Object.entries(changes).map(([member, { before, after }]) => ['changed', name, h('span', {},
      `${member}: `, h('del', {}, JSON.stringify(before)), ' ', h('ins', {}, JSON.stringify(after)))]));
  const deleted = plan.delete.map((name) => ['removed', name, '']);
  const others = [...plan.controllers.map((name) => ['changed', `controller ${name}`, '']), ...plan.groups.map((name) => ['changed', `group ${name}`, ''])];
  const rows = [...others, ...created, ...updated, ...deleted];
  const problems = plan.errors.map(({ row, field: name, message }) => [row || null, name, message]);
  return [
    h('h2', {}, plan.applied ? 'Changed' : 'Plan'),
    table('Changes', ['What', 'Which', 'How'], rows, 'Nothing changes.'),
    h('p', {}, `${plan.unchanged} machines stay as they are.`),
    ...(problems.length ? [h('h2', {}, 'Mistakes'), table('Mistakes', ['Row', 'Field', 'Mistake'], problems, '')] : []),
    ...(plan.warnings.length ? [h('h2', {}, 'Warnings'), h('ul', {}, plan.warnings.map((text) => h('li', {}, text)))] : []),
    ...(!plan.applied && !problems.length && rows.length ? [h('button', { onclick: apply }, 'Write it')] : []),
  ];
}
