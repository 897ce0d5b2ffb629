import { isRefusal, type Parsed, parseAddress, parseTcp, parseUds } from './address.ts';
import type { Address, SectorSize, TcpAddress, UdsAddress } from './config.ts';
import { EXPORT_PORT, LIMITS, PEER_PORT } from './defaults.ts';
import type { Keyword } from './keywords.ts';

// What the text of a value means. The grammar has checked the words of enumerations.

function limited(text: string, most: number): Parsed<string> {
  if (text.length <= most) return { value: text };
  return {
    problem: `the value is ${text.length} bytes long, and at most ${most} are possible`,
    hint: 'choose a shorter one',
  };
}

/** An address, once its text is known to be of legal length. */
function ofLength<T>(text: string, read: (text: string) => Parsed<T>): Parsed<T> {
  const length = limited(text, LIMITS.text);
  return isRefusal(length) ? length : read(text);
}

export function path(text: string): Parsed<string> {
  return limited(text, LIMITS.text);
}

/** For the statements that HAST did not have: a path that means the same in every directory. */
export function absolutePath(text: string): Parsed<string> {
  if (!text.startsWith('/')) {
    return { problem: 'the path must be absolute', hint: 'begin it with /' };
  }
  return path(text);
}

export function pathOrNone(text: string): Parsed<string | null> {
  return text === 'none' ? { value: null } : path(text);
}

export function absolutePathOrNone(text: string): Parsed<string | null> {
  return text === 'none' ? { value: null } : absolutePath(text);
}

function name(text: string, most: number): Parsed<string> {
  const wrong = text.startsWith('.')
    ? 'begin with a dot'
    : text.includes('/')
      ? 'hold a slash'
      : text.includes('..')
        ? 'hold two dots in a row'
        : undefined;
  if (wrong === undefined) return limited(text, most);
  return { problem: `a name cannot ${wrong}`, hint: 'it becomes the name of a file' };
}

export function resourceName(text: string): Parsed<string> {
  return name(text, LIMITS.resourceName);
}

export function providerName(text: string): Parsed<string> {
  return name(text, LIMITS.providerName);
}

export function userName(text: string): Parsed<string> {
  if (/^[a-z_][a-z0-9_.-]*$/i.test(text)) return limited(text, LIMITS.userName);
  return { problem: `\`${text}\` is not a user name`, hint: 'write the name as in passwd(5)' };
}

export function peerAddress(text: string): Parsed<TcpAddress> {
  return ofLength(text, (t) => parseTcp(t, PEER_PORT));
}

export function remoteAddress(text: string): Parsed<TcpAddress | 'none'> {
  return text === 'none' ? { value: 'none' } : peerAddress(text);
}

export function sourceAddress(text: string): Parsed<TcpAddress> {
  return ofLength(text, (t) => parseTcp(t, 0));
}

export function exportAddress(text: string): Parsed<Address> {
  return ofLength(text, (t) => parseAddress(t, EXPORT_PORT));
}

export function controlAddress(text: string): Parsed<UdsAddress> {
  return ofLength(text, parseUds);
}

export function seconds(text: string): Parsed<number> {
  const value = Number(text);
  if (value === 0) return { problem: 'the time must be positive', hint: 'the usual value is 20' };
  if (value > LIMITS.timeoutAccepted) {
    return {
      problem: `the time is at most ${LIMITS.timeoutAccepted} seconds`,
      hint: 'the usual value is 20',
    };
  }
  return { value };
}

export function onOff(text: string): Parsed<boolean> {
  return { value: text === 'on' };
}

/** A word of an enumeration that the grammar has checked. */
export function word<T extends string>(words: readonly T[]): (text: string) => Parsed<T> {
  return (text) => {
    const found = words.find((one) => one === text);
    return found === undefined ? { problem: `\`${text}\` is none of its words` } : { value: found };
  };
}

export function sectorSize(text: string): Parsed<SectorSize> {
  return { value: text === '4096' ? 4096 : 512 };
}

const anything = (text: string): Parsed<string> => ({ value: text });

/** How the value of each statement is checked, wherever it stands. */
export const CHECKS: Readonly<Record<Keyword, (text: string) => Parsed<unknown>>> = {
  control: controlAddress,
  pidfile: path,
  listen: peerAddress,
  replication: anything,
  checksum: anything,
  compression: anything,
  timeout: seconds,
  exec: pathOrNone,
  metaflush: onOff,
  name: providerName,
  local: path,
  remote: remoteAddress,
  source: sourceAddress,
  export: exportAddress,
  device: anything,
  devdir: absolutePath,
  start: anything,
  user: userName,
  statedir: absolutePath,
  demotion: anything,
  events: anything,
  secret: absolutePathOrNone,
  sectorsize: sectorSize,
  'export-insecure': onOff,
  'export-owner': userName,
};
