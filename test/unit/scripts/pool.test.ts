// The pool that runs the files of tests: whatever a file does, it is judged as it deserves.
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { Verdict } from '../../../scripts/test/command.ts';
import { runPool } from '../../../scripts/test/pool.ts';
import { withDeadline } from '../../helper/deadline.ts';
import { inTempdir } from '../../helper/tempdir.ts';

const pool = suite('pool of test files');
const LIMIT_MS = 60_000;
const UVU = import.meta.resolve('uvu');

const SUITE = `import { suite } from '${UVU}';\nconst s = suite('s');\n`;
const GOOD = `${SUITE}s('one', () => {});\ns('two', () => {});\ns.run();\n`;

interface Result extends Verdict {
  readonly text: string;
}

/** Runs files with these texts, in this order. */
async function run(
  directory: string,
  texts: Readonly<Record<string, string>>,
  milliseconds = LIMIT_MS,
): Promise<Result> {
  const path = (name: string) => join(directory, `${name}.test.ts`);
  for (const [name, text] of Object.entries(texts)) writeFileSync(path(name), text);
  let text = '';
  const verdict = await runPool({
    files: Object.keys(texts).map(path),
    lanes: 2,
    milliseconds,
    print: (more) => {
      text += more;
    },
  });
  return { ...verdict, text };
}

function add(name: string, body: (directory: string) => Promise<void>): void {
  pool(
    name,
    withDeadline(LIMIT_MS, () => inTempdir(body)),
  );
}

add('counts are added up, and what a file prints comes in one piece', async (directory) => {
  const chatty = (word: string) =>
    `process.stdout.write('${word} 1\\n');\nprocess.stderr.write('${word} 2\\n');\n` +
    `${SUITE}s('waits', () => new Promise((go) => setTimeout(go, 300)));\n` +
    `const lane = process.env.HASTD_TEST_LANE;\n` +
    `s('says', () => { process.stdout.write('${word} in lane ' + lane + '\\n'); });\n` +
    `s.skip('not here');\ns.run();\n`;
  const { counts, why, text } = await run(directory, { a: chatty('first'), b: chatty('second') });
  assert.equal(counts, { passed: 4, failed: 0, skipped: 2 });
  assert.is(why, undefined);
  const words = [...text.matchAll(/(first|second) (\d|in lane \d)$/gm)].map((match) => match[1]);
  assert.is(words.length, 6, text);
  assert.is(words.filter((word, i) => i > 0 && word !== words[i - 1]).length, 1, text);
  assert.match(text, /first in lane 0\n/);
  assert.match(text, /second in lane 1\n/);
  assert.match(text, /b\.test\.ts: 2 passed, 0 failed, 1 skipped, \d+\.\d s\n/);
});

/** What a file does, its text, how many tests have passed until then, and what is said of it. */
const BAD: readonly (readonly [string, string, number, RegExp])[] = [
  [
    'a test that fails',
    `${SUITE}s('good', () => {});\ns('bad', () => { throw new Error('no'); });\ns.run();\n`,
    1,
    /exit 1/,
  ],
  ['a crash before the summary', `${SUITE}process.kill(process.pid, 'SIGABRT');\n`, 0, /SIGABRT/],
  [
    'a crash behind a good summary',
    `${GOOD}process.on('exit', () => process.kill(process.pid, 'SIGKILL'));\n`,
    2,
    /ended by SIGKILL/,
  ],
  ['a file that cannot be loaded', "import './nowhere.ts';\n", 0, /exit 1/],
  ['a file that prints nothing', '\n', 0, /printed no summary/],
  ['a suite without tests', `${SUITE}s.run();\n`, 0, /has no test/],
  [
    'a test that waits for nothing',
    `${SUITE}s('stuck', () => new Promise(() => {}));\ns.run();\n`,
    0,
    /exit/,
  ],
];

add('a file that ends badly, or tests nothing, is a failure; others go on', async (directory) => {
  const texts = BAD.map(([name, text]) => [name, text] as const);
  const { counts, why, text } = await run(
    directory,
    Object.fromEntries([...texts, ['good', GOOD]]),
  );
  const path = (name: string) => join(directory, `${name}.test.ts`);
  assert.is(why, BAD.map(([name]) => path(name)).join(', '), text);
  const passed = BAD.reduce((sum, [, , each]) => sum + each, 2);
  assert.equal(counts, { passed, failed: BAD.length, skipped: 0 });
  const lineOf = (name: string) =>
    text.split('\n').find((line) => line.startsWith(`${path(name)}: `));
  for (const [name, , each, said] of BAD) {
    assert.match(lineOf(name) ?? '', `: ${each} passed, 1 failed, 0 skipped, `);
    assert.match(lineOf(name) ?? '', said);
  }
  assert.match(lineOf('good') ?? '', ': 2 passed, 0 failed, 0 skipped, ');
});

add('a file that hangs is killed at its deadline with its children', async (directory) => {
  const pidFile = join(directory, 'pid');
  const hangs = `import { spawn } from 'node:child_process';
import { writeFileSync } from 'node:fs';
${SUITE}s('starts a process', () => {
  const child = spawn('sleep', ['600'], { stdio: 'inherit' });
  writeFileSync('${pidFile}', String(child.pid));
});
s('hangs', () => new Promise((go) => setTimeout(go, 600_000)));
s.run();
`;
  const { counts, why, text } = await run(directory, { hangs }, 4000);
  assert.equal(counts, { passed: 0, failed: 1, skipped: 0 }, text);
  assert.match(why ?? '', /hangs\.test\.ts$/);
  assert.match(text, /hangs\.test\.ts: .*\(not done after 4 s\)/);
  const pid = Number(readFileSync(pidFile, 'utf8'));
  const state = () => /^State:\s+(\w)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1];
  assert.ok(!existsSync(`/proc/${pid}`) || state() === 'Z', 'its child is gone');
});

pool.run();
