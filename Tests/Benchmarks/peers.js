// SPDX-License-Identifier: MPL-2.0
// The JavaScript peer's side of a benchmark: node peers.js SOURCES jsone|jsone-result TEMPLATE CONTEXT [NOW]
'use strict';

const fs = require('fs');

async function load(path) {
  try {
    return require(path);
  } catch {
    const stat = fs.statSync(path);
    const file = stat.isDirectory() ? `${path}/src/index.js` : path;
    const module = await import(`file://${fs.realpathSync(file)}`);
    return module.default ?? module;
  }
}

async function main([path, name, template, context, now]) {
  const jsone = await load(fs.realpathSync(path));
  const read = (file) => JSON.parse(fs.readFileSync(file, 'utf8'));
  const [values, variables] = [read(template), read(context)];
  if (name === 'jsone-result') {
    console.log(JSON.stringify(jsone(values, { now, ...variables })));
    return;
  }
  for (let turn = 0; turn < 200; turn++) jsone(values, variables);
  const start = process.hrtime.bigint();
  let count = 0;
  while (process.hrtime.bigint() - start < 1_000_000_000n) {
    jsone(values, variables);
    count++;
  }
  console.log(count / (Number(process.hrtime.bigint() - start) / 1e9));
}

main(process.argv.slice(2));
