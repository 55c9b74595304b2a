"use strict";
// Names of points under the pointer, and rows of a table by what the reader types or chooses.
const tip = document.getElementById("tip");
document.addEventListener("pointerover", (event) => {
  const name = event.target.getAttribute("data-name");
  tip.hidden = !name;
  if (name) tip.textContent = name;
});
document.addEventListener("pointermove", (event) => {
  if (tip.hidden) return;
  const left = Math.min(event.clientX + 12, window.innerWidth - tip.offsetWidth - 8);
  tip.style.left = Math.max(left, 8) + "px";
  tip.style.top = (event.clientY > 60 ? event.clientY - tip.offsetHeight - 10 : event.clientY + 18) + "px";
});
const filters = [...document.querySelectorAll("[data-filter]")];
function choose() {
  const rows = [...document.querySelectorAll("table.filtered tbody tr")];
  for (const row of rows) {
    row.hidden = !filters.every((filter) => {
      const column = filter.getAttribute("data-filter");
      const text = (column ? row.cells[Number(column)] : row).textContent.toLowerCase();
      const wanted = filter.value.toLowerCase();
      return column && wanted ? text === wanted : text.includes(wanted);
    });
  }
  const count = document.getElementById("count");
  if (count) count.textContent = rows.filter((row) => !row.hidden).length + " of " + rows.length + " shown";
}
for (const filter of filters) filter.addEventListener("input", choose);
if (filters.length) choose();
