// Sets the theme that was chosen before anything is drawn.
"use strict";

try {
  const chosen = localStorage.getItem("unweave-theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
} catch {
  // a browser may forbid storage; then the system's theme holds
}
