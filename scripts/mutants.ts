// Does a test notice when a guard is gone? Every guard of the engine (`// guard:NAME`) has a
// mutation
// here; each is built into a test program of its own, which must fail.
//   mutants.ts [NAME]...   only those; HAST_MUTANTS_VERBOSE=1 shows what failed
// The last line is "N caught, N missed".
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';

process.chdir(new URL('..', import.meta.url).pathname);

const OUT = 'out/mutants';
const FLAGS = [
  '-std=c++20',
  '-O1',
  '-D_GNU_SOURCE',
  '-D_FILE_OFFSET_BITS=64',
  `-DHAST_TEST_DIR="${process.cwd()}/test"`,
  '-Isrc-native',
  '-Itest',
  '-Itest/native',
  '-fno-rtti',
];
const MINUTE = 60_000;

interface Mutant {
  readonly guard: string;
  readonly file: string;
  readonly find: string;
  readonly replace: string;
  /** A second line of defence that has to go as well. */
  readonly and?: { readonly find: string; readonly replace: string };
}

const ENGINE = 'src-native/engine';
const NAMED = ['replication: ', 'decision: ', 'failure: ', 'loss: ', 'peer: ', 'secret: '];

const MUTANTS: readonly Mutant[] = [
  {
    guard: 'peer-proves-secret',
    file: 'connector.cc',
    find: 'if (auth_.on() && !second_reply_proven(area, auth_)) {',
    replace: 'if (false) {',
  },
  {
    guard: 'map-before-data',
    file: 'primary_io.cc',
    find: 'if (!local_detached_ && !map_->ready(slot.offset, slot.length)) {',
    replace: 'if (false) {',
  },
  {
    guard: 'count-before-lone-write',
    file: 'primary_io.cc',
    find: 'if (!attached() && !counted_) {',
    replace: 'if (false) {',
  },
  {
    guard: 'mark-lone-write',
    file: 'primary_io.cc',
    find: 'map_->mark_sync(slot.offset, slot.length);  // guard:mark-lone-write',
    replace: '',
  },
  {
    guard: 'old-copy-is-not-read',
    file: 'primary_io.cc',
    find: 'if (attached() && peer_may_serve(slot)) {',
    replace: 'if (attached()) {',
  },
  {
    guard: 'count-missed-write',
    file: 'primary_io.cc',
    find: 'const int rc = co_await ensure_counted();  // guard:count-missed-write',
    replace: 'const int rc = 0;',
  },
  {
    guard: 'target-waits',
    file: 'primary_io.cc',
    find: 'needs_peer_ ? Replication::kFullsync : slot.mode;  // guard:target-waits',
    replace: 'slot.mode;',
  },
  {
    guard: 'detached-counts-nothing',
    file: 'primary_io.cc',
    find: 'local_detached_ && slot.local == Outcome::kOk\n',
    replace: 'false\n',
  },
  {
    guard: 'stale-before-answer',
    file: 'primary_io.cc',
    find: 'local == Outcome::kError && !stale_recorded_) {',
    replace: 'false) {',
  },
  {
    guard: 'target-needs-peer',
    file: 'primary_io.cc',
    find: 'verdict = Verdict::kFailure;  // guard:target-needs-peer',
    replace: '',
  },
  {
    guard: 'missed',
    file: 'primary_io.cc',
    find: 'const bool missed = slot.missed || slot.local == Outcome::kError || unconfirmed;',
    replace: 'const bool missed = false && unconfirmed;',
  },
  {
    guard: 'failed-flush-is-final',
    file: 'primary_io.cc',
    find: 'flush_failed_ = true;  // guard:failed-flush-is-final',
    replace: '',
  },
  {
    guard: 'any-failed-flush',
    file: 'primary_io.cc',
    find: 'if (metadata_.flush_failed() || map_store_->flush_failed()) rc = -EIO;',
    replace: '',
  },
  {
    guard: 'no-detach-without-copy',
    file: 'primary_io.cc',
    find: 'if (!peer_has_all()) return false;  // guard:no-detach-without-copy',
    replace: 'if (!attached()) return false;',
  },
  {
    guard: 'source-is-no-target',
    file: 'primary.cc',
    find: 'source_ == SyncSource::kPrimary ? map_->sync_count() : 0;',
    replace: 'map_->sync_count();',
  },
  {
    guard: 'incomplete-is-no-source',
    file: 'primary.cc',
    find: 'if (!from_peer && incomplete && !config_.force) {',
    replace: 'if (false) {',
  },
  {
    guard: 'merged-map-stored',
    file: 'primary.cc',
    find: 'const int stored = co_await map_store_->store();  // guard:merged-map-stored',
    replace: 'const int stored = 0;',
  },
  {
    guard: 'unflushed-lost',
    file: 'primary.cc',
    find: 'map_->peer_lost();  // guard:unflushed-lost',
    replace: '',
  },
  {
    guard: 'count-before-answer',
    file: 'primary.cc',
    find: 'const int rc = co_await ensure_counted();  // guard:count-before-answer',
    replace: 'const int rc = 0;',
  },
  {
    guard: 'count-before-demotion',
    file: 'primary.cc',
    find: 'co_await ensure_counted();  // guard:count-before-demotion',
    replace: '',
  },
  {
    guard: 'detached-is-no-source',
    file: 'synchroniser.cc',
    find: 'while (!stopped_ && primary_.local_detached_)',
    replace: 'while (false)',
    and: {
      find: '!primary_.attached() || primary_.local_detached_)',
      replace: '!primary_.attached())',
    },
  },
  {
    guard: 'sync-all-chunks',
    file: 'synchroniser.cc',
    find: 'primary_.map_->sync_end(copy.extent, target, copy.ok);',
    replace: 'failed_chunk_ = false; primary_.map_->sync_end(copy.extent, target, true);',
  },
  {
    guard: 'count-after-pass',
    file: 'synchroniser.cc',
    find: 'self.counted_ = self.peer_lacks_ = false;',
    replace: '',
  },
  {
    guard: 'target-from-the-handshake',
    file: 'secondary.cc',
    find: 'if (decision.source == SyncSource::kPrimary && decision.map != MapAnswer::kNone) {',
    replace: 'if (false) {',
  },
  {
    guard: 'stale-copy-is-copied-whole',
    file: 'secondary.cc',
    find: 'decision.map = MapAnswer::kFull;  // guard:stale-copy-is-copied-whole',
    replace: '',
  },
  {
    guard: 'sync-done-clears',
    file: 'secondary.cc',
    find: 'extra.sync_target = extra.local_stale = extra.peer_stale = false;',
    replace: 'extra.sync_target = extra.peer_stale = false;',
  },
  {
    guard: 'failed-write-is-remembered',
    file: 'secondary.cc',
    find: 'co_await note_incomplete();  // guard:failed-write-is-remembered',
    replace: 'co_await std::suspend_never{};',
  },
  {
    guard: 'failed-flush-is-remembered',
    file: 'secondary.cc',
    find: 'if (rc != 0) co_await note_failed_flush(rc);',
    replace: '',
  },
  {
    guard: 'whole-pass-remembered',
    file: 'secondary.cc',
    find: 'if (decision.map == MapAnswer::kFull) {\n    // That everything',
    replace: 'if (false) {\n    // That everything',
  },
  {
    guard: 'written-before-meeting',
    file: 'decision.cc',
    find: 'if (s.localcnt > 0) {',
    replace: 'if (false) {',
  },
  {
    guard: 'incomplete-secondary',
    file: 'decision.cc',
    find: 'if (d.source == SyncSource::kSecondary && s.incomplete) {',
    replace: 'if (false) {',
  },
  {
    guard: 'stale-is-known',
    file: 'secondary.cc',
    find: 'std::max(metadata.remotecnt, config_.primary.localcnt);',
    replace: 'metadata.remotecnt;',
  },
  {
    guard: 'stale-copy-is-not-compared',
    file: 'secondary.cc',
    find: '!metadata_.extra().local_stale &&  // guard:stale-copy-is-not-compared',
    replace: '',
  },
  {
    guard: 'lost-since',
    file: 'primary_io.cc',
    find: 'slot.remote == Outcome::kOk && slot.losses != losses_;  // guard:lost-since',
    replace: 'false;',
  },
  {
    guard: 'received-is-flushed',
    file: 'secondary.cc',
    find: 'const int flushed = co_await disk_.flush();  // guard:received-is-flushed',
    replace: 'const int flushed = 0;',
  },
  {
    guard: 'flush-after-earlier-writes',
    file: 'secondary.cc',
    find: 'while (order_first_ != nullptr && order_first_->arrival < job.arrival) {',
    replace: 'while (false) {',
  },
  {
    guard: 'rejected-payload-is-read',
    file: 'secondary.cc',
    find: 'const int rc = co_await reader_.skip(message.payload.size_bytes);',
    replace: 'const int rc = 0;',
  },
  {
    guard: 'payload-fits',
    file: 'secondary.cc',
    find: 'if (!sane) co_return -EBADMSG;  // guard:payload-fits',
    replace: 'if (!sane) co_return 0;',
  },
  {
    guard: 'old-epoch-has-no-effect',
    file: 'secondary.cc',
    find: 'if (message.epoch != config_.epoch) {',
    replace: 'if (false) {',
  },
  {
    guard: 'marked-is-no-virgin',
    file: 'decision.cc',
    find: 's.map_empty',
    replace: 'true',
  },
  {
    guard: 'issued-as-checked',
    file: 'primary_io.cc',
    find: 'while (!may_issue(slot)) {',
    replace: 'if (!may_issue(slot)) {',
  },
  {
    guard: 'failed-disk-ends-no-pass',
    file: 'synchroniser.cc',
    find: 'self.map_->sync_count() > 0 || self.local_detached_) return;',
    replace: 'self.map_->sync_count() > 0) return;',
  },
  {
    guard: 'unstored-map-is-not-told',
    file: 'primary.cc',
    find: 'if (link.settings().extended && !local_detached_) {',
    replace: 'if (link.settings().extended) {',
  },
  {
    guard: 'hole-is-flushed',
    file: 'primary_io.cc',
    find: 'const int rc = co_await flush_covering();  // guard:hole-is-flushed',
    replace: 'co_await std::suspend_never{}; const int rc = 0;',
  },
  {
    guard: 'of-one-line',
    file: 'decision.cc',
    find: 'if (!of_one_line(s, p, d.source)) {',
    replace: 'if (false) {',
  },
  {
    guard: 'offered-before-it-is-taken',
    file: 'secondary.cc',
    find: 'if (decision.source == SyncSource::kSecondary) ids.offer();',
    replace: '',
  },
  {
    guard: 'offered-before-it-is-told',
    file: 'primary.cc',
    find: 'ids.offer();  // guard:offered-before-it-is-told',
    replace: '',
  },
  {
    guard: 'count-begins-a-generation',
    file: 'primary.cc',
    find: 'ids.begin(self.host_.random());  // guard:count-begins-a-generation',
    replace: '',
  },
  {
    guard: 'word-of-a-lost-peer',
    file: 'primary_io.cc',
    find: 'is_final(slot.local) &&\n      slot.losses != losses_) {',
    replace: 'false) {',
  },
  {
    guard: 'target-is-told',
    file: 'synchroniser.cc',
    find: 'if (work && !target_told && primary_.source_ != SyncSource::kSecondary) {',
    replace: 'if (false) {',
  },
  {
    guard: 'failed-within-the-pass',
    file: 'secondary.cc',
    find: 'if (failed_since_) {',
    replace: 'if (false) {',
  },
  {
    guard: 'power-cut-primary',
    file: 'decision.cc',
    find: 'if (d.counters_equal && p.extended && poorer && !s.incomplete) {',
    replace: 'if (false) {',
  },
  {
    guard: 'power-cut-secondary',
    file: 'secondary.cc',
    find: 'if (lost_cache) extra.sync_target = true;',
    replace: '',
  },
  {
    guard: 'power-cut-secondary-is-not-promoted',
    file: 'primary.cc',
    find: 'if (extra.lost_cache(config_.bootid) && was_secondary_) {',
    replace: 'if (false) {',
  },
  {
    guard: 'peer-stale-is-written',
    file: 'primary.cc',
    find: ' && !metadata_.extra().peer_stale;',
    replace: ';',
  },
  {
    guard: 'failed-flush-outlives-the-role',
    file: 'primary.cc',
    find: 'co_await note_failed_flush();  // guard:failed-flush-outlives-the-role',
    replace: '',
  },
  {
    guard: 'stale-before-peer',
    file: 'primary_io.cc',
    find: 'if (local_detached_) return attached() && stale_recorded_;',
    replace: 'if (local_detached_) return attached();',
    and: { find: 'if (local_detached_ && !stale_recorded_) {', replace: 'if (false) {' },
  },
  {
    guard: 'needed-until-the-end',
    file: 'primary.cc',
    find: '(map_->sync_count() > 0 || own.sync_target);',
    replace: 'map_->sync_count() > 0;',
  },
  {
    guard: 'held-without-its-range',
    file: 'primary_io.cc',
    find: 'const RangeMode mode = slot.range.mode;\n  unlock(slot);',
    replace: '',
    and: { find: 'co_await lock(slot, mode);\n  co_return rc;', replace: 'co_return rc;' },
  },
  {
    guard: 'unflushed-is-not-compared',
    file: 'secondary.cc',
    find: 'flushed_before_ &&',
    replace: '',
  },
  {
    guard: 'failed-flush-is-not-clean',
    file: 'secondary.cc',
    find: '!flush_failed_ && !metadata_.flush_failed()) {  // guard:failed-flush-is-not-clean',
    replace: 'true) {',
  },
  {
    guard: 'target-writes-through',
    file: 'primary_io.cc',
    find: 'slot.fua = slot.fua || needs_peer_;',
    replace: '',
  },
  {
    guard: 'no-success-without-copy',
    file: 'slot.cc',
    find: 'return remote == Outcome::kOk ? Verdict::kSuccess : Verdict::kFailure;',
    replace: 'return Verdict::kSuccess;',
  },
];

function newest(file: string): number {
  return existsSync(file) ? statSync(file).mtimeMs : 0;
}

/** Sources of the engine and all below it that needs no kernel, and the engine's tests. */
function sources(): string[] {
  const all: string[] = [];
  for (const room of ['base', 'codec', 'wire', 'engine']) {
    for (const name of readdirSync(`src-native/${room}`)) all.push(`src-native/${room}/${name}`);
  }
  for (const name of ['loop', 'task', 'stream', 'sim_loop', 'pipe_stream']) {
    all.push(`src-native/ring/${name}.cc`);
  }
  all.push('src-native/disk/fault_component.cc', 'test/native/main.cc');
  all.push('test/sim/pair.cc');
  for (const name of readdirSync('test/native/engine')) all.push(`test/native/engine/${name}`);
  // Its thread needs a real ring.
  const threaded = /\/engine(_test)?\.cc$/;
  return all.filter((file) => file.endsWith('.cc') && !threaded.test(file));
}

function run(command: string, args: readonly string[], ms: number): { ok: boolean; text: string } {
  const done = spawnSync(command, [...args], {
    encoding: 'utf8',
    timeout: ms,
    maxBuffer: 1 << 26,
  });
  return { ok: done.status === 0, text: `${done.stdout}${done.stderr}` };
}

function compile(source: string, object: string): string | undefined {
  mkdirSync(dirname(object), { recursive: true });
  const built = run('g++', [...FLAGS, '-MMD', '-c', '-o', object, source], 5 * MINUTE);
  return built.ok ? undefined : built.text;
}

/** The files an object was made of, as the compiler wrote them down. */
function isFresh(object: string): boolean {
  const list = object.replace(/\.o$/, '.d');
  if (!existsSync(object) || !existsSync(list)) return false;
  const made = newest(object);
  const files = readFileSync(list, 'utf8')
    .split(/[\s\\]+/)
    .slice(1);
  return files.every((file) => file === '' || newest(file) <= made);
}

function die(text: string): never {
  process.stderr.write(`${text}\n`);
  process.exit(70);
}

const objects = new Map<string, string>();
for (const source of sources()) {
  const object = join(OUT, source.replace(/\.cc$/, '.o'));
  objects.set(source, object);
  if (isFresh(object)) continue;
  const problem = compile(source, object);
  if (problem !== undefined) die(problem);
}

function link(program: string, instead: ReadonlyMap<string, string>): void {
  const parts = [...objects].map(([source, object]) => instead.get(source) ?? object);
  const linked = run('g++', ['-o', program, ...parts, '-lcrypto', '-lz'], MINUTE);
  if (!linked.ok) die(linked.text);
}

link(join(OUT, 'whole'), new Map());
const whole = run(join(OUT, 'whole'), NAMED, 10 * MINUTE);
if (!whole.ok) die(`the tests fail without any mutation:\n${whole.text}`);

const tagged = new Set<string>();
for (const name of readdirSync(ENGINE)) {
  for (const tag of readFileSync(`${ENGINE}/${name}`, 'utf8').matchAll(/guard:([a-z-]+)/g)) {
    tagged.add(tag[1] as string);
  }
}
const known = new Set(MUTANTS.map((mutant) => mutant.guard));
const untold = [...tagged].filter((guard) => !known.has(guard));
const unknown = [...known].filter((guard) => !tagged.has(guard));
if (untold.length + unknown.length > 0) {
  die(
    `guards without a mutation: ${untold.join(' ')}; ` +
      `mutations without a guard: ${unknown.join(' ')}`,
  );
}

let caught = 0;
let missed = 0;
const wanted = process.argv.slice(2);
for (const mutant of MUTANTS) {
  if (wanted.length > 0 && !wanted.includes(mutant.guard)) continue;
  const source = `${ENGINE}/${mutant.file}`;
  const text = readFileSync(source, 'utf8');
  let mutated = text;
  for (const { find, replace } of [mutant, ...(mutant.and === undefined ? [] : [mutant.and])]) {
    if (text.split(find).length !== 2) die(`${mutant.guard}: not once in ${source}: ${find}`);
    mutated = mutated.replace(find, () => replace);
  }
  const changed = join(OUT, 'changed', mutant.guard, mutant.file);
  mkdirSync(dirname(changed), { recursive: true });
  writeFileSync(changed, mutated);
  const object = changed.replace(/\.cc$/, '.o');
  const problem = compile(changed, object);
  if (problem !== undefined) die(`${mutant.guard} does not compile:\n${problem}`);
  const program = join(OUT, 'changed', mutant.guard, 'test');
  link(program, new Map([[source, object]]));
  const result = run(program, NAMED, 4 * MINUTE);
  const by = [...result.text.matchAll(/^FAILED {2}(.*)$/gm)].map((line) => line[1]);
  const assertion = /assertion failed: (.*)/.exec(result.text)?.[1];
  if (result.ok) missed += 1;
  else caught += 1;
  const how =
    by[0] ?? (assertion === undefined ? 'it did not come to its end' : `assertion ${assertion}`);
  process.stdout.write(result.ok ? `MISSED ${mutant.guard}\n` : `caught ${mutant.guard}: ${how}\n`);
  if (process.env.HAST_MUTANTS_VERBOSE !== undefined) process.stdout.write(result.text);
}
process.stdout.write(`${caught} caught, ${missed} missed\n`);
process.exitCode = missed > 0 ? 1 : 0;
