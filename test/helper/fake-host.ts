// The supervisor's system calls without a system: components are plain files, locks a set of paths.
import { closeSync, openSync, readSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { HastError } from '../../src/error.ts';
import { encodeNv } from '../../src/nv.ts';
import type { SupervisorHost } from '../../src/resource/supervisor.ts';

/** The smallest component there can be: one extent of one sector, its map before it. */
export function writeComponent(path: string, resource: string): void {
  const area = encodeNv([
    { name: 'resource', type: 'string', value: resource },
    { name: 'datasize', type: 'uint64', value: 512n },
    { name: 'extentsize', type: 'uint32', value: 512 },
    { name: 'keepdirty', type: 'uint32', value: 1 },
    { name: 'offset', type: 'uint64', value: 7680n },
    { name: 'resuid', type: 'uint64', value: 0n },
    { name: 'localcnt', type: 'uint64', value: 0n },
    { name: 'remotecnt', type: 'uint64', value: 0n },
    { name: 'prevrole', type: 'string', value: 'init' },
  ]);
  writeFileSync(path, Buffer.concat([area, Buffer.alloc(8192 - area.length)]));
}

export interface FakeHost extends SupervisorHost {
  /** Paths whose lock somebody holds. */
  readonly locked: Set<string>;
  /** Descriptors that were opened and not closed. */
  readonly open: Set<number>;
  /** What was asked for of each UNIX socket: mode and owner. */
  readonly unix: (readonly [mode: number, uid: number, gid: number])[];
  dispose(): void;
}

function fdOf(server: Server): number {
  return (server as unknown as { _handle: { fd: number } })._handle.fd;
}

export function makeFakeHost(): FakeHost {
  const locked = new Set<string>();
  const open = new Set<number>();
  const unix: (readonly [mode: number, uid: number, gid: number])[] = [];
  const servers = new Map<number, Server>();
  return {
    locked,
    open,
    unix,
    openComponent(path) {
      if (locked.has(path)) {
        const cause = Object.assign(new Error(path), { errno: 11 });
        throw new HastError('SYSTEM', { message: `${path}: busy`, cause });
      }
      const fd = openSync(path, 'r+');
      open.add(fd);
      return {
        fd,
        sizeBytes: 8192n,
        sectorBytes: 512,
        granuleBytes: 512,
        blockDevice: false,
        direct: false,
        device: `file:${path.replace(/\.link$/, '')}`,
      };
    },
    closeFd(fd) {
      open.delete(fd);
      const server = servers.get(fd);
      servers.delete(fd);
      // Node's own server unlinks the path when it is closed, so it stays open until dispose.
      if (server === undefined) closeSync(fd);
      else server.unref();
    },
    readAt(fd, offset, length) {
      const block = Buffer.alloc(length);
      readSync(fd, block, 0, length, Number(offset));
      return block;
    },
    listenUnix(path, mode, uid, gid) {
      unix.push([mode, uid, gid]);
      rmSync(path, { force: true });
      const server = createServer();
      server.listen(path);
      const fd = fdOf(server);
      servers.set(fd, server);
      open.add(fd);
      return fd;
    },
    listenTcp() {
      throw new HastError('SYSTEM', { message: 'not in this test' });
    },
    lookupUser: (name) => (name === 'other' ? { uid: 12345, gid: 54321 } : null),
    dispose() {
      for (const server of servers.values()) server.close();
    },
  };
}
