// SPDX-License-Identifier: MPL-2.0
// Jobs as they come and go, and one of them as it happens.

import { call, path, may, who } from './api.js';
import { h, table, field, choice, facts } from './dom.js';
import { attempt, show, tell } from './roller.js';

const classes = { COMPLETE: 'good', FAILED: 'bad', CANCELED: 'quiet', RUNNING: 'busy', PENDING: 'busy' };
const statuses = [['', 'any'], ...Object.keys(classes).map((name) => [name, name.toLowerCase()])];
let status = '';

/** How a job stands. */
export function word(job) { return h('span', { class: classes[job.status] }, job.status); }

export function isOver(job) { return ['COMPLETE', 'FAILED', 'CANCELED'].includes(job.status); }

function cells(job) {
  const name = job.machine?.name;
  return [
    h('a', { href: `#job/${job.task_id}` }, job.created_at), job.task_name,
    name ? h('a', { href: `#machine/${encodeURIComponent(name)}` }, name) : job.worker_id,
    h('span', {}, word(job), job.dry_run ? ' (trial)' : '', job.reason ? `: ${job.reason}` : '', job.waiting_for ? `, waits for ${job.waiting_for}` : ''),
    job.client_id,
  ];
}

/** Jobs in a table. */
export function jobTable(jobs) {
  return table('Jobs', ['Asked for', 'Task', 'Machine', 'Status', 'By'], jobs.map(cells), 'No jobs.');
}

/** Waits, unless the view is left. */
function pause(seconds, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, seconds * 1000);
    signal.addEventListener('abort', () => { clearTimeout(timer); resolve(); }, { once: true });
  });
}

export async function jobs(place) {
  const results = h('div');
  const load = async () => {
    const page = await call('GET', 'jobs', { ...place, query: { status, limit: 50 } });
    // Whoever stands on a link keeps standing there.
    const focused = document.activeElement?.getAttribute?.('href');
    const isInside = results.contains(document.activeElement);
    results.replaceChildren(jobTable(page.jobs));
    if (isInside && focused) results.querySelector(`a[href="${CSS.escape(focused)}"]`)?.focus();
  };
  const follow = async () => {
    while (!place.signal.aborted) {
      await pause(document.hidden ? 15 : 3, place.signal);
      if (!place.signal.aborted) await attempt(load);
    }
  };
  await load();
  follow();
  const choose = (event) => { status = event.target.value; attempt(load); };
  return [
    h('h1', {}, 'Jobs'),
    h('form', {}, field('Status', choice(statuses, status, { onchange: choose }))),
    results,
  ];
}

// ---------------------------------------------------------------- one job

export async function job(place, id) {
  const view = h('div', { 'aria-live': 'polite' });
  const log = h('pre', { tabindex: 0, 'aria-label': 'Log' });
  const load = async (wait) => {
    const found = await call('GET', path('jobs', id), { ...place, query: { wait } });
    const text = may('get-job') ? await call('GET', path('jobs', id, 'log'), place) : '';
    view.replaceChildren(...details(found));
    if (log.textContent !== (text ?? '')) log.textContent = text ?? '';
    return found;
  };
  const follow = async (found) => {
    let now = found;
    while (now && !isOver(now) && !place.signal.aborted) {
      await pause(1, place.signal);
      if (!place.signal.aborted) now = await attempt(() => load(2));
    }
  };
  follow(await load(0));
  return [h('h1', {}, 'Job'), view, h('h2', {}, 'Log'), log];
}

function details(found) {
  const name = found.machine?.name;
  const isMine = found.client_id === who()?.client_id;
  const cancel = () => attempt(async () => {
    await call('POST', path('jobs', found.task_id, 'cancel'));
    tell('It stops at the next safe point.');
    show();
  });
  const tried = (found.attempts ?? []).map((one) => [one.n, one.method, one.control, one.outcome, one.error_class, one.summary]);
  const result = found.result && Object.keys(found.result).length ? JSON.stringify(found.result, null, 2) : null;
  return [
    facts([
      ['Id', found.task_id], ['Task', found.task_name], ['Status', word(found)], ['State', found.state], ['Reason', found.reason],
      ['Kind of failure', found.error_class], ['Waits for', found.waiting_for],
      ['Machine', name ? h('a', { href: `#machine/${encodeURIComponent(name)}` }, name) : found.worker_id],
      ['Asked for', `${found.created_at} by ${found.client_id ?? 'somebody'}`], ['Begun', found.started_at], ['Ended', found.finished_at],
      ['Bug', found.bug_url], ['Trial', found.dry_run ? 'yes, nothing is touched' : null],
    ]),
    !isOver(found) && (isMine || may('cancel')) ? h('button', { class: 'danger', onclick: cancel }, 'Cancel') : '',
    h('h2', {}, 'Tried'),
    table('Attempts', ['', 'Method', 'Control', 'Outcome', 'Kind of failure', 'Summary'], tried, 'Nothing yet.'),
    ...(result ? [h('h2', {}, 'Result'), h('pre', {}, result)] : []),
  ];
}
