// A button that copies a block of code; blocks that scroll can be reached by keyboard; an address inside a folded part
// opens it.
for (const block of document.querySelectorAll("div[class*='highlight-']")) {
  const code = block.querySelector("pre");
  if (!code || !navigator.clipboard || block.classList.contains("printed")) continue;
  const button = document.createElement("button");
  button.className = "copy";
  button.textContent = "Copy";
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(code.textContent.replace(/\n$/, ""));
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = "Copy"), 1500);
  });
  block.append(button);
}
for (const code of document.querySelectorAll(".highlight pre")) {
  if (code.scrollWidth > code.clientWidth) code.tabIndex = 0;
}
function unfold() {
  const place = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  for (let part = place && place.closest("details"); part; part = part.parentElement.closest("details")) part.open = true;
  if (place) place.scrollIntoView();
}
addEventListener("hashchange", unfold);
addEventListener("DOMContentLoaded", unfold);
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((part) => (part.open = true)));
