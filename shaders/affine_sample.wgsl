// Pictures seen through affine maps: out[n, c, y, x] is picture n at the place that its map gives, bilinear between pixel
// centres, `fill` outside. Places are counted from -1 to 1 over the picture's edges (torch: align_corners = False):
// x' = m0 X + m1 Y + m2, y' = m3 X + m4 Y + m5 with X = (2 x + 1) / width - 1, Y = (2 y + 1) / height - 1.
// Bindings: 1 x [N, C, H, W], 2 maps [N, 6], 3 out [N, C, H, W]. One invocation an element; no gradient.
// Grid: ceil(elements / 64) workgroups of 64, folded into y with p.fold a row.

struct Params { count : u32, channels : u32, height : u32, width : u32, fold : u32, fill : f32 }
@group(0) @binding(0) var<uniform> p : Params;
@group(0) @binding(1) var<storage, read_write> x : array<{{X}}>;
@group(0) @binding(2) var<storage, read_write> maps : array<f32>;
@group(0) @binding(3) var<storage, read_write> out : array<f32>;

fn pixel(plane : u32, row : i32, column : i32) -> f32 {
  if (row < 0 || column < 0 || row >= i32(p.height) || column >= i32(p.width)) { return 0.0; }
  return f32(x[plane + u32(row) * p.width + u32(column)]) - p.fill;
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group : vec3<u32>, @builtin(local_invocation_index) lane : u32) {
  let index = (group.x + group.y * p.fold) * 64u + lane;
  if (index >= p.count) { return; }
  let area = p.height * p.width;
  let n = index / (p.channels * area);
  let size = vec2<f32>(f32(p.width), f32(p.height));
  let at = vec2<f32>(f32(index % p.width), f32((index / p.width) % p.height));
  let from_ = (2.0 * at + 1.0) / size - 1.0;
  let m = n * 6u;
  let to = vec2<f32>(
    maps[m] * from_.x + maps[m + 1u] * from_.y + maps[m + 2u],
    maps[m + 3u] * from_.x + maps[m + 4u] * from_.y + maps[m + 5u],
  );
  // Far outside nothing changes any more, and the place stays in the range of whole numbers.
  let place = clamp(((to + 1.0) * size - 1.0) * 0.5, vec2<f32>(-2.0), size + 1.0);
  let low = floor(place);
  let part = place - low;
  let column = i32(low.x);
  let row = i32(low.y);
  let plane = (index / area) * area;
  let above = mix(pixel(plane, row, column), pixel(plane, row, column + 1), part.x);
  let below = mix(pixel(plane, row + 1, column), pixel(plane, row + 1, column + 1), part.x);
  out[index] = mix(above, below, part.y) + p.fill;
}
