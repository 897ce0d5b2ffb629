import { isIP, isIPv4, isIPv6 } from 'node:net';
import type { Address, TcpAddress, UdsAddress } from './config.ts';
import { LIMITS } from './defaults.ts';

/** Why a text is not what it should be, and what to write instead. */
export interface Refusal {
  readonly problem: string;
  readonly hint?: string | undefined;
}

/** A value, or why there is none. */
export type Parsed<T> = { readonly value: T } | Refusal;

export function isRefusal<T>(parsed: Parsed<T>): parsed is Refusal {
  return 'problem' in parsed;
}

type Scheme = 'tcp' | 'tcp4' | 'tcp6' | 'uds';

const TCP_HINT =
  'write [tcp4://|tcp6://|tcp://]HOST[:PORT], an IPv6 address with a port in brackets';

function splitScheme(text: string): Parsed<{ readonly scheme: Scheme; readonly rest: string }> {
  const match = /^([a-z0-9.-]*):\/\/(.*)$/i.exec(text);
  if (match === null) {
    return { value: { scheme: text.startsWith('/') ? 'uds' : 'tcp', rest: text } };
  }
  const [, word = '', rest = ''] = match;
  switch (word.toLowerCase()) {
    case 'tcp':
      return { value: { scheme: 'tcp', rest } };
    case 'tcp4':
      return { value: { scheme: 'tcp4', rest } };
    case 'tcp6':
      return { value: { scheme: 'tcp6', rest } };
    case 'uds':
    case 'unix':
      return { value: { scheme: 'uds', rest } };
    default:
      return {
        problem: `unknown scheme \`${word}://\``,
        hint: 'the schemes are tcp4, tcp6, tcp and, for UNIX sockets, uds',
      };
  }
}

function uds(text: string, path: string): Parsed<UdsAddress> {
  if (!path.startsWith('/')) {
    return {
      problem: 'the path of a UNIX socket must be absolute',
      hint: 'write uds:///path, with three slashes',
    };
  }
  if (path.endsWith('/')) {
    return { problem: 'this is the path of a directory', hint: 'name a file for the socket' };
  }
  if (path.length > LIMITS.socketPath) {
    return {
      problem: `the path has ${path.length} bytes, that of a socket at most ${LIMITS.socketPath}`,
      hint: 'choose a shorter path',
    };
  }
  return { value: { kind: 'uds', text, path } };
}

/** Host and port as the spec splits them; a literal in brackets needs no port. */
function splitPort(rest: string): Parsed<{ readonly host: string; readonly port?: string }> {
  if (rest.startsWith('[')) {
    const match = /^\[([^[\]]*)\](?::(.*))?$/.exec(rest);
    if (match === null) return { problem: `\`${rest}\` is not a host`, hint: TCP_HINT };
    const [, host = '', port] = match;
    if (!isIPv6(host)) {
      return { problem: `\`${host}\` is not an IPv6 address`, hint: 'only those go in brackets' };
    }
    return { value: port === undefined ? { host } : { host, port } };
  }
  const first = rest.indexOf(':');
  if (first === -1 || first !== rest.lastIndexOf(':')) return { value: { host: rest } };
  return { value: { host: rest.slice(0, first), port: rest.slice(first + 1) } };
}

function portNumber(text: string): Parsed<number> {
  const port = /^[0-9]+$/.test(text) ? Number(text) : 0;
  if (port >= 1 && port <= 65535) return { value: port };
  const problem = text === '' ? 'the port is missing' : `\`${text}\` is not a port`;
  return { problem, hint: 'ports are 1 to 65535, in decimal digits' };
}

/** Shortest form of an IPv6 literal, or the IPv4 address that it maps. */
function canonical(host: string): string {
  const short = new URL(`http://[${host}]/`).hostname.slice(1, -1);
  const mapped = /^::ffff:([0-9a-f]{1,4}):([0-9a-f]{1,4})$/.exec(short);
  if (mapped === null) return short;
  const bytes = [mapped[1], mapped[2]].flatMap((half) => {
    const value = Number.parseInt(half ?? '', 16);
    return [value >> 8, value & 255];
  });
  return bytes.join('.');
}

function hostName(host: string): Parsed<string> {
  if (host === '') return { problem: 'the host is missing', hint: TCP_HINT };
  if (host.includes(':')) return { problem: `\`${host}\` is not an IPv6 address`, hint: TCP_HINT };
  if (/^[0-9.]+$/.test(host) || /(^|\.)[0-9]+\.?$/.test(host)) {
    return { problem: `\`${host}\` is not an IPv4 address`, hint: 'it has four numbers, 0 to 255' };
  }
  const label = /^[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?$/i;
  if (
    host.length > 253 ||
    !host
      .replace(/\.$/, '')
      .split('.')
      .every((part) => label.test(part))
  ) {
    return { problem: `\`${host}\` is not a host name`, hint: TCP_HINT };
  }
  return { value: host };
}

function tcp(text: string, scheme: Scheme, rest: string, defaultPort: number): Parsed<TcpAddress> {
  const prefix = /^\[?([^[\]/]*)\]?\/[0-9]*$/.exec(rest)?.[1];
  if (prefix !== undefined && isIP(prefix) !== 0) {
    return { problem: 'an address has no prefix length', hint: `write ${prefix}` };
  }
  const split = splitPort(rest);
  if (isRefusal(split)) return split;
  const port =
    split.value.port === undefined ? { value: defaultPort } : portNumber(split.value.port);
  if (isRefusal(port)) return port;
  let host = split.value.host;
  if (!isIPv4(host) && !isIPv6(host)) {
    const name = hostName(host);
    if (isRefusal(name)) return name;
    const family = scheme === 'tcp4' ? 'ipv4' : scheme === 'tcp6' ? 'ipv6' : 'any';
    return { value: { kind: 'tcp', text, family, host: name.value, port: port.value } };
  }
  if ((scheme === 'tcp4' && isIPv6(host)) || (scheme === 'tcp6' && isIPv4(host))) {
    return {
      problem: `\`${host}\` does not belong to ${scheme}://`,
      hint: `write ${scheme === 'tcp4' ? 'tcp6' : 'tcp4'}:// or tcp://`,
    };
  }
  if (isIPv6(host)) host = canonical(host);
  const family = isIPv4(host) ? 'ipv4' : 'ipv6';
  return { value: { kind: 'tcp', text, family, host, port: port.value } };
}

/** Reads an address of either kind. */
export function parseAddress(text: string, defaultPort: number): Parsed<Address> {
  const split = splitScheme(text);
  if (isRefusal(split)) return split;
  const { scheme, rest } = split.value;
  return scheme === 'uds' ? uds(text, rest) : tcp(text, scheme, rest, defaultPort);
}

/** Reads an address between peers, which is never a UNIX socket. */
export function parseTcp(text: string, defaultPort: number): Parsed<TcpAddress> {
  const parsed = parseAddress(text, defaultPort);
  if (isRefusal(parsed)) return parsed;
  const address = parsed.value;
  if (address.kind === 'tcp') return { value: address };
  return { problem: 'a UNIX socket cannot stand here', hint: TCP_HINT };
}

/** Reads an address that must be a UNIX socket. */
export function parseUds(text: string): Parsed<UdsAddress> {
  const parsed = parseAddress(text, 0);
  if (isRefusal(parsed)) {
    return text.includes('/')
      ? parsed
      : { problem: 'the path must be absolute', hint: 'write /path' };
  }
  const address = parsed.value;
  if (address.kind === 'uds') return { value: address };
  return {
    problem: 'this must be a UNIX socket',
    hint: 'write an absolute path, alone or behind uds:// or unix://',
  };
}

/** Whether this stands for every address of its family. */
export function isWildcard(address: TcpAddress): boolean {
  return address.host === '0.0.0.0' || address.host === '::';
}

/** Whether this can only be reached from this host. */
export function isLoopback(address: TcpAddress): boolean {
  return (
    (isIPv4(address.host) && address.host.startsWith('127.')) ||
    address.host === '::1' ||
    /^localhost\.?$/i.test(address.host)
  );
}

/** Whether both name the same socket; of names as far as it can be told without resolving them. */
export function sameAddress(a: Address, b: Address): boolean {
  if (a.kind === 'uds' || b.kind === 'uds') {
    return a.kind === 'uds' && b.kind === 'uds' && a.path === b.path;
  }
  return (
    a.port === b.port && a.family === b.family && a.host.toLowerCase() === b.host.toLowerCase()
  );
}

/** Whether listening on `wide`, a wildcard, already listens on `narrow`. */
export function covers(wide: TcpAddress, narrow: TcpAddress): boolean {
  return isWildcard(wide) && wide.family === narrow.family && wide.port === narrow.port;
}
