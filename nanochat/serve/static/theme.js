// Before anything is drawn: the theme that was chosen, if it is not the system's.
try {
  const chosen = localStorage.getItem("nanochat.theme");
  if (chosen) document.documentElement.dataset.theme = chosen;
} catch {} // no storage: then the system decides
