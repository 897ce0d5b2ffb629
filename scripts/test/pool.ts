// Runs files of tests, each in a process of its own, some of them at once.
import {
  add,
  type Command,
  countUvu,
  FAILED,
  inWords,
  judge,
  NOTHING,
  remarks,
  type Verdict,
} from './command.ts';

export interface Pool {
  /** In the order in which they begin: the longest first, so that all lanes end together. */
  readonly files: readonly string[];
  readonly lanes: number;
  /** Of one file, after which it is killed with all that it has started. */
  readonly milliseconds: number;
  readonly cwd?: string;
  readonly print: (text: string) => void;
}

function commandOf(file: string, lane: number, { milliseconds, cwd }: Pool): Command {
  return {
    words: ['node', '--import', 'tsx', file],
    milliseconds,
    ...(cwd === undefined ? {} : { cwd }),
    // Ports and users of its own: see test/helper/lane.ts.
    environment: { HASTD_TEST_LANE: String(lane) },
    count: countUvu,
  };
}

/** A file that has forgotten to run its suites ends well, and has tested nothing. */
function mustHaveTests(verdict: Verdict): Verdict {
  const { passed, failed, skipped } = verdict.counts;
  if (passed + failed + skipped > 0) return verdict;
  return { ...verdict, counts: FAILED, why: 'has no test' };
}

async function runFile(file: string, lane: number, pool: Pool): Promise<Verdict> {
  let shown = '';
  const verdict = mustHaveTests(
    await judge(commandOf(file, lane, pool), (text) => {
      shown += text;
    }),
  );
  pool.print(
    `${file}\n${shown.trimEnd()}\n${file}: ${inWords(verdict.counts)}, ${remarks(verdict)}\n\n`,
  );
  return verdict;
}

/** What a file prints comes as a whole when it has ended. @returns all counts, and who failed */
export async function runPool(pool: Pool): Promise<Verdict> {
  const start = performance.now();
  const verdicts = new Map<string, Verdict>();
  const queue = [...pool.files];
  const take = async (lane: number): Promise<void> => {
    for (let file = queue.shift(); file !== undefined; file = queue.shift()) {
      verdicts.set(file, await runFile(file, lane, pool));
    }
  };
  await Promise.all(Array.from({ length: pool.lanes }, (_, lane) => take(lane)));
  const bad = pool.files.filter((file) => verdicts.get(file)?.counts.failed !== 0);
  return {
    counts: [...verdicts.values()].map(({ counts }) => counts).reduce(add, NOTHING),
    seconds: (performance.now() - start) / 1000,
    why: bad.length === 0 ? undefined : bad.join(', '),
  };
}
