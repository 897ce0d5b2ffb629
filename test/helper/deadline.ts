/**
 * Runs one asynchronous test under a time limit, which uvu does not have.
 * @param ms  the limit in milliseconds; the signal aborts when it passes
 * @returns a body for uvu
 */
export function withDeadline(
  ms: number,
  body: (signal: AbortSignal) => Promise<void>,
): () => Promise<void> {
  return async () => {
    const abort = new AbortController();
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_resolve, reject) => {
      timer = setTimeout(() => {
        const error = new Error(`not done after ${ms} ms`);
        abort.abort(error);
        reject(error);
      }, ms);
    });
    try {
      await Promise.race([body(abort.signal), late]);
    } finally {
      clearTimeout(timer);
    }
  };
}

/** Waits until `ready` says yes, looking every few milliseconds; fails with `what` after `ms`. */
export async function until(
  what: string,
  ms: number,
  ready: () => boolean | Promise<boolean>,
): Promise<void> {
  const end = Date.now() + ms;
  while (!(await ready())) {
    if (Date.now() > end) throw new Error(`${what}: not after ${ms} ms`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
