/** Checks of address spaces at quiet points: references, reservations, pools, trees, lists. */

import type { CheckReport } from '../base/check.ts';
import { ANON_FANOUT } from '../layout/space-tables.ts';
import type { SpaceCore } from './space-core.ts';
import { ANON_MAP_STATE, SPACE_STATE } from './space-kinds.ts';
import type { SpaceParts } from './spaces.ts';

/** Compares everything that is counted with what is there. */
export function checkSpaces(parts: SpaceParts): CheckReport {
  const { core, segments, sections, shadows } = parts;
  const { spaces, spacePool, control, thread, slots } = core;
  const problems: string[] = [];
  const seen = new Set<number>();
  let reserved = 0;
  for (let space = 0; space < spacePool.walkEnd; space++) {
    if (spaces.state.get(space) === SPACE_STATE.free) continue;
    segments.tree.check(space, problems);
    const list = segments.tree.list(space);
    let bytes = 0;
    for (const segment of list) {
      if (seen.has(segment)) problems.push(`seg/segments I2: segment ${segment} is in two trees`);
      seen.add(segment);
      if (core.segments.space.get(segment) !== space + 1) problems.push(`seg/segments I2: segment ${segment} is lost`);
      bytes += core.segments.size.get(segment);
      reserved += core.segments.reserved.get(segment);
    }
    if (list.length !== spaces.segments.get(space))
      problems.push(`seg/spaces: space ${space} counts its segments wrong`);
    if (bytes !== spaces.size.get(space)) problems.push(`seg/spaces: space ${space} counts its bytes wrong`);
  }
  const gone = parts.drivers.check(problems);
  if (seen.size + gone !== core.segmentPool.used)
    problems.push(
      `seg/space-core I1: ${core.segmentPool.used} segments, ${seen.size} found, and ${gone} that are gone`,
    );
  reserved += checkMaps(core, seen, problems);
  if (reserved !== control.reserved.get(0)) {
    problems.push(`seg/space-core I2: ${control.reserved.get(0)} pages are reserved, ${reserved} found`);
  }
  for (let slot = 0; slot < thread.region.geometry.slots; slot++) {
    if (sections.isInside(slot)) problems.push(`seg/write-sections: slot ${slot} is in a section`);
    for (const column of [
      slots.making,
      slots.dropping,
      slots.clearMap,
      slots.unsettled,
      slots.makingMap,
      slots.segmentOwner,
      slots.mapOwner,
      slots.due,
      slots.asked,
    ]) {
      if (column.get(slot) !== 0) problems.push(`seg/spaces I2: slot ${slot} has ${column.label} ${column.get(slot)}`);
    }
  }
  shadows.check(problems);
  parts.spaces.swap.check(problems);
  return { structure: 'seg/spaces', checked: seen.size, problems };
}

/** References of maps, nodes and anons; returns the pages that shared maps have reserved. */
function checkMaps(core: SpaceCore, segments: ReadonlySet<number>, problems: string[]): number {
  const { maps, mapPool, nodes, nodePool, anons, anonPool } = core;
  const mapRefs = new Map<number, number>();
  for (const segment of segments) {
    const map = core.segments.map.get(segment) - 1;
    if (map >= 0) mapRefs.set(map, (mapRefs.get(map) ?? 0) + 1);
  }
  const nodeRefs = new Int32Array(nodePool.walkEnd);
  const anonRefs = new Int32Array(anonPool.walkEnd);
  const open: number[] = [];
  const point = (node: number) => {
    nodeRefs[node] = (nodeRefs[node] as number) + 1;
    if (nodeRefs[node] === 1) open.push(node);
  };
  let reserved = 0;
  let used = 0;
  for (let map = 0; map < mapPool.walkEnd; map++) {
    if (maps.state.get(map) === ANON_MAP_STATE.free) continue;
    if (maps.state.get(map) === ANON_MAP_STATE.dying) problems.push(`seg/map-release: map ${map} is still dying`);
    used++;
    reserved += maps.reserved.get(map);
    const extra = maps.refs.get(map) - (mapRefs.get(map) ?? 0);
    // Shared memory has one more reference while its maker has not let go of it.
    if (extra !== 0 && extra !== 1) problems.push(`seg/anon-maps I1: map ${map} has ${extra} references too many`);
    if (maps.root.get(map) !== 0) point(maps.root.get(map) - 1);
  }
  if (used !== mapPool.used) problems.push(`seg/space-core I1: ${mapPool.used} maps are used, ${used} found`);
  let reached = 0;
  for (let node = open.pop(); node !== undefined; node = open.pop()) {
    reached++;
    for (let lane = 0; lane < ANON_FANOUT; lane++) {
      const entry = nodes.entries.at(node, lane);
      if (entry === 0) continue;
      if (nodes.level.get(node) > 0) point(entry - 1);
      else anonRefs[entry - 1] = (anonRefs[entry - 1] as number) + 1;
    }
  }
  if (reached !== nodePool.used) problems.push(`seg/space-core I1: ${nodePool.used} nodes are used, ${reached} found`);
  for (let node = 0; node < nodeRefs.length; node++) {
    const found = nodeRefs[node] as number;
    if (found > 0 && nodes.refs.get(node) !== found) {
      problems.push(`seg/anon-maps I1: node ${node} has ${nodes.refs.get(node)} references, ${found} found`);
    }
  }
  let live = 0;
  for (let anon = 0; anon < anonRefs.length; anon++) {
    const found = anonRefs[anon] as number;
    if (found > 0) live++;
    if (Math.max(0, anons.refs.get(anon)) !== found) {
      problems.push(`seg/anon-maps I1: anon ${anon} has ${anons.refs.get(anon)} references, ${found} found`);
    }
  }
  if (live !== core.anonsUsed) problems.push(`seg/space-core I1: ${core.anonsUsed} anons are used, ${live} found`);
  return reserved;
}
