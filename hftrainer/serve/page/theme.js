// Light or dark: as the system has it, until the reader chooses.

import { byId } from "./dom.js";

export function followTheme(viewer) {
  const system = matchMedia("(prefers-color-scheme: dark)");
  const apply = () => viewer.setTheme(localStorage.getItem("theme") ?? (system.matches ? "dark" : "light"));
  system.addEventListener("change", apply);
  byId("theme").addEventListener("click", () => {
    localStorage.setItem("theme", viewer.theme === "dark" ? "light" : "dark");
    apply();
  });
  apply();
}
