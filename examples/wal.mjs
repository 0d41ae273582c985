// A bank that survives kill -9: a write-ahead log over the page cache. A child process moves money between accounts until
// it is killed; what it acknowledged is there afterwards, and no money is lost. See wal-log.mjs for the page hooks.
// In the repository: npm ci && npm run build && node examples/wal.mjs
import { spawn } from 'node:child_process';
import { fsyncSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { boot, shutDown } from 'pagewright';
import { PAGE } from './wal-log.mjs';

const ACCOUNTS = 40_000;
const PER_PAGE = (PAGE - 12) / 4;
const hooks = { module: new URL('./wal-log.mjs', import.meta.url), export: 'hooks' };

/** Pages of 16 KiB in one piece; none of them overtakes the log; at most 8 are modified at a time. */
function openBank(vm, path) {
  return vm.open(path, { mode: 'rw', create: true, pageSize: PAGE, lsnOffset: 0, hooks, dirtyLimit: 8 * PAGE });
}

const numbers = new DataView(new ArrayBuffer(8));
const bytes = new Uint8Array(numbers.buffer);
const pageOf = (account) => Math.floor(account / PER_PAGE) * PAGE;
const placeOf = (account) => pageOf(account) + 8 + 4 * (account % PER_PAGE);

function balance(file, account) {
  file.read(placeOf(account), bytes.subarray(0, 4));
  return numbers.getInt32(0, true);
}

/** The LSN first, so that no page with new bytes and an old number can leave. */
function apply(file, { lsn, set }) {
  for (const [account, value] of set) {
    numbers.setBigUint64(0, BigInt(lsn), true);
    file.write(pageOf(account), bytes);
    numbers.setInt32(0, value, true);
    file.write(placeOf(account), bytes.subarray(0, 4));
  }
}

/** The child: log first, then pages; acknowledged when the log is durable. */
function moveMoney(path) {
  const file = openBank(boot({ memory: '1 MiB' }), path);
  const log = openSync(`${path}.log`, 'a');
  for (let lsn = 1; ; lsn++) {
    const [from, to] = [(lsn * 7919) % ACCOUNTS, (lsn * 104_729 + 1) % ACCOUNTS];
    if (from === to) continue;
    const record = {
      lsn,
      set: [
        [from, balance(file, from) - lsn],
        [to, balance(file, to) + lsn],
      ],
    };
    writeSync(log, `${JSON.stringify(record)}\n`);
    apply(file, record);
    if (lsn % 50 !== 0) continue;
    fsyncSync(log);
    file.logged(lsn);
    writeSync(1, `${lsn}\n`);
  }
}

async function main() {
  const folder = mkdtempSync(join(tmpdir(), 'pagewright-wal-'));
  const path = join(folder, 'bank');
  const vm = boot({ memory: '1 MiB' });
  let file = openBank(vm, path);
  const page = new Int32Array(PAGE / 4).fill(100);
  page.set([0, 0]);
  const first = new Uint8Array(page.buffer);
  for (let at = 0; at <= pageOf(ACCOUNTS - 1); at += PAGE) file.write(at, first);
  file.sync();
  file.close();
  writeFileSync(`${path}.log`, '');

  const child = spawn(process.execPath, [new URL(import.meta.url).pathname, path], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let acknowledged = 0;
  for await (const text of child.stdout) {
    acknowledged = Number(String(text).trim().split('\n').at(-1));
    if (acknowledged >= 2000) child.kill('SIGKILL');
  }

  file = openBank(vm, path);
  let found = 0;
  for (const line of readFileSync(`${path}.log`, 'utf8').split('\n')) {
    if (!line.endsWith('}')) break; // the record that was being written
    const record = JSON.parse(line);
    apply(file, record); // records hold values, not differences: doing them twice does no harm
    found = record.lsn;
  }
  file.logged(found);
  file.sync();
  let sum = 0;
  for (let account = 0; account < ACCOUNTS; account++) sum += balance(file, account);
  file.close();
  console.log(found >= acknowledged ? 'every acknowledged transfer is there' : `${acknowledged - found} are lost`);
  console.log(`the sum is ${sum === 100 * ACCOUNTS ? 'right' : `wrong by ${sum - 100 * ACCOUNTS}`}`);
  await shutDown(vm);
  rmSync(folder, { recursive: true });
}

if (process.argv[2] === undefined) await main();
else moveMoney(process.argv[2]);
