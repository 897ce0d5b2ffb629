import { existsSync, readFileSync } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { hostname } from 'node:os';
import { HastError } from '../error.ts';
import type { Config } from './config.ts';
import { LIMITS } from './defaults.ts';
import { type HostReader, nodeNames } from './node-names.ts';
import { parse } from './parse.ts';
import { type Overrides, resolve } from './resolve.ts';

/** The host this runs on. */
export const systemHost: HostReader = {
  hostname: () => hostname(),
  file: (path) => {
    try {
      return readFileSync(path);
    } catch {
      return undefined;
    }
  },
};

/** Names of this host; see node-names.ts. */
export function hostNames(): readonly string[] {
  return nodeNames(systemHost);
}

/** What the kernel can listen on; both when it does not tell. */
export function hostFamilies(): { readonly ipv4: boolean; readonly ipv6: boolean } {
  const ipv4 = existsSync('/proc/net/tcp');
  const ipv6 = existsSync('/proc/net/tcp6');
  return ipv4 || ipv6 ? { ipv4, ipv6 } : { ipv4: true, ipv6: true };
}

async function readAll(file: FileHandle): Promise<Buffer> {
  const parts: Buffer[] = [];
  let size = 0;
  while (size <= LIMITS.file) {
    const part = Buffer.alloc(65536);
    const { bytesRead } = await file.read(part, 0, part.length, null);
    if (bytesRead === 0) break;
    parts.push(part.subarray(0, bytesRead));
    size += bytesRead;
  }
  return Buffer.concat(parts);
}

/** The text of a file; a byte order mark and bytes that are no UTF-8 are harmless in comments. */
async function readText(path: string): Promise<string> {
  let bytes: Buffer;
  try {
    const file = await open(path, 'r');
    try {
      bytes = await readAll(file);
    } finally {
      await file.close();
    }
  } catch (cause) {
    const why = cause instanceof Error ? cause.message.replace(/, [a-z]+( '.*')?$/s, '') : cause;
    throw new HastError('CONFIG_FILE', { message: `${path}: ${why}`, cause });
  }
  if (bytes.length > LIMITS.file) {
    throw new HastError('CONFIG_FILE', {
      message: `${path}: the file is larger than ${LIMITS.file} bytes`,
      hint: 'is this a hast.conf(5)?',
    });
  }
  return new TextDecoder().decode(bytes);
}

/**
 * Reads the configuration of this host.
 *
 * @param names  as of `hostNames()`
 * @throws HastError CONFIG_FILE, CONFIG_SYNTAX, CONFIG_MEANING or CONFIG_NETWORK
 */
export async function readConfig(
  path: string,
  names: readonly string[],
  overrides: Overrides = {},
): Promise<Config> {
  const text = await readText(path);
  return resolve(parse(text, path), names, { families: hostFamilies(), ...overrides });
}
