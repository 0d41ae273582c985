/**
 * Turns the shipped sources into generators that stop in front of every shared operation.
 *
 * PROBLEM     Explore the code that ships, not a retelling of it.
 * STRUCTURE   1 every function, method and getter is a node; it *stops* if it calls an atomic wrapper, stores into a
 *               shared view, calls a function that stops, or calls one that the checker cannot name
 *             2 functions that stop become generators; calls of them become `yield*`; atomic wrappers and plain stores
 *               become `yield` of the operation; plain reads of views become `$.read`
 *             3 each generator's body is bracketed by `$.enter` and `$.leave`, each loop head by `$.loop`
 *
 *             `async` functions become generators too, and `await` a stop until the promise would be settled.
 * INVARIANTS  I1 every store into an `Int32Array` or `Float64Array` of explored code is seen; forms that the
 *                transformation does not know are errors, not silence.
 * LOCKING     None.
 * COSTS       About a second for the type checker, once.
 * FAILURE     Throws with file and line for a form that it does not support.
 * REJECTED    A regular-expression rewrite: it cannot tell one `load` from another.
 * REFERENCES  TypeScript compiler API, custom transformers.
 */

import ts from 'typescript';
import { OP } from './runtime.ts';

type FunctionNode = ts.FunctionLikeDeclaration & { readonly body?: ts.Node | undefined };

const ATOMIC_NAMES = new Set(Object.keys(OP).filter((name) => name !== 'await' && name !== 'write'));
const VIEW_NAMES = new Set(['Int32Array', 'Float64Array']);
/** Statistics, which steer nothing and would tell apart states that are the same, and listeners that nobody adds here. */
const LEFT_OUT = new Set(['countContended', 'countSlept', 'announceBroken', '#tally']);

function isFunctionNode(node: ts.Node): node is FunctionNode {
  return (
    ts.isFunctionDeclaration(node) ||
    ts.isMethodDeclaration(node) ||
    ts.isGetAccessorDeclaration(node) ||
    ts.isSetAccessorDeclaration(node) ||
    ts.isConstructorDeclaration(node) ||
    ts.isArrowFunction(node) ||
    ts.isFunctionExpression(node)
  );
}

function isLeftOut(node: ts.Node): node is ts.MethodDeclaration {
  return ts.isMethodDeclaration(node) && LEFT_OUT.has(node.name.getText());
}

function isSignatureOnly(node: ts.Node): boolean {
  return ts.isFunctionTypeNode(node) || ts.isMethodSignature(node) || ts.isCallSignatureDeclaration(node);
}

function unsupported(node: ts.Node, what: string): never {
  const file = node.getSourceFile();
  const { line } = file.getLineAndCharacterOfPosition(node.getStart());
  throw new Error(`${file.fileName}:${line + 1}: exploration cannot transform ${what}: ${node.getText().slice(0, 80)}`);
}

/** Which functions of a program stop, and how to rewrite them. */
export class Transformer {
  readonly #checker: ts.TypeChecker;
  readonly #explored: (file: ts.SourceFile) => boolean;
  /** Files that are imported for more than their types: what is in the others is known by its type alone. */
  readonly #loaded: ReadonlySet<ts.SourceFile>;
  readonly #stops = new Set<ts.Node>();
  readonly #ids = new Map<ts.Node, number>();

  constructor(program: ts.Program, explored: (file: ts.SourceFile) => boolean, loaded: ReadonlySet<ts.SourceFile>) {
    this.#checker = program.getTypeChecker();
    this.#explored = explored;
    this.#loaded = loaded;
    this.#findStops(program.getSourceFiles().filter((file) => explored(file) && loaded.has(file)));
  }

  /** The transformer to hand to `program.emit`. */
  factory(): ts.TransformerFactory<ts.SourceFile> {
    return (context) => (file) => {
      if (!this.#explored(file) || !this.#loaded.has(file) || isAtomicsFile(file)) return file;
      return ts.visitNode(file, this.#visitor(context, null)) as ts.SourceFile;
    };
  }

  // 1. Who stops.

  #findStops(files: readonly ts.SourceFile[]): void {
    const callers = new Map<ts.Node, Set<ts.Node>>();
    const pending: ts.Node[] = [];
    const mark = (node: ts.Node) => {
      if (this.#stops.has(node) || isLeftOut(node)) return;
      this.#stops.add(node);
      pending.push(node);
    };
    const scan = (node: ts.Node, owner: ts.Node | null) => {
      const inner = isFunctionNode(node) ? node : owner;
      if (inner !== null && node !== inner) {
        if (ts.isBinaryExpression(node) && this.#isViewStore(node)) mark(inner);
        const target = this.#target(node);
        if (target !== null) {
          // A constructor cannot stop; what it calls by a type alone is a hook that is not set here.
          const unknown = this.#isUnknown(target) && !ts.isConstructorDeclaration(inner);
          if (this.#isAtomic(target) || unknown || this.#isCopyWithin(node)) mark(inner);
          else {
            const list = callers.get(target) ?? new Set();
            callers.set(target, list.add(inner));
          }
        }
        if (ts.isAwaitExpression(node)) mark(inner);
      }
      ts.forEachChild(node, (child) => scan(child, inner));
    };
    for (const file of files) {
      if (!isAtomicsFile(file)) scan(file, null);
    }
    for (let node = pending.pop(); node !== undefined; node = pending.pop()) {
      for (const caller of callers.get(node) ?? []) mark(caller);
    }
  }

  /** The declaration that a call or a property access runs, or null. */
  #target(node: ts.Node): ts.Node | null {
    if (ts.isCallExpression(node)) return this.#checker.getResolvedSignature(node)?.declaration ?? null;
    if (ts.isPropertyAccessExpression(node)) {
      const symbol = this.#checker.getSymbolAtLocation(node.name);
      return symbol?.declarations?.find(ts.isGetAccessorDeclaration) ?? null;
    }
    return null;
  }

  /** True for an element of an object pattern whose value comes from a getter that stops. */
  #bindsStop(node: ts.BindingElement): boolean {
    const name = node.propertyName ?? node.name;
    if (!ts.isObjectBindingPattern(node.parent) || !ts.isIdentifier(name)) return false;
    const property = this.#checker.getTypeAtLocation(node.parent).getProperty(name.text);
    const getter = property?.declarations?.find(ts.isGetAccessorDeclaration);
    return getter !== undefined && this.#stops.has(getter);
  }

  #isAtomic(target: ts.Node): target is ts.FunctionDeclaration {
    return (
      ts.isFunctionDeclaration(target) &&
      isAtomicsFile(target.getSourceFile()) &&
      ATOMIC_NAMES.has(target.name?.text ?? '')
    );
  }

  #isUnknown(target: ts.Node): boolean {
    const file = target.getSourceFile();
    return this.#explored(file) && (isSignatureOnly(target) || !this.#loaded.has(file));
  }

  #isView(expression: ts.Expression): boolean {
    const symbol = this.#checker.getTypeAtLocation(expression).getSymbol();
    return symbol !== undefined && VIEW_NAMES.has(symbol.name);
  }

  #isViewStore(node: ts.BinaryExpression): boolean {
    return (
      node.operatorToken.kind >= ts.SyntaxKind.FirstAssignment &&
      node.operatorToken.kind <= ts.SyntaxKind.LastAssignment &&
      ts.isElementAccessExpression(node.left) &&
      this.#isView(node.left.expression)
    );
  }

  #isCopyWithin(node: ts.Node): node is ts.CallExpression {
    return (
      ts.isCallExpression(node) &&
      ts.isPropertyAccessExpression(node.expression) &&
      node.expression.name.text === 'copyWithin' &&
      this.#isView(node.expression.expression)
    );
  }

  // 2 and 3. Rewriting.

  #visitor(context: ts.TransformationContext, owner: FunctionNode | null): ts.Visitor {
    const { factory } = context;
    const hook = (name: string, args: readonly ts.Expression[]) =>
      factory.createCallExpression(
        factory.createPropertyAccessExpression(factory.createIdentifier('$'), name),
        undefined,
        args,
      );
    const number = (value: number) => factory.createNumericLiteral(value);
    const delegate = (call: ts.Expression) =>
      hook('ret', [factory.createYieldExpression(factory.createToken(ts.SyntaxKind.AsteriskToken), call)]);
    const expression = (node: ts.Expression): ts.Expression => ts.visitNode(node, visit) as ts.Expression;

    const visitCall = (node: ts.CallExpression): ts.Node => {
      const target = this.#target(node);
      if (target === null) return ts.visitEachChild(node, visit, context);
      if (this.#isAtomic(target)) {
        const kind = OP[target.name?.text as keyof typeof OP];
        return factory.createParenthesizedExpression(
          factory.createYieldExpression(undefined, hook('op', [number(kind), ...node.arguments.map(expression)])),
        );
      }
      if (this.#isCopyWithin(node)) {
        const view = expression((node.expression as ts.PropertyAccessExpression).expression);
        return delegate(hook('copyWithin', [view, ...node.arguments.map(expression)]));
      }
      const plain = ts.visitEachChild(node, visit, context);
      if (ts.isCallChain(node) && this.#stops.has(target)) return delegate(hook('maybe', [plain]));
      if (this.#stops.has(target)) return delegate(plain);
      return this.#isUnknown(target) ? delegate(hook('maybe', [plain])) : plain;
    };

    const visit: ts.Visitor = (node) => {
      if (isFunctionNode(node)) return this.#visitFunction(context, node);
      if (ts.isBindingElement(node) && this.#bindsStop(node)) unsupported(node, 'a getter that stops, in a pattern');
      const stopping = owner !== null && this.#stops.has(owner);
      if (ts.isCallExpression(node) && stopping) return visitCall(node);
      if (ts.isAwaitExpression(node)) {
        const call = ts.isParenthesizedExpression(node.expression) ? node.expression.expression : node.expression;
        const target = this.#target(call);
        if (target !== null && this.#stops.has(target)) return expression(call);
        return delegate(hook('await', [expression(node.expression)]));
      }
      if (ts.isPropertyAccessExpression(node) && stopping) {
        const target = this.#target(node);
        if (target !== null && this.#stops.has(target)) {
          if (node.questionDotToken !== undefined) {
            const { text } = node.name;
            const chain = factory.createPropertyAccessChain(expression(node.expression), node.questionDotToken, text);
            return delegate(hook('maybe', [factory.createCallChain(chain, undefined, undefined, [])]));
          }
          return delegate(factory.createCallExpression(ts.visitEachChild(node, visit, context), undefined, []));
        }
      }
      if (ts.isBinaryExpression(node) && this.#isViewStore(node)) {
        if (node.operatorToken.kind !== ts.SyntaxKind.EqualsToken) unsupported(node, 'a compound store');
        const left = node.left as ts.ElementAccessExpression;
        const args = [number(OP.write), left.expression, left.argumentExpression, node.right];
        return factory.createParenthesizedExpression(
          factory.createYieldExpression(
            undefined,
            hook(
              'op',
              args.map((arg, i) => (i === 0 ? arg : expression(arg))),
            ),
          ),
        );
      }
      if (ts.isPrefixUnaryExpression(node) || ts.isPostfixUnaryExpression(node)) {
        const step = node.operator === ts.SyntaxKind.PlusPlusToken || node.operator === ts.SyntaxKind.MinusMinusToken;
        if (step && ts.isElementAccessExpression(node.operand) && this.#isView(node.operand.expression)) {
          unsupported(node, 'an increment in a view');
        }
      }
      if (ts.isElementAccessExpression(node) && this.#isView(node.expression)) {
        return hook('read', [expression(node.expression), expression(node.argumentExpression)]);
      }
      if (stopping && (ts.isForStatement(node) || ts.isWhileStatement(node) || ts.isDoStatement(node))) {
        return this.#visitLoop(context, node, owner as FunctionNode, visit, hook);
      }
      return ts.visitEachChild(node, visit, context);
    };
    return visit;
  }

  #visitFunction(context: ts.TransformationContext, node: FunctionNode): ts.Node {
    const { factory } = context;
    const inner = this.#visitor(context, node);
    if (isLeftOut(node)) {
      return factory.updateMethodDeclaration(
        node,
        node.modifiers,
        undefined,
        node.name,
        undefined,
        undefined,
        [],
        undefined,
        factory.createBlock([]),
      );
    }
    if (!this.#stops.has(node) || node.body === undefined) return ts.visitEachChild(node, inner, context);
    if (ts.isConstructorDeclaration(node) || ts.isSetAccessorDeclaration(node)) {
      unsupported(node, 'a constructor or setter that stops');
    }
    const star = factory.createToken(ts.SyntaxKind.AsteriskToken);
    const modifiers = node.modifiers?.filter((modifier) => modifier.kind !== ts.SyntaxKind.AsyncKeyword);
    const parameters = ts.visitNodes(node.parameters, inner) as ts.NodeArray<ts.ParameterDeclaration>;
    const body = this.#bracket(context, node, inner);
    if (ts.isFunctionDeclaration(node)) {
      return factory.updateFunctionDeclaration(
        node,
        modifiers,
        star,
        node.name,
        undefined,
        parameters,
        undefined,
        body,
      );
    }
    if (ts.isMethodDeclaration(node) || ts.isGetAccessorDeclaration(node)) {
      return factory.createMethodDeclaration(
        modifiers as ts.ModifierLike[] | undefined,
        star,
        node.name,
        undefined,
        undefined,
        parameters,
        undefined,
        body,
      );
    }
    const generator = factory.createFunctionExpression(
      undefined,
      star,
      undefined,
      undefined,
      parameters,
      undefined,
      body,
    );
    const bind = factory.createPropertyAccessExpression(factory.createParenthesizedExpression(generator), 'bind');
    return factory.createCallExpression(bind, undefined, [factory.createThis()]);
  }

  /** `const $f = $.enter(id); try { body } catch ($e) { $.fail($f, $e); throw $e } finally { $.leave($f) }` */
  #bracket(context: ts.TransformationContext, node: FunctionNode, inner: ts.Visitor): ts.Block {
    const { factory } = context;
    const block = ts.isBlock(node.body as ts.Node)
      ? (ts.visitNode(node.body as ts.Block, inner) as ts.Block)
      : factory.createBlock([factory.createReturnStatement(ts.visitNode(node.body, inner) as ts.Expression)]);
    const hook = (name: string, args: ts.Expression[]) =>
      factory.createCallExpression(
        factory.createPropertyAccessExpression(factory.createIdentifier('$'), name),
        undefined,
        args,
      );
    const frame = factory.createIdentifier('$f');
    const error = factory.createIdentifier('$e');
    const enter = hook('enter', [factory.createNumericLiteral(this.#id(node))]);
    return factory.createBlock(
      [
        factory.createVariableStatement(
          undefined,
          factory.createVariableDeclarationList(
            [factory.createVariableDeclaration(frame, undefined, undefined, enter)],
            ts.NodeFlags.Const,
          ),
        ),
        factory.createTryStatement(
          block,
          factory.createCatchClause(
            factory.createVariableDeclaration(error),
            factory.createBlock([
              factory.createExpressionStatement(hook('fail', [frame, error])),
              factory.createThrowStatement(error),
            ]),
          ),
          factory.createBlock([factory.createExpressionStatement(hook('leave', [frame]))]),
        ),
      ],
      true,
    );
  }

  #visitLoop(
    context: ts.TransformationContext,
    node: ts.ForStatement | ts.WhileStatement | ts.DoStatement,
    owner: FunctionNode,
    visit: ts.Visitor,
    hook: (name: string, args: readonly ts.Expression[]) => ts.Expression,
  ): ts.Node {
    const { factory } = context;
    const visited = ts.visitEachChild(node, visit, context);
    if (insideIteration(node, owner)) return visited;
    const names = this.#localsBefore(node.statement, owner, node).map((name) => factory.createIdentifier(name));
    const head = factory.createExpressionStatement(
      hook('loop', [factory.createNumericLiteral(this.#id(node)), factory.createArrayLiteralExpression(names)]),
    );
    const body = factory.createBlock([head, visited.statement], true);
    if (ts.isForStatement(visited)) {
      const { initializer, condition, incrementor } = visited;
      return factory.updateForStatement(visited, initializer, condition, incrementor, body);
    }
    if (ts.isWhileStatement(visited)) return factory.updateWhileStatement(visited, visited.expression, body);
    return factory.updateDoStatement(visited, body, (visited as ts.DoStatement).expression);
  }

  /** Variables and parameters of a function that exist at a loop's head. */
  #localsBefore(place: ts.Node, owner: FunctionNode, loop: ts.Node): string[] {
    const names: string[] = [];
    for (const symbol of this.#checker.getSymbolsInScope(place, ts.SymbolFlags.Variable)) {
      const declaration = symbol.valueDeclaration;
      if (declaration === undefined || declaration.getSourceFile() !== owner.getSourceFile()) continue;
      const inOwner = declaration.pos >= owner.pos && declaration.end <= owner.end;
      const existing = declaration.end <= loop.pos || (declaration.pos >= loop.pos && declaration.end <= place.pos);
      if (inOwner && existing && !names.includes(symbol.name)) names.push(symbol.name);
    }
    return names.sort();
  }

  #id(node: ts.Node): number {
    let id = this.#ids.get(node);
    if (id === undefined) {
      id = this.#ids.size + 1;
      this.#ids.set(node, id);
    }
    return id;
  }
}

function isAtomicsFile(file: ts.SourceFile): boolean {
  return file.fileName.endsWith('/src/sync/atomics.ts');
}

/** True inside `for ... of` or a `finally` block, whose hidden state the variables in scope do not show. */
function insideIteration(node: ts.Node, owner: ts.Node): boolean {
  for (let up = node.parent; up !== owner && up !== undefined; up = up.parent) {
    if (ts.isForOfStatement(up) || ts.isForInStatement(up)) return true;
    if (ts.isTryStatement(up.parent) && up.parent.finallyBlock === up) return true;
  }
  return false;
}
