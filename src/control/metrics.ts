/** The status of all resources as Prometheus text: pure. */
import type { ResourceStatus, WorkerStatus } from './protocol.ts';

interface Metric {
  readonly name: string;
  readonly type: 'counter' | 'gauge';
  readonly help: string;
  readonly samples: readonly (readonly [labels: Labels, value: number])[];
}
type Labels = Readonly<Record<string, string>>;

const ROLES = ['init', 'primary', 'secondary'] as const;

/** What of a worker's numbers becomes a metric of its own. Bytes and counts since its start. */
const NUMBERS = {
  dirtyBytes: ['dirty_bytes', 'gauge', 'Bytes of extents marked dirty'],
  syncBytesLeft: ['sync_left_bytes', 'gauge', 'Bytes still to be synchronised'],
  syncBytesDone: ['sync_done_bytes', 'gauge', 'Bytes synchronised in this pass'],
  syncBytesPerSecond: ['sync_rate_bytes', 'gauge', 'Bytes synchronised per second'],
  inFlight: ['in_flight_requests', 'gauge', 'Requests in hand'],
  activemapUpdates: ['activemap_updates_total', 'counter', 'Writes of the dirty map'],
} as const satisfies Partial<Record<keyof WorkerStatus, readonly [string, Metric['type'], string]>>;

const REQUESTS = {
  read: ['reads', 'readErrors'],
  write: ['writes', 'writeErrors'],
  delete: ['deletes', 'deleteErrors'],
  flush: ['flushes', 'flushErrors'],
} as const satisfies Record<string, readonly [keyof WorkerStatus, keyof WorkerStatus]>;

const QUEUES = {
  local: 'queueLocal',
  send: 'queueSend',
  recv: 'queueRecv',
  done: 'queueDone',
  idle: 'queueIdle',
} as const satisfies Record<string, keyof WorkerStatus>;

function entriesOf<K extends string, V>(table: Readonly<Record<K, V>>): [K, V][] {
  return Object.entries(table) as [K, V][];
}

export function metricsText(resources: readonly ResourceStatus[]): string {
  const running = resources.flatMap(({ name, worker }) =>
    worker === null ? [] : [{ labels: { resource: name }, worker }],
  );
  const metrics: Metric[] = [
    {
      name: 'hast_role',
      type: 'gauge',
      help: 'The role a resource has',
      samples: resources.flatMap(({ name, role }) =>
        ROLES.map((one) => [{ resource: name, role: one }, one === role ? 1 : 0] as const),
      ),
    },
    {
      name: 'hast_worker_up',
      type: 'gauge',
      help: 'Whether a worker runs and answers',
      samples: resources.map(({ name, worker }) => [{ resource: name }, worker === null ? 0 : 1]),
    },
    {
      name: 'hast_complete',
      type: 'gauge',
      help: 'Whether both connections to the peer are up',
      samples: running.map(({ labels, worker }) => [labels, worker.status === 'complete' ? 1 : 0]),
    },
    {
      name: 'hast_in_sync',
      type: 'gauge',
      help: 'Whether both nodes are known to hold the same data',
      samples: running.map(({ labels, worker }) => [labels, worker.state === 'in-sync' ? 1 : 0]),
    },
    {
      name: 'hast_local_stale',
      type: 'gauge',
      help: 'Whether the local component is known to lack data',
      samples: running.map(({ labels, worker }) => [labels, worker.localStale ? 1 : 0]),
    },
    {
      name: 'hast_clients',
      type: 'gauge',
      help: 'Clients that have the provider open',
      samples: running.map(({ labels, worker }) => [labels, worker.clients.length]),
    },
    ...entriesOf(NUMBERS).map(([key, [name, type, help]]) => ({
      name: `hast_${name}`,
      type,
      help,
      samples: running.map(({ labels, worker }) => [labels, worker[key]] as const),
    })),
    perRequest('hast_requests_total', 'Requests handled', 0),
    perRequest('hast_local_errors_total', 'Requests that failed at the local component', 1),
    {
      name: 'hast_queue_requests',
      type: 'gauge',
      help: 'Requests waiting in a queue',
      samples: running.flatMap(({ labels, worker }) =>
        entriesOf(QUEUES).map(([queue, key]) => [{ ...labels, queue }, worker[key]] as const),
      ),
    },
  ];

  function perRequest(name: string, help: string, column: 0 | 1): Metric {
    const samples = running.flatMap(({ labels, worker }) =>
      entriesOf(REQUESTS).map(
        ([operation, keys]) => [{ ...labels, operation }, worker[keys[column]]] as const,
      ),
    );
    return { name, type: 'counter', help, samples };
  }

  return metrics.map(textOf).join('');
}

function textOf({ name, type, help, samples }: Metric): string {
  const lines = samples.map(([labels, value]) => {
    const inner = Object.entries(labels).map(([key, text]) => `${key}="${escaped(text)}"`);
    return `${name}{${inner.join(',')}} ${value}\n`;
  });
  return `# HELP ${name} ${help}\n# TYPE ${name} ${type}\n${lines.join('')}`;
}

function escaped(text: string): string {
  return text.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n');
}
