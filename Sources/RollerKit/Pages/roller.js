// SPDX-License-Identifier: MPL-2.0
// The page of operators: what is shown follows the part of the address behind `#`.

import { call, signIn, signOut, who, may } from './api.js';
import { h, table, field, ask } from './dom.js';
import { machines, machine } from './machines.js';
import { jobs, job } from './jobs.js';
import { wizard } from './import.js';

const main = document.getElementById('main');
const news = document.getElementById('news');
let leaving = new AbortController();

/** Tells what happened; failures are told apart by more than colour. */
export function tell(text, isBad = false) {
  news.textContent = isBad ? `Failed: ${text}` : text;
  news.className = isBad ? 'bad' : '';
}

/** Does something, and tells when it fails. */
export async function attempt(body) {
  try { return await body(); } catch (error) {
    if (error.name !== 'AbortError') tell(error.message, true);
    return null;
  }
}

function signInForm() {
  const id = h('input', { required: true, autocomplete: 'off', spellcheck: 'false' });
  const token = h('input', { required: true, type: 'password', autocomplete: 'off' });
  const certificate = h('textarea', { autocomplete: 'off', spellcheck: 'false' });
  const submit = async (event) => {
    event.preventDefault();
    await attempt(async () => {
      const given = { clientId: id.value.trim(), accessToken: token.value.trim(), certificate: certificate.value.trim() };
      const caller = await signIn(given);
      tell(`Signed in as ${caller.client_id}.`);
      show();
    });
  };
  const problem = globalThis.crypto?.subtle ? null
    : h('p', { class: 'bad' }, 'Browsers sign requests on pages from https:// or localhost only.');
  return [
    h('h1', {}, 'Sign in'),
    h('p', {}, 'Requests are signed in this browser with your Taskcluster credentials. They stay in the memory of this page ',
      'and are gone when you close or reload it.'),
    problem,
    h('form', { onsubmit: submit, autocomplete: 'off' },
      field('Client id', id, true), field('Access token', token, true),
      field('Certificate, for temporary credentials', certificate, true), h('button', {}, 'Sign in')),
  ];
}

async function locks(place) {
  const { locks: found } = await call('GET', 'locks', place);
  const rows = found.map((lock) => [
    lock.resource, lock.machine && h('a', { href: `#machine/${encodeURIComponent(lock.machine)}` }, lock.machine),
    lock.task_name, h('a', { href: `#job/${lock.job}` }, lock.job), lock.client_id, lock.expires_at,
    may('override') ? h('button', { class: 'danger', onclick: () => attempt(() => breakLock(lock)) }, 'Break') : null,
  ]);
  return [
    h('h1', {}, 'Locks'),
    table('Locks', ['Resource', 'Machine', 'Task', 'Job', 'Asked for by', 'Held until', ''], rows, 'Nothing is held.'),
    h('button', { onclick: show }, 'Look again'),
  ];
}

async function breakLock(lock) {
  const words = `The job ${lock.job} (${lock.task_name}) is lost then. Cancelling it instead ends it at a safe point.`;
  const given = await ask(`Break ${lock.resource}?`, words, [{ name: 'reason', label: 'Reason' }], 'Break the lock', true);
  if (!given) return;
  const answer = await call('POST', 'locks/break', { body: { resource: lock.resource, reason: given.reason } });
  tell(answer.job ? `The job ${answer.job} is lost.` : 'No job was under way any more.');
  show();
}

const views = { machines, machine, jobs, job, import: wizard, locks };

/** Shows what the address says. */
export async function show() {
  leaving.abort();
  leaving = new AbortController();
  const { signal } = leaving;
  const [name, ...rest] = location.hash.slice(1).split('/');
  const words = rest.map((word) => { try { return decodeURIComponent(word); } catch { return word; } });
  for (const link of document.querySelectorAll('nav a')) {
    const isHere = link.getAttribute('href') === `#${name || 'machines'}`;
    if (isHere) link.setAttribute('aria-current', 'page'); else link.removeAttribute('aria-current');
  }
  header();
  if (!who()) {
    main.replaceChildren(...signInForm().filter(Boolean));
    main.querySelector('input').focus();
    return;
  }
  const view = views[name] ?? machines;
  main.setAttribute('aria-busy', 'true');
  const content = await attempt(() => view({ signal }, ...words));
  if (signal.aborted) return;
  main.removeAttribute('aria-busy');
  main.replaceChildren(...(content ?? []).flat().filter(Boolean));
}

function header() {
  const out = () => { signOut(); tell('Signed out; the credentials are forgotten.'); show(); };
  document.getElementById('who').replaceChildren(
    ...(who() ? [who().client_id, ' ', h('button', { onclick: out }, 'Sign out')] : []));
}

addEventListener('hashchange', async () => { await show(); main.focus(); });
show();
