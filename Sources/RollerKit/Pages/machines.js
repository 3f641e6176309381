// SPDX-License-Identifier: MPL-2.0
// The table of machines, and the page of one.

import { call, path, may } from './api.js';
import { h, table, field, choice, facts, ask } from './dom.js';
import { attempt, show, tell } from './roller.js';
import { jobTable, word } from './jobs.js';

const states = [['', 'any state'], ['active', 'active'], ['maintenance', 'maintenance'], ['loaned', 'loaned'], ['retired', 'retired']];
const filter = { search: '', group: '', state: '' };

function link(name) { return h('a', { href: `#machine/${encodeURIComponent(name)}` }, name); }

function row(machine) {
  const last = machine.last_job;
  return [
    link(machine.name), machine.groups.join(', ') || null, state(machine), machine.last_power ?? null,
    last && h('span', {}, h('a', { href: `#job/${last.task_id}` }, last.task_name), ' ', word(last), ' ', last.created_at),
  ];
}

function state(machine) {
  const isBusy = machine.state !== 'active';
  return h('span', { class: isBusy ? 'busy' : null }, machine.state, machine.state_reason && isBusy ? `: ${machine.state_reason}` : null);
}

export async function machines(place) {
  const { groups } = await call('GET', 'groups', place);
  const results = h('div', { 'aria-live': 'polite' });
  const rows = [];
  let token = null;
  const load = (isMore) => attempt(async () => {
    if (!isMore) { rows.length = 0; token = null; }
    const asked = JSON.stringify(filter);
    const page = await call('GET', 'machines', { ...place, query: { ...filter, last: '1', limit: 100, continuationToken: token } });
    // Somebody has typed on meanwhile.
    if (asked !== JSON.stringify(filter)) return;
    rows.push(...page.machines.map(row));
    token = page.continuationToken ?? null;
    results.replaceChildren(
      table('Machines', ['Machine', 'Groups', 'State', 'Power', 'Last job'], rows, 'No machine is like that.'),
      ...(token ? [h('button', { onclick: () => load(true) }, 'More')] : []));
  });
  const set = (name) => (event) => { filter[name] = event.target.value.trim(); load(false); };
  const names = [['', 'all groups'], ...groups.map((group) => [group.name, group.name])];
  await load(false);
  return [
    h('h1', {}, 'Machines'),
    h('form', { role: 'search', onsubmit: (event) => { event.preventDefault(); load(false); } },
      field('Name', h('input', { type: 'search', value: filter.search, oninput: set('search') })),
      field('Group', choice(names, filter.group, { onchange: set('group') })),
      field('State', choice(states, filter.state, { onchange: set('state') }))),
    results,
  ];
}

// ---------------------------------------------------------------- one machine

export async function machine(place, name) {
  const known = await call('GET', path('machines', name), place);
  const [actions, history, audit] = await Promise.all([
    call('GET', 'actions', place),
    may('list-jobs') ? call('GET', 'jobs', { ...place, query: { machine: known.name, limit: 20 } }) : { jobs: [] },
    may('audit:read') ? call('GET', 'audit', { ...place, query: { object: `machine:${known.name}`, limit: 20 } }) : null,
  ]);
  const changes = may('inventory:write');
  return [
    h('h1', {}, known.name),
    facts([
      ['State', state(known)], ['Until', known.state_until], ['Nothing destructive', known.obstacle], ['Full name', known.fqdn],
      ['Address', known.ip], ['Also called', known.aliases.join(', ')], ['Groups', known.groups.join(', ')],
      ['Hardware', known.hw_model], ['System', known.os],
      ['Workers', known.workers.map((one) => [one.provisioner_id, one.worker_type, one.worker_group, one.worker_id].map((part) => part ?? '*').join('/')).join(', ')],
    ]),
    changes ? maintenance(known) : null,
    h('h2', {}, 'Controls'),
    table('Controls', ['Controller', 'Place', 'Priority'],
      known.controls.map((one) => [one.controller, JSON.stringify(one.locator), one.priority]), 'No controls.'),
    h('h2', {}, 'Actions'), buttons(known, actions.actions),
    h('h2', {}, 'History'), jobTable(history.jobs),
    h('h2', {}, 'Notes'), notes(known, changes),
    audit && h('h2', {}, 'Audit'),
    audit && table('Audit', ['When', 'Who', 'From', 'What', 'Change'],
      audit.entries.map((entry) => [entry.at, entry.client_id, entry.source_ip, entry.verb, difference(entry)]), 'Nothing yet.'),
  ];
}

/** What an entry of the audit log changed. */
function difference({ before, after }) {
  const names = Object.keys({ ...before, ...after })
    .filter((name) => JSON.stringify(before?.[name] ?? null) !== JSON.stringify(after?.[name] ?? null));
  return names.length ? names.map((name) =>
    h('div', {}, `${name}: ${JSON.stringify(before?.[name] ?? null)} → ${JSON.stringify(after?.[name] ?? null)}`)) : null;
}

function maintenance(known) {
  const change = (body) => attempt(async () => {
    await call('PATCH', path('machines', known.name), { body });
    tell(`${known.name} is ${body.state === 'active' ? 'in service' : 'in maintenance'}.`);
    show();
  });
  if (known.state === 'maintenance') {
    const body = { state: 'active', state_reason: null, state_until: null };
    return h('button', { onclick: () => change(body) }, 'Back in service');
  }
  const reason = h('input', { required: true });
  const until = h('input', { type: 'datetime-local' });
  return h('form', {
    onsubmit: (event) => {
      event.preventDefault();
      const end = until.value ? new Date(until.value).toISOString() : null;
      change({ state: 'maintenance', state_reason: reason.value, state_until: end });
    },
  }, field('Reason', reason, true), field('Until, if it ends by itself', until), h('button', {}, 'Into maintenance'));
}

function buttons(known, actions) {
  const [provisioner, type, group, id] = ['provisioner_id', 'worker_type', 'worker_group', 'worker_id']
    .map((name) => known.workers[0]?.[name]);
  const isPossible = (action) => !action.controls.length || action.controls.some((kind) => known.control_kinds.includes(kind));
  const isAllowed = (action) =>
    may(action.name) || (provisioner && may(`${action.name}:${provisioner}/${type}/${group}/${id}`));
  const allowed = actions.filter((action) => isPossible(action) && isAllowed(action));
  if (!allowed.length) return h('p', { class: 'quiet' }, 'There is none that you may ask for.');
  return h('div', { class: 'row' }, allowed.map((action) => h('button', {
    class: action.destructive ? 'danger' : null, title: action.description,
    onclick: () => attempt(() => run(known, action)),
  }, action.title)));
}

async function run(known, action) {
  const query = { task_name: action.name };
  const worker = known.workers[0];
  for (const name of ['worker_group', 'provisioner_id', 'worker_type']) query[name] = worker?.[name];
  const required = action.parameters?.required ?? [];
  const inputs = required.map((name) => ({ name, label: name }));
  if (action.confirm) inputs.push({ name: 'confirm', label: `Type ${known.name} to confirm`, must: known.name });
  if (action.destructive || inputs.length) {
    const words = action.destructive ? `Whoever works on ${known.name} will notice.` : action.description;
    const given = await ask(`${action.title}: ${known.name}`, words, inputs, action.title, action.destructive);
    if (!given) return;
    Object.assign(query, given);
  }
  const made = await call('POST', path('workers', worker?.worker_id ?? known.name, 'jobs'), {
    query, headers: { 'Idempotency-Key': crypto.randomUUID() },
  });
  tell(`${action.title} is asked for.`);
  location.hash = `job/${made.task_id}`;
}

function notes(known, changes) {
  const text = typeof known.properties.notes === 'string' ? known.properties.notes : '';
  if (!changes) return h('p', {}, text || 'None.');
  const area = h('textarea', { value: text, 'aria-label': 'Notes' });
  const save = () => attempt(async () => {
    await call('PATCH', path('machines', known.name), { body: { properties: { notes: area.value.trim() || null } } });
    tell('The notes are kept.');
    show();
  });
  return h('div', {}, area, h('button', { onclick: save }, 'Keep'));
}
