// The long-tail mode's panel with its styles, as one chunk for the Watch mode.

import "../longtail/longtail.css";

export { AlignPanel } from "../longtail/panel.tsx";
