// What the pages can do beyond forms: answers are stored as they are given, and keys 1, 2 and 3
// choose. Everything works without it.
"use strict";
(() => {
  const form = document.querySelector("form[data-autosave]");
  if (!form) return;
  const status = document.getElementById("status");
  const questions = [...form.querySelectorAll("fieldset.criterion")];
  // What the server has not acknowledged yet, by field. It goes there one request after another, so
  // that an older answer never overtakes a newer one.
  const unsaved = new Map();
  let isSending = false;

  function say(text, isTrouble) {
    status.textContent = text;
    status.classList.toggle("trouble", isTrouble);
  }

  async function send(fields) {
    const body = new URLSearchParams([...fields]);
    body.set("form_token", form.elements.form_token.value);
    const answer = await fetch(form.dataset.autosave, { method: "POST", body });
    const result = answer.ok ? await answer.json() : {};
    if (!result.stored) throw new Error(String(answer.status));
  }

  async function sendAll() {
    if (isSending) return;
    isSending = true;
    say("Saving…", false);
    try {
      while (unsaved.size > 0) {
        const fields = new Map(unsaved);
        await send(fields);
        for (const [name, value] of fields) {
          if (unsaved.get(name) === value) unsaved.delete(name);
        }
      }
      const given = questions.filter((each) => each.querySelector("input:checked")).length;
      say(`Saved. ${given} of ${questions.length} answered.`, false);
    } catch {
      say("Not saved yet: the connection failed. “Save and go on” sends everything again.", true);
    } finally {
      isSending = false;
    }
  }

  function store(name, value) {
    unsaved.set(name, value);
    sendAll();
  }

  form.addEventListener("change", (event) => {
    const input = event.target;
    if (input.type === "radio" || input.name === "reason") store(input.name, input.value);
  });

  form.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const place = questions.findIndex((each) => each.contains(document.activeElement));
    if (place < 0 || !["1", "2", "3"].includes(event.key)) return;
    event.preventDefault();
    const input = questions[place].querySelectorAll("input[type=radio]")[Number(event.key) - 1];
    if (!input.checked) {
      input.checked = true;
      input.dispatchEvent(new Event("change", { bubbles: true }));
    }
    const next = questions[place + 1];
    const target = next
      ? next.querySelector("input:checked") || next.querySelector("input[type=radio]")
      : document.getElementById("reason");
    target.focus();
  });

  // A form that was sent once is not sent again by an impatient second press.
  let isSent = false;
  form.addEventListener("submit", (event) => {
    if (isSent) event.preventDefault();
    isSent = true;
  });
  window.addEventListener("pageshow", () => { isSent = false; });
})();
