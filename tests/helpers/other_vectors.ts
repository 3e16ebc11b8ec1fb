// To be imported before anything that opens a device: Mesa's software driver then computes with vectors of the other width
// than the set-up asks for on this processor, 8 lanes and not 16 or 16 and not 8.

import process from "node:process";

process.env["LP_NATIVE_VECTOR_WIDTH"] = process.env["LP_NATIVE_VECTOR_WIDTH"] === "512" ? "256" : "512";
