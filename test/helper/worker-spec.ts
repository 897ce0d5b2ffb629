// What a worker is started with, where a test does not care for its contents.
import type { WorkerSpec } from '../../src/resource/worker-protocol.ts';

export const SPEC: WorkerSpec = {
  resource: 'data',
  provider: 'data',
  role: 'primary',
  force: false,
  hello: null,
  sharers: 1,
  sectorBytes: 0,
  replication: 'memsync',
  checksum: 'none',
  compression: 'hole',
  timeoutSeconds: 20,
  metaflush: true,
  peers: [],
  source: null,
  secret: null,
};
