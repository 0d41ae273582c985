/** Seeds of random tests: the same by default, another one through PAGEWRIGHT_SEED; printed, so that a run can be repeated. */
export function testSeed(title: string, fallback: number): number {
  const given = process.env.PAGEWRIGHT_SEED;
  const seed = given === undefined ? fallback : Number(given);
  console.log(`${title}: seed ${seed} (PAGEWRIGHT_SEED=${seed} repeats it)`);
  return seed;
}
