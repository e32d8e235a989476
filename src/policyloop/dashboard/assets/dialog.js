// A question that is answered by typing what is at stake; nothing is done by a slip of the thumb.
// It is not modal: STOP stays in reach.

const dialog = document.getElementById("dialog");
const input = document.getElementById("dialog-input");
const yes = document.getElementById("dialog-yes");
let expected = "";

input.addEventListener("input", () => { yes.disabled = input.value.trim() !== expected; });
dialog.addEventListener("keydown", (event) => { if (event.key === "Escape") dialog.close("no"); });
document.getElementById("dialog-no").addEventListener("click", () => dialog.close("no"));

export function ask(title, text, typed, button) {
  if (dialog.open) return Promise.resolve(null);
  const before = document.activeElement;
  expected = typed;
  document.getElementById("dialog-title").textContent = title;
  document.getElementById("dialog-text").textContent = text;
  document.getElementById("dialog-ask").textContent = `Type ${typed} to confirm`;
  yes.textContent = button;
  yes.disabled = true;
  input.value = "";
  dialog.returnValue = "no";
  dialog.show();
  input.focus();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      before?.focus();
      resolve(dialog.returnValue === "yes" && input.value.trim() === expected ? expected : null);
    }, { once: true });
  });
}
