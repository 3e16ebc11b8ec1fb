// The variants of matmul and convolution once more, in vectors of the width that this processor does not get by default.

import "../helpers/other_vectors.ts";
import "./variants.test.ts";
