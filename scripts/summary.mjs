// Prints how a test run ended, from the JSON report of the test runner: a line for each test that failed at its first attempt
// and passed at its second, with what failed, and as the last line `N passed, N failed`.
// Exits with 1 when anything failed, or when nothing ran. Usage: node scripts/summary.mjs REPORT [STATUS OF THE RUNNER]

import { readFileSync } from 'node:fs';
import { relative } from 'node:path';

const [path, status = '0'] = process.argv.slice(2);
const report = JSON.parse(readFileSync(path, 'utf8'));

let failed = report.numFailedTests;
for (const { name, status, message, assertionResults: tests } of report.testResults) {
  const file = relative(process.cwd(), name);
  // The report keeps what failed at the first attempt of a test that passed at the second.
  for (const test of tests.filter(({ status, failureMessages }) => status === 'passed' && failureMessages.length > 0)) {
    console.log(`passed at the second attempt: ${file} > ${[...test.ancestorTitles, test.title].join(' > ')}`);
    for (const failure of test.failureMessages) console.log(`  at the first: ${failure.replaceAll('\n', '\n    ')}`);
  }
  // A file that could not be loaded, or that failed outside of its tests, counts as one failure.
  if (status === 'failed' && !tests.some((test) => test.status === 'failed')) {
    failed++;
    console.log(`failed outside of its tests: ${file}: ${message}`);
  }
}
if (status !== '0' && failed === 0) {
  failed++;
  console.log(`the test runner ended with status ${status}: an error outside of all tests, printed above`);
}
console.log(`${report.numPassedTests} passed, ${failed} failed`);
process.exit(failed === 0 && report.numPassedTests > 0 ? 0 : 1);
