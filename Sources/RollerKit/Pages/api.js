// SPDX-License-Identifier: MPL-2.0
// Calls the service. The credentials live in this module's memory and end with the page.

import { authorization } from './hawk.js';

const base = new URL('../api/v1/', document.baseURI);
let credentials = null;
let caller = null;

/** Why a call was refused, in the service's own words. */
export class Refusal extends Error {
  constructor(status, body) {
    const fields = body && typeof body === 'object' && !body.detail
      ? Object.entries(body).map(([name, value]) => `${name}: ${[value].flat().join(' ')}`).join('; ') : null;
    super(body?.detail ?? fields ?? (typeof body === 'string' && body ? body : `The service answered ${status}.`));
    this.status = status;
    this.body = body;
  }
}

/** Sends a request and answers with what came back, as JSON where it is some. */
export async function call(method, path, { query = {}, body, type = 'application/json', headers = {}, signal } = {}) {
  const url = new URL(path, base);
  for (const [name, value] of Object.entries(query)) {
    if (value !== null && value !== undefined && value !== '') url.searchParams.set(name, value);
  }
  const content = body === undefined || typeof body === 'string' ? body : JSON.stringify(body);
  const fields = { Accept: '*/*', ...headers };
  if (content !== undefined) fields['Content-Type'] = type;
  if (credentials) {
    fields.Authorization = await authorization(credentials, { method, url: url.href, body: content, contentType: type });
  }
  const options = { method, headers: fields, body: content, signal, cache: 'no-store', credentials: 'omit', redirect: 'error' };
  const response = await fetch(url, options);
  const text = await response.text();
  let answer = text;
  try { answer = text ? JSON.parse(text) : null; } catch { /* It is a text, such as a log. */ }
  if (!response.ok) throw new Refusal(response.status, answer);
  return answer;
}

/** A path of pieces, each escaped. */
export function path(...pieces) {
  return pieces.map((piece) => encodeURIComponent(piece)).join('/');
}

/** Takes credentials if the service does. */
export async function signIn(given) {
  const before = [credentials, caller];
  credentials = given;
  try { caller = await call('GET', 'caller'); } catch (error) {
    [credentials, caller] = before;
    throw error;
  }
  return caller;
}

/** Forgets the credentials. */
export function signOut() {
  credentials = null;
  caller = null;
}

/** Who is signed in: `{ client_id, scopes, prefix }`, or null. */
export function who() { return caller; }

/** Whether whoever is signed in may do something; the service decides again. */
export function may(operation) {
  const scope = (caller?.prefix ?? '') + operation;
  return (caller?.scopes ?? []).some((held) =>
    held === scope || (held.endsWith('*') && scope.startsWith(held.slice(0, -1))));
}
