// The bundle. A page that holds motions as JSON (hftrainer/render/viewer.py) is opened at once; any other page, such as
// that of `hftrainer serve`, finds the parts below in `hftrainerViewer`.

import { openPage } from "./offline.js";

export { GrowingClip } from "./clip.js";
export { Viewer } from "./viewer.js";

const motions = document.getElementById("motions");
if (motions) openPage(motions.textContent);
