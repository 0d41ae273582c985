/**
 * Anon maps: which anonymous page stands at which index, shared by chunk between forks.
 *
 * PROBLEM     A copy of a space must not cost more the larger the space is, and afterwards each side must have its own view of
 *             what either changes; copies of copies, given back in any order.
 * STRUCTURE   A tree of nodes with 64 entries each. Nodes and anons count who points to them:
 *
 *               map A --> node (1) --> chunk (1) --> anon (1)         fork: map B points to the same root (2)
 *               map B --> node (2) ------'
 *
 *               store   on the way down, a node with more than one reference is copied: its children get one more, it gets
 *                       one less, and who pointed to it points to the copy
 *               release a node or anon without references is dying; whoever comes by takes its children's references
 *                       away, a node at a time
 *
 * INVARIANTS  I1 references of a node are the maps and nodes that point to it; of an anon, the chunks and slots that do.
 *             I2 what is reached by a way on which everything has one reference is this map's own.
 *             I3 a node with more than one reference does not change, but for its count.
 * LOCKING     All under the lock of the spaces. A map has no lock of its own: see space-core.ts.
 * COSTS       A look-up: one load a level, three levels for 1 GiB. The first store after a fork: 64 references a level.
 * FAILURE     -1 when there is no node for a copy; nothing has changed then.
 * REJECTED    Chains of shadow objects: look-ups get longer with each fork, and collapsing chains is where others err.
 *             Copying chunk pointers at the fork: 512 for 1 GiB in chunks of 512 pages, but growing with size.
 * REFERENCES  Driscoll et al. 1989, persistent data structures; btrfs (Rodeh 2008) for counts in shared trees; illumos anon.h.
 */

import { assert } from '../base/assert.ts';
import { VERIFY } from '../base/verify.ts';
import { ANON_FANOUT } from '../layout/space-tables.ts';
import { faultPoint } from '../sync/index.ts';
import type { SpaceCore } from './space-core.ts';
import { ANON_MAP_STATE, type AnonIndex, type AnonMapIndex, type AnonNodeIndex } from './space-kinds.ts';

/** Most levels: 64^5 pages are more than 32 bits can count. */
const LEVELS_MAX = 5;

/** Anon maps as one thread sees them. Every function needs the lock of the spaces. */
export class AnonMaps {
  private readonly core: SpaceCore;
  /** After `find`: nothing on the way, nor the anon, belongs to another map too. */
  exclusive = false;

  constructor(core: SpaceCore) {
    this.core = core;
  }

  /** Journaled: a map of so many pages with one reference, or -1. */
  create(pages: number, flags: number, owner: number, reserved: number): AnonMapIndex {
    const { mapPool, maps, thread } = this.core;
    const map = mapPool.take();
    if (map < 0) return -1;
    const { journal } = thread;
    let levels = 1;
    while (ANON_FANOUT ** levels < pages) levels++;
    assert(levels <= LEVELS_MAX, 'seg/anon-maps: pages are counted with 31 bits');
    journal.set(maps.state, map, ANON_MAP_STATE.live);
    journal.set(maps.refs, map, 1);
    journal.set(maps.root, map, 0);
    journal.set(maps.levels, map, levels);
    journal.set(maps.pages, map, pages);
    journal.set(maps.flags, map, flags);
    journal.set(maps.reserved, map, reserved);
    journal.set(maps.owner, map, owner);
    journal.set(maps.cacheOwner, map, 0);
    journal.set(maps.softLocks, map, 0);
    journal.set(maps.generation, map, maps.generation.get(map) + 1);
    return map;
  }

  /** Journaled: a map that shows the same pages as another, at the cost of one reference. -1 without a row. */
  share(from: AnonMapIndex): AnonMapIndex {
    const { maps, nodes, thread } = this.core;
    const map = this.create(maps.pages.get(from), maps.flags.get(from), maps.owner.get(from), 0);
    if (map < 0) return -1;
    const root = maps.root.get(from);
    thread.journal.set(maps.root, map, root);
    if (root !== 0) thread.journal.set(nodes.refs, root - 1, nodes.refs.get(root - 1) + 1);
    return map;
  }

  /**
   * Journaled: one reference less. With the last one the row is free and its nodes are dying, unless shadow lists still lock
   * pages: then that comes with the last of them. Returns what is left.
   */
  release(map: AnonMapIndex): number {
    const { maps, thread } = this.core;
    const left = maps.refs.get(map) - 1;
    assert(left >= 0, 'seg/anon-maps: a map is released once for each reference');
    thread.journal.set(maps.refs, map, left);
    if (left > 0) return left;
    if (maps.softLocks.get(map) === 0) this.free(map);
    else thread.journal.set(maps.state, map, ANON_MAP_STATE.dying);
    return 0;
  }

  /** Journaled: a shadow list less. True when the map goes with it. */
  unlocked(map: AnonMapIndex): boolean {
    const { maps, thread } = this.core;
    const left = maps.softLocks.get(map) - 1;
    assert(left >= 0, 'seg/shadow-lists I3: a map counts its lists');
    thread.journal.set(maps.softLocks, map, left);
    if (left > 0 || maps.state.get(map) !== ANON_MAP_STATE.dying) return false;
    this.free(map);
    return true;
  }

  /** The anon at a page, or -1. Sets `exclusive`. */
  find(map: AnonMapIndex, page: number): AnonIndex {
    const { maps, nodes, anons } = this.core;
    this.exclusive = true;
    let link = maps.root.get(map);
    for (let level = maps.levels.get(map) - 1; level >= 0; level--) {
      if (link === 0) return -1;
      if (nodes.refs.get(link - 1) !== 1) this.exclusive = false;
      link = nodes.entries.at(link - 1, laneOf(page, level));
    }
    if (link !== 0 && anons.refs.get(link - 1) !== 1) this.exclusive = false;
    return link - 1;
  }

  /**
   * A look without the lock: true when there seemed to be no anon at a page. Nodes may change and go meanwhile, so that it may be
   * wrong both ways: for whoever looks again under the lock.
   */
  seemsEmpty(map: AnonMapIndex, page: number): boolean {
    const { maps, nodes } = this.core;
    let link = maps.root.get(map);
    for (let level = maps.levels.get(map) - 1; level >= 0; level--) {
      // What was a node may be a chunk by now, and its entries no nodes.
      if (link <= 0 || link > nodes.rowCount) return true;
      link = nodes.entries.at(link - 1, laneOf(page, level));
    }
    return link === 0;
  }

  /**
   * Journaled: puts an anon at a page; its reference passes to the chunk, and what was there loses one. False when there is
   * no node, and then nothing has changed: the caller asks for nodes first, with `canStore`.
   */
  store(map: AnonMapIndex, page: number, anon: AnonIndex): void {
    const { nodes, thread } = this.core;
    const leaf = this.leafOf(map, page);
    const lane = laneOf(page, 0);
    const before = nodes.entries.at(leaf, lane);
    thread.journal.setAt(nodes.entries, leaf, lane, anon + 1);
    if (VERIFY) faultPoint(thread, 'seg.anon.stored');
    if (before !== 0) this.releaseAnon(before - 1);
  }

  /** True when there are nodes for a store whatever must be copied for it. */
  canStore(): boolean {
    return this.core.nodePool.left >= LEVELS_MAX;
  }

  /**
   * Journaled: takes what is at some of the pages of `[from, to)` away, at most one node's worth; returns the page from which
   * to go on. The caller commits in between, and has looked that `canStore`.
   */
  clearSome(map: AnonMapIndex, from: number, to: number): number {
    const { maps, nodes, thread } = this.core;
    let level = maps.levels.get(map) - 1;
    let link = maps.root.get(map);
    let parent = -1;
    let parentLane = 0;
    for (;;) {
      const span = ANON_FANOUT ** (level + 1);
      const start = Math.floor(from / span) * span;
      if (link === 0) return Math.min(start + span, to);
      if (start >= from && start + span <= to) {
        // All of it: unlinked as a whole.
        if (parent < 0) thread.journal.set(maps.root, map, 0);
        else thread.journal.setAt(nodes.entries, parent, parentLane, 0);
        this.releaseNode(link - 1);
        return start + span;
      }
      const node = this.ownNode(map, parent, parentLane, link - 1);
      if (level === 0) {
        const end = Math.min(start + span, to);
        for (let page = from; page < end; page++) this.clearLane(node, laneOf(page, 0));
        return end;
      }
      parent = node;
      parentLane = laneOf(from, level);
      link = nodes.entries.at(node, parentLane);
      level--;
    }
  }

  /** The first page from `page` on, below `end`, that has an anon; `end` when none has. */
  nextUsed(map: AnonMapIndex, page: number, end: number): number {
    const { maps, nodes } = this.core;
    let at = page;
    search: while (at < end) {
      let link = maps.root.get(map);
      for (let level = maps.levels.get(map) - 1; level >= 0; level--) {
        const span = ANON_FANOUT ** (level + 1);
        if (link === 0) {
          at = (Math.floor(at / span) + 1) * span;
          continue search;
        }
        link = nodes.entries.at(link - 1, laneOf(at, level));
      }
      if (link !== 0) return at;
      at++;
    }
    return end;
  }

  /** Journaled: one reference of an anon less. */
  releaseAnon(anon: AnonIndex): void {
    const { anons, control, thread } = this.core;
    const left = anons.refs.get(anon) - 1;
    assert(left >= 0, 'seg/anon-maps I1: an anon is released once for each reference');
    if (left > 0) {
      thread.journal.set(anons.refs, anon, left);
      return;
    }
    thread.journal.set(anons.refs, anon, -control.dyingAnons.get(0));
    thread.journal.set(control.dyingAnons, 0, anon + 1);
  }

  /** Journaled: takes the references of one dying node away and frees it; false when there is none. */
  reapNode(): boolean {
    const { control, nodes, nodePool, thread } = this.core;
    const { journal } = thread;
    const node = control.dyingNodes.get(0) - 1;
    if (node < 0) return false;
    journal.set(control.dyingNodes, 0, nodes.next.get(node));
    const isChunk = nodes.level.get(node) === 0;
    for (let lane = 0; lane < ANON_FANOUT; lane++) {
      const entry = nodes.entries.at(node, lane);
      if (entry === 0) continue;
      if (isChunk) this.releaseAnon(entry - 1);
      else this.releaseNode(entry - 1);
    }
    nodePool.give(node);
    return true;
  }

  private free(map: AnonMapIndex): void {
    const { maps, mapPool, thread } = this.core;
    const root = maps.root.get(map);
    if (root !== 0) this.releaseNode(root - 1);
    thread.journal.set(maps.root, map, 0);
    thread.journal.set(maps.state, map, ANON_MAP_STATE.free);
    mapPool.give(map);
  }

  private releaseNode(node: AnonNodeIndex): void {
    const { nodes, control, thread } = this.core;
    const left = nodes.refs.get(node) - 1;
    assert(left >= 0, 'seg/anon-maps I1: a node is released once for each reference');
    thread.journal.set(nodes.refs, node, left);
    if (left > 0) return;
    thread.journal.set(nodes.next, node, control.dyingNodes.get(0));
    thread.journal.set(control.dyingNodes, 0, node + 1);
  }

  /** The chunk of a page with every node on the way this map's own; nodes that are missing are made. */
  private leafOf(map: AnonMapIndex, page: number): AnonNodeIndex {
    const { maps, nodes } = this.core;
    let parent = -1;
    let lane = 0;
    let link = maps.root.get(map);
    for (let level = maps.levels.get(map) - 1; ; level--) {
      const node = link === 0 ? this.makeNode(map, parent, lane, level) : this.ownNode(map, parent, lane, link - 1);
      if (level === 0) return node;
      parent = node;
      lane = laneOf(page, level);
      link = nodes.entries.at(node, lane);
    }
  }

  private makeNode(map: AnonMapIndex, parent: AnonNodeIndex, lane: number, level: number): AnonNodeIndex {
    const node = this.takeNode(level);
    const { entries } = this.core.nodes;
    for (let entry = 0; entry < ANON_FANOUT; entry++) entries.putAt(node, entry, 0);
    this.linkNode(map, parent, lane, node);
    return node;
  }

  /** The node itself when nobody else points to it, else a copy in its place. */
  private ownNode(map: AnonMapIndex, parent: AnonNodeIndex, lane: number, node: AnonNodeIndex): AnonNodeIndex {
    const { nodes, anons, thread } = this.core;
    const { journal } = thread;
    const refs = nodes.refs.get(node);
    if (refs === 1) return node;
    const level = nodes.level.get(node);
    const copy = this.takeNode(level);
    const counts = level === 0 ? anons.refs : nodes.refs;
    for (let entry = 0; entry < ANON_FANOUT; entry++) {
      const child = nodes.entries.at(node, entry);
      nodes.entries.putAt(copy, entry, child);
      if (child !== 0) journal.set(counts, child - 1, counts.get(child - 1) + 1);
    }
    journal.set(nodes.refs, node, refs - 1);
    this.linkNode(map, parent, lane, copy);
    return copy;
  }

  /** A node that nobody points to yet, with one reference. */
  private takeNode(level: number): AnonNodeIndex {
    const { nodePool, nodes, thread } = this.core;
    const node = nodePool.take();
    assert(node >= 0, 'seg/anon-maps: nodes are asked for before a store');
    thread.journal.set(nodes.refs, node, 1);
    thread.journal.set(nodes.level, node, level);
    return node;
  }

  private linkNode(map: AnonMapIndex, parent: AnonNodeIndex, lane: number, node: AnonNodeIndex): void {
    const { maps, nodes, thread } = this.core;
    if (parent < 0) thread.journal.set(maps.root, map, node + 1);
    else thread.journal.setAt(nodes.entries, parent, lane, node + 1);
  }

  private clearLane(node: AnonNodeIndex, lane: number): void {
    const { nodes, thread } = this.core;
    const entry = nodes.entries.at(node, lane);
    if (entry === 0) return;
    thread.journal.setAt(nodes.entries, node, lane, 0);
    this.releaseAnon(entry - 1);
  }
}

/** Where a page's way goes on at a level. */
function laneOf(page: number, level: number): number {
  return (page >>> (6 * level)) & (ANON_FANOUT - 1);
}
