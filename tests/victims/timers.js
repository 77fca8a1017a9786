// Timers and file writes: a line a tick, and a second timer that counts beside it.
// usage: node timers.js PATH
'use strict';
const fs = require('fs');
const path = process.argv[2];
let lines = 0;
let beside = 0;
let pending = Promise.resolve();
const failures = [];

setInterval(() => { beside += 1; }, 7);
const tick = setInterval(() => {
  const line = `${lines} ${beside}\n`;
  lines += 1;
  // One after the other, through the thread pool.
  pending = pending.then(() => fs.promises.appendFile(path, line)).catch((error) => failures.push(String(error)));
  if (fs.existsSync(`${path}.check`)) finish();
}, 30);

function finish() {
  clearInterval(tick);
  pending.then(() => {
    const text = fs.readFileSync(path, 'utf8').trimEnd().split('\n');
    if (text.length !== lines) failures.push(`${text.length} lines and not ${lines}`);
    if (beside === 0) failures.push('the second timer never ran');
    fs.writeFileSync(`${path}.result`, failures.join('; ') || 'ok');
    process.exit(failures.length ? 1 : 0);
  });
}
