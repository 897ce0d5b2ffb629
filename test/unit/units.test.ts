// Numbers of the command line, sizes and times as people read them.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { HastError } from '../../src/error.ts';
import { formatDuration, humanize, parseSize } from '../../src/units.ts';

const units = suite('units');

units('numbers are read in C notation with one letter', () => {
  const table: readonly (readonly [string, bigint])[] = [
    ['0', 0n],
    ['1', 1n],
    ['64', 64n],
    ['2097152', 2097152n],
    ['0x200000', 2097152n],
    ['0X10', 16n],
    ['010', 8n],
    ['00', 0n],
    ['0777', 511n],
    ['1b', 1n],
    ['1k', 1024n],
    ['1K', 1024n],
    ['2m', 2097152n],
    ['2M', 2097152n],
    ['10g', 10737418240n],
    ['1T', 1099511627776n],
    ['1p', 2n ** 50n],
    ['1e', 2n ** 60n],
    ['15E', 15n * 2n ** 60n],
    ['010k', 8192n],
    ['0x10k', 16384n],
    ['0x1b', 27n], // a letter that is a hexadecimal digit is one
    ['0x1e', 30n],
    ['18446744073709551615', 2n ** 64n - 1n],
  ];
  for (const [text, value] of table) assert.is(parseSize(text, '-m'), value, text);
});

units('what is no number is refused, and the option is named', () => {
  const wrong = [
    '',
    ' 1',
    '1 ',
    '-1',
    '+1',
    '1.5',
    '08',
    '0x',
    '0xg',
    'k',
    '1kb',
    '2mm',
    '1z',
    '१',
  ];
  wrong.push('1e3', '1k\n', '0b1', '0o7', '1_000', 'NaN');
  for (const text of wrong) {
    try {
      parseSize(text, '-e');
      assert.unreachable(text);
    } catch (error) {
      if (!(error instanceof HastError)) throw error;
      assert.is(error.code, 'USAGE');
      assert.is(error.exit, 64);
      assert.match(error.message, /^-e: /);
    }
  }
});

units('what does not fit is refused', () => {
  const most = 2n ** 32n - 1n;
  assert.is(parseSize('4294967295', '-k', most), most);
  for (const text of ['4g', '4294967296', '0x100000000', '1e', '9'.repeat(200)]) {
    assert.throws(() => parseSize(text, '-k', most), /^-k: .* is too large$/, text);
  }
  for (const text of ['16e', '18446744073709551616', '9'.repeat(2_000_000)]) {
    assert.throws(() => parseSize(text, '-m'), /is too large$/);
  }
});

units('sizes take at most four characters and a B', () => {
  const table: readonly (readonly [number | bigint, string])[] = [
    [0, '0B'],
    [1, '1B'],
    [9, '9B'],
    [512, '512B'],
    [999, '999B'],
    [1000, '1.0KB'],
    [1024, '1.0KB'],
    [10000, '9.8KB'],
    [10188, '9.9KB'],
    [10189, '10KB'],
    [65536, '64KB'],
    [1022976, '999KB'],
    [1022976 + 972, '1.0MB'],
    [1022976 + 973, '1.0MB'],
    [1023410176, '976MB'],
    [2097152, '2.0MB'],
    [10737418240, '10GB'],
    [1099511627776, '1.0TB'],
    [2n ** 60n, '1.0EB'],
    [2n ** 64n - 1n, '16EB'],
  ];
  for (const [bytes, text] of table) assert.is(humanize(bytes), text, String(bytes));
  for (let power = 0n; power < 64n; power++) {
    for (const near of [-1n, 0n, 1n, 2n ** power / 3n, (2n ** power * 15n) / 16n]) {
      const text = humanize(2n ** power + near);
      assert.match(text, /^([0-9]|[0-9]{2,3}|[0-9]\.[0-9])[KMGTPE]?B$/, `${2n ** power + near}`);
    }
  }
});

units('times are shown without units of nothing at the end', () => {
  const table: readonly (readonly [number, string])[] = [
    [0, '0s'],
    [0.9, '0s'],
    [-5, '0s'],
    [1, '1s'],
    [59, '59s'],
    [60, '1m'],
    [61, '1m1s'],
    [3600, '1h'],
    [3601, '1h0m1s'],
    [3660, '1h1m'],
    [3723, '1h2m3s'],
    [86400, '1d'],
    [90061, '1d1h1m1s'],
    [365 * 86400, '1y'],
    [365 * 86400 + 1, '1y0d0h0m1s'],
    [Number.POSITIVE_INFINITY, '0s'],
  ];
  for (const [seconds, text] of table) assert.is(formatDuration(seconds), text, String(seconds));
});

units.run();
