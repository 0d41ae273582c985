import { defineConfig, type UserConfig } from 'tsdown';

/** Two flavours of the library from the same sources, and the programs of tests and benches. */
const shared = {
  format: 'esm',
  platform: 'node',
  target: 'node20',
  fixedExtension: false,
  hash: false,
  sourcemap: false,
  clean: true,
  report: false,
  logLevel: 'warn',
} satisfies UserConfig;

const library = {
  ...shared,
  entry: ['src/**/*.ts', '!src/**/*.test.ts'],
  unbundle: true,
  root: 'src',
} satisfies UserConfig;

export default defineConfig([
  { ...library, outDir: 'dist/release', define: { __VERIFY__: 'false' }, dts: true },
  { ...library, outDir: 'dist/verify', define: { __VERIFY__: 'true' }, dts: false },
  {
    ...shared,
    entry: ['bench/**/*.ts', 'test/workers/**/*.ts'],
    root: '.',
    unbundle: true,
    outDir: 'build',
    dts: false,
    deps: { neverBundle: [/^pagewright/] },
  },
]);
