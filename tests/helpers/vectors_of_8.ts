// To be imported before anything that opens a device: Mesa's software driver then computes with vectors of 8 lanes, also on
// processors where the set-up asks for 16. It has subgroup matrices with 8 alone.

import process from "node:process";

process.env["LP_NATIVE_VECTOR_WIDTH"] = "256";
