// The whole quotient n / d from 1 / d as f32, exact for n < 2^22: (n + 1/2) / d is at least 1 / 2d away from a whole number,
// more than two roundings move it. A GPU builds an integer division from several times as many steps; a CPU adapter runs it
// lane by lane.
fn quotient(n : u32, inverse : f32) -> u32 { return u32(i32((f32(i32(n)) + 0.5) * inverse)); }
