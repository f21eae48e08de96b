"use strict";
(() => {
  const page = document.getElementById("review");
  const rows = [...page.querySelectorAll("li[data-id]")];
  const opened = `page-${Math.random().toString(36).slice(2, 12)}`;
  let unsaved = false;

  const changed = () => {
    unsaved = true;
    const marked = rows.filter((row) => row.dataset.mark).length;
    document.getElementById("marked").textContent = `${marked} of ${rows.length} marked`;
  };
  for (const row of rows) {
    const buttons = [...row.querySelectorAll("button[data-mark]")];
    for (const button of buttons) {
      button.addEventListener("click", () => {
        row.dataset.mark = row.dataset.mark === button.dataset.mark ? "" : button.dataset.mark;
        for (const each of buttons) {
          each.setAttribute("aria-pressed", String(each.dataset.mark === row.dataset.mark));
        }
        changed();
      });
    }
    row.querySelector("input").addEventListener("input", changed);
  }

  const reviewer = () => document.getElementById("reviewer").value.trim() || opened;
  const marks = () =>
    rows
      .filter((row) => row.dataset.mark)
      .map((row) => ({ id: row.dataset.id, mark: row.dataset.mark, note: row.querySelector("input").value.trim() }));
  const save = (text, type, name) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type }));
    link.download = name;
    link.click();
    URL.revokeObjectURL(link.href);
    unsaved = false;
  };
  const cell = (text) => `"${text.replaceAll('"', '""')}"`;

  document.getElementById("save-json").addEventListener("click", () => {
    const saved = new Date().toISOString();
    const all = { form: "vl3syn-review-1", reviewer: reviewer(), saved, rows: rows.length, marks: marks() };
    save(JSON.stringify(all, null, 1), "application/json", "marks.json");
  });
  document.getElementById("save-csv").addEventListener("click", () => {
    const about = [reviewer(), new Date().toISOString()];
    const lines = marks().map((each) => [each.id, each.mark, each.note, ...about].map(cell).join(","));
    save(["id,mark,note,reviewer,saved", ...lines, ""].join("\r\n"), "text/csv", "marks.csv");
  });
  window.addEventListener("beforeunload", (event) => {
    if (unsaved) {
      event.preventDefault();
    }
  });
})();
