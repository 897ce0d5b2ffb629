import type { Config } from '../../src/config/config.ts';
import { parse } from '../../src/config/parse.ts';
import { type Overrides, resolve } from '../../src/config/resolve.ts';
import { HastError } from '../../src/error.ts';

/** The names that the host of the configuration tests answers to. */
export const TEST_NAMES: readonly string[] = [
  'fbsd_h1.example.org',
  'fbsd_h1',
  '4c4c4544-0051-3510-8052-b4c04f4a4d31',
  '3d1219c7c4c5404aaa1f6d2a48adfda4',
  '3d1219c7-c4c5-404a-aa1f-6d2a48adfda4',
  'hostid2130706433',
];

/** Parses and resolves a text for the host of the tests. */
export function configOf(text: string, overrides: Overrides = {}, file = 'hast.conf'): Config {
  return resolve(parse(text, file), TEST_NAMES, overrides);
}

/** The error that a text gives; fails when it gives none. */
export function errorOf(text: string, overrides: Overrides = {}, file = 'hast.conf'): HastError {
  try {
    configOf(text, overrides, file);
  } catch (error) {
    if (error instanceof HastError) return error;
    throw error;
  }
  throw new Error(`accepted: ${text}`);
}

/** A configuration without the places in the file. */
export function withoutPlaces(config: Config): unknown {
  return JSON.parse(
    JSON.stringify(config, (key, value) =>
      key === 'position' || key === 'warnings' ? undefined : value,
    ),
  );
}

/** Random numbers that a seed repeats: `next(n)` is one of 0 to n - 1. */
export function randomOf(seed: number): (n: number) => number {
  let state = seed >>> 0;
  return (n) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) % n;
  };
}
