// SPDX-License-Identifier: MPL-2.0
// Signs requests with Hawk. Credentials are arguments here and are kept nowhere.

const text = new TextEncoder();

/** Bytes in base64. */
export function base64(bytes) {
  let binary = '';
  for (const byte of new Uint8Array(bytes)) binary += String.fromCharCode(byte);
  return btoa(binary);
}

/** The hash of a body that goes into its signature. */
export async function payloadHash(contentType, body) {
  const type = contentType.split(';')[0].trim().toLowerCase();
  const bytes = typeof body === 'string' ? text.encode(body) : new Uint8Array(body);
  const parts = [text.encode(`hawk.1.payload\n${type}\n`), bytes, text.encode('\n')];
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) { whole.set(part, at); at += part.length; }
  return base64(await crypto.subtle.digest('SHA-256', whole));
}

/** What tells the service of a certificate: temporary credentials are worth nothing without theirs. */
export function extension(certificate) {
  return certificate ? base64(text.encode(JSON.stringify({ certificate: JSON.parse(certificate) }))) : '';
}

/**
 * The Authorization field of a request.
 * @param credentials { clientId, accessToken, certificate? }
 * @param request { method, url, body?, contentType? }
 * @param moment { timestamp, nonce }: given by tests alone
 */
export async function authorization(credentials, request, moment = {}) {
  const url = new URL(request.url);
  const port = url.port || (url.protocol === 'https:' ? '443' : '80');
  const timestamp = moment.timestamp ?? Math.floor(Date.now() / 1000);
  const nonce = moment.nonce ?? base64(crypto.getRandomValues(new Uint8Array(9)));
  const hash = request.body === undefined ? '' : await payloadHash(request.contentType ?? '', request.body);
  const ext = extension(credentials.certificate);
  const lines = [
    'hawk.1.header', timestamp, nonce, request.method.toUpperCase(), url.pathname + url.search,
    url.hostname.toLowerCase(), port, hash, ext,
  ];
  const key = await crypto.subtle.importKey(
    'raw', text.encode(credentials.accessToken), { name: 'HMAC', hash: 'SHA-256' }, false, ['sign'],
  );
  const mac = base64(await crypto.subtle.sign('HMAC', key, text.encode(lines.join('\n') + '\n')));
  const fields = { id: credentials.clientId, ts: timestamp, nonce, hash, ext, mac };
  return 'Hawk ' + Object.entries(fields).filter(([, value]) => value !== '')
    .map(([name, value]) => `${name}="${value}"`).join(', ');
}
