"use strict";
// The browser of questions: it hides the questions that a filter leaves out. Everything that can be
// read stands in the page without it; it makes no element of a text and loads nothing.
(() => {
  const WON_BY_A = 1, WON_BY_B = 2, TIED = 3;
  const MISSING = 1, IDENTICAL = 2;
  for (const browser of document.querySelectorAll(".browser")) start(browser);
  window.addEventListener("hashchange", follow);
  follow();

  // A link to a question, such as #q=ID, opens it, also where a filter hid it.
  function follow() {
    let id;
    try { id = decodeURIComponent(location.hash.slice(1)); } catch { id = location.hash.slice(1); }
    const question = id && document.getElementById(id);
    if (!question || !question.classList.contains("question")) return;
    question.hidden = false;
    question.open = true;
    question.scrollIntoView();
  }

  function start(browser) {
    const data = JSON.parse(browser.querySelector("script[type='application/json']").textContent);
    const form = browser.querySelector(".filters");
    const list = browser.querySelector(".questions");
    const output = browser.querySelector("output");
    const questions = [...list.children];
    const sheet = new CSSStyleSheet();
    document.adoptedStyleSheets.push(sheet);
    let texts = null;
    form.hidden = false;
    form.addEventListener("input", apply);
    form.addEventListener("submit", (event) => event.preventDefault());

    function apply() {
      const words = form.elements.words.value.toLowerCase().split(/\s+/).filter(Boolean);
      const pair = form.elements.pair.value === "" ? null : Number(form.elements.pair.value);
      const criterion = form.elements.criterion.value === "" ? null : Number(form.elements.criterion.value);
      const show = form.elements.show.value;
      // Without groups among the personas there is no such control.
      const chosen = form.elements.group ? form.elements.group.value : "";
      const group = chosen === "" ? null : Number(chosen);
      if (words.length && texts === null) {
        texts = questions.map((question) => question.textContent.toLowerCase());
      }
      const measured = questions.map((_, number) => measure(number, pair, criterion));
      let shown = 0;
      questions.forEach((question, number) => {
        const fits = words.every((word) => texts[number].includes(word))
          && passes(show, number, pair, measured[number])
          && dissents(number, group, pair, criterion);
        question.hidden = !fits;
        shown += fits;
      });
      order(form.elements.order.value, measured);
      narrow(pair);
      output.textContent = `${shown} of ${questions.length} questions`;
    }

    // What the votes on a question say: how near the nearest comparison is to even, and whether
    // every vote agrees, over the pairs and criteria that are looked at.
    function measure(number, pair, criterion) {
      const found = { closest: 1, unanimous: true, decided: 0, winners: new Set(), wins: new Set(), missing: false, identical: false };
      data.votes.forEach((byPair, c) => {
        if (criterion !== null && c !== criterion) return;
        byPair.forEach((byQuestion, p) => {
          if (pair !== null && p !== pair) return;
          for (const [a, b, state] of byQuestion[number]) {
            found.missing ||= state === MISSING;
            found.identical ||= state === IDENTICAL;
            if (a + b === 0) continue;
            found.decided += 1;
            const lead = Math.abs(a - b) / (a + b);
            found.closest = Math.min(found.closest, lead);
            found.unanimous &&= lead === 1;
            const winner = a > b ? WON_BY_A : b > a ? WON_BY_B : TIED;
            found.wins.add(winner);
            found.winners.add(`${p}:${winner}`);
          }
        });
      });
      const pairs = new Set([...found.winners].map((key) => key.split(":")[0]));
      found.criteriaDisagree = found.winners.size > pairs.size;
      return found;
    }

    function passes(show, number, pair, found) {
      const flags = data.flags[number];
      const models = pair === null ? Object.keys(flags) : data.pairs[pair];
      const flagged = (flag) => models.some((model) => (flags[model] || "").includes(flag));
      switch (show) {
        case "close": return found.decided > 0 && found.closest <= 0.2;
        case "unanimous": return found.decided > 0 && found.unanimous;
        case "criteria": return found.criteriaDisagree;
        case "a": return found.wins.has(WON_BY_A);
        case "b": return found.wins.has(WON_BY_B);
        case "missing": return found.missing;
        case "identical": return found.identical;
        case "cut": return flagged("c");
        case "empty": return flagged("e");
        case "toxic": return flagged("t");
        case "probe": return flagged("p");
        default: return true;
      }
    }

    // Whether a group of personas prefers the other reply of a comparison that is looked at.
    function dissents(number, group, pair, criterion) {
      return group === null || data.dissents[number].some(([g, c, p]) => g === group
        && (criterion === null || c === criterion) && (pair === null || p === pair));
    }

    // A question without a decided comparison is neither close nor clear, and comes last.
    function order(by, measured) {
      const sign = { close: 1, clear: -1 }[by] || 0;
      const key = (number) => (measured[number].decided > 0 ? sign * measured[number].closest : 2);
      const numbers = questions.map((_, number) => number);
      if (sign) numbers.sort((x, y) => key(x) - key(y) || x - y);
      const moved = numbers.some((number, place) => list.children[place] !== questions[number]);
      if (moved) list.append(...numbers.map((number) => questions[number]));
    }

    // Of one pair, only its two models' replies and votes are shown, side by side.
    function narrow(pair) {
      if (pair === null) return sheet.replaceSync("");
      const [a, b] = data.pairs[pair];
      const place = `#${browser.id}`;
      sheet.replaceSync(`${place} article:not(.m${a}):not(.m${b}) { display: none }
        ${place} .votes tbody tr:not(.p${pair}) { display: none }`);
    }

    apply();
  }
})();
