/** Of themselves the first opens Node's debugger to this machine, and the second ends a process. */
export function ignoreUserSignals(): void {
  for (const signal of ['SIGUSR1', 'SIGUSR2'] as const) process.on(signal, () => {});
}
