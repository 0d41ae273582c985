// Prints how a test run ended, from the JSON reports of the test runner: a line for each test that failed at its first attempt and
// passed at its second, with what failed, the same for each file that was run a second time, and as the last line
// `N passed, N failed`. Exits with 1 when anything failed, or when nothing ran.
// Usage: node scripts/summary.mjs REPORT STATUS [SECOND-REPORT SECOND-STATUS]: reports, and how the runner ended; the second run is
// one of the files that failed in the first.

import { readFileSync } from 'node:fs';
import { relative } from 'node:path';

const [path, status = '0', secondPath, secondStatus = '0'] = process.argv.slice(2);
const first = JSON.parse(readFileSync(path, 'utf8')).testResults;
const second = secondPath === undefined ? [] : JSON.parse(readFileSync(secondPath, 'utf8')).testResults;
const again = new Map(second.map((result) => [result.name, result]));

let passed = 0;
let failed = 0;

function printFailures(messages) {
  for (const message of messages) console.log(`  at the first: ${message.replaceAll('\n', '\n    ')}`);
}

for (const result of first) {
  const file = relative(process.cwd(), result.name);
  const { status, message, assertionResults: tests } = again.get(result.name) ?? result;
  passed += tests.filter((test) => test.status === 'passed').length;
  const failures = tests.filter((test) => test.status === 'failed').length;
  failed += failures;
  // A file that could not be loaded, or that failed outside of its tests, counts as one failure.
  if (status === 'failed' && failures === 0) {
    failed++;
    console.log(`failed outside of its tests: ${file}: ${message}`);
  }
  if (again.has(result.name) && status === 'passed') {
    console.log(`passed at the second attempt: ${file}`);
    const before = result.assertionResults.filter((test) => test.status !== 'passed');
    const none = ['an error outside of its tests, printed above'];
    printFailures(before.length === 0 ? none : before.map((test) => `${test.title}: ${describe(test)}`));
  }
  // The report keeps what failed at the first attempt of a test that passed at the second.
  for (const test of tests.filter(({ status, failureMessages }) => status === 'passed' && failureMessages.length > 0)) {
    console.log(`passed at the second attempt: ${file} > ${[...test.ancestorTitles, test.title].join(' > ')}`);
    printFailures(test.failureMessages);
  }
}

function describe(test) {
  return test.status === 'pending' ? 'it did not end' : test.failureMessages.join('\n');
}

const last = secondPath === undefined ? status : secondStatus;
if (last !== '0' && failed === 0) {
  failed++;
  console.log(`the test runner ended with status ${last}: an error outside of all tests, printed above`);
}
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed === 0 && passed > 0 ? 0 : 1);
