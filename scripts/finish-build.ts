// After tsc: copies what tsc does not, drops what has no source any more, marks the commands
// executable, and leaves a stamp for scripts/setup.
import { chmodSync, copyFileSync, existsSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

process.chdir(new URL('..', import.meta.url).pathname);

if (existsSync('src/config/grammar.js')) {
  copyFileSync('src/config/grammar.js', 'dist/config/grammar.js');
}
for (const entry of readdirSync('dist', { recursive: true, withFileTypes: true })) {
  if (!entry.isFile() || !entry.name.endsWith('.js')) continue;
  const file = join(entry.parentPath, entry.name);
  const source = file.replace(/^dist/, 'src');
  if (!existsSync(source.replace(/\.js$/, '.ts')) && !existsSync(source)) rmSync(file);
}
for (const command of ['hastd', 'hastctl']) {
  const file = `dist/bin/${command}.js`;
  if (existsSync(file)) chmodSync(file, 0o755);
}
writeFileSync('dist/.stamp', '');
