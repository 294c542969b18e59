// Keys, the diff, and what was pasted; every page works without this file too.
"use strict";

const typing = (target) => target.matches("textarea, input, select");

document.addEventListener("keydown", (event) => {
  const name = (event.ctrlKey || event.metaKey ? "Ctrl+" : "") + event.key;
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
  let shown = true;
  try {
    shown = localStorage.getItem("diff") !== "off";
  } catch {}
  const show = () => pair.classList.toggle("diffing", shown);
  show();
  if (toggle) {
    toggle.hidden = false;
    toggle.addEventListener("click", () => {
      shown = !shown;
      try {
        localStorage.setItem("diff", shown ? "on" : "off");
      } catch {}
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
