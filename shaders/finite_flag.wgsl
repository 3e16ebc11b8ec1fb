// flag[0] = 1 where any of the chunk flags is set or any loss is a NaN or an infinity (exponent bits all ones), else 0.
// Bindings: 1 flags of the chunks, 2 losses (where LOSS), the last one flag. Grid: one workgroup of 256.

struct Params { chunks : u32, losses : u32 }
@group(0) @binding(0) var<uniform> p : Params;
@group(0) @binding(1) var<storage, read_write> flags : array<u32>;
//#if LOSS
@group(0) @binding(2) var<storage, read_write> losses : array<u32>;
//#endif
@group(0) @binding({{FLAG}}) var<storage, read_write> flag : array<u32>;

var<workgroup> bad : array<u32, 256>;

@compute @workgroup_size(256)
fn main(@builtin(local_invocation_index) lane : u32) {
  var found = 0u;
  for (var i = lane; i < p.chunks; i += 256u) { found |= flags[i]; }
//#if LOSS
  for (var i = lane; i < p.losses; i += 256u) {
    if ((losses[i] & 0x7f800000u) == 0x7f800000u) { found = 1u; }
  }
//#endif
  bad[lane] = found;
  workgroupBarrier();
  for (var width = 128u; width > 0u; width = width >> 1u) {
    if (lane < width) { bad[lane] |= bad[lane + width]; }
    workgroupBarrier();
  }
  if (lane == 0u) { flag[0] = bad[0]; }
}
