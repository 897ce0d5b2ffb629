import type { Resource } from '../../src/config/config.ts';

/** One called `data`, with its disk and its export in the folder. */
export function resourceIn(directory: string, more: Partial<Resource>): Resource {
  return {
    name: 'data',
    provname: 'data',
    node: 'a',
    local: `${directory}/disk`,
    remote: 'none',
    source: null,
    replication: 'memsync',
    checksum: 'none',
    compression: 'hole',
    timeoutSeconds: 2,
    exec: '/bin/true',
    metaflush: true,
    export: { kind: 'uds', text: 'x', path: `${directory}/run/data.nbd` },
    exportInsecure: false,
    exportOwner: null,
    device: 'none',
    devdir: directory,
    start: 'init',
    demotion: 'force',
    events: 'plain',
    secret: null,
    sectorSize: null,
    position: { file: 'hast.conf', line: 1, column: 1 },
    ...more,
  };
}
