/** The listening socket of a resource's NBD export, made by the parent, used by the worker. */
import { lstatSync, mkdirSync, rmSync } from 'node:fs';
import { dirname } from 'node:path';
import type { Resource } from '../config/config.ts';
import { HastError } from '../error.ts';
import type { HostFunctions } from '../native.ts';

export type ExportHost = Pick<HostFunctions, 'listenUnix' | 'listenTcp' | 'lookupUser' | 'closeFd'>;

const SOCKET_MODE = 0o600;
/** Others pass through to a socket of theirs, see no names and change nothing. */
const FOLDER_MODE = 0o711;
const NOBODY = -1; // leaves the owner as it is

function isLoopback(host: string): boolean {
  return /^127\.\d+\.\d+\.\d+$/.test(host) || host === '::1';
}

/**
 * A plain close-on-exec descriptor; the caller closes it.
 * @throws HastError EXPORT_SOCKET, EXPORT_INSECURE, USER_MISSING
 */
export function listenForExport(host: ExportHost, resource: Resource): number {
  const address = resource.export;
  if (address.kind === 'tcp') {
    if (!isLoopback(address.host) && !resource.exportInsecure) {
      throw new HastError('EXPORT_INSECURE', { message: `export ${address.text}` });
    }
    return make(address.text, () => host.listenTcp(address.host, address.port));
  }
  const { exportOwner } = resource;
  const owner = exportOwner === null ? null : host.lookupUser(exportOwner);
  if (exportOwner !== null && owner === null) {
    throw new HastError('USER_MISSING', {
      message: `export-owner: there is no user ${exportOwner}`,
      hint: 'make the user, or name another one with export-owner in hast.conf',
    });
  }
  makeFolder(dirname(address.path), address.text);
  return make(address.text, () =>
    host.listenUnix(address.path, SOCKET_MODE, owner?.uid ?? NOBODY, owner?.gid ?? NOBODY),
  );
}

/** Forgets the socket's path; nobody is listening on it any more. */
export function removeExport(resource: Resource): void {
  const address = resource.export;
  if (address.kind !== 'uds') return;
  try {
    if (lstatSync(address.path).isSocket()) rmSync(address.path);
  } catch {
    // It is gone, which is what was wanted.
  }
}

/**
 * The folder is never given away: its owner could put anything in the socket's place. The umask is
 * set instead of the mode changed afterwards, when the path may lead elsewhere.
 */
function makeFolder(folder: string, text: string): void {
  const before = process.umask(0);
  try {
    mkdirSync(folder, { recursive: true, mode: FOLDER_MODE });
  } catch (error) {
    throw socketError(text, error);
  } finally {
    process.umask(before);
  }
}

function make(text: string, listen: () => number): number {
  try {
    return listen();
  } catch (error) {
    throw socketError(text, error);
  }
}

function socketError(text: string, cause: unknown): HastError {
  const why = cause instanceof Error ? cause.message : String(cause);
  return new HastError('EXPORT_SOCKET', { message: `export ${text}: ${why}`, cause });
}
