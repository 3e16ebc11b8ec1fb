// One disc an instance: a concept's picture cut to a circle, or a dot of its part's colour, with a ring that says head or
// tail and a second one around picked concepts. Positions are CSS pixels from the top left, computed by scene.ts; a quad of
// two triangles covers disc and rings; edges are softened over one device pixel.
// @binding(0) frame, @binding(1) discs [count] of 12 words, @binding(2) sheet of pictures, @binding(3) sampler.

struct Frame {
  /** CSS pixels. */
  size : vec2f,
  /** Of a sheet, in cells. */
  cells : vec2f,
  background : vec4f,
  ink : vec4f,
  head : vec4f,
  tail : vec4f,
  /** CSS pixels of one device pixel. */
  soft : f32,
};

struct Disc {
  centre : vec2f,
  radius : f32,
  picture : f32,
  strength : f32,
  tail : f32,
  picked : f32,
  lit : f32,
  cell : vec2f,
  spare : vec2f,
};

@group(0) @binding(0) var<uniform> frame : Frame;
@group(0) @binding(1) var<storage, read> discs : array<Disc>;
@group(0) @binding(2) var sheet : texture_2d<f32>;
@group(0) @binding(3) var smooth_sampler : sampler;

struct Corner {
  @builtin(position) position : vec4f,
  /** CSS pixels from the disc's centre. */
  @location(0) from_centre : vec2f,
  @location(1) @interpolate(flat) disc : u32,
};

/** Rings of picked and lit discs lie outside the radius. */
const MARGIN = 8.0;

@vertex
fn vertex(@builtin(vertex_index) corner : u32, @builtin(instance_index) instance : u32) -> Corner {
  let disc = discs[instance];
  let side = vec2f(f32(corner & 1u), f32(corner >> 1u)) * 2.0 - 1.0;
  let from_centre = side * (disc.radius + MARGIN);
  let clip = (disc.centre + from_centre) / frame.size * 2.0 - 1.0;
  return Corner(vec4f(clip.x, -clip.y, 0.0, 1.0), from_centre, instance);
}

/** 1 within `radius`, 0 outside, softened. */
fn inside(distance : f32, radius : f32) -> f32 {
  return saturate((radius - distance) / frame.soft + 0.5);
}

@fragment
fn fragment(corner : Corner) -> @location(0) vec4f {
  let disc = discs[corner.disc];
  let distance = length(corner.from_centre);
  let part = mix(frame.head, frame.tail, disc.tail).rgb;
  let ring = mix(0.0, mix(1.2, 2.0, disc.tail), disc.picture);
  let inner = disc.radius - ring;

  // The picture's square is a little larger than the circle's, so that corners of art are not cut much.
  let place = corner.from_centre / (inner * 0.9) * 0.5 + 0.5;
  // Half a texel from the cell's edge: the neighbour's picture must not shine in.
  let within = clamp(place, vec2f(0.01), vec2f(0.99));
  let sampled = textureSample(sheet, smooth_sampler, (disc.cell + within) / frame.cells).rgb;
  let is_cell = step(0.0, place.x) * step(place.x, 1.0) * step(0.0, place.y) * step(place.y, 1.0);
  let picture = mix(vec3f(1.0), sampled, is_cell);

  var colour = mix(part, picture, disc.picture * inside(distance, inner));
  colour = mix(frame.background.rgb, colour, disc.strength);
  var alpha = inside(distance, disc.radius);

  let gap = disc.radius + 2.0;
  let outer = gap + 2.5;
  let is_ring = max(disc.picked, disc.lit) * (inside(distance, outer) - inside(distance, gap));
  let is_gap = max(disc.picked, disc.lit) * (inside(distance, gap) - inside(distance, disc.radius));
  colour = mix(colour, frame.background.rgb, is_gap);
  colour = mix(colour, mix(frame.tail.rgb, frame.ink.rgb, disc.lit), is_ring);
  alpha = max(alpha, max(is_ring, is_gap));
  return vec4f(colour * alpha, alpha);
}
