// Writes the ONNX models of the benchmarks by hand: protocol buffers need no library for a dozen fields. Operands are
// initializers, so they are uploaded once; a scalar input keeps the runtime from computing the result beforehand.

import { Buffer } from "node:buffer";

function varint(value) {
  const out = [];
  let rest = BigInt(value);
  while (rest > 127n) {
    out.push(Number(rest & 127n) | 128);
    rest >>= 7n;
  }
  out.push(Number(rest));
  return out;
}

const join = (parts) => Buffer.concat(parts.map((p) => (Array.isArray(p) ? Buffer.from(p) : p)));
const number = (field, value) => join([varint(field << 3), varint(value)]);
const bytes = (field, value) => {
  const data = typeof value === "string" ? Buffer.from(value) : value;
  return join([varint((field << 3) | 2), varint(data.length), data]);
};

const FLOAT = 1;

function tensor(name, dims, values) {
  return join([
    ...dims.map((d) => number(1, d)),
    number(2, FLOAT),
    bytes(8, name),
    bytes(9, Buffer.from(values.buffer, values.byteOffset, values.byteLength)),
  ]);
}

function valueInfo(name, dims) {
  const shape = join(dims.map((d) => bytes(1, number(1, d))));
  return join([bytes(1, name), bytes(2, bytes(1, join([number(1, FLOAT), bytes(2, shape)])))]);
}

function node(op, inputs, output, attributes = []) {
  return join([
    ...inputs.map((i) => bytes(1, i)),
    bytes(2, output),
    bytes(3, output),
    bytes(4, op),
    ...attributes.map((a) => bytes(5, a)),
  ]);
}

const INT = 2;
const INTS = 7;
const intAttribute = (name, value) => join([bytes(1, name), number(3, value), number(20, INT)]);
const intsAttribute = (name, values) => join([bytes(1, name), ...values.map((v) => number(8, v)), number(20, INTS)]);

/** (X + s) Wᴿ, whole or as its row maxima (which take no time to read back). */
export function chainModel(size, products, { x, w }, reduced) {
  const nodes = [node("Add", ["X", "s"], "y0")];
  for (let i = 0; i < products; i++) nodes.push(node("MatMul", [`y${i}`, "W"], `y${i + 1}`));
  let output = `y${products}`;
  let dims = [size, size];
  if (reduced) {
    nodes.push(node("ReduceMax", [output], "max", [intsAttribute("axes", [1]), intAttribute("keepdims", 0)]));
    output = "max";
    dims = [size];
  }
  return model(nodes, [tensor("X", [size, size], x), tensor("W", [size, size], w)], [[output, dims]]);
}

/** (op(A_i) + s) op(B) for every A_i, whole or as row maxima. Only the operand that is small gets the scalar added. */
export function productsModel({ m, n, transposeA, transposeB }, shapes, { a, b }, reduced) {
  const nodes = [];
  const outputs = [];
  const added = shapes.a[0] * shapes.a[1] * a.length < shapes.b[0] * shapes.b[1] ? "A" : "B";
  if (added === "B") nodes.push(node("Add", ["B", "s"], "b"));
  a.forEach((_, i) => {
    if (added === "A") nodes.push(node("Add", [`A${i}`, "s"], `a${i}`));
    const operands = added === "A" ? [`a${i}`, "B"] : [`A${i}`, "b"];
    const flags = [intAttribute("transA", transposeA ? 1 : 0), intAttribute("transB", transposeB ? 1 : 0)];
    nodes.push(node("Gemm", operands, `c${i}`, flags));
    if (reduced)
      nodes.push(node("ReduceMax", [`c${i}`], `max${i}`, [intsAttribute("axes", [1]), intAttribute("keepdims", 0)]));
    outputs.push(reduced ? [`max${i}`, [m]] : [`c${i}`, [m, n]]);
  });
  const initializers = [...a.map((values, i) => tensor(`A${i}`, shapes.a, values)), tensor("B", shapes.b, b)];
  return model(nodes, initializers, outputs);
}

function model(nodes, initializers, outputs) {
  const graph = join([
    ...nodes.map((n) => bytes(1, n)),
    bytes(2, "graph"),
    ...initializers.map((t) => bytes(5, t)),
    bytes(11, valueInfo("s", [1])),
    ...outputs.map(([name, dims]) => bytes(12, valueInfo(name, dims))),
  ]);
  const opset = join([bytes(1, ""), number(2, 17)]);
  return join([number(1, 8), bytes(7, graph), bytes(8, opset)]);
}
