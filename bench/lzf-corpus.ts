/**
 * Data for `bench/lzf.ts`, of what a Debian machine has and of what is made by a seed. Two sets:
 * the encoder was tuned with one of them and is judged by the other, which has other files, other
 * makers and other seeds.
 */
import { closeSync, existsSync, openSync, readdirSync, readFileSync, readSync } from 'node:fs';
import { join } from 'node:path';

export const KINDS = ['text', 'binary'] as const;
export type Kind = (typeof KINDS)[number];
export const SETS = ['judging', 'tuning'] as const;
export type CorpusSet = (typeof SETS)[number];

const ROOT = new URL('..', import.meta.url).pathname;
const KIB = 1024;
/** Of each source; together half a MiB to one. */
const PART_BYTES = 192 * KIB;

// ---- Files ---------------------------------------------------------------------------------

/** A part of a file, or what there is of it. */
function slice(path: string, offset = 0, bytes = PART_BYTES): Buffer {
  if (!existsSync(path)) return Buffer.alloc(0);
  const buffer = Buffer.alloc(bytes);
  const descriptor = openSync(path, 'r');
  try {
    return buffer.subarray(0, readSync(descriptor, buffer, 0, bytes, offset));
  } finally {
    closeSync(descriptor);
  }
}

/** The files of a folder with this ending, one behind the other, in the order of their names. */
function folder(path: string, ending: string): Buffer {
  if (!existsSync(path)) return Buffer.alloc(0);
  const names = readdirSync(path, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && entry.name.endsWith(ending))
    .map((entry) => join(entry.parentPath, entry.name))
    .sort();
  const parts: Buffer[] = [];
  for (let bytes = 0; names.length > 0 && bytes < PART_BYTES; ) {
    const part = readFileSync(names.shift() ?? '');
    parts.push(part);
    bytes += part.length;
  }
  return Buffer.concat(parts).subarray(0, PART_BYTES);
}

// ---- Makers --------------------------------------------------------------------------------

/** Numbers below `limit`, by a seed. */
function numbers(seed: number): (limit: number) => number {
  let state = seed >>> 0;
  return (limit) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let x = Math.imul(state ^ (state >>> 15), state | 1);
    x ^= x + Math.imul(x ^ (x >>> 7), x | 61);
    return Math.floor((((x ^ (x >>> 14)) >>> 0) / 2 ** 32) * limit);
  };
}

type Draw = (limit: number) => number;

function pick<T>(draw: Draw, from: readonly [T, ...T[]]): T {
  return from[draw(from.length)] ?? from[0];
}

function lines(seed: number, line: (draw: Draw, index: number) => string): Buffer {
  const draw = numbers(seed);
  const parts: string[] = [];
  for (let bytes = 0; bytes < PART_BYTES; ) {
    const text = `${line(draw, parts.length)}\n`;
    parts.push(text);
    bytes += text.length;
  }
  return Buffer.from(parts.join('').slice(0, PART_BYTES), 'latin1');
}

function two(number: number): string {
  return String(number).padStart(2, '0');
}

function jsonRecord(draw: Draw): string {
  return JSON.stringify({
    id: draw(1e6),
    name: `${pick(draw, ['alice', 'bob', 'carol', 'dave', 'erin'])}${draw(100)}`,
    active: draw(2) === 0,
    score: draw(10000) / 100,
    tags: [pick(draw, ['red', 'green', 'blue']), pick(draw, ['fast', 'slow', 'large', 'small'])],
  });
}

function logLine(draw: Draw, index: number): string {
  const program = pick(draw, ['sshd', 'kernel', 'cron', 'nginx', 'postgres']);
  const what = pick(draw, [
    'connection from',
    'request to',
    'error reading',
    'timeout waiting for',
  ]);
  const address = `${draw(256)}.${draw(256)}.0.${draw(256)}`;
  const status = pick(draw, [200, 200, 200, 404, 500]);
  const head = `${1700000000 + 2 * index} host${draw(9)} ${program}[${draw(30000)}]`;
  return `${head}: ${what} ${address} port ${draw(65536)} status ${status}`;
}

function sqlRow(draw: Draw, index: number): string {
  const city = pick(draw, ['Berlin', 'Lisboa', 'Praha', 'Torino', 'Uppsala', 'Gent']);
  const day = `20${10 + draw(16)}-${two(1 + draw(12))}-${two(1 + draw(28))}`;
  const state = pick(draw, ["'open'", "'paid'", "'sent'", 'NULL']);
  const values = `${40000 + index}, ${draw(9000)}, '${city}', '${day}', ${draw(500000)}, ${state}`;
  return `INSERT INTO orders (id, customer, city, day, cents, state) VALUES (${values});`;
}

function csvRow(draw: Draw, index: number): string {
  const day = two(1 + (Math.floor(index / 1440) % 28));
  const time = `2026-03-${day}T${two(Math.floor(index / 60) % 24)}:${two(index % 60)}:00Z`;
  const values = Array.from({ length: 5 }, (_, i) => (20 + i + draw(300) / 100).toFixed(2));
  return `${time},station-${draw(12)},${values.join(',')}`;
}

function pages(seed: number, pageBytes: number, fill: (draw: Draw, page: Buffer) => void): Buffer {
  const draw = numbers(seed);
  const all = Buffer.alloc(PART_BYTES);
  for (let at = 0; at < all.length; at += pageBytes) fill(draw, all.subarray(at, at + pageBytes));
  return all;
}

/** Rows from the end, their places from the start, zeros between. */
function heapPage(draw: Draw, page: Buffer): void {
  page.writeUInt32LE(draw(2 ** 32), 0);
  page.writeUInt32LE(draw(2 ** 32), 4);
  let at = page.length;
  const rows = 20 + draw(40);
  for (let row = 0; row < rows; row += 1) {
    const bytes = Buffer.alloc(56);
    bytes.writeUInt32LE(draw(2 ** 24), 0);
    bytes.writeUInt32LE(draw(2 ** 32), 8);
    bytes.write(`user${draw(100000)}`, 16, 'latin1');
    for (let i = 28; i < 44; i += 1) bytes[i] = draw(256);
    bytes.write(pick(draw, ['ACTIVE', 'CLOSED', 'PENDING']), 46, 'latin1');
    at -= bytes.length;
    bytes.copy(page, at);
    page.writeUInt16LE(at, 24 + 4 * row);
    page.writeUInt16LE(bytes.length, 26 + 4 * row);
  }
}

/** Keys in order, each with a pointer; the rest of the page is what was there before. */
function indexPage(draw: Draw, page: Buffer): void {
  for (let i = page.length - draw(page.length >> 1); i < page.length; i += 1) page[i] = draw(256);
  page.writeUInt32BE(0x1a2b0001, 0);
  let key = draw(2 ** 31);
  const keys = Math.floor((page.length * (50 + draw(45))) / 100 / 18);
  page.writeUInt16BE(keys, 4);
  for (let i = 0; i < keys; i += 1) {
    key += 1 + draw(40);
    const at = 16 + 18 * i;
    if (at + 18 > page.length) break;
    page.writeUIntBE(key, at + 2, 6);
    page.writeUInt32BE(7 + draw(5000), at + 8);
    page.writeUInt16BE(draw(120), at + 12);
    page.writeUInt32BE(draw(4) === 0 ? draw(2 ** 32) : 0, at + 14);
  }
}

// ---- The two sets --------------------------------------------------------------------------

function firstOf(...paths: readonly string[]): string {
  return paths.find((path) => existsSync(path)) ?? '';
}

function library(name: string): string {
  const folders = ['x86_64-linux-gnu', 'aarch64-linux-gnu', 'riscv64-linux-gnu'];
  return firstOf(...folders.map((folderName) => `/usr/lib/${folderName}/${name}`));
}

const SOURCES: Readonly<Record<CorpusSet, Readonly<Record<Kind, () => readonly Buffer[]>>>> = {
  tuning: {
    text: () => [
      folder('/usr/share/common-licenses', '.0'),
      folder('/usr/share/common-licenses', '-3'),
      slice('/var/lib/dpkg/status'),
      folder(library('perl-base'), '.pm'),
      lines(1, jsonRecord),
      lines(2, logLine),
    ],
    binary: () => [
      slice(library('libc.so.6'), 192 * KIB),
      slice(library('libc.so.6'), 1600 * KIB),
      slice(firstOf('/usr/bin/perl'), 384 * KIB),
      slice(firstOf('/bin/bash'), 256 * KIB),
      slice(process.execPath, 32 * KIB * KIB),
      pages(3, 8192, heapPage),
    ],
  },
  judging: {
    text: () => [
      folder('/usr/include/linux', '.h'),
      folder(join(ROOT, 'docs'), '.md'),
      folder(join(ROOT, 'node_modules/valibot/dist'), '.js'),
      slice('/usr/share/zoneinfo/tzdata.zi'),
      lines(11, sqlRow),
      lines(12, csvRow),
    ],
    binary: () => [
      slice(library('libstdc++.so.6'), 1024 * KIB),
      slice(library('libcrypto.so.3'), 1536 * KIB),
      slice(firstOf('/usr/lib/gcc/x86_64-linux-gnu/12/cc1plus', '/usr/bin/cmake'), 8192 * KIB),
      slice(firstOf('/usr/bin/dpkg'), 64 * KIB),
      pages(13, 16384, indexPage),
    ],
  },
};

export function corpus(set: CorpusSet, kind: Kind): Buffer {
  return Buffer.concat(SOURCES[set][kind]());
}
