import { chmodSync, mkdirSync, writeFileSync } from 'node:fs';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { HastError } from '../../../src/error.ts';
import { readSecret } from '../../../src/resource/secret.ts';
import { inTempdir } from '../../helper/tempdir.ts';

const secrets = suite('the file of a secret');

function textOf(path: string): string {
  return Buffer.from(readSecret({ secret: path }) ?? []).toString('latin1');
}

/** The error, with its hint. */
function failure(path: string): string {
  try {
    readSecret({ secret: path });
  } catch (error) {
    assert.instance(error, HastError);
    const { code, message, hint } = error as HastError;
    assert.is(code, 'SECRET_FILE');
    assert.ok(message.includes(path), message);
    return `${message}; ${hint}`;
  }
  throw new Error('it was read');
}

secrets('holds 1 to 1024 bytes, and newlines at its end are none of them', () =>
  inTempdir(async (directory) => {
    const path = `${directory}/key`;
    for (const [contents, text] of [
      ['x', 'x'],
      ['one two\n', 'one two'],
      ['\none\r\n\n', '\none'],
      [`${'k'.repeat(1024)}\n`, 'k'.repeat(1024)],
    ] as const) {
      writeFileSync(path, contents, { mode: 0o600 });
      assert.is(textOf(path), text);
    }
    assert.is(readSecret({ secret: null }), null);
  }),
);

secrets('is refused when empty, too long, missing or no file', () =>
  inTempdir(async (directory) => {
    const path = `${directory}/key`;
    assert.match(failure(path), /cannot be read: ENOENT/);
    for (const [contents, why] of [
      ['', /is empty; put 1 to 1024 bytes into it/],
      ['\n\n', /is empty/],
      ['k'.repeat(1025), /is too long/],
      ['k'.repeat(5000), /is too long/],
    ] as const) {
      writeFileSync(path, contents, { mode: 0o600 });
      assert.match(failure(path), why);
    }
    mkdirSync(`${directory}/folder`);
    assert.match(failure(`${directory}/folder`), /is not a file/);
  }),
);

secrets('is refused when group or others can read or write it, with the remedy', () =>
  inTempdir(async (directory) => {
    const path = `${directory}/key`;
    writeFileSync(path, 'secret');
    for (const mode of [0o640, 0o620, 0o604, 0o602, 0o644, 0o666]) {
      chmodSync(path, mode);
      assert.ok(failure(path).endsWith(`is open to group or others; chmod 600 ${path}`));
    }
    for (const mode of [0o600, 0o400, 0o700]) {
      chmodSync(path, mode);
      assert.is(textOf(path), 'secret');
    }
  }),
);

secrets.run();
