// What a guard is, where they are, and what a mutation makes of its file. A guard is a statement of
// the core that makes something durable before something else may happen, that marks what differs,
// or that refuses. Each says so where it stands:
//   // guard:NAME           a mutation of this name takes it away, and a test must notice
//   // no guard: REASON     the same kind of statement, but nothing is lost without it
// The comment stands in the statement or directly above it, and holds to the statement's closing
// bracket: above a helper or a block it speaks for all of it.
import { readdirSync, readFileSync } from 'node:fs';
import { MUTANTS, type Mutant } from './list.ts';

const SOURCES = new URL('../../src-native/', import.meta.url).pathname;

interface Kind {
  readonly files: RegExp;
  readonly statement: RegExp;
}

const KINDS: readonly Kind[] = [
  // Made durable.
  { files: /^engine\//, statement: /metadata_\.store\(|update_metadata\(|carry_out\(/ },
  { files: /^engine\//, statement: /map_store_->(store|store_all|overwrite)\(/ },
  { files: /^engine\//, statement: /\bdisk_\.flush\(|flush_covering\(|ask_flush\(/ },
  { files: /^engine\//, statement: /\bensure_counted\(|\bask_stale\(|\bbecome_good\(/ },
  { files: /^engine\//, statement: /\bnote_(life|failed_flush|incomplete)\(/ },
  // Marked.
  { files: /^engine\//, statement: /->(mark_sync|merge|peer_lost)\(/ },
  { files: /^engine\//, statement: /->(write_end|sync_end|flush_end)\(/ },
  { files: /^engine\//, statement: /\bids\.(begin|offer|agree|hear)\(/ },
  { files: /^engine\//, statement: /\bextra\.(sync_target|local_stale|peer_stale|boot|ahead) = / },
  { files: /^engine\//, statement: /\bmetadata\.(resuid|localcnt|remotecnt) = |\+\+metadata\./ },
  { files: /^engine\//, statement: /MapAnswer::kFull;|\? MapAnswer::k/ },
  // Refused.
  { files: /^engine\//, statement: /refusal = |fail\(failure, 69|co_return -E(AGAIN|INVAL);/ },
  { files: /^engine\//, statement: /verdict = Verdict::kFailure|\? Verdict::kFailure/ },
  { files: /^engine\//, statement: /(say\(attempt, |kind = )AttemptKind::k(Mismatch|Refused|Ch)/ },
  { files: /^engine\//, statement: /co_return .*-EBADMSG;|\breject\(/ },
  // Pure structures that decide what the disk says.
  { files: /activemap/, statement: /\bdurable\[.*[|&]=|\b(add|drop)_(sync|unflushed)\(/ },
  { files: /activemap/, statement: /unknown_sectors\.add\(|\.swap\(s\.covered/ },
  { files: /codec\/metadata/, statement: /plan\.steps\[|slot = 1 - |!= (crc32c_of|hash)/ },
  { files: /codec\/metadata/, statement: /needs_rewrite_ = !|!nv_is_newest && / },
  { files: /rangelock/, statement: /blockers(\+\+|--)/ },
];

export interface Place {
  readonly file: string;
  readonly line: number;
  readonly text: string;
}

/** Its code alone: without comments and without what stands in quotes. */
function codeOf(line: string): string {
  return line
    .replace(/\\./g, '')
    .replace(/"[^"]*"|'[^']'/g, '""')
    .replace(/\/\/.*/, '');
}

const TAG = /\bguard:([a-z-]+)|\bno guard: \S/i;

/** The lines (first, after the last) of the statement at or below `at`, with all it encloses. */
function spanOf(code: readonly string[], at: number): readonly [number, number] {
  let first = at;
  while (code[first]?.trim() === '') first += 1;
  // In the middle of one: back to where it begins.
  while (first > 0 && !/(^|[;{}:])\s*$/.test(code[first - 1] ?? '')) first -= 1;
  let depth = 0;
  for (let line = first; line < code.length; line += 1) {
    let closed = false;
    // `} else {` begins with what is not its own.
    for (const sign of (code[line] ?? '').replace(/^\s*}/, line === first ? '' : '}')) {
      if ('([{'.includes(sign)) depth += 1;
      if (')]}'.includes(sign)) depth -= 1;
      if (sign === '}' && depth <= 0) closed = true;
    }
    const ended = closed || (depth <= 0 && /;\s*$/.test(code[line] ?? ''));
    if (line >= at && ended) return [first, line + 1];
  }
  return [first, code.length];
}

function files(): string[] {
  return ['engine', 'codec'].flatMap((room) =>
    readdirSync(`${SOURCES}${room}`)
      .filter((name) => name.endsWith('.cc'))
      .map((name) => `${room}/${name}`),
  );
}

/** Statements that are guards by their nature and say neither which nor why not. */
export function silentStatements(): Place[] {
  const silent: Place[] = [];
  for (const file of files()) {
    const kinds = KINDS.filter((kind) => kind.files.test(file));
    const lines = readFileSync(SOURCES + file, 'utf8').split('\n');
    const code = lines.map(codeOf);
    const spoken = new Set<number>();
    for (const [at, line] of lines.entries()) {
      if (!TAG.test(line)) continue;
      const [first, after] = spanOf(code, at);
      for (let covered = first; covered < after; covered += 1) spoken.add(covered);
    }
    for (const [at, text] of code.entries()) {
      const definition = /^\S.*::\w+\(|^ *void \w+\(.*\);$/.test(text);
      const one = kinds.some(({ statement }) => statement.test(text));
      if (one && !definition && !spoken.has(at)) {
        silent.push({ file: `src-native/${file}`, line: at + 1, text: text.trim() });
      }
    }
  }
  return silent;
}

/** Names of all `guard:NAME` in the core. */
export function taggedGuards(): Set<string> {
  const found = files().flatMap((file) => [
    ...readFileSync(SOURCES + file, 'utf8').matchAll(/\bguard:([a-z-]+)/g),
  ]);
  return new Set(found.map((match) => match[1] ?? ''));
}

/** The files without the guard. Throws if a text that is to be changed is not there once. */
export function mutated(mutant: Mutant): Map<string, string> {
  const texts = new Map<string, string>();
  for (const change of mutant.and === undefined ? [mutant] : [mutant, mutant.and]) {
    const file = change.file ?? mutant.file;
    const whole = readFileSync(SOURCES + file, 'utf8');
    const times = whole.split(change.find).length - 1;
    if (times !== 1) throw new Error(`${mutant.guard}: ${times} times in ${file}: ${change.find}`);
    texts.set(
      file,
      (texts.get(file) ?? whole).replace(change.find, () => change.replace),
    );
  }
  return texts;
}

/** What is wrong between the tags and the list of mutations. */
export function disagreements(): string[] {
  const tags = taggedGuards();
  const names = MUTANTS.map(({ guard }) => guard);
  const broken = MUTANTS.flatMap((mutant) => {
    try {
      mutated(mutant);
      return [];
    } catch (error) {
      return [String(error)];
    }
  });
  return [
    ...[...tags].filter((name) => !names.includes(name)).map((name) => `${name}: no mutation`),
    ...names.filter((name) => !tags.has(name)).map((name) => `${name}: no guard has this name`),
    ...names.filter((name, i) => names.indexOf(name) !== i).map((name) => `${name}: twice`),
    ...broken,
  ];
}
