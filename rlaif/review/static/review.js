// Keys, the diff, and what was pasted; every page works without this file too.
"use strict";

const typing = (target) => target.matches("textarea, input, select");

document.addEventListener("keydown", (event) => {
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const name = (event.ctrlKey || event.metaKey ? "Ctrl+" : "") + key;
  if (event.shiftKey && event.key.startsWith("Arrow")) return; // extends a selection
  if (event.altKey || event.repeat || event.isComposing) return;
  if (typing(event.target) && !["Ctrl+Enter", "Escape"].includes(name)) return;
  // Enter on a button or a link is the browser's own.
  if (name === "Enter" && event.target.matches("button, a, summary")) return;
  if (typing(event.target) && name === "Escape" && event.target.id === "note") {
    event.target.blur();
    return;
  }
  const field = document.querySelector(`[data-focus="${CSS.escape(name)}"]`);
  if (field) {
    event.preventDefault();
    field.focus();
    return;
  }
  for (const element of document.querySelectorAll("[data-key]")) {
    if (element.dataset.key.split(" ").includes(name)) {
      event.preventDefault();
      element.click();
      return;
    }
  }
});

// What is half written outlives a reload and a crash; it goes with the form that holds it.
const store = {
  get: (key) => { try { return localStorage.getItem(key); } catch { return null; } },
  set: (key, value) => { try { localStorage.setItem(key, value); } catch {} },
  drop: (key) => { try { localStorage.removeItem(key); } catch {} },
};
for (const field of document.querySelectorAll("[data-draft]")) {
  const key = `draft:${field.name}:${field.dataset.draft}`;
  const kept = store.get(key);
  if (kept !== null) field.value = kept;
  field.addEventListener("input", () => store.set(key, field.value));
  field.form.addEventListener("submit", () => store.drop(key));
}

// A form is sent once, however often it is clicked.
for (const form of document.querySelectorAll("form")) {
  form.addEventListener("submit", (event) => {
    if (form.dataset.sent) event.preventDefault();
    form.dataset.sent = "yes";
  });
}
window.addEventListener("pageshow", () => {
  for (const form of document.querySelectorAll("form")) delete form.dataset.sent;
});

const toggle = document.getElementById("diff");
const pair = document.querySelector(".pair.diffable");
if (pair) {
  let shown = store.get("diff") !== "off";
  const show = () => pair.classList.toggle("diffing", shown);
  show();
  if (toggle) {
    toggle.hidden = false;
    toggle.addEventListener("click", () => {
      shown = !shown;
      store.set("diff", shown ? "on" : "off");
      show();
    });
  }
}

const edited = document.getElementById("edited");
if (edited) {
  edited.addEventListener("paste", (event) => {
    const count = document.getElementById("pasted");
    count.value = Number(count.value) + event.clipboardData.getData("text").length;
  });
  edited.focus();
}
