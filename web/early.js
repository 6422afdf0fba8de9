// Runs before the first paint, so that a remembered theme or language does not flash. Loads one language only.
try {
  const root = document.documentElement;
  const theme = localStorage.getItem("visionary.theme");
  if (theme) root.dataset.theme = JSON.parse(theme);
  const language = localStorage.getItem("visionary.language");
  if (language) root.lang = JSON.parse(language);
  else if (navigator.language.startsWith("de")) root.lang = "de";
} catch {
  // Storage is blocked: the browser's own theme and English.
}
const texts = document.createElement("link");
texts.rel = "modulepreload";
texts.href = document.documentElement.lang === "de" ? "./texts.de.js" : "./texts.en.js";
document.head.append(texts);
