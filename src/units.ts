import { HastError } from './error.ts';

const U64_MAX = 2n ** 64n - 1n;
const LETTERS = 'bkmgtpe';

/**
 * Reads a number as `hastctl create` takes it: C notation (decimal, 0x hex, leading-0 octal), then
 * perhaps one letter of `bkmgtpe` in either case, a power of 1024 each. Nothing may follow.
 *
 * @param option  where the text comes from, for the message, as `-e`
 * @param most  the largest value that the target can store
 * @throws HastError USAGE
 */
export function parseSize(text: string, option: string, most: bigint = U64_MAX): bigint {
  const match = /^(0x[0-9a-f]+|0[0-7]*|[1-9][0-9]*)([bkmgtpe]?)$/i.exec(text);
  const [, digits, letter = ''] = match ?? [];
  if (digits === undefined) {
    throw new HastError('USAGE', {
      message: `${option}: \`${text}\` is not a number`,
      hint: 'write digits and perhaps one letter of b, k, m, g, t, p, e, as in 2m',
    });
  }
  const octal = /^0[0-7]/.test(digits) ? `0o${digits.slice(1)}` : digits;
  const power = letter === '' ? 0 : LETTERS.indexOf(letter.toLowerCase());
  // A text of many digits is no reason to compute with it.
  const value = digits.length > 80 ? most + 1n : BigInt(octal) << BigInt(10 * power);
  if (value > most) {
    throw new HastError('USAGE', {
      message: `${option}: ${text} is too large`,
      hint: `the largest value is ${most}`,
    });
  }
  return value;
}

/** Division with the half rounded up. */
function rounded(value: bigint, divisor: bigint): bigint {
  return (value + divisor / 2n) / divisor;
}

/**
 * A size in bytes as `list` and `dump` show it: at most four characters and a `B`, as `9.8KB`.
 *
 * A value of 999 that rounding would make 1000 goes to the next unit, so that it always fits.
 * Source: spec, hastctl, "the humanised size".
 */
export function humanize(bytes: number | bigint): string {
  let value = BigInt(bytes);
  let remainder = 0n;
  let unit = 0;
  while ((value >= 1000n || (value === 999n && remainder >= 512n)) && unit < LETTERS.length - 1) {
    remainder = value % 1024n;
    value /= 1024n;
    unit += 1;
  }
  const letter = unit === 0 ? '' : LETTERS.charAt(unit).toUpperCase();
  const tenths = rounded((value * 1024n + remainder) * 10n, 1024n);
  if (unit > 0 && tenths < 100n) return `${tenths / 10n}.${tenths % 10n}${letter}B`;
  return `${value + rounded(remainder, 1024n)}${letter}B`;
}

const SPANS = [
  ['y', 365 * 86400],
  ['d', 86400],
  ['h', 3600],
  ['m', 60],
  ['s', 1],
] as const;

/** A time as logs show it: `1h2m3s`, without parts of a second and units of nothing at the end. */
export function formatDuration(seconds: number): string {
  let rest = Math.max(0, Math.floor(seconds));
  if (!Number.isFinite(rest) || rest === 0) return '0s';
  let text = '';
  for (const [letter, size] of SPANS) {
    const count = Math.floor(rest / size);
    rest -= count * size;
    if (count > 0 || text !== '') text += `${count}${letter}`;
    if (rest === 0) break;
  }
  return text;
}
