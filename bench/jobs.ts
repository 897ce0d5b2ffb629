/** The jobs: the files in bench/fio/, as data. Each is a fio job without an engine. */
import { readdirSync, readFileSync } from 'node:fs';
import { parseSize } from '../src/units.ts';

export interface Job {
  readonly name: string;
  readonly title: string;
  /** As in the file, in its order. */
  readonly options: readonly (readonly [name: string, value: string])[];
  readonly write: boolean;
  /** Every write is followed by a flush; both together are one request. */
  readonly flush: boolean;
  readonly blockBytes: number;
  readonly depth: number;
  readonly spanBytes: number;
}

const FOLDER = new URL('fio/', import.meta.url);
/** In this order they are measured and shown. */
const ORDER = [
  'randwrite-4k-qd1',
  'randwrite-4k-qd32',
  'randwrite-4k-qd32-1g',
  'randread-4k-qd32',
  'randwrite-64k-qd8',
  'write-1m-qd4',
  'fsync-4k',
];

export function parseJob(text: string): Job {
  const title = /^; (.+)$/m.exec(text)?.[1];
  const name = /^\[(.+)\]$/m.exec(text)?.[1];
  const options = [...text.matchAll(/^(\w+)=(.+)$/gm)].map(([, key = '', value = '']) => {
    return [key, value] as const;
  });
  const values = new Map(options);
  const number = (key: string) => Number(parseSize(values.get(key) ?? '', key));
  if (title === undefined || name === undefined) throw new Error('a job has a title and a name');
  return {
    name,
    title,
    options,
    write: (values.get('rw') ?? '').includes('write'),
    flush: values.has('fsync'),
    blockBytes: number('bs'),
    depth: number('iodepth'),
    spanBytes: number('size'),
  };
}

export function readJobs(): readonly Job[] {
  const rank = ({ name }: Job) => (ORDER.includes(name) ? ORDER.indexOf(name) : ORDER.length);
  return readdirSync(FOLDER)
    .filter((file) => file.endsWith('.fio'))
    .map((file) => parseJob(readFileSync(new URL(file, FOLDER), 'utf8')))
    .sort((a, b) => rank(a) - rank(b));
}
