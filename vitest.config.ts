import { defineConfig } from 'vitest/config';

/** Tests run the verify build: sources in this thread, `dist/verify` in workers, which inherit the condition. */
export default defineConfig({
  define: { __VERIFY__: 'true' },
  resolve: { conditions: ['verify'] },
  ssr: { resolve: { conditions: ['verify'], externalConditions: ['verify'] } },
  test: {
    include: ['src/**/*.test.ts', 'test/**/*.test.ts'],
    pool: 'forks',
    setupFiles: ['scripts/watchdog.mjs', 'test/support/wait-limit.ts'],
    execArgv: ['--conditions=verify'],
    testTimeout: 300_000,
    hookTimeout: 120_000,
    // One more attempt for a test that failed. `.ci/run` names each one that needed it: see docs/proofs.md.
    retry: 1,
    maxWorkers: 2,
  },
});
