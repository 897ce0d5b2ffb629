// Makes src/config/grammar.js and grammar.d.ts of src/config/hast-conf.peggy.
import { spawnSync } from 'node:child_process';
import { existsSync, statSync } from 'node:fs';

process.chdir(new URL('..', import.meta.url).pathname);

const FROM = 'src/config/hast-conf.peggy';
const TO = ['src/config/grammar.js', 'src/config/grammar.d.ts'];

function upToDate(): boolean {
  const { mtimeMs } = statSync(FROM);
  return TO.every((file) => existsSync(file) && statSync(file).mtimeMs >= mtimeMs);
}

if (existsSync(FROM) && !upToDate()) {
  const args = ['--format', 'es', '--dts', '--output', 'src/config/grammar.js', FROM];
  const { status } = spawnSync('node_modules/.bin/peggy', args, { stdio: 'inherit' });
  process.exitCode = status ?? 1;
}
